"""Flights: at most one look-up of a question at a time, over all threads, tasks and loops.

Whoever starts a flight leads it; everybody may wait for it. A waiter that gives up does not end it.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from threading import Lock

from ecs_discovery.models import Question

__all__ = ["Flight", "Flights"]

Flight = Future[None]
"""Done once the outcome is in the cache. It carries no result: waiters look there."""


class Flights:
    def __init__(self) -> None:
        self._flights: dict[Question, Flight] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._flights)

    def join(self, question: Question) -> tuple[Flight, bool]:
        """The flight for this question, and whether the caller leads it and so must call `land`."""
        with self._lock:
            flight = self._flights.get(question)
            if flight is not None:
                return flight, False
            flight = self._flights[question] = Future()
            flight.set_running_or_notify_cancel()
            return flight, True

    def under_way(self, questions: Iterable[Question]) -> list[Flight]:
        """The flights for these questions, if there are any."""
        with self._lock:
            return [self._flights[question] for question in questions if question in self._flights]

    def land(self, question: Question, flight: Flight) -> None:
        """The outcome is in the cache, or there will be none: let everybody look."""
        with self._lock:
            if self._flights.get(question) is flight:
                del self._flights[question]
        flight.set_result(None)

    def reset(self) -> None:
        """Forget all, for the child of a fork: their leaders are not there."""
        self._lock = Lock()
        self._flights = {}
