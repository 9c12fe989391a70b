"""urllib3: connection pools that talk to one endpoint under the service's name.

A pool keeps the logical host, so that the Host header, cookies, redirects and error messages show
it; only the socket goes to the endpoint's address. Connections are urllib3's own class with hooks
on the instance, so that tools which replace that class still see every request.
"""

from __future__ import annotations

import socket
import ssl
import time
import weakref
from collections.abc import Callable
from io import BytesIO
from math import inf
from queue import Empty
from random import random
from typing import Any, Protocol, Self

from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError
from urllib3.response import HTTPResponse
from urllib3.util import Timeout

from ecs_discovery.config.policies import ConnectionPolicy
from ecs_discovery.core.calls.liveness import LivenessTimer
from ecs_discovery.core.lease import Lease
from ecs_discovery.integrations._urllib3_failures import PeerDoubtedError, PeerSilentError
from ecs_discovery.models import Endpoint
from ecs_discovery.runtime import sockets, tcp_info
from ecs_discovery.runtime.sockets import AbortHandle, Tuning
from ecs_discovery.runtime.tcp_info import Farewell

__all__ = [
    "EndpointPool",
    "HttpEndpointPool",
    "HttpsEndpointPool",
    "Overtaken",
    "ReadBody",
    "Use",
    "UseTimeout",
    "put_back",
    "read_whole",
]

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

_LEAST_HANDSHAKE = 0.05  # seconds
_PIECE = 1 << 20  # bytes of a body read at once
_LONGEST_HINT = 200  # characters of a Keep-Alive field that are looked at


class Overtaken(Exception):
    """Another endpoint connected first: the request belongs in that one's pool, which takes the socket."""


class Racer(Protocol):
    """Who connects for a request."""

    def connect(self, lease: Lease, tuning: Tuning | None) -> socket.socket:
        """A connected socket; `lease` is then of the endpoint that it leads to. Raises OSError."""

    def waits(self, lease: Lease, count: int) -> None:
        """So many more, or fewer, requests look whether the host of the lease's endpoint is there."""

    def vanished(self, lease: Lease, since: float) -> None:
        """The host of the lease's endpoint has met what was sent with silence since then."""

    def patience(self) -> float:
        """Seconds within which a host that lives acknowledges something."""

    def test(self, lease: Lease) -> socket.socket | None:
        """A connect to the lease's endpoint that was begun as a test; None if there was one lately."""

    def may_move_on(self, lease: Lease, waited: float) -> bool:
        """The test met silence. May a request that has waited so long go elsewhere, although that proves nothing?"""


class Use:
    """One request's passage through a pool: how far it came, and the lease to end when its connection is free."""

    __slots__ = (
        "body",
        "connected",
        "in_body",
        "late",
        "lease",
        "leash",
        "racer",
        "replayable",
        "send_timeout",
        "sent",
    )

    def __init__(
        self,
        lease: Lease,
        replayable: bool,
        send_timeout: float | None = None,
        racer: Racer | None = None,
    ) -> None:
        self.lease = lease
        self.racer = racer
        self.leash: AbortHandle | None = None
        """Where another thread may want to end it: told of the connection."""
        self.connected: socket.socket | None = None
        """The socket of a race, for a connection to the lease's endpoint."""
        self.replayable = replayable
        self.send_timeout = send_timeout
        """Limit of each write of the request, as the application gave it."""
        self.sent = False
        """True from the moment bytes of the request may be on the wire."""
        self.body: bytes | None = None
        """The body, where it was read and is handed over."""
        self.in_body = False
        """The head of the answer has come."""
        self.late = 0.0
        """Seconds that reading the body took."""


class UseTimeout(Timeout):
    """A urllib3 timeout that carries the request's `Use` to where the connection is known."""

    def __init__(self, connect: float | None, read: Any, use: Use) -> None:
        super().__init__(connect=connect, read=read)
        self.use = use

    def clone(self) -> Self:
        # urllib3 copies it twice per request, to start its clock once per request: this one serves one only.
        return self


class ConnectionState:
    """What a pool remembers of a connection."""

    __slots__ = ("idle_since", "keep_alive_timeout", "opened", "use")

    def __init__(self) -> None:
        self.opened = 0.0
        self.idle_since = 0.0
        self.keep_alive_timeout: float | None = None
        """Seconds that the server said it keeps it open while idle; None before its first answer."""
        self.use: Use | None = None


