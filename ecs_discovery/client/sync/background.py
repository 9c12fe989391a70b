"""The background of a `Discovery`: what runs in worker threads, and waiting for it.

It stands in the same order as `aio/background.py`; the two differ in awaits.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import FIRST_COMPLETED
from concurrent.futures import wait as wait_for_flights
from contextlib import closing, suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import TypeVar

from ecs_discovery.client.engine import Engine
from ecs_discovery.client.steps import admission, readiness
from ecs_discovery.client.sync.asking import Asker
from ecs_discovery.client.sync.probing import Prober
from ecs_discovery.core.balancing.node import Node
from ecs_discovery.core.calls.admission import Place
from ecs_discovery.core.calls.call import Call
from ecs_discovery.core.lease import Lease
from ecs_discovery.core.service import Service
from ecs_discovery.errors import Overloaded, foreign
from ecs_discovery.models import Endpoint, Question
from ecs_discovery.runtime.alarms import Alarms
from ecs_discovery.runtime.single_flight import Flight
from ecs_discovery.runtime.workers import Workers

__all__ = ["Background"]

T = TypeVar("T")

logger = logging.getLogger("ecs_discovery")


class Background:
    """Runs what must not hold up a caller: `asker` the lookups, `prober` what is found out about endpoints."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.asker = Asker(engine)
        self.prober = Prober(engine, self.asker)
        self.attempts = Workers(sys.maxsize)
        """The threads of hedged attempts: as many as are in flight, since none may wait for another."""
        self.alarms = Alarms(engine.clock)
        self._warned_of_loop = False

    def ready(self, service: Service, deadline_at: float) -> None:
        """Wait until the service can be used, no longer than `deadline_at` (monotonic).

        Raises `ResolutionError` when it cannot be resolved and nothing was known.
        """
        self.prober.locate(service)
        steps = readiness(self.engine, service, deadline_at, self.asker.ask_all)
        landed: bool | None = None
        with suppress(StopIteration):
            while True:
                flights, seconds = steps.send(landed)  # type: ignore[arg-type]  # None begins it
                self._warn_in_event_loop(service)
                landed = _any_landed(flights.values(), seconds)

    def _warn_in_event_loop(self, service: Service) -> None:
        """Waiting here would stop a whole event loop: say so, once."""
        loops = sys.modules.get("asyncio.events")
        if not self._warned_of_loop and loops is not None and loops._get_running_loop() is not None:
            self._warned_of_loop = True
            logger.warning(
                "%s: a lookup of a synchronous Discovery holds up the event loop: use AsyncDiscovery, or a thread",
                foreign(service.target),
            )

    def ask(
        self, question: Question, *, force: bool = False, allowed: bool = False, deadline_at: float | None = None
    ) -> Flight:
        """As `Asker.ask`."""
        return self.asker.ask(question, force=force, allowed=allowed, deadline_at=deadline_at)

    def wait_for_refresh(self, service: Service, call: Call) -> None:
        """Before another attempt on endpoints none of which connects: wait for a lookup in flight, a while."""
        if call.number and service.all_down:
            flights = self.engine.flights.in_flight(service.wanted())
            if flights:
                _any_landed(flights, self.engine.patience(call))

    def start_attempt(self, service: Service, call: Call, prefer: Node | None = None) -> Lease:
        """As `Engine.start_attempt`; where every endpoint is full, wait for room."""
        if not service.admission.crowded:
            try:
                return self.engine.start_attempt(service, call, prefer)
            except Overloaded:
                pass
        return self.wait_for_admission(
            service, call.connect_deadline_at, partial(self.engine.start_attempt, service, call)
        )

    def wait_for_admission(self, service: Service, deadline_at: float, choose: Callable[[], T]) -> T:
        """What `choose` gives as soon as it is this caller's turn and it is not `Overloaded` any more; that is raised
        after `deadline_at` (monotonic)."""
        if not service.balancing.wait_for_room:
            return choose()
        # A queue, for its lock may be had again by a finaliser or a signal handler that ends a use meanwhile.
        gate = SimpleQueue[None]()
        with closing(admission(self.engine, service, deadline_at, Place(partial(gate.put, None)), choose)) as steps:
            while True:
                try:
                    left = next(steps)
                except StopIteration as end:
                    return end.value  # type: ignore[no-any-return]
                with suppress(Empty):
                    gate.get(timeout=left)

    def force(self, questions: Sequence[Question]) -> None:
        """As `Asker.force`."""
        self.asker.force(questions)

    def work(self, service: Service) -> None:
        """As `Prober.work`."""
        self.prober.work(service)

    def accepts(self, service: Service, endpoint: Endpoint) -> bool:
        """As `Prober.accepts`."""
        return self.prober.accepts(service, endpoint)

    def suspect(self, service: Service, node: Node) -> None:
        """As `Prober.suspect`."""
        self.prober.suspect(service, node)

    # Life cycle

    def close(self) -> None:
        """Drop what has not begun."""
        self.asker.close()
        self.prober.close()
        self.attempts.close(drop=False)  # callers wait for those
        self.alarms.close()


def _any_landed(flights: Collection[Flight], seconds: float) -> bool:
    """Wait until one of these has landed, `seconds` at most. False if none has."""
    if len(flights) > 1:
        return bool(wait_for_flights(flights, seconds, FIRST_COMPLETED).done)
    (flight,) = flights  # nearly always: then no event is made to wait for
    with suppress(TimeoutError):
        flight.result(seconds)
    return flight.done()
