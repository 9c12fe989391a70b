"""Observing: what becomes of calls and attempts is told to the observers, whose faults go no further.

    none ──call──> called ──attempt──> in flight ──left──> (elsewhere) ──end──> called ──end──> over

The end of an attempt is told where it is judged, which may be another thread than its own; `left` is not.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import count
from math import inf
from typing import Any

from ecs_discovery.core.calls.failure_kinds import Judgement
from ecs_discovery.core.lease import Lease
from ecs_discovery.errors import DeadlineExceeded, foreign
from ecs_discovery.events import (
    AttemptEnded,
    AttemptObserver,
    AttemptStarted,
    CallEnded,
    CallObserver,
    CallStarted,
    ConnectEnded,
    Idle,
    LookupEnded,
    Observer,
)

__all__ = ["ObservedCall", "Observers"]

logger = logging.getLogger("ecs_discovery")


class Observers:
    """The observers of one engine. `clock` gives monotonic seconds."""

    def __init__(self, observers: tuple[Observer, ...], clock: Callable[[], float]) -> None:
        self.each = observers
        self.clock = clock
        self.idle_until = -inf
        """Until then no observer is interested in any call (monotonic)."""
        self._idle = [-inf] * len(observers)  # the same of each
        self._faulty: set[int] = set()  # observers whose fault was logged

    def call_started(self, started: CallStarted) -> ObservedCall | None:
        """A call begins. None if no observer is interested."""
        interested: list[tuple[Observer, CallObserver]] = []
        now = self.clock()
        for index, observer in enumerate(self.each):
            if now < self._idle[index]:
                continue
            try:
                found = observer.call_started(started)
            except Exception:  # noqa: BLE001  # an observer's fault must not become the request's
                self.failed(observer)
                continue
            if isinstance(found, Idle):
                self._idle[index] = now + found.seconds
                self.idle_until = min(self._idle)
            elif found is not None:
                interested.append((observer, found))
        return ObservedCall(self, interested) if interested else None

    def ended(self, end: ConnectEnded | LookupEnded) -> None:
        """A connect or a lookup has ended: tell those who want to know."""
        wanted = "connect_ended" if isinstance(end, ConnectEnded) else "lookup_ended"
        for observer in self.each:
            tell = getattr(observer, wanted, None)
            if tell is not None:
                try:
                    tell(end)
                except Exception:  # noqa: BLE001  # as above
                    self.failed(observer)

    def failed(self, observer: Observer) -> None:
        """The observer has raised the exception that is being handled. That is logged once for each observer."""
        if id(observer) not in self._faulty:
            self._faulty.add(id(observer))
            logger.exception("observer %s failed; what it raises is not logged again", foreign(type(observer)))


class ObservedCall:
    """One call that observers are told of. Its attempts are known by their leases."""

    __slots__ = ("_began", "_each", "_last", "_numbers", "_observers", "_open", "_started", "fields_added")

    def __init__(self, observers: Observers, each: list[tuple[Observer, CallObserver]]) -> None:
        self._observers = observers
        self._each = each
        self._began = observers.clock()
        self._numbers = count(1)
        self._started = 0
        self._open: dict[Lease, ObservedAttempt] = {}
        self._last: AttemptEnded | None = None
        self.fields_added: set[str] = set()
        """The names of header fields that the request has from observers."""

    def attempt(self, lease: Lease) -> ObservedAttempt:
        """An attempt begins, in this thread or task: `with` is to be around all of it."""
        number = self._started = next(self._numbers)
        started = AttemptStarted(number, lease.endpoint)
        each: list[tuple[Observer, AttemptObserver]] = []
        for observer, call in self._each:
            try:
                observing = call.attempt_started(started)
            except Exception:  # noqa: BLE001  # as above
                self._observers.failed(observer)
                continue
            if observing is not None:
                each.append((observer, observing))
        made = self._open[lease] = ObservedAttempt(self._observers, each, number, lease)
        return made

    def moved(self, lease: Lease, to: Lease) -> None:
        """The attempt's use has another lease now."""
        found = self._open.pop(lease, None)
        if found is not None:
            found.lease = to
            self._open[to] = found

    def answered(self, lease: Lease, status: int) -> None:
        """The attempt's answer has come."""
        found = self._open.get(lease)
        if found is not None:
            found.status = status

    def raised(self, lease: Lease, error: BaseException) -> None:
        """The attempt has raised an error."""
        found = self._open.get(lease)
        if found is not None:
            found.error_type = type(error).__name__

    def judged(self, lease: Lease, judgement: Judgement, pause: float | None) -> None:
        """The attempt was judged; another follows after `pause` seconds, if any."""
        failure = judgement.failure
        self.attempt_ended(lease, "" if failure is None else failure.value, judgement.label, pause)

    def attempt_ended(self, lease: Lease, kind: str, label: str, pause: float | None = None) -> None:
        """The attempt is over. Told once: what is said later of it is of no account."""
        found = self._open.pop(lease, None)
        if found is not None:
            end = found.end(kind, label, pause)
            if kind != "overtaken":
                self._last = end

    def ended(self, error: BaseException | None, deadline_at: float | None = None) -> None:
        """The call is over, and with it what was still open of it: cut at `deadline_at`, if that has passed."""
        now = self._observers.clock()
        kind = said = ""
        left = ("overtaken", "overtaken")  # of a call that was good
        if error is not None:
            kind, said = type(error).__name__, foreign(error)
            left = ("error", "deadline" if isinstance(error, DeadlineExceeded) else "error")
            if deadline_at is not None and now >= deadline_at and not isinstance(error, Exception):
                left = ("error", "deadline")
                kind, said = DeadlineExceeded.__name__, "not done within the deadline"
            elif not isinstance(error, Exception):
                left = ("cancelled", "cancelled")
        if self._open:
            for lease in list(self._open):
                self.attempt_ended(lease, *left)
        end = CallEnded(self._started, self._last, kind, said, now - self._began)
        each, self._each = self._each, []
        for observer, observing in each:
            try:
                observing.ended(end)
            except Exception:  # noqa: BLE001  # as above
                self._observers.failed(observer)


