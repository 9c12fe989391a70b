"""`AsyncDiscovery`: drives the core with asyncio.

It stands in the same order as `sync/discovery.py`; the two differ in awaits.
"""

from __future__ import annotations

import asyncio
import ssl as ssl_module
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from ecs_discovery.client.aio import race, transports
from ecs_discovery.client.aio.attempt import SILENT, AsyncAttempt, Vanished, perform
from ecs_discovery.client.aio.driver import AsyncDriver
from ecs_discovery.client.aio.lease import AsyncLeaseContext
from ecs_discovery.client.aio.network import SYSTEM
from ecs_discovery.client.attempt import check_fetch
from ecs_discovery.client.engine import Engine, Telemetry
from ecs_discovery.client.errors import Elsewhere, as_os_error, no_connection, noted
from ecs_discovery.client.failures import failure_of, judge_connect, judge_exception
from ecs_discovery.client.lease_scope import lease_scope
from ecs_discovery.client.snapshot import ServiceSnapshot
from ecs_discovery.client.tls import verified_name
from ecs_discovery.config.options import check_flag, check_key, check_seconds, current_options
from ecs_discovery.config.settings import Policies, ServiceConfig, Settings
from ecs_discovery.core.calls.failure_kinds import GOOD, FailureKind, Judgement
from ecs_discovery.core.lease import Lease
from ecs_discovery.core.service import Service
from ecs_discovery.errors import ClosedError, ConfigurationError, DeadlineExceeded, ResolutionError
from ecs_discovery.events import Event
from ecs_discovery.models import Resolution
from ecs_discovery.resolvers.base import AsyncResolver, Resolver

if TYPE_CHECKING:
    from ecs_discovery.client.sync.discovery import Discovery

__all__ = ["AsyncDiscovery"]

T = TypeVar("T")
P = TypeVar("P", bound=asyncio.BaseProtocol)


