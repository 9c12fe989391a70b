"""urllib3's connection pools, each to one endpoint under the service's name.

A pool keeps the logical host, so that the Host header, cookies, redirects and error messages show
it; only the socket goes to the endpoint's address. Connections are urllib3's own class with hooks
on the instance, so that tools which replace that class still see every request.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
import weakref
from collections.abc import Callable
from queue import Empty
from random import random
from typing import Any, Protocol, Self

from urllib3 import HTTPHeaderDict
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ClosedPoolError, ConnectTimeoutError, EmptyPoolError, NewConnectionError
from urllib3.util import Timeout
from urllib3.util.connection import is_connection_dropped

from ecs_discovery.config.policies import ConnectionPolicy
from ecs_discovery.core.calls.connections import ConnectionState
from ecs_discovery.core.calls.http import keep_alive_timeout
from ecs_discovery.core.lease import Lease
from ecs_discovery.integrations._urllib3_context import ForeignContext
from ecs_discovery.integrations.http.endpoint_pools import Overtaken
from ecs_discovery.integrations.http.exchange import AttemptUse
from ecs_discovery.integrations.http.liveness import Suspicion, wait_for_answer
from ecs_discovery.models import Endpoint
from ecs_discovery.runtime import sockets, tcp_info
from ecs_discovery.runtime.sockets import AbortHandle, Tuning
from ecs_discovery.runtime.tcp_info import Farewell

__all__ = ["EndpointPool", "HttpEndpointPool", "HttpsEndpointPool", "PoolUse", "UseTimeout"]

_SSL_OPTIONS = frozenset(
    {
        "key_file",
        "cert_file",
        "cert_reqs",
        "ca_certs",
        "ca_cert_dir",
        "ca_cert_data",
        "ssl_version",
        "ssl_minimum_version",
        "ssl_maximum_version",
        "ssl_context",
        "key_password",
        "server_hostname",
        "assert_hostname",
        "assert_fingerprint",
    }
)

_GET_CONN: Any = HTTPConnectionPool._get_conn
while hasattr(_GET_CONN, "__wrapped__"):  # an instrumentation came first
    _GET_CONN = _GET_CONN.__wrapped__
_LEAST_HANDSHAKE = 0.05  # seconds
_MILLISECOND = 1000


class Connector(Protocol):
    """What connects for a request."""

    def connect_socket(self, lease: Lease, tuning: Tuning | None) -> socket.socket:
        """A connected socket; `lease` is then of the endpoint that it leads to. Raises OSError."""

    def connect_limit(self) -> float:
        """Seconds that connecting may take."""

    def suspicion(self) -> Suspicion:
        """What the request may do about a host that may be gone."""


class PoolUse(AttemptUse):
    """One request's passage through a pool: its lease ends when its connection is free."""

    __slots__ = ("abort", "body", "connected", "connector", "headers", "late", "send_timeout")

    def __init__(
        self,
        lease: Lease,
        replayable: bool,
        send_timeout: float | None = None,
        connector: Connector | None = None,
    ) -> None:
        AttemptUse.__init__(self, lease, replayable)  # `super()` takes longer
        self.connector = connector
        self.abort: AbortHandle | None = None
        """Where another thread may want to end it: told of the connection."""
        self.connected: socket.socket | None = None
        """The socket of a race, for a connection to the lease's endpoint."""
        self.send_timeout = send_timeout
        """Limit of each write of the request, as the application gave it."""
        self.body: bytes | None = None
        """The body, where it was read and is handed over."""
        self.late = 0.0
        """Seconds that reading the body took."""
        self.headers: HTTPHeaderDict | None = None
        """The request's header fields, where this attempt's differ."""


class UseTimeout(Timeout):
    """A urllib3 timeout that carries the request's use to where the connection is known."""

    def __init__(self, read: Any, use: PoolUse) -> None:
        # As urllib3 would, but for checks that requests has made.
        self._connect = None
        self._read = read
        self.total = None
        self._start_connect = None
        self.use = use

    def clone(self) -> Self:
        # urllib3 copies it twice per request, to start its clock once per request: this one serves one only.
        return self