class EndpointPool(HTTPConnectionPool):
    """Connections to one endpoint.

    `host` and `port` are the URL's. `options` go to urllib3's pool. `clock` gives monotonic seconds.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        policy: ConnectionPolicy,
        host: str,
        port: int | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        **options: Any,
    ) -> None:
        self._endpoint = endpoint
        self._policy = policy
        self._clock = clock
        self._connect = _connector(endpoint)
        super().__init__(host, port, **options)

    def _new_conn(self) -> Any:
        conn: Any = super()._new_conn()
        conn.ecs_discovery = ConnectionState()
        # Hooks hold neither the connection (a cycle that only the garbage collector would close) nor the pool
        # (which urllib3 closes when nothing refers to it).
        here, connect, limit, clock = weakref.ref(conn), self._connect, self._policy.ack_timeout, self._clock
        # Straight into the instance: a recorder's connection (vcrpy) passes on what is set on it to the real one,
        # which would call back here. The real one is what opens the socket.
        real = vars(conn).get("real_connection", conn)
        there = weakref.ref(real)
        vars(real)["_new_conn"] = lambda: connect(here(), there())
        pool = weakref.ref(self)
        vars(conn)["getresponse"] = lambda: _answer(here(), pool(), limit, clock)
        return conn

    def _make_request(self, conn: Any, method: str, url: str, *args: Any, **options: Any) -> Any:
        timeout = options.get("timeout")
        if isinstance(timeout, UseTimeout):
            state: ConnectionState = conn.ecs_discovery
            state.use = timeout.use
            if conn.sock is not None and self._must_close(state, timeout.use.replayable):
                conn.close()
            response = super()._make_request(conn, method, url, *args, **options)
            if state.keep_alive_timeout is None:
                state.keep_alive_timeout = _keep_alive_timeout(response.headers.get("Keep-Alive"))
            return response
        return super()._make_request(conn, method, url, *args, **options)

    def _validate_conn(self, conn: Any) -> None:
        super()._validate_conn(conn)  # connects, if this is TLS
        state: ConnectionState = conn.ecs_discovery
        if conn.sock is None:
            conn.connect()
            state.opened = 0.0
        if not state.opened:
            state.opened = self._clock()
            state.keep_alive_timeout = None
            if state.use is not None:
                state.use.lease.sent_at = state.opened
        if state.use is not None:
            # The time to connect was this attempt's share; to send, the application's own limit holds.
            conn.timeout = state.use.send_timeout
            state.use.sent = True
            if state.use.leash is not None:
                state.use.leash.hold(conn.sock)

    def _put_conn(self, conn: Any) -> None:
        if conn is not None:
            state: ConnectionState = conn.ecs_discovery
            use, state.use = state.use, None
            if conn.sock is None:
                state.opened = 0.0
            state.idle_since = self._clock()
            if use is not None:
                if use.leash is not None:
                    use.leash.drop()  # the connection is for others from now on
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

    def _must_close(self, state: ConnectionState, replayable: bool) -> bool:
        """Is an idle connection better not used for this request?"""
        policy = self._policy
        now = self._clock()
        idle = now - state.idle_since
        limit = policy.idle_timeout if replayable else min(policy.idle_timeout, policy.unsafe_idle_timeout)
        if idle >= limit or (state.keep_alive_timeout is not None and idle >= state.keep_alive_timeout):
            state.opened = 0.0
            return True
        age = now - state.opened
        # A fifth either way, so that connections which were opened together do not end together.
        if age >= policy.max_age * 0.8 and age >= policy.max_age * (0.8 + 0.4 * random()):
            state.opened = 0.0
            return True
        return False


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


class ForeignContext:
    """An application's SSLContext, for urllib3, which changes the contexts that it is given.

    Others use it too: it is never made to verify less, and to a context that has root certificates none are added. A
    context without any gets those of `verify=`, as with plain requests: it could verify nothing otherwise.
    """

    __slots__ = ("_context", "_own")

    def __init__(self, context: ssl.SSLContext) -> None:
        object.__setattr__(self, "_context", context)
        object.__setattr__(self, "_own", {})

    def __getattr__(self, name: str) -> Any:
        own: dict[str, Any] = self._own
        return own[name] if name in own else getattr(self._context, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "verify_mode" and value < self._context.verify_mode:
            raise ValueError("verify=False does not reach into an SSLContext of your own: set its verify_mode")
        if name == "check_hostname" and not value:
            self._own[name] = value  # urllib3 compares the name itself then; the context goes on doing so too
        elif getattr(self._context, name) != value:
            setattr(self._context, name, value)

    def load_verify_locations(self, cafile: Any = None, capath: Any = None, cadata: Any = None) -> None:
        """Root certificates for a context that has none."""
        if not self._context.cert_store_stats()["x509_ca"]:
            self._context.load_verify_locations(cafile, capath, cadata)


def _keep_alive_timeout(hint: str | None) -> float:
    """Seconds for which an idle connection can be relied on after this `Keep-Alive` field; infinity if it says none.

    The server counts from when it sent its answer and we from when we read it: a second less, or half of a short time.
    """
    for part in (hint or "")[:_LONGEST_HINT].split(","):
        name, _, value = part.partition("=")
        seconds = value.strip().strip('"')
        if name.strip().lower() == "timeout" and seconds.isascii() and seconds.isdigit():
            return max(float(seconds) - 1, float(seconds) / 2)
    return inf


def _connector(endpoint: Endpoint) -> Callable[[Any, Any], Any]:
    def connect(conn: Any, real: Any) -> Any:
        use: Use | None = conn.ecs_discovery.use
        began = time.monotonic()
        try:
            tuning = _tuning(real)
            if use is None or use.racer is None:
                return sockets.connect(endpoint, conn.timeout, tuning)
            sock, use.connected = use.connected or use.racer.connect(use.lease, tuning), None
        except TimeoutError as error:
            raise ConnectTimeoutError(conn, f"{_tried(use, endpoint)}: no connection in time") from error
        except OSError as error:
            raise NewConnectionError(conn, f"{_tried(use, endpoint)}: {error}") from error
        if use.lease.endpoint.key != endpoint.key:  # other facts of it may have changed since the pool was made
            use.connected = sock
            raise Overtaken
        if use.leash is not None:
            try:
                use.leash.hold(sock)
            except ConnectionAbortedError:
                sock.close()
                raise
        if conn.timeout is not None:  # what is left of it is for the handshake
            sock.settimeout(max(_LEAST_HANDSHAKE, conn.timeout - (time.monotonic() - began)))
        return sock

    return connect


def _tuning(conn: Any) -> Tuning | None:
    """What the application wants of its sockets, as far as it is not urllib3's default."""
    options = getattr(conn, "socket_options", None)
    source = getattr(conn, "source_address", None)
    if source is None and options == HTTPConnection.default_socket_options:
        return None
    return Tuning(source, tuple(options or ()))