class AsyncDiscovery:
    """Finds services and chooses among their endpoints, for asyncio. Usable from any number of event loops.

    The arguments are the same as for `Discovery`, with an asynchronous `sleep`; `resolvers` may be of either kind.
    `share=discovery` joins the state of a `Discovery` instead: settings, resolvers, cached answers, health, budgets and
    flights. Besides it only `resolvers` and `sleep` may be given. These `resolvers` go before the `Discovery`'s
    resolvers.

    Nothing is opened or started before it is used. Raises `ConfigurationError` for what cannot be used.
    """

    _network = SYSTEM
    """A subclass of a simulated world sets its own before it calls `__init__`."""

    def __init__(
        self,
        *,
        share: Discovery | None = None,
        namespace: str | None = None,
        services: Mapping[str, str | Sequence[str] | ServiceConfig] | None = None,
        nameservers: Sequence[str] | None = None,
        settings: Settings | None = None,
        resolvers: Mapping[str, AsyncResolver | Resolver] | None = None,
        on_event: Callable[[Event], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        rng: Random | None = None,
        telemetry: Telemetry | None = None,
        **policies: Unpack[Policies],
    ) -> None:
        if share is not None:
            given = [namespace, services, nameservers, settings, on_event, rng, telemetry, *policies.values()]
            if any(value is not None for value in given):
                raise ConfigurationError("share", share, "a Discovery, and then no settings of its own")
            self._engine = share._driver.engine
        else:
            settings = Settings.make(
                namespace=namespace, services=services, nameservers=nameservers, ready=settings, **policies
            )
            self._engine = Engine(
                settings, resolvers=resolvers, on_event=on_event, clock=clock, rng=rng, telemetry=telemetry
            )
        self.settings = self._engine.settings
        self._shared = share  # the default of its settings lives as long as this does
        self._closed = False
        self._driver = AsyncDriver(self._engine, sleep, resolvers or {}, self._network)
        self._background = self._driver.background

    def __repr__(self) -> str:
        return f"<AsyncDiscovery namespace={self.settings.namespace!r} {self._engine.directory!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("an AsyncDiscovery holds tasks and sockets and cannot be pickled: make one per process")

    if not TYPE_CHECKING:
        connect = Elsewhere("open_connection")
        close = Elsewhere("aclose")

    # Resolving

    async def resolve(self, target: str, *, timeout: float | None = None) -> Resolution:
        """As `Discovery.resolve`."""
        service = self._service(target)
        if self._engine.clock() >= service.refresh_at:
            await self._background.ready(service, self._deadline_at(service, timeout))
        return self._engine.use(service)

    async def warm(self, *targets: str, timeout: float | None = None) -> None:
        """As `Discovery.warm`."""
        services = [self._service(target) for target in targets]
        deadline_at = max((self._deadline_at(service, timeout) for service in services), default=0.0)
        for service in services:
            for question in self._engine.due(service).wait:
                while (delay := self._engine.delay(question)) and self._engine.clock() + delay < deadline_at:
                    await self._driver.sleep(delay)  # there is time: more names than may be asked for at once
                self._background.ask(question, allowed=not delay, deadline_at=deadline_at)
        for service in services:
            await self._background.ready(service, deadline_at)

    def snapshot(self, target: str) -> ServiceSnapshot:
        """As `Discovery.snapshot`."""
        self._check_open(target)
        return self._engine.snapshot(self._engine.known(target))

    # Using

    def lease(self, target: str, *, key: str | bytes | None = None) -> AsyncLeaseContext:
        """As `Discovery.lease`, for `async with`."""
        return lease_scope(AsyncLeaseContext, self._driver, self._service(target), key)

    async def call(
        self,
        target: str,
        fetch: Callable[[AsyncAttempt], Awaitable[T]],
        *,
        idempotent: bool | None = None,
        deadline: float | None = None,
        key: str | bytes | None = None,
    ) -> T:
        """As `Discovery.call`. A given `deadline` is hard: `fetch` is cancelled and `DeadlineExceeded` raised.

        Hand the connection to `attempt.watch(writer)` to have a task that vanishes found out in time.
        """
        service = self._service(target)
        check_fetch(fetch, asynchronous=True)
        limit = current_options().deadline if deadline is None else check_seconds("deadline", deadline)
        check_key("key", key)
        check_flag("idempotent", idempotent)
        if limit is not None and limit <= 0:
            raise DeadlineExceeded(
                f"the deadline of {limit:g} s had passed before the call began", target=service.target
            )
        call = self._engine.call(service, idempotent=idempotent, deadline=limit, key=key)
        is_failure = service.outlier.is_failure
        handled = sys.exception()
        ack_timeout = self.settings.connection.ack_timeout
        accepting: list[Exception] = []  # refusals after which the endpoint was found to accept connections

        async def attempt(lease: Lease) -> T:
            try:
                return await perform(AsyncAttempt(lease.node, call, self._engine.clock, ack_timeout, service), fetch)
            except Exception as error:
                if isinstance(error, Vanished):
                    self._engine.vanished(lease.node, self._engine.clock() - ack_timeout)  # others may wait for it
                # Whose refusal was it? `fetch` may talk to others too.
                if failure_of(error, handled) is FailureKind.NOT_SENT and await self._background.accepts(
                    service, lease.endpoint
                ):
                    accepting.append(error)
                raise

        def judge(result: T | None, error: Exception | None) -> Judgement:
            if error is None:
                return GOOD
            if isinstance(error, Vanished):
                return SILENT
            accepts = any(error is each for each in accepting)
            return judge_exception(error, is_failure, accepts=accepts, handled=handled)

        hard = asyncio.timeout(limit)
        try:
            async with hard:
                lookup_deadline_at = call.connect_deadline_at if limit is None else call.deadline_at
                return await self._driver.run(service, call, attempt, judge, lookup_deadline_at, service.hedging)
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
        call = self._engine.call(service, idempotent=True, deadline=limit, connect=limit)
        context = ssl_module.create_default_context() if ssl is True else ssl or None
        name = verified_name(context, server_hostname, service)

        async def attempt(lease: Lease) -> tuple[asyncio.Transport, P]:
            sock = await race.connect(self._background, call, lease)
            async with asyncio.timeout(self._engine.connect_limit(service, call)):
                return await transports.create(sock, protocol_factory, context, name)

        try:
            return await self._driver.run(
                service, call, attempt, judge_connect, call.connect_deadline_at, kind="connect"
            )
        except ResolutionError as error:
            raise as_os_error(error) from error.__cause__
        except OSError as error:
            raise no_connection(call, error) from error

    # Life cycle

    async def aclose(self) -> None:
        """Stop what runs in the background. Using it afterwards raises `ClosedError`. A shared state stays open."""
        self._closed = True
        if self._shared is None:
            self._engine.close()
        await self._background.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # Time limits

    def _service(self, target: str) -> Service:
        self._check_open(target)
        return self._engine.service(target)

    def _check_open(self, target: str) -> None:
        if self._closed:
            raise ClosedError("this discovery is closed", target=str(target), hint="make a new discovery")

    def _limit(self, service: Service, timeout: float | None) -> float:
        if timeout is not None:
            return check_seconds("timeout", timeout)
        chosen = current_options().deadline
        return chosen if chosen is not None else service.timeout.connect

    def _deadline_at(self, service: Service, timeout: float | None) -> float:
        return self._engine.clock() + self._limit(service, timeout)
