"""Flights: at most one lookup of a question at a time, over all threads, tasks and loops.

The caller that starts a flight leads it; every caller may wait for it. A waiter that gives up does not end it.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, InvalidStateError
from threading import RLock
from typing import TYPE_CHECKING
from weakref import WeakSet

from ecs_discovery.errors import foreign
from ecs_discovery.models import Endpoint, Question, Resolution

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = ["Flight", "Flights", "fault_of"]

Flight = Future[None]
"""Done once the outcome is in the cache. It carries no result: waiters look there."""

_SOON = 1.0  # seconds within which a lookup begins though no caller waits any more: the next caller needs it too


class _InFlight:
    __slots__ = ("began_at", "flight", "loop", "lost_at", "wanted")

    def __init__(self, flight: Flight, lost_at: float, loop: AbstractEventLoop | None, wanted: float) -> None:
        self.flight = flight
        self.lost_at = lost_at  # when it is given up for lost
        self.loop = loop  # the event loop that its leader runs in; None for a thread
        self.wanted = wanted  # until when a caller waits for it
        self.began_at: float | None = None

    def lost(self, now: float) -> bool:
        """It will bring no answer in time: its leader is late, or in a loop that runs no more."""
        return now >= self.lost_at or (self.loop is not None and not self.loop.is_running())


class Flights:
    def __init__(self) -> None:
        self._flights: dict[Question, _InFlight] = {}
        self._forgotten: WeakSet[Flight] = WeakSet()
        self._lock = RLock()

    def __len__(self) -> int:
        return len(self._flights)

    def join(
        self,
        question: Question,
        now: float,
        limit: float,
        loop: AbstractEventLoop | None = None,
        *,
        wanted: float | None = None,
    ) -> tuple[Flight, bool]:
        """The flight for this question, and whether the caller leads it and so must call `begin` and `land`.

        `loop` is the event loop that the caller would lead it in, `wanted` until when the caller waits. A flight that
        has not landed `limit` seconds after it began has lost its leader. So has a flight whose loop runs no more. A
        new flight takes its place, and the callers that waited look again.
        """
        with self._lock:
            known = self._flights.get(question)
            if known is not None and not known.lost(now):
                if wanted is not None:
                    known.wanted = max(known.wanted, wanted)
                return known.flight, False
            flight: Flight = Future()
            flight.set_running_or_notify_cancel()
            lost_at = now + limit
            wanted = lost_at if wanted is None else max(wanted, now + _SOON)
            # Until it begins it waits in a queue, which loses nothing: for as long as a caller waits for it.
            self._flights[question] = _InFlight(flight, max(lost_at, wanted), loop, wanted)
        if known is not None:
            _end(known.flight)
        return flight, True

    def start(self, question: Question, flight: Flight, now: float, limit: float) -> bool:
        """Its leader starts now, and `limit` seconds count from here. False if it must not: nobody waits any more."""
        with self._lock:
            known = self._flights.get(question)
            if known is None or known.flight is not flight:
                return False  # it was given up for lost meanwhile
            if now < known.wanted:
                known.lost_at = now + limit
                known.began_at = now
                return True
        self.land(question, flight)
        return False

    def began_at(self, question: Question) -> float | None:
        """When the lookup of this question began that is in flight; None if none has."""
        known = self._flights.get(question)
        return None if known is None else known.began_at

    def lost(self, question: Question, now: float) -> bool:
        """Is there a flight for it that was lost?"""
        known = self._flights.get(question)
        return known is not None and known.lost(now)

    def end_lost(self, questions: Iterable[Question], now: float) -> None:
        """Let those who wait for flights that were lost look again."""
        with self._lock:
            found = [(question, self._flights.get(question)) for question in questions]
            lost = [(question, known.flight) for question, known in found if known is not None and known.lost(now)]
        for question, flight in lost:
            self.land(question, flight)

    def in_flight(self, questions: Iterable[Question]) -> list[Flight]:
        """The flights for these questions, if there are any."""
        with self._lock:
            return [self._flights[question].flight for question in questions if question in self._flights]

    def land(self, question: Question, flight: Flight) -> None:
        """The outcome is in the cache, or there will be none: let all who wait look. Again is as once."""
        with self._lock:
            if question in self._flights and self._flights[question].flight is flight:
                del self._flights[question]
        _end(flight)

    def land_all(self) -> None:
        """Let all who wait look now: no leader will bring an answer any more."""
        with self._lock:
            flights, self._flights = self._flights, {}
        for known in flights.values():
            _end(known.flight)

    def forget_all(self) -> None:
        """Let all who wait ask anew. What the lookups in flight bring counts no more: see `was_forgotten`."""
        with self._lock:
            for known in self._flights.values():
                self._forgotten.add(known.flight)
        self.land_all()

    def was_forgotten(self, flight: Flight) -> bool:
        """Is the outcome of this flight not wanted any more?"""
        return bool(self._forgotten) and flight in self._forgotten

    def reset(self) -> None:
        """Forget all, for the child of a fork: their leaders are not there."""
        self._lock = RLock()
        self._flights = {}


def _end(flight: Flight) -> None:
    if flight.done():  # mostly twice: the error would be made for nothing
        return
    try:
        flight.set_result(None)
    except InvalidStateError:
        pass  # another thread ended it


def fault_of(outcome: object) -> str:
    """What is wrong with a resolver's answer; "" if it can be used."""
    if not isinstance(outcome, Resolution) or not outcome.endpoints:
        return f"it gave {foreign(repr(outcome))} and no endpoints"
    if not isinstance(outcome.ttl, (int, float)) or not outcome.ttl >= 0:
        return f"its ttl is {foreign(repr(outcome.ttl))} and not a number of seconds"
    odd = set(map(type, outcome.endpoints)) - {Endpoint}
    if odd:
        return f"among its endpoints there is a {min(kind.__name__ for kind in odd)}"
    return ""
