"""A connection of httpcore's in threads: where a request meets its socket, and its answer is waited for."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, Protocol

from ecs_discovery.config.policies import ConnectionPolicy
from ecs_discovery.core.calls.connections import ConnectionState
from ecs_discovery.core.lease import Lease
from ecs_discovery.integrations._httpx.library import Library
from ecs_discovery.integrations._httpx.sync.shared_socket import SharedSocket
from ecs_discovery.integrations.http.exchange import AttemptUse
from ecs_discovery.integrations.http.liveness import Suspicion, wait_for_answer
from ecs_discovery.integrations.http.timeouts import read_limit
from ecs_discovery.runtime import sockets, tcp_info
from ecs_discovery.runtime.sockets import AbortHandle, Tuning

__all__ = ["HttpxUse", "Stream", "current"]

_A_DAY = 86_400.0  # seconds: as long as it takes
_BUSY = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Connector(Protocol):
    """What connects for a request."""

    def connect_socket(self, lease: Lease, tuning: Tuning | None) -> socket.socket:
        """A connected socket; `lease` is then of the endpoint that it leads to. Raises OSError."""

    def connect_limit(self) -> float:
        """Seconds that connecting may take."""

    def suspicion(self) -> Suspicion:
        """What the request may do about a host that may be gone."""


class Facts(Protocol):
    """What the connections to one endpoint have in common."""

    library: Library
    names: dict[str, str]
    policy: ConnectionPolicy
    clock: Callable[[], float]
    retired: bool
    multiplexed: bool

    def must_close(self, state: ConnectionState) -> bool:
        """Is an idle connection better not used?"""


class HttpxUse(AttemptUse):
    """One attempt's use of an endpoint, in a thread."""

    __slots__ = ("abort", "connect_by", "connected", "connector", "deadline_at", "fields", "stream")

    def __init__(self, lease: Lease, replayable: bool, connector: Connector) -> None:
        AttemptUse.__init__(self, lease, replayable)  # `super()` takes longer
        self.connector: Connector | None = connector
        self.abort: AbortHandle | None = None
        """Where another thread may want to end it: told of the connection."""
        self.connected: socket.socket | None = None
        """The socket of a race, for a connection to the lease's endpoint."""
        self.connect_by = 0.0
        """When the handshake of TLS has to be over, in monotonic seconds."""
        self.deadline_at: float | None = None
        """The end of a deadline that the caller gave, in monotonic seconds."""
        self.stream: Stream | None = None
        """The connection that the request went out on."""
        self.fields: Mapping[str, str] | None = None
        """See `Exchange.carry`."""


current: ContextVar[HttpxUse | None] = ContextVar("ecs_discovery_httpx_use", default=None)
"""The use for which this thread sends or reads. httpcore hands no request to a connection's reads and writes."""


