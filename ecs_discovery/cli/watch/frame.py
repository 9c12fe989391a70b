"""One look: what is seen at a moment, and the shares of the picks of the last seconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ecs_discovery.cli.watch.merge import Endpoint, Program, Service

__all__ = ["SHARED", "Frame", "Shares", "as_dict"]

SHARED = 10.0
"""Seconds whose picks the shares are of."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What is seen."""

    at: float
    """Seconds since 1970."""
    asked: str
    programs: tuple[Program, ...] = ()
    """Those that are open to inspection, whether they use the service or not."""
    own: Program | None = None
    """What the name resolves to here, where no program uses it."""
    error: str = ""
    """Why it cannot be resolved."""
    notices: tuple[str, ...] = ()

    @property
    def sections(self) -> Iterator[tuple[Program, Service]]:
        """Each program with each of its services."""
        for program in (*self.programs, *(() if self.own is None else (self.own,))):
            for service in program.services:
                yield program, service


_Key = tuple[str, str, str, str]  # program, group, target, endpoint; "" is all of them


class Shares:
    """Keeps how often endpoints were picked, to tell the share of each of the last seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, dict[_Key, int]]] = deque()

    def add(self, programs: Sequence[Program], now: float) -> tuple[Program, ...]:
        """The same programs with shares and rates, as of the monotonic time `now`. At first they are of all picks."""
        uses: dict[_Key, int] = {}
        for program in programs:
            for service in program.services:
                key = (program.name, program.group, service.seen.target)
                uses[*key, ""] = service.seen.uses
                uses.update({(*key, each.seen.endpoint): each.seen.uses for each in service.endpoints})
        while len(self._samples) > 1 and self._samples[1][0] <= now - SHARED:
            self._samples.popleft()
        at, before = self._samples[0] if self._samples else (None, {})
        self._samples.append((now, uses))
        return tuple(
            replace(
                program,
                services=tuple(
                    _shared(service, (program.name, program.group, service.seen.target), uses, before, at, now)
                    for service in program.services
                ),
            )
            for program in programs
        )


def _shared(
    service: Service,
    key: tuple[str, str, str],
    uses: dict[_Key, int],
    before: dict[_Key, int],
    at: float | None,
    now: float,
) -> Service:
    def since(name: str) -> int:
        return max(0, uses[*key, name] - before.get((*key, name), 0))

    total = max(since(""), sum(since(each.seen.endpoint) for each in service.endpoints))
    new = (*key, "") not in before
    endpoints = tuple(
        replace(each, share=since(each.seen.endpoint) / total if total else None) for each in service.endpoints
    )
    rate = None if at is None or new or now <= at else total / (now - at)
    return replace(service, endpoints=endpoints, rate=rate)


def as_dict(frame: Frame) -> dict[str, Any]:
    """The frame as plain values, for JSON."""
    return {
        "at": round(frame.at, 3),
        "name": frame.asked,
        "programs": [_program(each) for each in frame.programs],
        "resolution": None if frame.own is None else _program(frame.own),
        "error": frame.error or None,
        "notices": list(frame.notices),
    }


def _program(program: Program) -> dict[str, Any]:
    return {
        "program": program.name,
        "pids": list(program.pids),
        "lookups": dict(program.lookups or {}),
        "services": [_service(each) for each in program.services],
        "services_left": program.services_left,
        "other_names": list(program.names),
    }


def _service(service: Service) -> dict[str, Any]:
    found = asdict(service.seen)
    for name in ("endpoints", "counts", "states", "total"):
        del found[name]
    return {
        **found,
        "workers": service.workers,
        "idle_workers": service.idle,
        "picks_per_second": service.rate,
        "counts": {name: dict(kinds) for name, kinds in service.counts.items()},
        "states": dict(service.states),
        "endpoints_left": service.left_out,
        "endpoints": [_endpoint(each) for each in service.endpoints],
    }


def _endpoint(endpoint: Endpoint) -> dict[str, Any]:
    return {
        **asdict(endpoint.seen),
        "share": endpoint.share,
        "known_by": endpoint.known_by,
        "troubled_in": endpoint.troubled_in,
    }
