"""Flights: at most one look-up of a question at a time, over all threads, tasks and loops.

Whoever starts a flight leads it; everybody may wait for it. A waiter that gives up does not end it.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, InvalidStateError
from threading import Lock

from ecs_discovery.models import Question

__all__ = ["Flight", "Flights"]

Flight = Future[None]
"""Done once the outcome is in the cache. It carries no result: waiters look there."""


class Flights:
    def __init__(self) -> None:
        self._flights: dict[Question, tuple[Flight, float]] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._flights)

    def join(self, question: Question, now: float, limit: float) -> tuple[Flight, bool]:
        """The flight for this question, and whether the caller leads it and so must call `land`.

        A flight that has not landed within `limit` seconds has lost its leader (its event loop was closed,
        say): a new one takes its place, and whoever waited looks again.
        """
        with self._lock:
            known = self._flights.get(question)
            if known is not None and now < known[1]:
                return known[0], False
            flight: Flight = Future()
            flight.set_running_or_notify_cancel()
            self._flights[question] = (flight, now + limit)
        if known is not None:
            _end(known[0])
        return flight, True

    def under_way(self, questions: Iterable[Question]) -> list[Flight]:
        """The flights for these questions, if there are any."""
        with self._lock:
            return [self._flights[question][0] for question in questions if question in self._flights]

    def land(self, question: Question, flight: Flight) -> None:
        """The outcome is in the cache, or there will be none: let everybody look. Again is as once."""
        with self._lock:
            if question in self._flights and self._flights[question][0] is flight:
                del self._flights[question]
        _end(flight)

    def land_all(self) -> None:
        """Let everybody look now: nobody will bring an answer any more."""
        with self._lock:
            flights, self._flights = self._flights, {}
        for flight, _ in flights.values():
            _end(flight)

    def reset(self) -> None:
        """Forget all, for the child of a fork: their leaders are not there."""
        self._lock = Lock()
        self._flights = {}


def _end(flight: Flight) -> None:
    try:
        flight.set_result(None)
    except InvalidStateError:
        pass  # somebody else ended it