class _PooledConnection(ConnectionState):
    """What a pool remembers of a connection."""

    __slots__ = ("_poller", "_sock", "use")

    def __init__(self) -> None:
        super().__init__()
        self.use: PoolUse | None = None
        self._sock: Any = None
        self._poller: Any = None

    def is_ready(self, sock: Any, seconds: float) -> bool:
        """Is there something to read within that time?"""
        if sock is not self._sock:
            self._sock, self._poller = sock, None
            if hasattr(select, "poll"):  # made once for a connection: that takes longer than the question
                self._poller = select.poll()
                self._poller.register(sock, select.POLLIN)
        if self._poller is None:
            return sockets.is_ready(sock, seconds)
        return bool(self._poller.poll(seconds * _MILLISECOND))


class EndpointPool(HTTPConnectionPool):
    """Connections to one endpoint.

    `host` and `port` are the URL's. `options` go to urllib3's pool. `clock` gives monotonic seconds, `rng` numbers in
    [0, 1).
    """

    def __init__(
        self,
        endpoint: Endpoint,
        policy: ConnectionPolicy,
        host: str,
        port: int | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: Callable[[], float] = random,
        **options: Any,
    ) -> None:
        self._endpoint = endpoint
        self._policy = policy
        self._clock = clock
        self._rng = rng
        self._connect = _connector(endpoint, clock)
        super().__init__(host, port, **options)

    def _new_conn(self) -> Any:
        conn: Any = super()._new_conn()
        conn.ecs_discovery = _PooledConnection()
        # Hooks refer weakly to the connection, or a cycle would wait for the garbage collector. They do not refer to
        # the pool: urllib3 closes a pool when nothing refers to it.
        here, connect, limit, clock = weakref.ref(conn), self._connect, self._policy.ack_timeout, self._clock
        # Straight into the instance: a recorder's connection (vcrpy) passes on what is set on it to the real one,
        # which would call back here. The real one is what opens the socket.
        real = vars(conn).get("real_connection", conn)
        there = weakref.ref(real)
        vars(real)["_new_conn"] = lambda: connect(here(), there())
        pool = weakref.ref(self)
        vars(conn)["getresponse"] = lambda: _answer(here(), pool(), limit, clock)
        return conn

    def _get_conn(self, timeout: float | None = None) -> Any:
        if HTTPConnectionPool._get_conn is not _GET_CONN:  # a recorder (vcrpy) has put its own in the place
            return super()._get_conn(timeout)
        # urllib3's, but for the way of asking whether an idle connection has ended.
        pool = self.pool
        if pool is None:
            raise ClosedPoolError(self, "Pool is closed.")
        try:
            conn: Any = pool.get(block=self.block, timeout=timeout)
        except Empty:
            if self.block:
                words = "Pool is empty and a new connection can't be opened due to blocking mode."
                raise EmptyPoolError(self, words) from None
            return self._new_conn()
        if conn is None:
            return self._new_conn()
        sock = conn.sock
        if type(sock) is not socket.socket:
            if is_connection_dropped(conn):
                conn.close()
        elif conn.ecs_discovery.is_ready(sock, 0):
            conn.close()
        return conn

    def _make_request(self, conn: Any, method: str, url: str, *args: Any, **options: Any) -> Any:
        timeout = options.get("timeout")
        if type(timeout) is not UseTimeout:
            return super()._make_request(conn, method, url, *args, **options)
        state: _PooledConnection = conn.ecs_discovery
        use = state.use = timeout.use
        if conn.sock is not None and state.must_close(self._policy, self._clock(), self._rng, use.replayable):
            state.closed()
            conn.close()
        if conn.sock is None and use.connector is not None:
            timeout._connect = use.connector.connect_limit()
        response = super()._make_request(conn, method, url, *args, **options)
        if state.keep_alive_timeout is None:
            state.keep_alive_timeout = keep_alive_timeout(response.headers.get("Keep-Alive"))
        return response

    def _validate_conn(self, conn: Any) -> None:
        super()._validate_conn(conn)  # connects, if this is TLS
        state: _PooledConnection = conn.ecs_discovery
        use = state.use
        if conn.sock is None:
            conn.connect()
            state.closed()
        if not state.opened_at:
            state.opened(self._clock())
            if use is not None:
                use.lease.sent_at = state.opened_at
        if use is not None:
            # The time to connect was this attempt's share; to send, the application's own limit holds.
            conn.timeout = use.send_timeout
            use.sent = True
            if use.abort is not None:
                use.abort.hold(conn.sock)

    def _put_conn(self, conn: Any) -> None:
        if conn is not None:
            state: _PooledConnection = conn.ecs_discovery
            use, state.use = state.use, None
            if conn.sock is None:
                state.closed()
            state.idle_since = self._clock()
            if use is not None:
                if use.abort is not None:
                    use.abort.drop()  # the connection is for others from now on
                use.lease.release()
        super()._put_conn(conn)

    def farewell(self) -> Farewell | None:
        """Close an idle connection, to see whether the host is there. None if there is none."""
        try:
            conn = self.pool.get(block=False) if self.pool is not None else None
        except Empty:
            return None
        self._put_conn(None)
        sock = getattr(conn, "sock", None)
        return Farewell(sock, self._clock()) if isinstance(sock, socket.socket) else None


