"""The event buffer: what changed at a service, kept until a driver tells it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from ecs_discovery.core.balancing.health import HealthChange
from ecs_discovery.core.balancing.node import Health, Node
from ecs_discovery.events import Event, HealthChanged, LookupFailed, LookupRecovered, Notice, PanicChanged

__all__ = ["EventBuffer"]

_EVENTS = 256  # events kept until a driver tells them


class EventBuffer:
    """One event per change of state. Guarded by its service's lock."""

    def __init__(self, target: str) -> None:
        self.failing = False
        """The last lookup failed."""
        self._refusing = False
        self._panic = False
        self._target = target
        self._events: deque[Event] = deque(maxlen=_EVENTS)

    def add(self, event: Event) -> None:
        self._events.append(event)

    def lookup(self, error: Exception | None, kept: int) -> None:
        """How the last lookup went, and how many endpoints are known."""
        if (error is not None) == self.failing:
            return
        self.failing = error is not None
        self.add(LookupRecovered(self._target) if error is None else LookupFailed(self._target, str(error), kept))

    def refused(self, hosts: Sequence[str]) -> None:
        """Which hosts of the last answer were refused."""
        if bool(hosts) is not self._refusing:
            self._refusing = bool(hosts)
            told = (
                f"addresses that no task has are refused: {', '.join(hosts[:3])}" if hosts else "none are refused now"
            )
            self.add(Notice(self._target, told))

    def health(self, node: Node, change: HealthChange, now: float) -> None:
        """The health of a node changed."""
        seconds = max(0.0, change.ends_at - now) if change.after is not Health.HEALTHY else 0.0
        self.add(HealthChanged(self._target, node.endpoint, change.after.value, change.reason, seconds, change.cause))

    def panic(self, panic: bool) -> bool:
        """Whether health is ignored now. True if that is new."""
        if panic is self._panic:
            return False
        self._panic = panic
        self.add(PanicChanged(self._target, panic))
        return True

    def pop(self) -> tuple[Event, ...]:
        """What changed since the last call."""
        events = tuple(self._events)
        self._events.clear()
        return events