class ObservedAttempt:
    """One attempt that observers are told of."""

    __slots__ = ("_each", "_number", "_observers", "error_type", "lease", "status")

    def __init__(
        self, observers: Observers, each: list[tuple[Observer, AttemptObserver]], number: int, lease: Lease
    ) -> None:
        self._observers = observers
        self._each = each
        self._number = number
        self.lease = lease
        self.status: int | None = None
        self.error_type = ""

    def headers(self) -> dict[str, str]:
        """The header fields that the observers want the attempt's request to carry, as far as these are such."""
        found: dict[str, str] = {}
        for observer, observing in self._each:
            try:
                fields = dict(getattr(observing, "headers", None) or {})
            except Exception:  # noqa: BLE001  # as above
                self._observers.failed(observer)
                continue
            found.update((name, value) for name, value in fields.items() if _is_field(name) and _is_field(value))
        return found

    def __enter__(self) -> ObservedAttempt:
        """The observers were told when it was made."""
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        for observer, observing in reversed(self._each):  # each takes back what it has set over what was there before
            try:
                observing.left()
            except Exception:  # noqa: BLE001  # as above
                self._observers.failed(observer)

    def end(self, kind: str, label: str, pause: float | None) -> AttemptEnded:
        """Tell the observers that it is over."""
        lease = self.lease
        seconds = self._observers.clock() - lease.started_at
        end = AttemptEnded(self._number, lease.endpoint, kind, label, self.error_type, self.status, seconds, pause)
        for observer, observing in self._each:
            try:
                observing.ended(end)
            except Exception:  # noqa: BLE001  # as above
                self._observers.failed(observer)
        return end


def _is_field(text: object) -> bool:
    """Can it be a header field's name or value?"""
    return isinstance(text, str) and bool(text) and text.isascii() and text.isprintable()