class HttpEndpointPool(EndpointPool):
    """Plain HTTP."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{name: value for name, value in options.items() if name not in _SSL_OPTIONS})


class HttpsEndpointPool(EndpointPool, HTTPSConnectionPool):
    """TLS, verified for `tls_name` (also the SNI), whatever the address."""

    def __init__(self, *args: Any, tls_name: str, **options: Any) -> None:
        context = options.get("ssl_context")
        if isinstance(context, ssl.SSLContext):
            options = {**options, "ssl_context": ForeignContext(context)}
        # No `assert_hostname`: urllib3 would switch the check of the context off for it, and do its own.
        super().__init__(*args, **{**options, "server_hostname": tls_name})


def _connector(endpoint: Endpoint, clock: Callable[[], float]) -> Callable[[Any, Any], Any]:
    def connect(conn: Any, real: Any) -> Any:
        use: PoolUse | None = conn.ecs_discovery.use
        began = clock()
        try:
            tuning = _tuning(real)
            if use is None or use.connector is None:
                return sockets.connect(endpoint, conn.timeout, tuning)
            sock, use.connected = use.connected or use.connector.connect_socket(use.lease, tuning), None
        except TimeoutError as error:
            raise ConnectTimeoutError(conn, f"{_tried(use, endpoint)}: no connection in time") from error
        except OSError as error:
            raise NewConnectionError(conn, f"{_tried(use, endpoint)}: {error}") from error
        if use.lease.endpoint.key != endpoint.key:  # other facts of it may have changed since the pool was made
            use.connected = sock
            raise Overtaken
        if use.abort is not None:
            try:
                use.abort.hold(sock)
            except ConnectionAbortedError:
                sock.close()
                raise
        if conn.timeout is not None:  # what is left of it is for the handshake
            sock.settimeout(max(_LEAST_HANDSHAKE, conn.timeout - (clock() - began)))
        return sock

    return connect


def _tuning(conn: Any) -> Tuning | None:
    """What the application wants of its sockets, as far as it is not urllib3's default."""
    options = getattr(conn, "socket_options", None)
    source = getattr(conn, "source_address", None)
    if source is None and options == HTTPConnection.default_socket_options:
        return None
    return Tuning(source, tuple(options or ()))


def _tried(use: PoolUse | None, endpoint: Endpoint) -> Endpoint:
    return endpoint if use is None else use.lease.endpoint


def _answer(conn: Any, pool: EndpointPool | None, limit: float, clock: Callable[[], float]) -> Any:
    """The response, unless the peer's kernel is silent and the request may go elsewhere."""
    state: _PooledConnection = conn.ecs_discovery
    use, sock = state.use, conn.sock
    if use is None or sock is None:
        return type(conn).getresponse(conn)
    timeout = conn.timeout  # the read timeout by now; the socket has yet to be told
    # Most answers come so soon that nothing is made for the wait. Never under TLS: session tickets make a fresh
    # connection readable.
    first = tcp_info.first_look(limit, timeout)
    if type(sock) is socket.socket and state.is_ready(sock, first):
        return type(conn).getresponse(conn)
    suspicion = use.connector.suspicion() if use.connector is not None else None
    waited = wait_for_answer(use, suspicion, sock, pool, limit, timeout, clock)
    if timeout is None or waited < limit / 2:
        return type(conn).getresponse(conn)
    conn.timeout = max(0.001, timeout - waited)  # the wait was part of it
    response = type(conn).getresponse(conn)
    if conn.sock is not None:
        conn.sock.settimeout(timeout)
    return response
