"""The lookups of several questions in one thread: they share their sockets.

They run in a worker. The caller's own thread would be cheaper, but a signal handler's exception would end the lookups
of other callers, and a fork could come in the middle of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecs_discovery.client.engine import Engine
from ecs_discovery.errors import ConfigurationError
from ecs_discovery.models import Question
from ecs_discovery.runtime.single_flight import Flight

if TYPE_CHECKING:
    from ecs_discovery.resolvers.dns.sync import Lookups

__all__ = ["LookupGroup"]

_TURN = 1.0  # seconds between looks whether a flight was given up


class LookupGroup:
    """The flights that this thread leads. `finish` ends them all."""

    def __init__(self, engine: Engine, lookups: Lookups) -> None:
        self._engine = engine
        self._lookups = lookups
        self.flights: dict[Question, Flight] = {}
        self._led: dict[Question, Flight] = {}  # the flights that have ended meanwhile too: some were forgotten

    def start(self, question: Question, flight: Flight) -> None:
        """Begin a lookup whose flight this thread leads."""
        engine = self._engine
        self.flights[question] = self._led[question] = flight
        if not engine.start_lookup(question, flight) or engine.is_answered(question):
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

    def run(self, seconds: float) -> tuple[Question, ...]:
        """Go on until a lookup has ended, `seconds` at most: questions to ask next."""
        engine = self._engine
        following: dict[Question, None] = {}
        try:
            for question, outcome in self._lookups.run(seconds):
                asked = engine.landed(question, outcome, self._led.get(question))
                # What this group still looks up need not be asked for when the group is at its end.
                following.update(dict.fromkeys([each for each in asked if each not in self.flights]))
                self._land(question)
        except Exception as error:  # noqa: BLE001  # a fault of ours is an answer too: callers wait for one
            for question in tuple(self.flights):
                engine.landed(question, engine.unexpected(question, error))
                self._land(question)
        for question, flight in tuple(self.flights.items()):
            if flight.done():  # given up for lost, or closed, meanwhile
                del self.flights[question]
        if self._lookups.broken:
            self.lose()
        return tuple(following)

    def finish(self, deadline_at: float | None = None) -> tuple[Question, ...]:
        """Go on to the end, or `deadline_at` then (monotonic). Questions to ask next."""
        clock = self._engine.clock
        following: dict[Question, None] = {}
        try:
            while self.flights and self._lookups.pending and (deadline_at is None or clock() < deadline_at):
                seconds = _TURN if deadline_at is None else min(_TURN, deadline_at - clock())
                following.update(dict.fromkeys(self.run(seconds)))
        finally:
            self.lose()
        return tuple(following)

    def lose(self) -> None:
        """They end without an outcome: who needs an answer asks again."""
        for question in tuple(self.flights):
            self._engine.lost(question)
            self._land(question)
        self._lookups.close()

    def _land(self, question: Question) -> None:
        flight = self.flights.pop(question, None)
        if flight is not None:
            self._engine.flights.land(question, flight)
