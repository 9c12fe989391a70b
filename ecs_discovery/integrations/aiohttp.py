"""aiohttp: a plain `ClientSession`. Its innermost middleware plays the attempts, and its connector knows endpoints.

The middleware chooses an endpoint for each request. The connector takes the choice from the request, and keeps its idle
connections by endpoint. URL, Host, cookies, TLS name and signals keep the service's name.
"""

from __future__ import annotations

import asyncio
import ssl as ssl_module
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from inspect import signature
from time import monotonic
from typing import Any, Unpack
from weakref import ref

from ecs_discovery.integrations._libraries import needs

with needs("aiohttp"):
    import aiohttp
    from aiohttp import (
        ClientConnectorCertificateError,
        ClientConnectorError,
        ClientConnectorSSLError,
        ClientError,
        ClientHandlerType,
        ClientOSError,
        ClientRequest,
        ClientResponse,
        ClientTimeout,
        ServerDisconnectedError,
        ServerTimeoutError,
        TCPConnector,
        hdrs,
    )
    from aiohttp.client_reqrep import ConnectionKey
    from aiohttp.connector import Connection
    from aiohttp.helpers import get_env_proxy_for_url
    from aiohttp.tracing import Trace

from ecs_discovery.client.aio import race, transports
from ecs_discovery.client.aio.discovery import AsyncDiscovery
from ecs_discovery.client.aio.shared import shared_async_discovery
from ecs_discovery.client.engine import Engine
from ecs_discovery.client.tls import verified_name
from ecs_discovery.config.settings import ServiceConfig, Settings
from ecs_discovery.core.calls.http import IDEMPOTENT
from ecs_discovery.errors import ConfigurationError
from ecs_discovery.integrations._aiohttp_exchange import (
    AiohttpExchange,
    AiohttpUse,
    ConnectionExchange,
    FirstLooks,
    PooledState,
)
from ecs_discovery.integrations._aiohttp_options import ConnectorOptions, SessionOptions
from ecs_discovery.integrations._aiohttp_routes import Routes
from ecs_discovery.integrations._aiohttp_table import PoolTimeout
from ecs_discovery.integrations._settings import check_options, choose
from ecs_discovery.integrations.http.endpoint_pools import Overtaken
from ecs_discovery.runtime.sockets import Tuning

__all__ = ["DiscoveryConnector", "client_session"]


def client_session(
    discovery: AsyncDiscovery | None = None,
    *,
    namespace: str | None = None,
    services: Mapping[str, str | Sequence[str] | ServiceConfig] | None = None,
    nameservers: Sequence[str] | None = None,
    **options: Unpack[SessionOptions],
) -> aiohttp.ClientSession:
    """A plain `aiohttp.ClientSession` that finds services by itself.

    `options` are the arguments of `ClientSession`. `namespace`, `services` and `nameservers` are the same as for
    `AsyncDiscovery`. `discovery` takes the place of all three, and is the way to set policies. Sessions with equal
    settings share one default discovery, with the sessions of requests too. Closing the session leaves the discovery
    open. A `connector` must be a `TCPConnector`, which then serves our hosts too, or a `DiscoveryConnector`. Hosts that
    the discovery does not handle are untouched. With `ECS_DISCOVERY_DISABLED=1` the session is a plain session.

    Raises `ConfigurationError` for settings that cannot be used, when there is neither a namespace nor a service, and
    outside a coroutine.
    """
    settings = {"namespace": namespace, "services": services, "nameservers": nameservers}
    given: dict[str, Any] = dict(options)
    check_options("client_session", AsyncDiscovery, given, SessionOptions, _taken_by(aiohttp.ClientSession))
    connector: Any = given.get("connector")
    if isinstance(connector, DiscoveryConnector):
        if discovery is not None or any(value is not None for value in settings.values()):
            raise ConfigurationError("connector", connector, "a DiscoveryConnector alone: it has its discovery")
    elif connector is None:
        of_connector = {name: given.pop(name) for name in ("loop", "ssl_shutdown_timeout") if name in given}
        connector = DiscoveryConnector(discovery, **settings, **of_connector)  # type: ignore[arg-type]
    elif type(connector) is TCPConnector:
        DiscoveryConnector._find_services(connector, discovery, settings)  # type: ignore[arg-type]  # it is one soon
        connector.__class__ = DiscoveryConnector
    else:
        raise ConfigurationError("connector", connector, "a TCPConnector or a DiscoveryConnector")
    routes = connector._routes
    if routes is None:  # switched off
        return aiohttp.ClientSession(**{**given, "connector": connector})
    given |= {"connector": connector, "middlewares": (*given.get("middlewares", ()), _middleware(routes))}
    session = aiohttp.ClientSession(**given)
    session._retry_connection = False  # the attempts are ours to count; for hosts that are not ours see `_foreign`
    return session