class ReadBody:
    """The body of an answer that was read already, as the source of a response that looks unread.

    It ends as the connection's own file does, with the `error` that cut it short if there was one.
    """

    def __init__(self, data: bytes, error: Exception | None = None) -> None:
        self._data = BytesIO(data)
        self._left = len(data)
        self._error = error

    @property
    def fp(self) -> BytesIO | None:
        """None once all was read, like http.client's."""
        return None if self.isclosed() else self._data

    @property
    def closed(self) -> bool:
        """Has all been read?"""
        return self.isclosed()

    def isclosed(self) -> bool:
        """Has all been read?"""
        return not self._left and self._error is None

    def read(self, amt: int | None = None) -> bytes:
        """The next bytes, all that are left without a number. Raises the error where the body broke off."""
        data = self._data.read(amt)
        self._left -= len(data)
        if self._error is not None and (amt is None or not data):
            error, self._error = self._error, None
            raise error
        return data

    read1 = read

    def close(self) -> None:
        """Let go of what was not read."""
        self._data, self._left, self._error = BytesIO(), 0, None

    def flush(self) -> None:
        """There is nothing to write."""


def read_whole(response: HTTPResponse, *, keep_error: bool = False) -> bytes | None:
    """The body of a response as it came. The response's connection is free then, and the response has been read.

    Raises urllib3's error for a body cut short. With `keep_error` that is put back for whoever reads it, and the
    result is None.
    """
    pieces: list[bytes] = []
    try:
        while piece := response.read(_PIECE, decode_content=False):
            pieces.append(piece)
            if response.length_remaining == 0 and response.connection is None:
                break
    except HTTPError as broken:
        if not keep_error:
            raise
        put_back(response, b"".join(pieces), broken)
        return None
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def put_back(response: HTTPResponse, data: bytes, error: Exception | None = None) -> None:
    """Leave a response that was read as if it had not been: with this body, and the error that ends it."""
    # urllib3 has no way to say this. What is set here is what reading has changed.
    response._fp = ReadBody(data, error)  # type: ignore[assignment]
    response._fp_bytes_read = 0
    response.chunked = False
    if response.length_remaining is not None:
        response.length_remaining = len(data)


