"""The background of an `AsyncDiscovery`: what runs in tasks, and waiting for it.

It stands in the same order as `sync/background.py`; the two differ in awaits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from typing import TypeVar

from ecs_discovery.client.aio.asking import AsyncAsker
from ecs_discovery.client.aio.network import SYSTEM, Network
from ecs_discovery.client.aio.probing import AsyncProber
from ecs_discovery.client.aio.tasks import Tasks
from ecs_discovery.client.engine import Engine
from ecs_discovery.client.steps import admission, readiness
from ecs_discovery.core.balancing.node import Node
from ecs_discovery.core.calls.admission import Place
from ecs_discovery.core.calls.call import Call
from ecs_discovery.core.lease import Lease
from ecs_discovery.core.service import Service
from ecs_discovery.errors import Overloaded
from ecs_discovery.models import Endpoint, Question
from ecs_discovery.resolvers.base import AsyncResolver, Resolver
from ecs_discovery.runtime.single_flight import Flight

__all__ = ["AsyncBackground"]

T = TypeVar("T")


class AsyncBackground:
    """As `Background`, in tasks of the loop that asked for it."""

    def __init__(
        self, engine: Engine, resolvers: Mapping[str, AsyncResolver | Resolver], network: Network = SYSTEM
    ) -> None:
        self.engine = engine
        self.network = network
        self.tasks = Tasks()
        self.asker = AsyncAsker(engine, self.tasks, resolvers, network)
        self.prober = AsyncProber(engine, self.asker, self.tasks, network)

    async def ready(self, service: Service, deadline_at: float) -> None:
        """As `Background.ready`."""
        self.prober.locate(service)
        steps = readiness(self.engine, service, deadline_at, self.asker.ask_all)
        landed: bool | None = None
        landing: _Landing | None = None
        with suppress(StopIteration):
            while True:
                flights, seconds = steps.send(landed)  # type: ignore[arg-type]  # None begins it
                if landed is not False or landing is None:
                    landing = _Landing(flights.values())  # one for all the waits for these flights
                landed = await landing.wait(seconds)

    def ask(
        self, question: Question, *, force: bool = False, allowed: bool = False, deadline_at: float | None = None
    ) -> Flight:
        """As `Background.ask`."""
        return self.asker.ask(question, force=force, allowed=allowed, deadline_at=deadline_at)

    async def wait_for_refresh(self, service: Service, call: Call) -> None:
        """As `Background.wait_for_refresh`."""
        if call.number and service.all_down:
            flights = self.engine.flights.in_flight(service.wanted())
            if flights:
                await _Landing(flights).wait(self.engine.patience(call))

    async def start_attempt(self, service: Service, call: Call, prefer: Node | None = None) -> Lease:
        """As `Background.start_attempt`."""
        if not service.admission.crowded:
            try:
                return self.engine.start_attempt(service, call, prefer)
            except Overloaded:
                pass
        return await self.wait_for_admission(
            service, call.connect_deadline_at, partial(self.engine.start_attempt, service, call)
        )

    async def wait_for_admission(self, service: Service, deadline_at: float, choose: Callable[[], T]) -> T:
        """As `Background.wait_for_admission`."""
        if not service.balancing.wait_for_room:
            return choose()
        gate = asyncio.Event()
        place = Place(partial(_open, asyncio.get_running_loop(), gate))
        with closing(admission(self.engine, service, deadline_at, place, choose)) as steps:
            while True:
                try:
                    left = next(steps)
                except StopIteration as end:
                    return end.value  # type: ignore[no-any-return]
                with suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await gate.wait()
                gate.clear()

    def force(self, questions: Sequence[Question]) -> None:
        """As `Background.force`."""
        self.asker.force(questions)

    def work(self, service: Service) -> None:
        """As `Background.work`."""
        self.prober.work(service)

    async def accepts(self, service: Service, endpoint: Endpoint) -> bool:
        """As `Background.accepts`."""
        return await self.prober.accepts(service, endpoint)

    def suspect(self, service: Service, node: Node) -> None:
        """As `Background.suspect`."""
        self.prober.suspect(service, node)

    # Life cycle

    async def aclose(self) -> None:
        """Cancel what runs in this loop, and wait for its end."""
        await self.tasks.end()
        self.asker.close()
        self.prober.close()


def _open(loop: asyncio.AbstractEventLoop, gate: asyncio.Event) -> bool:
    """Let the caller at the gate look. False if it cannot: the loop was closed meanwhile."""
    try:
        loop.call_soon_threadsafe(gate.set)
    except RuntimeError:
        return False
    return True


class _Landing:
    """The first of some flights to land. A flight that lands in this loop wakes it directly, which saves two turns."""

    def __init__(self, flights: Iterable[Flight]) -> None:
        self._loop = asyncio.get_running_loop()
        self._has_landed = False
        self._waiter: asyncio.Future[None] | None = None
        for flight in flights:
            flight.add_done_callback(self._landed)

    async def wait(self, timeout: float) -> bool:
        """True once one has landed, False after so many seconds. One caller waits at a time."""
        if not self._has_landed:
            # `asyncio.wait` and `asyncio.timeout` do the same in two turns of the loop more.
            self._waiter = waiter = self._loop.create_future()
            timer = self._loop.call_later(timeout, _wake, waiter)
            try:
                await waiter
            finally:
                timer.cancel()
        return self._has_landed

    def _landed(self, flight: Flight) -> None:
        if asyncio._get_running_loop() is self._loop:
            self._set()
            return
        with suppress(RuntimeError):  # it is closed: no caller waits there
            self._loop.call_soon_threadsafe(self._set)

    def _set(self) -> None:
        self._has_landed = True
        if self._waiter is not None:
            _wake(self._waiter)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
