"""The background of an `AsyncDiscovery`: lookups, reconnects and health checks in tasks, and waiting for them.

It stands in the same order as `sync/background.py`; the two differ in awaits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from ecs_discovery.client.aio.health_check import examine
from ecs_discovery.client.engine import Engine
from ecs_discovery.client.health_check import INCONCLUSIVE, report
from ecs_discovery.core.balancing.health_checks import Check
from ecs_discovery.core.balancing.node import Node
from ecs_discovery.core.calls import liveness
from ecs_discovery.core.calls.admission import Place
from ecs_discovery.core.calls.call import Call
from ecs_discovery.core.calls.race import probe_timeout
from ecs_discovery.core.lease import Lease
from ecs_discovery.core.service import Service
from ecs_discovery.errors import Overloaded, ResolutionError
from ecs_discovery.models import DNS_SCHEMES, Endpoint, Question, Resolution
from ecs_discovery.resolvers.base import AsyncResolver, Queueing, Resolver
from ecs_discovery.resolvers.in_threads import for_asyncio
from ecs_discovery.resolvers.registry import load
from ecs_discovery.resolvers.static import AsyncStaticResolver
from ecs_discovery.runtime import sockets
from ecs_discovery.runtime.single_flight import Flight
from ecs_discovery.runtime.sockets import ConnectResult, sign_of
from ecs_discovery.runtime.task_metadata import own_zone
from ecs_discovery.runtime.workers import Workers

__all__ = ["AsyncBackground"]

T = TypeVar("T")

_LOOK_INTERVAL = 0.25  # seconds between looks whether a leader still works on what is waited for
_LONGEST = 5.0  # seconds after which a look at an endpoint has been lost, and another may begin


class AsyncBackground:
    """Runs what must not hold up a caller, in tasks of the loop that asked for it."""

    def __init__(self, engine: Engine, resolvers: Mapping[str, AsyncResolver | Resolver]) -> None:
        self.engine = engine
        self.dns: AsyncResolver | None = None
        """The resolver for DNS; made when first needed."""
        self.tasks: set[asyncio.Task[None]] = set()
        self._workers = Workers()
        self._own: dict[str, Workers] = {}  # per resolver that is not asynchronous: if it blocks, others go on
        self._closed = False
        self._resolvers = {scheme: for_asyncio(each, self._pool(scheme)) for scheme, each in resolvers.items()}

    async def ready(self, service: Service, until: float) -> None:
        """As `Background.ready`."""
        engine = self.engine
        if engine.locating(service):
            self._workers.spawn(self._locate)
        waited: set[Question] = set()
        began = engine.clock()
        while engine.clock() >= service.refresh_at:
            due = engine.due(service, waited=waited)
            for question in due.ask:
                self.ask(question)
            if due.error is not None:
                raise due.error
            if due.again and service.resolution is None:
                continue  # another caller took over newer answers meanwhile: look at those
            if not due.wait:
                return
            flights = {question: self.ask(question, until=until) for question in due.wait}
            left = until - engine.clock()
            if service.resolution is not None:
                left /= 2  # what is known will do: leave time to connect
            if left <= 0 or not await self._any_landed(flights, left):
                if service.resolution is not None:
                    return
                raise engine.too_slow(service, until - began)
            engine.check_open(service.target)
            waited.update(question for question, flight in flights.items() if flight.done())

    async def _any_landed(self, flights: Mapping[Question, Flight], timeout: float) -> bool:
        clock = self.engine.clock
        until = clock() + timeout
        landing = _Landing(flights.values())
        left = timeout
        while left > 0:
            if await landing.wait(min(left, _LOOK_INTERVAL)):
                return True
            self.engine.flights.end_lost(flights, clock())  # another loop may lead it, and run no more
            left = min(left - _LOOK_INTERVAL, until - clock())
        return False

    def ask(
        self, question: Question, *, force: bool = False, allowed: bool = False, until: float | None = None
    ) -> Flight:
        """As `Background.ask`."""
        if force:  # before the flight is joined: one that is in flight must not answer from memory either
            self.engine.forget(self._resolver(question.scheme), question)
        flight, leads = self.engine.join(question, asyncio.get_running_loop(), until)
        if leads:
            task = self._spawn(self._fly(question, flight, force, allowed))
            # Also when it is cancelled before its first step.
            task.add_done_callback(partial(self._landed, question, flight))
        return flight

    def _pool(self, scheme: str) -> Workers:
        """The threads for lookups of a scheme whose resolver is not asynchronous."""
        found = self._own.get(scheme)
        if found is None:
            found = self._own.setdefault(scheme, Workers())  # all who come at once get the first
            if self._closed:
                found.close()
        return found

    def _landed(self, question: Question, flight: Flight, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            self.engine.lost(question)
        self.engine.flights.land(question, flight)

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

    async def wait_for_admission(self, service: Service, until: float, choose: Callable[[], T]) -> T:
        """As `Background.wait_for_admission`."""
        if not service.balancing.wait_for_room:
            return choose()
        room, gate = service.admission, asyncio.Event()
        place = Place(partial(_open, asyncio.get_running_loop(), gate))
        try:
            room.queue(place)
            while True:
                left = until - self.engine.clock()
                if room.turn(place):
                    try:
                        return choose()
                    except Overloaded:
                        if left <= 0:
                            raise
                elif left <= 0:
                    raise service.unusable()
                with suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await gate.wait()
                gate.clear()
        finally:
            room.leave(place)

    def force(self, questions: Sequence[Question]) -> None:
        """As `Background.force`."""
        for question in questions:
            self.ask(question, force=True)

    def work(self, service: Service) -> None:
        """As `Background.work`."""
        for node in service.pop_reconnects():
            self._spawn(self._reconnect(service, node))
        for check in service.pop_checks(self.engine.clock()):
            self._spawn(self._examine(service, check))

    async def accepts(self, service: Service, endpoint: Endpoint) -> bool:
        """As `Background.accepts`."""
        return await self._look(service, endpoint) is ConnectResult.ACCEPTS

    def suspect(self, service: Service, node: Node) -> None:
        """As `Background.suspect`."""
        if liveness.try_start_probe(node, self.engine.clock(), _LONGEST):
            self._spawn(self._check(service, node))

    # In tasks

    async def _check(self, service: Service, node: Node) -> None:
        try:
            began = self.engine.clock()
            sign = await self._look(service, node.endpoint)
        finally:
            liveness.end_probe(node)
        self.force(self.engine.looked(service, node, sign, began))

    async def _look(self, service: Service, endpoint: Endpoint) -> ConnectResult:
        limit, loop = probe_timeout(service.connect_time), asyncio.get_running_loop()
        while True:
            until = loop.time() + limit
            try:
                async with asyncio.timeout(limit):
                    (await sockets.connect_async(endpoint)).close()
            except OSError as error:
                if isinstance(error, TimeoutError) and loop.time() > until + limit / 2:
                    continue  # the loop was held up: whether an answer came in time, it cannot tell
                return sign_of(error)
            return ConnectResult.ACCEPTS

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        for old in self.tasks.copy():  # in one step: loops in other threads add to it and take away
            if old.get_loop().is_closed():
                self.tasks.discard(old)
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def _fly(self, question: Question, flight: Flight, force: bool, allowed: bool) -> None:
        engine = self.engine
        following: tuple[Question, ...] = ()
        if force or not engine.is_answered(question):
            outcome = await self._lookup(question, flight, allowed)
            if outcome is not None or not flight.done():  # None may be a resolver's answer too
                following = engine.landed(question, outcome)  # type: ignore[arg-type]  # it looks what it is
        engine.flights.land(question, flight)  # whatever else ends it: see `_landed`
        for other in following:
            self.ask(other)

    async def _lookup(self, question: Question, flight: Flight, allowed: bool) -> Resolution | Exception | None:
        """None, and the flight has landed, if no caller waited for it any more when its turn came."""
        start_attempt = partial(self.engine.start_lookup, question, flight)
        refused = None if allowed else self.engine.refusal(question)
        if refused is not None:
            return refused
        try:
            resolver, limit = self._resolver(question.scheme), self.engine.limit(question)
            if isinstance(resolver, Queueing):
                return await resolver.resolve_in_turn(question, limit, start_attempt)
            return await resolver.resolve(question, limit) if start_attempt() else None
        except ResolutionError as error:
            return error
        except Exception as error:  # noqa: BLE001  # a resolver's fault is an answer too: callers wait for one
            return self.engine.unexpected(question, error)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return self.engine.unexpected(question, error)  # this task was not cancelled: it is the resolver's own
        except (KeyboardInterrupt, SystemExit) as error:  # without an answer it would be asked again at once
            self.engine.landed(question, self.engine.unexpected(question, error))
            raise

    def _resolver(self, scheme: str) -> AsyncResolver:
        given = self._resolvers.get(scheme)
        if given is not None:
            return given
        if scheme == "static":
            return AsyncStaticResolver()
        if scheme == "cloudmap":
            return self._make_cloud_map()
        if scheme not in DNS_SCHEMES:
            # What the Discovery whose state is shared was given, or has loaded, serves here too.
            found = self.engine.resolvers.get(scheme) or load(scheme)
            return self._resolvers.setdefault(scheme, for_asyncio(found, self._pool(scheme)))
        if self.dns is None:
            from ecs_discovery.resolvers.dns.aio import AsyncDnsResolver  # heavy: not before it is needed

            self.dns = AsyncDnsResolver(self.engine.settings.dns, may_ask=self.engine.may_query)
        return self.dns

    def _make_cloud_map(self) -> AsyncResolver:
        from ecs_discovery.resolvers.cloud_map.aio import AsyncCloudMapResolver
        from ecs_discovery.resolvers.cloud_map.sync import CloudMapResolver

        joined = self.engine.resolvers.get("cloudmap")  # what the Discovery whose state is shared was given
        if joined is not None and not isinstance(joined, CloudMapResolver):
            return self._resolvers.setdefault("cloudmap", for_asyncio(joined, self._pool("cloudmap")))
        found = joined if joined is not None else self.engine.cloud_map()
        return self._resolvers.setdefault("cloudmap", AsyncCloudMapResolver(share=found))

    def _locate(self) -> None:
        self.engine.located(own_zone())

    async def _reconnect(self, service: Service, node: Node) -> None:
        try:
            async with asyncio.timeout(self.engine.settings.timeout.connect):
                (await sockets.connect_async(node.endpoint)).close()
        except OSError:
            self.engine.reconnected(service, node, False)
        else:
            self.engine.reconnected(service, node, True)

    async def _examine(self, service: Service, check: Check) -> None:
        found = INCONCLUSIVE
        try:
            found = await examine(check)
        finally:
            self.force(report(self.engine, service, check, found))
        self.work(service)

    # Life cycle

    async def aclose(self) -> None:
        """Cancel what runs in this loop, and wait for its end."""
        loop = asyncio.get_running_loop()
        mine = [task for task in self.tasks.copy() if task.get_loop() is loop]
        for task in mine:
            task.cancel()
        await asyncio.gather(*mine, return_exceptions=True)
        self._closed = True
        for workers in (self._workers, *self._own.copy().values()):
            workers.close()


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
        self._first: asyncio.Future[None] = self._loop.create_future()
        for flight in flights:
            flight.add_done_callback(self._landed)

    async def wait(self, timeout: float) -> bool:
        """True once one has landed, False after so many seconds."""
        if not self._first.done():
            await asyncio.wait((self._first,), timeout=timeout)
        return self._first.done()

    def _landed(self, flight: Flight) -> None:
        if asyncio._get_running_loop() is self._loop:
            self._set()
            return
        with suppress(RuntimeError):  # it is closed: no caller waits there
            self._loop.call_soon_threadsafe(self._set)

    def _set(self) -> None:
        if not self._first.done():
            self._first.set_result(None)
