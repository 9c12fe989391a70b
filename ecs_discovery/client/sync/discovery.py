"""`Discovery`: drives the core with blocking I/O, for threads.

It stands in the same order as `aio/discovery.py`; the two differ in awaits.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from random import Random
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from ecs_discovery.client.attempt import Attempt, check_fetch
from ecs_discovery.client.engine import Engine, Telemetry
from ecs_discovery.client.errors import Elsewhere, as_os_error, no_connection, noted
from ecs_discovery.client.failures import failure_of, judge_connect, judge_exception
from ecs_discovery.client.lease_scope import lease_scope
from ecs_discovery.client.sync import race
from ecs_discovery.client.sync.driver import Driver
from ecs_discovery.client.sync.lease import LeaseContext
from ecs_discovery.client.tls import default_context, verified_name
from ecs_discovery.config.options import check_flag, check_key, check_seconds, current_options
from ecs_discovery.config.settings import Policies, ServiceConfig, Settings
from ecs_discovery.core.calls.failure_kinds import GOOD, FailureKind, Judgement
from ecs_discovery.core.lease import Lease
from ecs_discovery.core.service import Service
from ecs_discovery.errors import ConfigurationError, DeadlineExceeded, ResolutionError
from ecs_discovery.events import Event
from ecs_discovery.models import Resolution
from ecs_discovery.resolvers.base import Resolver
from ecs_discovery.runtime import sockets

if TYPE_CHECKING:
    import ssl as ssl_module

    from ecs_discovery.client.snapshot import ServiceSnapshot

__all__ = ["Discovery"]

T = TypeVar("T")


class Discovery:
    """Finds services and chooses among their endpoints, for threads. Thread-safe; make one per process and keep it.

    `namespace`: the DNS namespace of your services, such as `prod.local`; short names are completed with it.
    `services`: name → target, row of targets, or `ServiceConfig`. `nameservers`: `address` or `address:port`;
    the system's if None. Policies by name: `cache`, `dns`, `cloud_map`, `balancing`, `outlier`, `retry`,
    `timeout`, `connection`, `zone`, `hedge`, `health_check`. `resolvers`: scheme → resolver of your own.
    `on_event` is called with each event (see `ecs_discovery.events`). `telemetry` makes it seen: an `OpenTelemetry` of
    `ecs_discovery.telemetry.opentelemetry`. What is not given is taken from
    `ECS_DISCOVERY_…` variables, then from defaults.

    `settings`: ready `Settings`, alone. `clock` gives monotonic seconds, `sleep(seconds)` waits, and `rng` is a
    `random.Random`; these three are for tests.

    Nothing is opened or started before it is used. Raises `ConfigurationError` for what cannot be used.
    """

    def __init__(
        self,
        *,
        namespace: str | None = None,
        services: Mapping[str, str | Sequence[str] | ServiceConfig] | None = None,
        nameservers: Sequence[str] | None = None,
        settings: Settings | None = None,
        resolvers: Mapping[str, Resolver] | None = None,
        on_event: Callable[[Event], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        rng: Random | None = None,
        telemetry: Telemetry | None = None,
        **policies: Unpack[Policies],
    ) -> None:
        settings = Settings.make(
            namespace=namespace, services=services, nameservers=nameservers, ready=settings, **policies
        )
        settings.check_for_threads()
        self.settings = settings
        self._engine = Engine(
            settings, resolvers=resolvers, on_event=on_event, clock=clock, rng=rng, telemetry=telemetry
        )
        self._driver = Driver(self._engine, sleep)
        self._background = self._driver.background

    def __repr__(self) -> str:
        return f"<Discovery namespace={self.settings.namespace!r} {self._engine.directory!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a Discovery holds threads and sockets and cannot be pickled: make one per process")

    if not TYPE_CHECKING:
        open_connection = Elsewhere("connect")
        create_connection = Elsewhere("connect")
        aclose = Elsewhere("close")

    # Resolving

    def resolve(self, target: str, *, timeout: float | None = None) -> Resolution:
        """The endpoints of a target, from the cache while that holds.

        Waits only when nothing is known yet, or when no call asked for long; `timeout` seconds at most
        (default: the service's `TimeoutPolicy.connect`). Raises `ClosedError`, `ConfigurationError` for what is no
        target, and `ResolutionError` and its kinds.
        """
        service = self._engine.service(target)
        if self._engine.clock() >= service.refresh_at:
            self._background.ready(service, self._deadline_at(service, timeout))
        return self._engine.use(service)

    def warm(self, *targets: str, timeout: float | None = None) -> None:
        """Resolve targets before they are needed, all at once: for start-up and readiness checks.

        `timeout` seconds are for all together (default: the longest `TimeoutPolicy.connect` of their services).
        Raises `ClosedError`, `ConfigurationError` for what is no target, and the `ResolutionError` of the first target
        that is not resolved in time.
        """
        services = [self._engine.service(target) for target in targets]
        deadline_at = max((self._deadline_at(service, timeout) for service in services), default=0.0)
        for service in services:
            for question in self._engine.due(service).wait:
                while (delay := self._engine.delay(question)) and self._engine.clock() + delay < deadline_at:
                    self._driver.sleep(delay)  # there is time: more names than may be asked for at once
                self._background.ask(question, allowed=not delay, deadline_at=deadline_at)
        for service in services:
            self._background.ready(service, deadline_at)

    def snapshot(self, target: str) -> ServiceSnapshot:
        """What is known of a target and why. Sends no query. Raises `ClosedError` and `ConfigurationError`."""
        return self._engine.snapshot(self._engine.known(target))

    # Using

    def lease(self, target: str, *, key: str | bytes | None = None) -> LeaseContext:
        """One use of an endpoint, for any client library, as a context manager.

        Inside the block `lease.host` and `lease.port` say where to connect. An exception counts as the endpoint's
        failure. Without an exception, `lease.fail()` counts a failure. With `key`, the same key goes to the same
        endpoint while it is usable. Entering raises `ResolutionError`, or `Overloaded` after the connect time."""
        return lease_scope(LeaseContext, self._driver, self._engine.service(target), key)

    def call(
        self,
        target: str,
        fetch: Callable[[Attempt], T],
        *,
        idempotent: bool | None = None,
        deadline: float | None = None,
        key: str | bytes | None = None,
    ) -> T:
        """Call `fetch(attempt)` with an endpoint, and again with others where that may help.

        A refused connection is always tried elsewhere. With `idempotent=True` the same holds for any `OSError` or
        `EOFError`, and for an error with such a cause (default: what `options` says, else False). No attempt begins
        after `deadline` seconds (default: the service's `TimeoutPolicy.deadline`). Pass `attempt.remaining` on as your
        own timeout to make it hard. Your exceptions come out as they are, with a note on what was tried. Raises
        `DeadlineExceeded`, `ResolutionError`, `Overloaded`, `ClosedError` and `ConfigurationError`."""
        service = self._engine.service(target)
        check_fetch(fetch, asynchronous=False)
        limit = current_options().deadline if deadline is None else check_seconds("deadline", deadline)
        if key is not None:
            check_key("key", key)
        if idempotent is not None:
            check_flag("idempotent", idempotent)
        if limit is not None and limit <= 0:
            raise DeadlineExceeded(
                f"the deadline of {limit:g} s had passed before the call began", target=service.target
            )
        engine = self._engine
        now = engine.clock()
        call = engine.call(service, idempotent=idempotent, deadline=limit, key=key, now=now)
        lookup_deadline_at = None
        if now >= service.refresh_at:
            lookup_deadline_at = call.connect_deadline_at if limit is None else call.deadline_at
        is_failure = service.outlier.is_failure
        handled = sys.exception()

        accepting: list[Exception] = []  # refusals after which the endpoint was found to accept connections

        def attempt(lease: Lease) -> T:
            try:
                result = fetch(Attempt(lease.node.endpoint, call, engine.clock))
            except Exception as error:
                # Whose refusal was it? `fetch` may talk to others too.
                if failure_of(error, handled) is FailureKind.NOT_SENT and self._background.accepts(
                    service, lease.endpoint
                ):
                    accepting.append(error)
                raise
            if isinstance(result, CoroutineType):
                result.close()
                raise ConfigurationError("fetch", fetch, "a plain function; AsyncDiscovery takes coroutine functions")
            return result

        def judge(result: T | None, error: Exception | None) -> Judgement:
            if error is None:
                return GOOD
            accepts = any(error is each for each in accepting)
            return judge_exception(error, is_failure, accepts=accepts, handled=handled)

        try:
            return self._driver.run(service, call, attempt, judge, lookup_deadline_at, service.hedging)
        except Exception as error:
            noted(error, call)
            raise

    def connect(
        self,
        target: str,
        *,
        timeout: float | None = None,
        ssl: ssl_module.SSLContext | bool | None = None,
        server_hostname: str | None = None,
    ) -> socket.socket:
        """A connected socket to an endpoint, TLS included if `ssl` is a context or True.

        Endpoints that do not accept are passed over. Beside an endpoint that does not answer soon another is tried, and
        the first to connect is used. `timeout` (default: `TimeoutPolicy.connect`) is a hard limit over
        lookup, connects and TLS. The certificate is verified for `server_hostname`, by default the
        service's fully qualified name. Raises `ConnectError`, `ConnectTimeout` or a `ResolutionError`; each is
        also an `OSError`.
        """
        service = self._engine.service(target)
        limit = self._limit(service, timeout)
        call = self._engine.call(service, idempotent=True, deadline=limit, connect=limit)
        context = default_context() if ssl is True else ssl or None
        name = verified_name(context, server_hostname, service)

        def attempt(lease: Lease) -> socket.socket:
            sock = race.connect(self._background, call, lease)
            try:
                if context is not None:
                    sock = sockets.secure(sock, context, name, self._engine.connect_limit(service, call))
                sock.settimeout(None)
            except BaseException:  # cancelled and interrupted too: no other code knows of the socket
                sock.close()
                raise
            return sock

        try:
            return self._driver.run(service, call, attempt, judge_connect, call.connect_deadline_at, kind="connect")
        except ResolutionError as error:
            raise as_os_error(error) from error.__cause__
        except OSError as error:
            raise no_connection(call, error) from error

    # Life cycle

    def close(self) -> None:
        """Stop what runs in the background. Using it afterwards raises `ClosedError`."""
        self._engine.close()
        self._background.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Time limits

    def _limit(self, service: Service, timeout: float | None) -> float:
        if timeout is not None:
            return check_seconds("timeout", timeout)
        chosen = current_options().deadline
        return chosen if chosen is not None else service.timeout.connect

    def _deadline_at(self, service: Service, timeout: float | None) -> float:
        return self._engine.clock() + self._limit(service, timeout)
