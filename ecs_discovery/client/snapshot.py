"""Snapshots: what a discovery knows of a target and why, for people, logs and the command line."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ecs_discovery.core.balancing.node import Checked
from ecs_discovery.core.balancing.pick_history import Pick
from ecs_discovery.core.service import Service
from ecs_discovery.errors import foreign

__all__ = ["CandidateSnapshot", "CheckSnapshot", "NodeSnapshot", "PickSnapshot", "ServiceSnapshot", "snapshot_of"]


@dataclass(frozen=True, slots=True)
class CheckSnapshot:
    """What health checks told of an endpoint."""

    result: str
    """What the last one told: `ok`, or what was wrong."""
    ago: float
    """Seconds since it ended."""
    failures: int
    """Failed lookups since the last good lookup."""

    def __str__(self) -> str:
        failed = f", {self.failures} failed in a row" if self.failures else ""
        return f"check {self.ago:.1f} s ago: {self.result}{failed}"


@dataclass(frozen=True, slots=True)
class NodeSnapshot:
    """One endpoint."""

    endpoint: str
    health: str
    """`healthy`, `ejected`, `probing` or `down`."""
    reason: str
    """Why it is not healthy."""
    returns_in: float
    """Seconds until the next attempt, 0 if healthy."""
    spared_for: float
    """Seconds for which others are chosen before it, because it answered that it is overloaded."""
    pending: int
    """Uses in flight from this process."""
    uses: int
    """Uses begun since this process knows the endpoint."""
    successes: int
    """Uses that ended well."""
    failures: int
    """Uses that failed, and failed connects."""
    latency: float | None
    """Moving average of successful uses, in seconds."""
    cost: float
    """What a use is taken to cost when an endpoint is chosen, in seconds: latency that lasted, with errors as load."""
    ejections: int
    """Recent ejections: each doubles the next; success and calm time take some off."""
    zone: str | None
    instance_id: str | None
    seen: dict[str, float]
    """Seconds since each source last named it."""
    check: CheckSnapshot | None = None
    """None if no health check of it has ended, as when they are off."""


@dataclass(frozen=True, slots=True)
class PickSnapshot:
    """One choice of an endpoint."""

    ago: float
    """Seconds since then."""
    endpoint: str
    why: str
    """The rule that chose it: a picker of `BalancingPolicy`, `key`, `probe after an ejection`, `last resort`, …"""
    candidates: tuple[CandidateSnapshot, ...]
    """The endpoints that were compared, the chosen one first."""
    excluded: int
    """How many endpoints the call had tried before."""

    def __str__(self) -> str:
        others = "; ".join(map(str, self.candidates))
        after = f", after {self.excluded} others" if self.excluded else ""
        return f"{self.ago:.1f} s ago {self.endpoint}: {self.why}{after}" + (f" ({others})" if others else "")


@dataclass(frozen=True, slots=True)
class CandidateSnapshot:
    """An endpoint that was compared with others, as it stood then."""

    endpoint: str
    score: float
    """The difference of its load from the chosen endpoint's load: above 0 is worse. The natural logarithm of cost
    * (uses in flight + 1); differences below 0.5 count as none."""
    pending: int
    """Uses in flight then."""
    cost: float
    """What a use of it was taken to cost, in seconds."""

    def __str__(self) -> str:
        return f"{self.endpoint} {self.score:+.2f}, {self.pending} pending, {self.cost * 1000:.0f} ms"


@dataclass(frozen=True, slots=True)
class ServiceSnapshot:
    """One target."""

    target: str
    source: str | None
    """Where the endpoints are known from, None if nothing is known."""
    ttl: float | None
    """The TTL of that answer, in seconds."""
    fresh_for: float
    """Seconds until it is refreshed."""
    partial: bool
    """The source may know more endpoints than it named."""
    estimate: int | None
    """How many endpoints there are by estimate, if the answers are partial and that can be told."""
    coverage: float | None
    """The share of them that is known: 1 for a complete answer, None for unknown."""
    stale: bool
    """The answer outlived its TTL because the source could not be asked again."""
    doubted: bool
    """The source's newest answer is empty, which is not believed yet."""
    failing: bool
    """The last lookup failed."""
    panic: bool
    """Too few endpoints are healthy; health is ignored."""
    retries_left: float
    """What the retry budget allows now."""
    nodes: tuple[NodeSnapshot, ...]
    picks: tuple[PickSnapshot, ...]
    """The last picks, oldest first: all unusual picks, and a sample of the others."""
    counts: dict[str, dict[str, int]]
    """What happened since this process began, by name and kind: `{"retries": {"closed": 2}}`.
    `ecs_discovery.core.counters.Counted` lists the names."""

    def as_dict(self) -> dict[str, Any]:
        """The same as plain dictionaries and lists, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        flags = [name for name in ("partial", "stale", "doubted", "failing", "panic") if getattr(self, name)]
        head = f"{self.target}: {_counted(len(self.nodes), 'endpoint')} from {self.source or 'nowhere yet'}"
        lines = [head + (f" ({', '.join(flags)})" if flags else "")]
        for node in self.nodes:
            latency = f"{node.latency * 1000:.1f} ms" if node.latency is not None else "-"
            why = f" ({node.reason}, again in {node.returns_in:.1f} s)" if node.reason else ""
            uses, failures = _counted(node.uses, "use"), _counted(node.failures, "failure")
            counts = f"{uses}, {failures}, {node.pending} pending, {latency}"
            check = f", {node.check}" if node.check is not None else ""
            lines.append(f"  {node.endpoint} {node.health}{why}: {counts}{check}")
        return "\n".join(lines)


def _counted(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _check(checked: Checked | None, now: float) -> CheckSnapshot | None:
    if checked is None or not checked.result:
        return None
    return CheckSnapshot(checked.result, max(0.0, now - checked.at), checked.failures)


def _pick(pick: Pick, now: float) -> PickSnapshot:
    candidates = tuple(
        CandidateSnapshot(other.endpoint, other.load - pick.candidates[0].load, other.pending, other.cost)
        for other in pick.candidates
    )
    return PickSnapshot(max(0.0, now - pick.at), pick.endpoint, pick.why, candidates, pick.excluded)


def snapshot_of(service: Service, now: float) -> ServiceSnapshot:
    """The state of a service at this moment."""
    facts = service.facts()
    resolution = service.resolution
    nodes = tuple(
        NodeSnapshot(
            endpoint=foreign(node.endpoint),
            health=node.health.value,
            reason=node.reason,
            returns_in=max(0.0, node.state_ends_at - now) if node.reason else 0.0,
            spared_for=max(0.0, node.pushback_ends_at - now),
            pending=node.pending,
            uses=node.uses,
            successes=node.successes,
            failures=node.failures,
            latency=node.latency,
            cost=node.cost,
            ejections=node.ejections,
            zone=node.endpoint.zone,
            instance_id=node.endpoint.instance_id,
            seen={source: now - at for source, at in (node.seen or {}).items()},
            check=_check(node.checked, now),
        )
        for node in facts["nodes"]
    )
    return ServiceSnapshot(
        target=service.target,
        source=resolution.source if resolution else None,
        ttl=resolution.ttl if resolution else None,
        fresh_for=max(0.0, service.refresh_at - now),
        partial=bool(resolution and resolution.partial),
        estimate=resolution.estimate if resolution else None,
        coverage=resolution.coverage if resolution is not None else None,
        stale=bool(resolution and resolution.stale),
        doubted=facts["doubted"],
        failing=facts["failing"],
        panic=facts["panic"],
        retries_left=service.budget.balance(now),
        nodes=nodes,
        picks=tuple(_pick(pick, now) for pick in facts["picks"]),
        counts=facts["counts"],
    )
