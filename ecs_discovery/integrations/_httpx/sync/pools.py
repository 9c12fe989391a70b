"""The connections of httpcore to one endpoint, and the route of an origin. For threads."""

from __future__ import annotations

import time
from functools import cache, partial
from typing import Any, NamedTuple

from ecs_discovery.client.sync.driver import Driver
from ecs_discovery.core.balancing.node import Node
from ecs_discovery.core.calls.connections import ConnectionState
from ecs_discovery.core.service import Service
from ecs_discovery.integrations._httpx.exchange import tuning_of
from ecs_discovery.integrations._httpx.library import Library
from ecs_discovery.integrations._httpx.options import PoolOptions
from ecs_discovery.integrations._httpx.sync.stream import Stream, current
from ecs_discovery.integrations.http.endpoint_pools import EndpointPools, Overtaken
from ecs_discovery.models import Endpoint

__all__ = ["HttpxRoute"]


class HttpxRoute:
    """One origin (`http://orders:8080`) of ours: its service, and the connections to each endpoint."""

    def __init__(
        self,
        library: Library,
        options: PoolOptions,
        driver: Driver,
        service: Service,
        target: str,
        scheme: str,
        host: str,
    ) -> None:
        self.library = library
        self.options = options
        self.driver = driver
        self.service = service
        self.target = target
        self.encrypted = scheme in ("https", "wss")
        self.host = host
        self.verified: set[str | None] = set()
        """The TLS names given by requests, with which an endpoint has answered: the endpoint is to blame where TLS
        fails elsewhere."""
        self._transports: EndpointPools[Any] = EndpointPools(service, self._retire)
        self._retired: list[Any] = []

    def transport(self, node: Node, sni: str | None) -> Any:
        """The library's transport to one endpoint. `sni` is the TLS name that a request gives, if it does."""
        found = self._transports.find(node, sni)
        return self._transports.get(node, sni, partial(self._make, node, sni)) if found is None else found

    def close(self) -> None:
        """Close idle connections; connections in use close when they are free."""
        self._transports.close()

    def cut(self) -> None:
        """Close all connections, in use or not, as the library does when a client is closed."""
        self._transports.close()
        retired, self._retired = self._retired, []
        for transport in retired:
            transport.close()

    def _make(self, node: Node, sni: str | None) -> Any:
        classes = _classes(self.library)
        return classes.transport(classes.pool(EndpointFacts(self, node.endpoint, sni), self.options))

    def _retire(self, transport: Any) -> None:
        pool = transport._pool
        pool.facts.retired = True
        for connection in pool.connections:
            if connection.is_idle():
                connection.close()
        # Those in use close when they are free; those that a cancelled request has left, with the client.
        # The pool of an endpoint that is gone is never asked again, and would keep what has ended for ever.
        self._retired = [each for each in (*self._retired, transport) if _is_needed(each._pool)]


def _is_needed(pool: Any) -> bool:
    """Does it hold a connection that has not ended?"""
    return not all(connection.is_closed() for connection in pool.connections)


class EndpointFacts:
    """What the connections to one endpoint have in common."""

    def __init__(self, route: HttpxRoute, endpoint: Endpoint, sni: str | None) -> None:
        engine = route.driver.engine
        self.endpoint = endpoint
        self.library = route.library
        self.names = {route.host: route.service.tls_name} if sni is None else {}
        """What TLS verifies for the host of the URL, where the request does not say."""
        self.policy = engine.settings.connection
        self.clock = engine.clock
        self.rng = engine.rng
        self.multiplexed = route.options.http2
        self.retired = False
        """No request goes there any more: a connection ends when it is free."""

    def must_close(self, state: ConnectionState) -> bool:
        """Is an idle connection better not used?"""
        use = current.get()
        replayable = use is None or use.replayable
        return self.retired or state.must_close(self.policy, self.clock(), self.rng, replayable)


class _Backend:
    """Opens one connection, by a race for the request that needs it."""

    def __init__(self, facts: EndpointFacts) -> None:
        self.facts = facts
        self.stream: Stream | None = None

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> Stream:
        facts, use = self.facts, current.get()
        core, tuning = facts.library.core, tuning_of(local_address, socket_options)
        assert use is not None  # connections are opened for requests,
        assert use.connector is not None  # and by them
        use.connect_by = facts.clock() + use.connector.connect_limit()
        try:
            sock, use.connected = use.connected or use.connector.connect_socket(use.lease, tuning), None
        except TimeoutError as error:
            raise core.ConnectTimeout(f"{use.lease.endpoint}: no connection in time") from error
        except OSError as error:
            raise core.ConnectError(f"{use.lease.endpoint}: {error}") from error
        if use.lease.endpoint.key != facts.endpoint.key:  # other facts of it may have changed since
            use.connected = sock
            raise Overtaken
        try:
            if use.abort is not None:
                use.abort.hold(sock)
        except ConnectionAbortedError as error:
            sock.close()
            raise core.ConnectError(str(error)) from error
        self.stream = Stream(facts, sock)
        use.lease.sent_at = facts.clock()
        return self.stream

    def connect_unix_socket(self, path: str, timeout: float | None = None, socket_options: Any = None) -> Any:
        raise NotImplementedError  # httpcore calls it for `uds=` alone, which `options_of` refuses

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class _Classes(NamedTuple):
    """Of one library: subclasses of its own, so that mocks and instrumentation see what they know."""

    transport: Any
    pool: Any


@cache
def _classes(library: Library) -> _Classes:
    core: Any = library.core
    client: Any = library.client

    class MultiplexedConnection(core.HTTPConnection):  # type: ignore[misc]
        """A connection that may speak HTTP/2, and is not used once it is worn. With HTTP/1.1 `is_readable` says so."""

        def __init__(self, *, network_backend: _Backend, **options: Any) -> None:
            self._backend = network_backend
            super().__init__(network_backend=network_backend, **options)

        def has_expired(self) -> bool:
            stream = self._backend.stream
            return super().has_expired() or (stream is not None and self.is_idle() and stream.must_close())

    class EndpointPool(core.ConnectionPool):  # type: ignore[misc]
        """Connections to one endpoint under the name of its service."""

        def __init__(self, facts: EndpointFacts, options: PoolOptions) -> None:
            self.facts = facts
            self.options = options
            super().__init__(
                ssl_context=options.ssl_context,
                max_connections=options.max_connections,
                max_keepalive_connections=facts.policy.max_idle if options.max_idle is None else options.max_idle,
                http1=options.http1,
                http2=options.http2,
            )

        def create_connection(self, origin: Any) -> Any:
            options = self.options
            kind = MultiplexedConnection if options.http2 else core.HTTPConnection
            return kind(
                network_backend=_Backend(self.facts),
                origin=origin,
                ssl_context=options.ssl_context,
                keepalive_expiry=options.keepalive_expiry,
                http1=options.http1,
                http2=options.http2,
                local_address=options.local_address,
                socket_options=options.socket_options,
            )

        def _close_connections(self, closing: list[Any]) -> None:
            if closing:
                super()._close_connections(closing)

    class EndpointTransport(client.HTTPTransport):  # type: ignore[misc]
        """The library's own transport, to one endpoint."""

        of_endpoint = True

        def __init__(self, pool: EndpointPool) -> None:
            self._pool = pool

    return _Classes(EndpointTransport, EndpointPool)
