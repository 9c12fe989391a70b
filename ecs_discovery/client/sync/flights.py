"""Lookups that a caller makes itself, in its own thread, because it would wait for them anyway.

No thread is started, and questions that go out together share their sockets. What has not ended when the caller leaves
goes on in a worker, so that no other caller loses an answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ecs_discovery.client.engine import Engine
from ecs_discovery.errors import ConfigurationError
from ecs_discovery.models import Question
from ecs_discovery.runtime.single_flight import Flight

if TYPE_CHECKING:
    from ecs_discovery.resolvers.dns.sync import Lookups

__all__ = ["OwnFlights"]


class OwnFlights:
    """The flights that this caller leads. They have to be handed on, or ended with `lose`."""

    def __init__(self, engine: Engine, lookups: Lookups) -> None:
        self._engine = engine
        self._lookups = lookups
        self.flights: dict[Question, Flight] = {}

    def begin(self, question: Question, flight: Flight) -> None:
        """Begin a lookup whose flight the caller leads."""
        engine = self._engine
        self.flights[question] = flight
        if not engine.begin_flight(question, flight) or engine.is_answered(question):
            self._land(question)
            return
        refused = engine.refusal(question)
        if refused is not None:
            engine.landed(question, refused)
            self._land(question)
            return
        try:
            self._lookups.add(question, engine.limit(question))
        except ConfigurationError as error:
            engine.landed(question, engine.unexpected(question, error))
            self._land(question)

    def leads(self, questions: Iterable[Question]) -> bool:
        """True if all of these are in flight here."""
        return all(question in self.flights for question in questions)

    def run(self, seconds: float) -> tuple[bool, tuple[Question, ...]]:
        """Go on until one of them has landed, `seconds` at most: whether one has, and questions to ask next."""
        engine = self._engine
        following: dict[Question, None] = {}
        landed = False
        try:
            for question, outcome in self._lookups.run(seconds):
                following.update(dict.fromkeys(engine.landed(question, outcome)))
                self._land(question)
                landed = True
        except Exception as error:  # noqa: BLE001  # a fault of ours is an answer too: callers wait for one
            for question in tuple(self.flights):
                engine.landed(question, engine.unexpected(question, error))
                self._land(question)
            landed = True
        for question, flight in tuple(self.flights.items()):
            if flight.done():  # given up for lost, or closed, meanwhile
                del self.flights[question]
                landed = True
        if self._lookups.broken:
            self.lose()
            landed = True
        return landed, tuple(following)

    def finish(self) -> tuple[Question, ...]:
        """Go on to the end. Questions to ask next."""
        following: dict[Question, None] = {}
        try:
            while self.flights:
                following.update(dict.fromkeys(self.run(1.0)[1]))
        finally:
            self.lose()
        return tuple(following)

    def close(self) -> None:
        """Let go of the sockets, when none is in flight any more."""
        self._lookups.close()

    def lose(self) -> None:
        """They end without an outcome: who needs an answer asks again."""
        for question in tuple(self.flights):
            self._engine.lost(question)
            self._land(question)
        self._lookups.close()

    def crowded_out(self) -> None:
        """Too many jobs wait for a thread, and these are the oldest."""
        for question, flight in tuple(self.flights.items()):
            self._engine.crowded_out(question, flight)
        self.flights = {}
        self._lookups.close()

    def _land(self, question: Question) -> None:
        flight = self.flights.pop(question, None)
        if flight is not None:
            self._engine.flights.land(question, flight)