def _tried(use: Use | None, endpoint: Endpoint) -> Endpoint:
    return endpoint if use is None else use.lease.endpoint


def _answer(conn: Any, pool: EndpointPool | None, limit: float, clock: Callable[[], float]) -> Any:
    """The response, unless the peer's kernel is silent and the request may go elsewhere."""
    use = conn.ecs_discovery.use
    sock = conn.sock
    if use is None or sock is None:
        return type(conn).getresponse(conn)
    timeout = conn.timeout  # the read timeout by now; the socket has yet to be told
    began = clock()
    if tcp_info.answered_soon(sock, limit, timeout):  # most answers come so soon that nothing is made for the wait
        return type(conn).getresponse(conn)
    wait = _Wait(use, sock, pool, limit, clock)
    try:
        answered = tcp_info.wait_for_answer(sock, limit, timeout, clock, wait.gone)
    finally:
        wait.end()
    if not answered:
        if use.replayable:
            if wait.doubted:
                raise PeerDoubtedError("no answer, and a test connect met silence")
            why = "its task has vanished" if wait.vanished else f"nothing was acknowledged within {limit:g} s"
            raise PeerSilentError(why)
        if use.racer is not None:  # the request waits on, but others need not go there
            use.racer.vanished(use.lease, clock() - limit)
    if timeout is None or (waited := clock() - began) < limit / 2:
        return type(conn).getresponse(conn)
    conn.timeout = max(0.001, timeout - waited)  # the wait was part of it
    response = type(conn).getresponse(conn)
    if conn.sock is not None:
        conn.sock.settimeout(timeout)
    return response


class _Wait:
    """One wait for an answer: is the host still there? What it costs is paid from the first look on."""

    __slots__ = (
        "_began",
        "_clock",
        "_doubt",
        "_farewell",
        "_idle",
        "_limit",
        "_pool",
        "_sock",
        "_test",
        "_tested",
        "_use",
        "doubted",
    )

    def __init__(
        self, use: Use, sock: Any, pool: EndpointPool | None, limit: float, clock: Callable[[], float]
    ) -> None:
        self._use = use
        self._sock = sock
        self._pool = pool
        self._limit = limit
        self._clock = clock
        self._began = clock()
        self._doubt: LivenessTimer | None = None
        self._farewell: Farewell | None = None
        self._idle: int | None = None
        self._test: socket.socket | None = None
        self._tested = 0.0
        self.doubted = False
        """The request goes elsewhere on a suspicion."""

    @property
    def vanished(self) -> bool:
        """Was the host found to be gone, by this request or another?"""
        return self._doubt is not None and self._doubt.gone

    def gone(self) -> bool:
        """Look. Should a request that may be replayed wait no longer?"""
        use, racer, doubt = self._use, self._use.racer, self._doubt
        if racer is None:
            return False
        if doubt is None:  # most answers come before the first look
            doubt = self._doubt = LivenessTimer(use.lease.node, self._began, self._limit)
            racer.waits(use.lease, 1)
        now = self._clock()
        if doubt.due(now):
            # A connect would prove nothing: a busy task with a full queue leaves it without an answer too.
            self._idle = tcp_info.probe_soon(self._sock)
            self._farewell = self._pool.farewell() if self._pool is not None else None
            if self._farewell is None and use.replayable:
                self._test, self._tested = racer.test(use.lease), now
        farewell = self._farewell
        if farewell is not None:
            acknowledged = farewell.acknowledged
            if acknowledged or now >= farewell.began + racer.patience():
                self._end_farewell()
                if not acknowledged:
                    racer.vanished(use.lease, farewell.began)
        if self._test is not None and (sockets.connected(self._test) or now >= self._tested + racer.patience()):
            silent = not sockets.connected(self._test)
            self._end_test()
            self.doubted = silent and racer.may_move_on(use.lease, now - self._began)
        return (doubt.gone or self.doubted) and bool(use.replayable)

    def end(self) -> None:
        """The wait is over."""
        self._end_farewell()
        self._end_test()
        if self._doubt is not None and self._use.racer is not None:
            self._use.racer.waits(self._use.lease, -1)
        if self._idle is not None:
            tcp_info.probe_soon(self._sock, self._idle)

    def _end_test(self) -> None:
        test, self._test = self._test, None
        if test is not None:
            test.close()

    def _end_farewell(self) -> None:
        farewell, self._farewell = self._farewell, None
        if farewell is not None:
            farewell.close()