class Stream:
    """A socket, for httpcore. It never blocks in the kernel for longer than it is told to."""

    def __init__(self, facts: Facts, sock: Any) -> None:
        self._facts = facts
        self._core = facts.library.core
        self._limit = facts.policy.ack_timeout
        self._first_look = tcp_info.first_look(self._limit, None)
        self._clock = clock = facts.clock
        self.state = ConnectionState()
        self.state.opened(clock())
        self.state.idle_since = self.state.opened_at
        self.broken_by: HttpxUse | None = None
        """The use in which it failed."""
        self.names = facts.names
        """The names that TLS verifies, where they are not the names that the URL has."""
        self.counted = False
        """Its failure was held against the endpoint."""
        self.last = self.before = b""
        """What was read last."""
        self.answered = False
        """Its first answer has come."""
        self.multiplexed: bool = facts.multiplexed
        """It may carry several requests at once (HTTP/2)."""
        self._asked = False
        self._fresh = False
        self._used = False
        self._shared: SharedSocket | None = None
        self._hold(sock)

    def _hold(self, sock: Any) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._recv: Callable[[int], bytes] = sock.recv
        self._put: Callable[[Any], int] = sock.send
        self._ready = sockets.ready_check(sock)

    def upgrade(self) -> None:
        """It speaks another protocol from here on (WebSocket): one thread may read while others write or close."""
        if self._shared is None:
            shared = self._shared = SharedSocket(self._sock)
            self._recv, self._put = shared.recv, shared.send

    def is_ready(self, seconds: float | None) -> bool:
        """Is there something to read within that time? Without a number of seconds it waits as long as it takes."""
        return bool(self._ready(1000 * (_A_DAY if seconds is None else max(0.0, seconds))))

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """The next bytes; none at the end. `timeout` in seconds."""
        use = current.get()
        try:
            if use is not None:
                if use.deadline_at is not None:
                    timeout = read_limit(timeout, use.deadline_at, self._clock())
                if self._asked:
                    self._asked = False
                    timeout = self._wait(use, timeout)
            if self._shared is None:
                data = self._receive(max_bytes, timeout)
            else:
                data = self._shared.use(self._receive, max_bytes, timeout)
        except TimeoutError as error:
            self.broken_by = self.broken_by or use
            raise self._core.ReadTimeout(str(error)) from error
        except OSError as error:
            self.broken_by = self.broken_by or use
            raise self._core.ReadError(str(error)) from error
        self.state.idle_since = self._clock()
        self._fresh = True
        if not data:
            self.broken_by = self.broken_by or use
        self.before, self.last = self.last, data
        return data

    def has_more(self, seconds: float) -> bool:
        """Is there more to read within that time?"""
        pending = getattr(self._sock, "pending", None)  # TLS: deciphered, and no longer in the kernel
        return bool(pending and pending()) or self.is_ready(seconds)

    def _wait(self, use: HttpxUse, timeout: float | None) -> float | None:
        """Wait for the answer, and look whether the host is still there. What is left of `timeout`."""
        sock = self._sock
        # Most answers come so soon that nothing is made for the wait. Never under TLS: session tickets make a fresh
        # connection readable.
        look = self._first_look if timeout is None else min(self._first_look, timeout)
        if type(sock) is socket.socket and self._ready(1000 * max(0.0, look)):
            return timeout
        suspicion = use.connector.suspicion() if use.connector is not None else None
        waited = wait_for_answer(use, suspicion, sock, None, self._limit, timeout, self._clock)
        return timeout if timeout is None else max(0.0, timeout - waited)

    def _receive(self, max_bytes: int, timeout: float | None) -> bytes:
        while True:
            try:
                return self._recv(max_bytes)
            except ssl.SSLWantWriteError:
                ready = sockets.is_ready(self._sock, _A_DAY if timeout is None else timeout, read=False)
            except _BUSY:
                ready = self.is_ready(timeout)
            if not ready:
                raise TimeoutError("timed out")

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of it. Each wait for room may take `timeout` seconds."""
        if not buffer:
            return
        use = current.get()
        if use is not None:
            certain = use.sent or use.replayable or self._facts.multiplexed or not self._used
            if not certain and self.is_ready(0.0):
                # The task has closed it since it was chosen, in a deployment say. Nothing was sent yet.
                raise self._core.ConnectionNotAvailable
            self._used = True
            use.sent = True
            use.stream = self
            self._asked = True
            if use.deadline_at is not None:
                timeout = read_limit(timeout, use.deadline_at, self._clock())
        try:
            if use is not None and use.abort is not None:
                use.abort.hold(self._sock)
            if self._shared is None:
                self._send(buffer, timeout)
            else:
                self._shared.use(self._send, buffer, timeout)
        except TimeoutError as error:
            self.broken_by = self.broken_by or use
            raise self._core.WriteTimeout(str(error)) from error
        except OSError as error:
            raise self._core.WriteError(str(error)) from error

    def _send(self, buffer: bytes, timeout: float | None) -> None:
        rest: Any = buffer
        while len(rest):
            try:
                sent = self._put(rest)
            except ssl.SSLWantReadError:
                ready = sockets.is_ready(self._sock, _A_DAY if timeout is None else timeout)
            except _BUSY:
                ready = sockets.is_ready(self._sock, _A_DAY if timeout is None else timeout, read=False)
            else:
                rest = memoryview(rest)[sent:] if sent < len(rest) else b""
                continue
            if not ready:
                raise TimeoutError("timed out")

    def close(self) -> None:
        """Close the socket."""
        (self._shared or self._sock).close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> Stream:
        """TLS from here on. The handshake may take what is left of the time to connect."""
        use = current.get()
        limit = timeout if timeout is not None else _A_DAY
        if use is not None and use.connect_by:
            limit = max(0.05, use.connect_by - self._clock())
        try:
            self._hold(
                sockets.secure(self._sock, ssl_context, self.names.get(server_hostname or "", server_hostname), limit)
            )
        except TimeoutError as error:
            self.close()
            raise self._core.ConnectTimeout(str(error)) from error
        except OSError as error:
            self.close()
            raise self._core.ConnectError(str(error)) from error
        if use is not None:
            use.lease.sent_at = self._clock()
        return self

    def must_close(self) -> bool:
        """Is it better not used any more, idle as it is?"""
        return self._facts.must_close(self.state)

    def get_extra_info(self, info: str) -> Any:
        """What httpcore and applications ask of a connection."""
        if info == "is_readable":  # asked of idle connections: not to be used any more?
            if self._fresh:  # asked when its answer was read: the next request will ask again
                self._fresh = False
                return self._facts.retired
            return self._sock.fileno() < 0 or self._facts.must_close(self.state) or bool(self._ready(0))
        if info == "ssl_object":
            return self._sock if isinstance(self._sock, ssl.SSLSocket) else None
        if info == "client_addr":
            return self._sock.getsockname()
        if info == "server_addr":
            return self._sock.getpeername()
        return self._sock if info == "socket" else None
