"""urllib3: connection pools that talk to one endpoint under the service's name.

A pool keeps the logical host, so that the Host header, cookies, redirects and error messages show
it; only the socket goes to the endpoint's address. Connections are urllib3's own class with hooks
on the instance, so that tools which replace that class still see every request.
"""

from __future__ import annotations

import socket
import time
import weakref
from collections.abc import Callable
from math import inf
from random import random
from typing import Any, Protocol, Self

import urllib3
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError
from urllib3.util import Timeout

from ecs_discovery import sockets
from ecs_discovery.core.doubt import Doubt
from ecs_discovery.core.lease import Lease
from ecs_discovery.integrations.urllib3_failures import PeerSilentError
from ecs_discovery.models import Endpoint
from ecs_discovery.policies import ConnectionPolicy
from ecs_discovery.sockets import Leash

__all__ = [
    "EndpointPool",
    "HttpEndpointPool",
    "HttpsEndpointPool",
    "Overtaken",
    "Use",
    "UseTimeout",
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
_LONGEST_HINT = 200  # characters of a Keep-Alive field that are looked at


class Overtaken(Exception):
    """Another endpoint connected first: the request belongs in that one's pool, which takes the socket."""


class Racer(Protocol):
    """Who connects for a request."""

    def connect(self, lease: Lease) -> socket.socket:
        """A connected socket; `lease` is then of the endpoint that it leads to. Raises OSError."""

    def suspect(self, lease: Lease) -> None:
        """Find out, in the background, whether the lease's endpoint has vanished."""


class Use:
    """One request's passage through a pool: how far it came, and the lease to end when its connection is free."""

    __slots__ = ("connected", "lease", "leash", "racer", "replayable", "send_timeout", "sent")

    def __init__(
        self,
        lease: Lease,
        replayable: bool,
        send_timeout: float | None = None,
        racer: Racer | None = None,
    ) -> None:
        self.lease = lease
        self.racer = racer
        self.leash: Leash | None = None
        """Where another thread may want to end it: told of the connection."""
        self.connected: socket.socket | None = None
        """The socket of a race, for a connection to the lease's endpoint."""
        self.replayable = replayable
        self.send_timeout = send_timeout
        """Limit of each write of the request, as the application gave it."""
        self.sent = False
        """True from the moment bytes of the request may be on the wire."""


class UseTimeout(Timeout):
    """A urllib3 timeout that carries the request's `Use` to where the connection is known."""

    def __init__(self, connect: float | None, read: Any, use: Use) -> None:
        super().__init__(connect=connect, read=read)
        self.use = use

    def clone(self) -> Self:
        # urllib3 copies it twice per request, to start its clock once per request: this one serves one only.
        return self


class _Books:
    """What a pool remembers of a connection."""

    __slots__ = ("idle_since", "opened", "promise", "use")

    def __init__(self) -> None:
        self.opened = 0.0
        self.idle_since = 0.0
        self.promise: float | None = None
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
        conn.ecs_discovery = _Books()
        # Hooks hold neither the connection (a cycle that only the garbage collector would close) nor the pool
        # (which urllib3 closes when nothing refers to it).
        here, connect, limit, clock = weakref.ref(conn), self._connect, self._policy.ack_timeout, self._clock
        conn._new_conn = lambda: connect(here())
        conn.getresponse = lambda: _answer(here(), limit, clock)
        return conn

    def _make_request(self, conn: Any, method: str, url: str, *args: Any, **options: Any) -> Any:
        timeout = options.get("timeout")
        if isinstance(timeout, UseTimeout):
            books: _Books = conn.ecs_discovery
            books.use = timeout.use
            if conn.sock is not None and self._worn(books, timeout.use.replayable):
                conn.close()
            response = super()._make_request(conn, method, url, *args, **options)
            if books.promise is None:
                books.promise = _promise(response.headers.get("Keep-Alive"))
            return response
        return super()._make_request(conn, method, url, *args, **options)

    def _validate_conn(self, conn: Any) -> None:
        super()._validate_conn(conn)  # connects, if this is TLS
        books: _Books = conn.ecs_discovery
        if conn.sock is None:
            conn.connect()
            books.opened = 0.0
        if not books.opened:
            books.opened = self._clock()
            books.promise = None
            if books.use is not None:
                books.use.lease.sent = books.opened
        if books.use is not None:
            # The time to connect was this attempt's share; to send, the application's own limit holds.
            conn.timeout = books.use.send_timeout
            books.use.sent = True
            if books.use.leash is not None:
                books.use.leash.hold(conn.sock)

    def _put_conn(self, conn: Any) -> None:
        if conn is not None:
            books: _Books = conn.ecs_discovery
            use, books.use = books.use, None
            if conn.sock is None:
                books.opened = 0.0
            books.idle_since = self._clock()
            if use is not None:
                if use.leash is not None:
                    use.leash.drop()  # the connection is for others from now on
                use.lease.release()
        super()._put_conn(conn)

    def _worn(self, books: _Books, replayable: bool) -> bool:
        """Is an idle connection better not used for this request?"""
        policy = self._policy
        now = self._clock()
        idle = now - books.idle_since
        limit = policy.idle_timeout if replayable else min(policy.idle_timeout, policy.unsafe_idle_timeout)
        if idle >= limit or (books.promise is not None and idle >= books.promise):
            books.opened = 0.0
            return True
        age = now - books.opened
        # A fifth either way, so that connections which were opened together do not end together.
        if age >= policy.max_age * 0.8 and age >= policy.max_age * (0.8 + 0.4 * random()):
            books.opened = 0.0
            return True
        return False


class HttpEndpointPool(EndpointPool):
    """Plain HTTP."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{name: value for name, value in options.items() if name not in _SSL_OPTIONS})


class HttpsEndpointPool(EndpointPool, HTTPSConnectionPool):
    """TLS, verified for `tls_name` (also the SNI), whatever the address."""

    def __init__(self, *args: Any, tls_name: str, **options: Any) -> None:
        super().__init__(*args, **{**options, "server_hostname": tls_name, "assert_hostname": tls_name})


def _promise(hint: str | None) -> float:
    """Seconds for which an idle connection can be relied on after this `Keep-Alive` field; infinity if it says none.

    The server counts from when it sent its answer and we from when we read it: a second less, or half of a short time.
    """
    for part in (hint or "")[:_LONGEST_HINT].split(","):
        name, _, value = part.partition("=")
        seconds = value.strip().strip('"')
        if name.strip().lower() == "timeout" and seconds.isascii() and seconds.isdigit():
            return max(float(seconds) - 1, float(seconds) / 2)
    return inf


def _connector(endpoint: Endpoint) -> Callable[[Any], Any]:
    def connect(conn: Any) -> Any:
        use: Use | None = conn.ecs_discovery.use
        began = time.monotonic()
        try:
            if use is None or use.racer is None:
                return sockets.connect(endpoint, conn.timeout)
            sock, use.connected = use.connected or use.racer.connect(use.lease), None
        except TimeoutError as error:
            raise ConnectTimeoutError(conn, f"{_tried(use, endpoint)}: no connection in time") from error
        except OSError as error:
            raise NewConnectionError(conn, f"{_tried(use, endpoint)}: {error}") from error
        if use.lease.endpoint.key != endpoint.key:  # other facts of it may have changed since the pool was made
            use.connected = sock
            raise Overtaken
        if conn.timeout is not None:  # what is left of it is for the handshake
            sock.settimeout(max(_LEAST_HANDSHAKE, conn.timeout - (time.monotonic() - began)))
        return sock

    return connect


def _tried(use: Use | None, endpoint: Endpoint) -> Endpoint:
    return endpoint if use is None else use.lease.endpoint


def _answer(conn: Any, limit: float, clock: Callable[[], float]) -> Any:
    """The response, unless the peer's kernel is silent and the request may go elsewhere."""
    use = conn.ecs_discovery.use
    sock = conn.sock
    if use is None or not use.replayable or sock is None:
        return type(conn).getresponse(conn)
    timeout = conn.timeout  # the read timeout by now; the socket has yet to be told
    began = clock()
    doubt: Doubt | None = None

    def gone() -> bool:
        nonlocal doubt
        if doubt is None:  # most answers come before the first look
            doubt = Doubt(use.lease.node, began, limit)
        if use.racer is not None and doubt.due(clock()):
            use.racer.suspect(use.lease)
        return doubt.gone

    if not sockets.wait_for_answer(sock, limit, timeout, clock, gone):
        vanished = doubt is not None and doubt.gone
        why = "its task has vanished" if vanished else f"the request was not acknowledged within {limit:g} s"
        raise PeerSilentError(why)
    if timeout is None or (waited := clock() - began) < limit / 2:
        return type(conn).getresponse(conn)
    conn.timeout = max(0.001, timeout - waited)  # the wait was part of it
    response = type(conn).getresponse(conn)
    if conn.sock is not None:
        conn.sock.settimeout(timeout)
    return response


if not hasattr(urllib3, "connectionpool"):  # niquests replaces the module of this name
    raise ImportError("the installed 'urllib3' is not urllib3 2.x: uninstall urllib3-future or niquests")
