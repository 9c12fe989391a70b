"""Waiting for a lookup, and for room: what is decided between two waits.

These are generators. They yield what is to be waited for, and for how long; the twins in `sync` and `aio` wait.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

from ecs_discovery.client.engine import Engine
from ecs_discovery.core.calls.admission import Place
from ecs_discovery.core.service import Service
from ecs_discovery.errors import Overloaded
from ecs_discovery.models import Question
from ecs_discovery.runtime.single_flight import Flight

__all__ = ["Ask", "Pending", "admission", "readiness"]

T = TypeVar("T")

_LOOK_INTERVAL = 0.25  # seconds between looks whether a leader still works on what is waited for


class Pending(NamedTuple):
    """Wait until one of these has landed, `seconds` at most. Send back whether one has."""

    flights: Mapping[Question, Flight]
    seconds: float


class Ask(Protocol):
    """Begins the lookups of these questions that are not in flight. The caller waits until `deadline_at`;
    None: it does not wait. Where a lookup must be made right here, it ends by `here`.
    """

    def __call__(
        self, questions: Sequence[Question], deadline_at: float | None, here: float
    ) -> Mapping[Question, Flight]: ...


def readiness(engine: Engine, service: Service, deadline_at: float, ask: Ask) -> Generator[Pending, bool, None]:
    """Wait until the service can be used, no longer than `deadline_at` (monotonic).

    Raises `ResolutionError` when it cannot be resolved and nothing was known.
    """
    clock = engine.clock
    waited: set[Question] = set()
    began = clock()
    while clock() >= service.refresh_at:
        due = engine.due(service, waited=waited)
        # What is known will do: leave time to connect, also where a lookup must be made right here.
        here = deadline_at if service.resolution is None else (clock() + deadline_at) / 2
        ask(due.ask, None, here)
        if due.error is not None:
            raise due.error
        if due.again and service.resolution is None:
            continue  # another caller took over newer answers meanwhile: look at those
        if not due.wait:
            return
        flights = ask(due.wait, deadline_at, here)
        if not (yield from _any_landed(engine, flights, here - clock())):
            if service.resolution is not None:
                return
            raise engine.too_slow(service, deadline_at - began)
        engine.check_open(service.target)
        waited.update(question for question, flight in flights.items() if flight.done())


def _any_landed(engine: Engine, flights: Mapping[Question, Flight], seconds: float) -> Generator[Pending, bool, bool]:
    clock = engine.clock
    deadline_at = clock() + seconds
    left = seconds
    while left > 0:
        if (yield Pending(flights, min(left, _LOOK_INTERVAL))):
            return True
        engine.flights.end_lost(flights, clock())  # one that an event loop leads may have lost its loop
        left = min(left - _LOOK_INTERVAL, deadline_at - clock())
    return False


def admission(
    engine: Engine, service: Service, deadline_at: float, place: Place, choose: Callable[[], T]
) -> Generator[float, None, T]:
    """What `choose` gives as soon as it is this caller's turn and it is not `Overloaded` any more; that is raised
    after `deadline_at` (monotonic). Yields for how many seconds `place` may wait to be woken.

    Close it whatever happens: the place is left then.
    """
    room = service.admission
    try:
        room.queue(place)
        while True:
            left = deadline_at - engine.clock()
            if room.turn(place):
                try:
                    return choose()
                except Overloaded:
                    if left <= 0:
                        raise
            elif left <= 0:
                raise service.unusable()
            yield left
    finally:
        room.leave(place)
