"""`AsyncDiscovery`: drives the core with asyncio.

It stands in the same order as `client.py`; the two differ in awaits.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl as ssl_module
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import Random
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from ecs_discovery import retrying, sockets
from ecs_discovery.attempts import Attempt, as_os_error, judge_connect, no_connection, noted
from ecs_discovery.core.lease import Lease
from ecs_discovery.core.node import Node, Outcome
from ecs_discovery.core.retry import Call
from ecs_discovery.core.service import Service
from ecs_discovery.engine import GOOD, Engine, Judgement, judge_exception
from ecs_discovery.errors import ClosedError, ConfigurationError, DeadlineExceeded, NoEndpoints, ResolutionError
from ecs_discovery.events import Event
from ecs_discovery.flights import Flight
from ecs_discovery.models import Endpoint, Question, Resolution, is_address
from ecs_discovery.options import current_options
from ecs_discovery.resolvers.base import AsyncResolver
from ecs_discovery.settings import ServiceConfig, Settings
from ecs_discovery.snapshot import ServiceSnapshot

if TYPE_CHECKING:
    from ecs_discovery.client import Discovery

__all__ = ["AsyncDiscovery", "AsyncLeaseContext"]

T = TypeVar("T")
P = TypeVar("P", bound=asyncio.BaseProtocol)


class AsyncDiscovery:
    """Finds services and chooses among their endpoints, for asyncio. Usable from any number of event loops.

    Arguments are those of `Discovery`, with asynchronous `resolvers` and `sleep`. `share=discovery` joins
    the state of a `Discovery` (settings, cached answers, health, budgets, flights) instead; then nothing but
    `resolvers` and `sleep` may be given besides.

    Nothing is opened or started before it is used. Raises `ConfigurationError` for what cannot be used.
    """

    def __init__(
        self,
        *,
        share: Discovery | None = None,
        namespace: str | None = None,
        services: Mapping[str, str | Sequence[str] | ServiceConfig] | None = None,
        nameservers: Sequence[str] | None = None,
        settings: Settings | None = None,
        resolvers: Mapping[str, AsyncResolver] | None = None,
        on_event: Callable[[Event], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        dice: Random | None = None,
        **policies: Any,
    ) -> None:
        if share is not None:
            given = [namespace, services, nameservers, settings, on_event, dice, *policies.values()]
            if any(value is not None for value in given):
                raise ConfigurationError("share", share, "a Discovery, and then no settings of its own")
            self.engine = share.engine
        else:
            if settings is None:
                settings = Settings.make(namespace=namespace, services=services, nameservers=nameservers, **policies)
            self.engine = Engine(settings, resolvers=resolvers, on_event=on_event, clock=clock, dice=dice)
        self.settings = self.engine.settings
        self._shared = share is not None
        self._closed = False
        self._resolvers = dict(resolvers or {})
        self._sleep = sleep
        self._dns: AsyncResolver | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<AsyncDiscovery namespace={self.settings.namespace!r} {self.engine.directory!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("an AsyncDiscovery holds tasks and sockets and cannot be pickled: make one per process")

    # Resolving

    async def resolve(self, target: str, *, timeout: float | None = None) -> Resolution:
        """As `Discovery.resolve`."""
        service = self._service(target)
        if self.engine.clock() >= service.fresh_until:
            await self.ready(service, self._until(service, timeout))
        return self.engine.use(service)

    async def warm(self, *targets: str, timeout: float | None = None) -> None:
        """As `Discovery.warm`."""
        services = [self._service(target) for target in targets]
        for service in services:
            for question in self.engine.due(service).wait:
                self.ask(question)
        until = max((self._until(service, timeout) for service in services), default=0.0)
        for service in services:
            await self.ready(service, until)

    def snapshot(self, target: str) -> ServiceSnapshot:
        """As `Discovery.snapshot`."""
        return self.engine.snapshot(self._service(target))

    # Using

    def lease(self, target: str, *, key: str | bytes | None = None) -> AsyncLeaseContext:
        """As `Discovery.lease`, for `async with`."""
        return AsyncLeaseContext(self, self._service(target), key)

    async def call(
        self,
        target: str,
        fetch: Callable[[Attempt], Awaitable[T]],
        *,
        idempotent: bool = False,
        deadline: float | None = None,
        key: str | bytes | None = None,
    ) -> T:
        """As `Discovery.call`. A given `deadline` is hard: `fetch` is cancelled and `DeadlineExceeded` raised."""
        service = self._service(target)
        limit = deadline if deadline is not None else current_options().deadline
        call = self.engine.call(service, idempotent=idempotent, deadline=limit)
        is_failure = self.settings.outlier.is_failure

        async def attempt(lease: Lease) -> T:
            return await fetch(Attempt(lease.endpoint, call, self.engine.clock))

        def judge(result: T | None, error: Exception | None) -> Judgement:
            return GOOD if error is None else judge_exception(error, is_failure)

        hard = asyncio.timeout(limit)
        try:
            async with hard:
                await self.ready(service, call.connect_until if limit is None else call.deadline)
                return await self.run(service, call, attempt, judge, key=key)
        except Exception as error:
            if hard.expired() and isinstance(error, TimeoutError):
                raise DeadlineExceeded(
                    f"not done within {limit:g} s", target=service.target, attempts=call.reports
                ) from error
            noted(error, call)
            raise

    async def open_connection(
        self,
        target: str,
        *,
        timeout: float | None = None,
        ssl: ssl_module.SSLContext | bool | None = None,
        server_hostname: str | None = None,
        **stream_options: Any,
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """As `Discovery.connect`, as a pair of streams. `stream_options` go to `asyncio.StreamReader` (`limit=`)."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop, **stream_options)
        transport, protocol = await self.create_connection(
            lambda: asyncio.StreamReaderProtocol(reader, loop=loop),
            target,
            timeout=timeout,
            ssl=ssl,
            server_hostname=server_hostname,
        )
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    async def create_connection(
        self,
        protocol_factory: Callable[[], P],
        target: str,
        *,
        timeout: float | None = None,
        ssl: ssl_module.SSLContext | bool | None = None,
        server_hostname: str | None = None,
    ) -> tuple[asyncio.Transport, P]:
        """As `Discovery.connect`, as a transport and a protocol. `protocol_factory` is called once per connection."""
        service = self._service(target)
        limit = self._limit(service, timeout)
        call = self.engine.call(service, idempotent=True, deadline=limit, connect=limit)
        context = ssl_module.create_default_context() if ssl is True else ssl or None
        name = (server_hostname or service.tls_name) if context is not None else None

        async def attempt(lease: Lease) -> tuple[asyncio.Transport, P]:
            async with asyncio.timeout(self.engine.connect_limit(service, call)):
                sock = await _connect(lease.endpoint)
                try:
                    return await asyncio.get_running_loop().create_connection(
                        protocol_factory, sock=sock, ssl=context, server_hostname=name
                    )
                except BaseException:
                    sock.close()
                    raise

        try:
            await self.ready(service, call.connect_until)
            return await self.run(service, call, attempt, judge_connect)
        except ResolutionError as error:
            raise as_os_error(error) from error.__cause__
        except OSError as error:
            raise no_connection(call, error) from error

    # Life cycle

    async def aclose(self) -> None:
        """Stop what runs in the background. Using it afterwards raises `ClosedError`. A shared state stays open."""
        self._closed = True
        if not self._shared:
            self.engine.close()
        loop = asyncio.get_running_loop()
        mine = [task for task in self._tasks if task.get_loop() is loop]
        for task in mine:
            task.cancel()
        await asyncio.gather(*mine, return_exceptions=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # For integrations

    async def ready(self, service: Service, until: float) -> None:
        """As `Discovery.ready`."""
        engine = self.engine
        waited = False
        while engine.clock() >= service.fresh_until:
            due = engine.due(service, waited=waited)
            for question in due.ask:
                self.ask(question)
            if due.error is not None:
                raise due.error
            if not due.wait:
                return
            flights = [self.ask(question) for question in due.wait]
            left = until - engine.clock()
            if left <= 0 or not await _any_landed(flights, left):
                if service.resolution is not None:
                    return
                raise engine.too_slow(service)
            waited = all(flight.done() for flight in flights)

    def ask(self, question: Question, *, force: bool = False) -> Flight:
        """As `Discovery.ask`."""
        flight, leads = self.engine.flights.join(question)
        if leads:
            self._spawn(self._fly(question, flight, force))
        return flight

    async def run(
        self,
        service: Service,
        call: Call,
        attempt: Callable[[Lease], Awaitable[T]],
        judge: Callable[[T | None, Exception | None], Judgement],
        *,
        key: str | bytes | None = None,
    ) -> T:
        """As `Discovery.run`."""

        async def once() -> T:
            lease = self.engine.begin(service, call, key)
            if service.reconnects_due:
                self.reconnect(service)
            try:
                result = await attempt(lease)
            except Exception as error:
                self.force(self.engine.settle(call, lease, judge(None, error), error))
                raise
            except BaseException:
                lease.release()
                raise
            judgement = judge(result, None)
            self.force(self.engine.settle(call, lease, judgement, "" if judgement.failure is None else judgement.label))
            return result

        return await self.pursue(call, once)

    async def pursue(self, call: Call, once: Callable[[], Awaitable[T]]) -> T:
        """As `Discovery.pursue`."""
        try:
            result = await once()
        except Exception as error:
            if call.wait is None:
                raise
            failed = error

            async def first() -> T:
                raise failed

            return await retrying.go_on_async(first, once, lambda: call.wait, self._sleep)
        if call.wait is None:
            return result

        async def again() -> T:
            return result

        return await retrying.go_on_async(again, once, lambda: call.wait, self._sleep)

    def force(self, questions: Sequence[Question]) -> None:
        """As `Discovery.force`."""
        for question in questions:
            self.ask(question, force=True)

    def reconnect(self, service: Service) -> None:
        """As `Discovery.reconnect`."""
        for node in service.take_reconnects():
            self._spawn(self._reconnect(service, node))

    # In tasks

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _fly(self, question: Question, flight: Flight, force: bool) -> None:
        engine = self.engine
        following: tuple[Question, ...] = ()
        try:
            if force or not engine.settled(question):
                following = engine.landed(question, await self._look_up(question))
        finally:
            engine.flights.land(question, flight)
        for other in following:
            self.ask(other)

    async def _look_up(self, question: Question) -> Resolution | Exception:
        self.engine.queries += 1
        try:
            return await self._resolver(question.scheme).resolve(question, self.settings.dns.timeout)
        except ResolutionError as error:
            return error
        except Exception as error:  # noqa: BLE001  # a resolver's fault is an answer too: callers wait for one
            return self.engine.unexpected(question, error)

    def _resolver(self, scheme: str) -> AsyncResolver:
        given = self._resolvers.get(scheme)
        if given is not None:
            return given
        if self._dns is None:
            from ecs_discovery.resolvers.dns_async import AsyncDnsResolver  # heavy: not before it is needed

            self._dns = AsyncDnsResolver(self.settings.dns)
        return self._dns

    async def _reconnect(self, service: Service, node: Node) -> None:
        try:
            async with asyncio.timeout(self.settings.timeout.connect):
                (await _connect(node.endpoint)).close()
        except OSError:
            self.engine.reconnected(service, node, False)
        else:
            self.engine.reconnected(service, node, True)

    # Time limits

    def _service(self, target: str) -> Service:
        if self._closed:
            raise ClosedError("this discovery is closed", target=str(target), hint="make a new one")
        return self.engine.service(target)

    def _limit(self, service: Service, timeout: float | None) -> float:
        if timeout is not None:
            return timeout
        chosen = current_options().deadline
        return chosen if chosen is not None else service.timeout.connect

    def _until(self, service: Service, timeout: float | None) -> float:
        return self.engine.clock() + self._limit(service, timeout)


class AsyncLeaseContext:
    """What `AsyncDiscovery.lease` returns: enter it with `async with` to get an endpoint."""

    __slots__ = ("_discovery", "_failed", "_key", "_lease", "_service")

    def __init__(self, discovery: AsyncDiscovery, service: Service, key: str | bytes | None) -> None:
        self._discovery = discovery
        self._service = service
        self._key = key
        self._lease: Lease | None = None
        self._failed = False

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint leased. Raises `ClosedError` outside the block."""
        if self._lease is None:
            raise ClosedError("the lease is used outside its `async with` block", target=self._service.target)
        return self._lease.node.endpoint

    @property
    def host(self) -> str:
        """Its address."""
        return self.endpoint.host

    @property
    def port(self) -> int:
        """Its port."""
        return self.endpoint.port

    def fail(self) -> None:
        """Count this use as the endpoint's failure, although no exception leaves the block."""
        self._failed = True

    async def __aenter__(self) -> Self:
        discovery, service = self._discovery, self._service
        engine = discovery.engine
        now = engine.clock()
        if now >= service.fresh_until:
            await discovery.ready(service, now + service.timeout.connect)
        node = service.pick(now, (), self._key)
        if node is None:
            raise NoEndpoints("has no endpoints now", target=service.target)
        self._failed = False
        self._lease = Lease(service, node, now)
        if service.reconnects_due:
            discovery.reconnect(service)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        lease, self._lease = self._lease, None
        if lease is None:
            return
        engine = self._discovery.engine
        if error is None:
            outcome = Outcome.FAILURE if self._failed else Outcome.SUCCESS
        elif isinstance(error, Exception):
            outcome = judge_exception(error, self._discovery.settings.outlier.is_failure).outcome
        else:
            outcome = Outcome.NEUTRAL
        now = engine.clock()
        if lease.finish(outcome, now):
            engine.tell(self._service)
        if outcome is Outcome.CONNECT:
            self._discovery.force(self._service.force(now, self._discovery.settings.dns.min_refresh))


async def _any_landed(flights: Sequence[Flight], timeout: float) -> bool:
    waiters = [asyncio.wrap_future(flight) for flight in flights]
    try:
        done, _ = await asyncio.wait(waiters, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for waiter in waiters:  # ends the waiting only: a flight that runs cannot be cancelled
            waiter.cancel()
    return bool(done)


async def _connect(endpoint: Endpoint) -> socket.socket:
    loop = asyncio.get_running_loop()
    address: Any = (endpoint.host, endpoint.port)
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    if not is_address(endpoint.host):  # discovery is switched off: the system resolves, as it would without us
        found = await loop.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
        family, _, _, _, address = found[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            sockets.tune(sock)
        await loop.sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock
