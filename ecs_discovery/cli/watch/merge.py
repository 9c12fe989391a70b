"""The workers of one program, put together: numbers are summed, and of states the worst is taken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ecs_discovery.cli.watch.document import STATES, Count, EndpointSeen, Process, ServiceSeen

__all__ = ["Endpoint", "Program", "Service", "counted", "merge"]

_IDLE = 60.0  # seconds without a use: such a worker's answers grow old, and say nothing of the service
_RANK = {state: rank for rank, state in enumerate(STATES)}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint, as all workers see it together."""

    seen: EndpointSeen
    known_by: int
    """Workers that know it."""
    troubled_in: int
    """Workers in which it is not healthy."""
    share: float | None = None
    """Of the picks of the last seconds; None if there were none."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service, as all workers see it together."""

    seen: ServiceSeen
    """Look at `endpoints` and `counts` for its endpoints and its counts."""
    endpoints: tuple[Endpoint, ...]
    states: Mapping[str, int]
    counts: Mapping[str, Mapping[str, int]]
    workers: int
    """That use it."""
    idle: int
    """Workers that have not used it for a minute, and are left out."""
    rate: float | None = None
    """Picks a second."""

    @property
    def left_out(self) -> int:
        """Endpoints that the workers did not tell of."""
        return max(0, self.seen.total - len(self.endpoints))


@dataclass(frozen=True, slots=True)
class Program:
    """Processes of one program; none: it is this command, which resolves the name itself."""

    name: str
    group: str
    pids: tuple[int, ...]
    services: tuple[Service, ...] = ()
    lookups: Mapping[str, int] | None = None
    """Of all names, by outcome."""
    services_left: int = 0
    names: tuple[str, ...] = ()
    """Other services that it uses."""


def merge(processes: Iterable[Process]) -> tuple[Program, ...]:
    """The programs that these processes are of."""
    groups: dict[tuple[str, str], list[Process]] = {}
    for process in processes:
        groups.setdefault((process.program, process.group), []).append(process)
    return tuple(_program(name, group, found) for (name, group), found in sorted(groups.items()))


def _program(name: str, group: str, processes: Sequence[Process]) -> Program:
    services: dict[str, list[ServiceSeen]] = {}
    for process in processes:
        of_process: dict[str, list[ServiceSeen]] = {}
        for service in process.services:
            of_process.setdefault(service.target, []).append(service)
        for target, found in of_process.items():
            # One target may be two services of a process, for callers with another default port.
            services.setdefault(target, []).append(found[0] if len(found) == 1 else _summed(found))
    return Program(
        name,
        group,
        tuple(sorted(process.pid for process in processes)),
        tuple(_service(services[target]) for target in sorted(services)),
        counted(each for process in processes for each in process.lookups).get("lookups", {}),
        max(process.services_left for process in processes),
        tuple(dict.fromkeys(each for process in processes for each in process.names if each not in services)),
    )


def counted(counts: Iterable[Count]) -> dict[str, dict[str, int]]:
    """Sums, by what was counted and by kind."""
    sums: dict[str, dict[str, int]] = {}
    for each in counts:
        kinds = sums.setdefault(each.what, {})
        kinds[each.kind] = kinds.get(each.kind, 0) + each.number
    return sums


def _service(found: Sequence[ServiceSeen]) -> Service:
    used = [each for each in found if each.idle_for is not None and each.idle_for < _IDLE] or list(found)
    seen = _summed(used)
    by_name: dict[str, list[EndpointSeen]] = {}
    for service in used:
        for endpoint in service.endpoints:
            by_name.setdefault(endpoint.endpoint, []).append(endpoint)
    endpoints = tuple(map(_endpoint, by_name.values()))
    states = dict.fromkeys(STATES, 0)
    for each in endpoints:
        states[each.seen.state] += 1
    states["healthy"] += max(0, seen.total - len(endpoints))  # those in trouble are told of first
    return Service(seen, endpoints, states, counted(seen.counts), len(used), len(found) - len(used))


def _endpoint(found: Sequence[EndpointSeen]) -> Endpoint:
    worst = max(found, key=lambda each: (_RANK[each.state], each.returns_in or 0.0))
    timed = [(each.latency, max(1, each.uses)) for each in found if each.latency is not None]
    total = sum(weight for _, weight in timed)
    latency = sum(value * (weight / total) for value, weight in timed) if timed else None
    seen = replace(
        worst,
        pending=sum(each.pending for each in found),
        uses=sum(each.uses for each in found),
        failures=sum(each.failures for each in found),
        ejections=sum(each.ejections for each in found),
        latency=latency,
        cost=_most(each.cost for each in found),
        spared_for=_most(each.spared_for for each in found),
        named=_least(each.named for each in found),
    )
    return Endpoint(seen, len(found), sum(each.state != "healthy" for each in found))


def _summed(found: Sequence[ServiceSeen]) -> ServiceSeen:
    first = found[0]
    sources = dict.fromkeys(each.source for each in found if each.source)
    names = {endpoint.endpoint for each in found for endpoint in each.endpoints}
    return ServiceSeen(
        target=first.target,
        source=", ".join(sources),
        ttl=_least(each.ttl for each in found),
        age=_most(each.age for each in found),
        fresh_for=_least(each.fresh_for for each in found),
        idle_for=_least(each.idle_for for each in found),
        partial=any(each.partial for each in found),
        estimate=max((each.estimate for each in found if each.estimate is not None), default=None),
        coverage=_least(each.coverage for each in found),
        stale=any(each.stale for each in found),
        doubted=any(each.doubted for each in found),
        failing=any(each.failing for each in found),
        panic=any(each.panic for each in found),
        error=next((each.error for each in found if each.error), ""),
        retries_left=_least(each.retries_left for each in found),
        counts=tuple(count for each in found for count in each.counts),
        total=max(len(names), *(each.total for each in found)),
        pending=sum(each.pending for each in found),
        uses=sum(each.uses for each in found),
        failures=sum(each.failures for each in found),
        endpoints=tuple(endpoint for each in found for endpoint in each.endpoints),
    )


def _most(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _least(values: Iterable[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)