def adopt(session: aiohttp.ClientSession, settings: Settings) -> None:
    """Have a session that was made in any way find services, if its connector is aiohttp's own."""
    connector: Any = session.connector
    if type(connector) is TCPConnector:
        DiscoveryConnector._find_services(connector, shared_async_discovery(settings), {})  # type: ignore[arg-type]
        connector.__class__ = DiscoveryConnector
    there = session._middlewares
    if not isinstance(connector, DiscoveryConnector) or any(getattr(each, "of_discovery", False) for each in there):
        return
    if connector._routes is not None:
        session._middlewares = (*there, _middleware(connector._routes))
        session._retry_connection = False


Middleware = Callable[[ClientRequest, ClientHandlerType], Awaitable[ClientResponse]]


def _middleware(routes: Routes) -> Middleware:
    def ecs_discovery(request: ClientRequest, handler: ClientHandlerType) -> Awaitable[ClientResponse]:
        route = routes.find(request)
        if route is None or (request.proxy is not None and not _without_proxy(request)):
            return _foreign(request, handler)
        return AiohttpExchange(route, request, handler).run()

    ecs_discovery.of_discovery = True  # type: ignore[attr-defined]
    return ecs_discovery


async def _foreign(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    """As aiohttp sends it: once more if a kept connection has ended, which it does itself otherwise."""
    try:
        return await handler(request)
    except (ServerTimeoutError, ClientConnectorError):
        raise
    except (ClientOSError, ServerDisconnectedError):
        if request.method not in IDEMPOTENT:
            raise
        await request.close()
        if getattr(request.body, "consumed", False):
            raise
    if hdrs.EXPECT in request.headers:
        request.update_expect_continue()
    return await handler(request)


def _without_proxy(request: ClientRequest) -> bool:
    """Have the request sent without a proxy, if that is the environment's. False if the application named it."""
    session = request.session
    if session is None or not session.trust_env or session._default_proxy is not None:
        return False
    try:
        proxy, _ = get_env_proxy_for_url(request.url)
    except LookupError:
        return False
    if proxy != request.proxy:
        return False
    request.update_proxy(None, None, None)
    return True


def _taken_by(kind: type[Any]) -> Callable[[], Iterable[str]]:
    return lambda: signature(kind).parameters


def _in_a_coroutine() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class _Keyed:
    """A request as the connector's base class sees it: under the key of the endpoint that was chosen for it."""

    __slots__ = ("connected", "connecting", "connection_key", "proxy", "request", "use")

    connection_key: ConnectionKey

    def __init__(self, request: ClientRequest, use: AiohttpUse) -> None:
        self.request = request
        self.use = use
        self.proxy = None
        self.connecting = False
        """There was a place for a new connection."""
        self.connected: Any = None
        """The socket of a race, for a connection to the lease's endpoint."""


class DiscoveryConnector(TCPConnector):
    """A `TCPConnector` that keeps connections to our hosts by endpoint.

    `client_session` makes a connector. It may be constructed by hand where its options (`limit`, `ssl`, `local_addr`)
    are wanted, and is then passed as `client_session(connector=…)`. In a session made in another way it chooses the
    endpoint by itself, and requests that were sent are not repeated. The same holds for requests with `middlewares=` of
    their own.

    `limit_per_host` is for each endpoint. The other arguments, and what is raised, are as with `client_session`.
    """

    _routes: Routes | None
    _uses: dict[ClientRequest, AiohttpUse]
    """The attempts on their way to a connection."""
    _looks: FirstLooks | None = None

    def __init__(
        self,
        discovery: AsyncDiscovery | None = None,
        *,
        namespace: str | None = None,
        services: Mapping[str, str | Sequence[str] | ServiceConfig] | None = None,
        nameservers: Sequence[str] | None = None,
        **options: Unpack[ConnectorOptions],
    ) -> None:
        given: Any = options
        check_options("DiscoveryConnector", AsyncDiscovery, given, ConnectorOptions, _taken_by(TCPConnector))
        # Settings first: a connector that was half made would complain when it is collected.
        self._find_services(discovery, {"namespace": namespace, "services": services, "nameservers": nameservers})
        if given.get("loop") is None and not _in_a_coroutine():
            raise ConfigurationError("event loop", None, "a running event loop: call it inside a coroutine")
        super().__init__(**given)

    def _find_services(self, discovery: AsyncDiscovery | None, settings: Mapping[str, Any]) -> None:
        chosen = choose(AsyncDiscovery, discovery, settings)
        self._routes, self._uses = None, {}
        if chosen is not None:
            here = ref(self)  # aiohttp tells of a connector that was not closed when nothing refers to it

            def drop(key: ConnectionKey) -> None:
                connector = here()
                if connector is not None:
                    connector._drop(key)

            self._routes = Routes(chosen.discovery or shared_async_discovery(chosen.settings), drop)
            self._uses = self._routes.uses

    # A connection for a request

    async def connect(self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout) -> Connection:
        use: AiohttpUse | None = self._uses.pop(req, None)
        if use is None:
            return await self._connect_alone(req, traces, timeout)
        exchange, lease = use.exchange, use.lease
        assert exchange is not None  # until it was sent
        exchange.limits = timeout
        if exchange._call is not None:
            exchange.limit_call()
        key = exchange.route.key(lease.node, req)
        protocol: Any = self._take(key, use, exchange.engine) if not traces else None
        if protocol is not None:
            connection, now = Connection(self, key, protocol, self._loop), lease.started_at
        else:
            connection, now = await self._wait_for_connection(_Keyed(req, use), exchange, traces, timeout)
            protocol = connection.protocol
        if exchange._call is not None:
            exchange.has_connection(use)
        state: PooledState = protocol.ecs_discovery
        state.use, use.state = use, state
        use.sent, use.done = True, False
        if use.replayable:
            state.sent_at = now
            looks = self._looks
            if looks is not None and looks.timer is None:
                looks.start()
        return connection

    def _take(self, key: ConnectionKey, use: AiohttpUse, engine: Engine) -> Any:
        """An idle connection that can be relied on, if there is any.

        It does what `_get` does, but looks once how old it is, and leaves an empty queue for when it comes back.
        """
        waiting, now, longest = self._conns.get(key), use.lease.started_at, self._keepalive_timeout
        while waiting:
            protocol, _ = waiting.popleft()
            self._acquired.add(protocol)
            if self._limit_per_host:
                self._acquired_per_host[key].add(protocol)
            state: PooledState = protocol.ecs_discovery  # type: ignore[attr-defined]
            if (
                protocol.is_connected()
                and (longest is None or now - state.idle_since <= longest)
                and state.is_fit(engine, now, use.replayable)
            ):
                return protocol
            self._release(key, protocol, should_close=True)
        return None

    async def _wait_for_connection(
        self, keyed: _Keyed, exchange: AiohttpExchange, traces: list[Trace], timeout: ClientTimeout
    ) -> tuple[Connection, float]:
        """A connection to an endpoint of the use's service, which is then the lease's, and when it was there."""
        use, engine, route = keyed.use, exchange.engine, exchange.route
        try:
            while True:
                key = keyed.connection_key = route.key(use.lease.node, keyed.request)
                connection, now = await self._get(key, traces), use.lease.started_at
                if connection is None:
                    connection = await self._connect_anew(keyed, traces, timeout)
                    if connection is None:
                        continue  # another endpoint has connected first
                    now = engine.clock()
                protocol: Any = connection.protocol
                state: PooledState = protocol.ecs_discovery
                if not state.idle_since:
                    use.lease.sent_at = state.opened_at
                    return connection, state.opened_at
                if state.is_fit(engine, now, use.replayable):
                    return connection, now
                connection.close()
        finally:
            if keyed.connected is not None:
                keyed.connected.close()  # the winner of the race had an idle connection

    async def _connect_alone(self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout) -> Connection:
        """A connection for a request that comes without our middleware."""
        routes = self._routes
        route = routes.find(req) if routes is not None and (req.proxy is None or _without_proxy(req)) else None
        if route is None:
            return await super().connect(req, traces, timeout)

        async def handler(use: AiohttpUse) -> Connection:
            route.uses[req] = use
            return await self.connect(req, traces, timeout)

        return await ConnectionExchange(route, req, handler).run()  # type: ignore[no-any-return]

    async def _connect_anew(self, keyed: _Keyed, traces: list[Trace], timeout: ClientTimeout) -> Connection | None:
        """A new connection, or one that becomes free. None if another endpoint has connected first."""
        try:
            return await super().connect(keyed, traces, timeout)  # type: ignore[arg-type]
        except Overtaken:
            return None
        except TimeoutError as error:
            if keyed.connecting or isinstance(error, ClientError):
                raise
            raise PoolTimeout(f"no connection became free in time (limit={self.limit})") from error

    async def _create_connection(self, req: Any, traces: list[Trace], timeout: ClientTimeout) -> Any:
        if type(req) is not _Keyed:
            return await super()._create_connection(req, traces, timeout)
        request = req.request
        req.connecting = True
        try:
            return await self._open(req)
        except TimeoutError as error:
            if error.errno is None:
                raise  # a time limit, which aiohttp itself expects
            raise ClientConnectorError(request.connection_key, error) from error
        except ssl_module.CertificateError as error:
            raise ClientConnectorCertificateError(request.connection_key, error) from error
        except ssl_module.SSLError as error:
            raise ClientConnectorSSLError(request.connection_key, error) from error
        except OSError as error:
            raise ClientConnectorError(request.connection_key, error) from error

    async def _open(self, keyed: _Keyed) -> Any:
        request, exchange, lease = keyed.request, keyed.use.exchange, keyed.use.lease
        assert exchange is not None
        context = self._get_ssl_context(request)
        name = verified_name(context, (request.server_hostname or "").rstrip(".") or None, lease.service)
        grace = getattr(self, "_ssl_shutdown_timeout", None)  # aiohttp 3.12.0 has no such option
        options = {"ssl_shutdown_timeout": grace} if grace and context is not None else {}
        sock, keyed.connected = keyed.connected, None
        if sock is None:
            chosen = lease.endpoint.key
            sock = await race.connect(exchange.driver.background, exchange.call, lease, self._tuning())
            if lease.endpoint.key != chosen:
                keyed.connected = sock
                raise Overtaken
        async with asyncio.timeout(None if context is None else exchange.connect_limit()):
            transport, protocol = await transports.create(sock, self._factory, context, name, **options)
        fingerprint = self._get_fingerprint(request) if context is not None else None
        if fingerprint:
            try:
                fingerprint.check(transport)
            except aiohttp.ServerFingerprintMismatch:
                transport.close()
                raise
        state = PooledState(transport, exchange.engine.clock)
        protocol.ecs_discovery = state  # type: ignore[attr-defined]
        if self._looks is None:
            self._looks = FirstLooks(self._loop, exchange.engine)
        self._looks.states.add(state)
        return protocol

    def _tuning(self) -> Tuning | None:
        """What the application wants of its sockets."""
        local, factory = self._local_addr_infos, getattr(self, "_socket_factory", None)
        if not local and factory is None:
            return None
        return Tuning(local[0][4][:2] if local else None, (), factory)

    # A connection that is free

    def _release(self, key: ConnectionKey, protocol: Any, *, should_close: bool = False) -> None:
        state: PooledState | None = getattr(protocol, "ecs_discovery", None)
        use = state.use if state is not None else None
        if state is None or use is None:
            TCPConnector._release(self, key, protocol, should_close=should_close)  # `super()` takes longer
            return
        state.use = None
        lease, use.done = use.lease, True
        if use.exchange is None:  # else that ends it, when it records the answer
            lease.release()
        state.idle_since = state.clock()
        should_close = should_close or lease.node.removed
        if (
            should_close
            or protocol.should_close
            or self._waiters
            or self._limit_per_host
            or self._force_close
            or self._closed
            or self._cleanup_handle is None
        ):
            TCPConnector._release(self, key, protocol, should_close=should_close)
            return
        # What that does, nearly always.
        self._acquired.discard(protocol)
        self._conns[key].append((protocol, monotonic()))

    def _drop(self, key: ConnectionKey) -> None:
        """Close the idle connections of a key."""
        for protocol, _ in self._conns.pop(key, ()):
            protocol.close()
