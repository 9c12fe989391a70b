"""A connection of httpcore's in a task: where a request meets its socket, and its answer is waited for."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from math import inf
from typing import Any, Protocol

from ecs_discovery.config.policies import ConnectionPolicy
from ecs_discovery.core.calls.connections import ConnectionState
from ecs_discovery.core.lease import Lease
from ecs_discovery.integrations._httpx.library import Library
from ecs_discovery.integrations.http.aio import AsyncUse
from ecs_discovery.integrations.http.timeouts import read_limit
from ecs_discovery.runtime import sockets, tcp_info
from ecs_discovery.runtime.sockets import Tuning

__all__ = ["AsyncHttpxUse", "AsyncStream", "current"]

_HIGH = 262_144  # bytes that are kept before the peer is made to wait


class AsyncConnector(Protocol):
    """What connects for a request."""

    async def connect_socket(self, lease: Lease, tuning: Tuning | None) -> socket.socket:
        """A connected socket; `lease` is then of the endpoint that it leads to. Raises OSError."""

    def connect_limit(self) -> float:
        """Seconds that connecting may take."""

    def watch(self, use: AsyncHttpxUse, connection: asyncio.BaseTransport) -> None:
        """Look whether the host behind the connection is still there, until the attempt is over."""


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


class AsyncHttpxUse(AsyncUse):
    """One attempt's use of an endpoint, in a task."""

    __slots__ = ("connect_by", "connected", "connector", "deadline_at", "fields", "stream")

    def __init__(self, lease: Lease, replayable: bool, connector: AsyncConnector) -> None:
        AsyncUse.__init__(self, lease, replayable)  # `super()` takes longer
        self.connector: AsyncConnector | None = connector
        self.connected: socket.socket | None = None
        """The socket of a race, for a connection to the lease's endpoint."""
        self.connect_by = 0.0
        """When the handshake of TLS has to be over, in monotonic seconds."""
        self.deadline_at: float | None = None
        """The end of a deadline that the caller gave, in monotonic seconds."""
        self.stream: AsyncStream | None = None
        """The connection that the request went out on."""
        self.fields: Mapping[str, str] | None = None
        """See `Exchange.carry`."""


current: ContextVar[AsyncHttpxUse | None] = ContextVar("ecs_discovery_async_httpx_use", default=None)
"""The use for which this task sends or reads. httpcore hands no request to a connection's reads and writes."""


class AsyncStream(asyncio.Protocol):
    """A connection of the event loop, for httpcore.

    It has one timer, which is moved on when it fires: a timer for each read costs more than the read.
    """

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._core = facts.library.core
        self._limit = facts.policy.ack_timeout
        self._clock = clock = facts.clock
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._ready: Callable[[float], object] | None = None
        self._encrypted = False
        self._pieces: list[bytes] = []
        self._size = 0
        self._ended = False
        self._error: Exception | None = None
        self._reader: asyncio.Future[None] | None = None
        self._read_until = inf
        self._asking: AsyncHttpxUse | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._paused = False
        self._room: asyncio.Future[None] | None = None
        self._asked = False
        self._fresh = False
        self._used = False
        self._upgraded = False
        self._below: Any = None
        self.names = facts.names
        """The names that TLS verifies, where they are not the names that the URL has."""
        self.state = ConnectionState()
        self.state.opened(clock())
        self.state.idle_since = self.state.opened_at
        self.broken_by: AsyncHttpxUse | None = None
        """The use in which it failed."""
        self.counted = False
        """Its failure was held against the endpoint."""
        self.last = self.before = b""
        """What was read last."""
        self.answered = False
        """Its first answer has come."""
        self.multiplexed: bool = facts.multiplexed
        """It may carry several requests at once (HTTP/2)."""

    # As a protocol of asyncio's

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._pieces.append(data)
        self._size += len(data)
        if self._size > _HIGH:
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        self._ended = True
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._error = self._error or exc
        self._wake()
        self.resume_writing()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    def _wake(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None and not reader.done():
            reader.set_result(None)

    # As a stream of httpcore's

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """The next bytes; none at the end. `timeout` in seconds."""
        if not self._pieces and not self._ended:
            use = current.get()
            if use is not None and use.deadline_at is not None:
                timeout = read_limit(timeout, use.deadline_at, self._clock())
            asked, self._asked = self._asked, False
            try:
                await self._wait(timeout, use if asked else None)
            except TimeoutError as error:
                self.broken_by = self.broken_by or use
                raise self._core.ReadTimeout("timed out") from error
        self.state.idle_since = self._clock()
        self._fresh = True
        if self._pieces:
            return self._take(max_bytes)
        self.broken_by = self.broken_by or current.get()
        if self._error is not None:
            raise self._core.ReadError(str(self._error)) from self._error
        return b""

    async def has_more(self, seconds: float) -> bool:
        """Is there more to read within that time, the end perhaps?"""
        if not self._pieces and not self._ended:
            try:
                await self._wait(seconds, None)
            except TimeoutError:
                return False
        return True

    def _take(self, max_bytes: int) -> bytes:
        data = self._pieces[0]
        if len(data) <= max_bytes:
            del self._pieces[0]
        else:
            self._pieces[0], data = data[max_bytes:], data[:max_bytes]
        full = self._size > _HIGH
        self._size -= len(data)
        if full and self._size <= _HIGH and not self._ended:
            self._transport.resume_reading()
        self.before, self.last = self.last, data
        return data

    async def _wait(self, timeout: float | None, use: AsyncHttpxUse | None) -> None:
        """Wait for bytes or the end. After a request of `use` was sent, look whether the host is still there."""
        loop = self._loop
        now = loop.time()
        self._asking = use if use is not None and use.replayable else None
        self._read_until = inf if timeout is None else now + timeout
        look = now + tcp_info.first_look(self._limit, None) if self._asking is not None else inf
        if self._timer is None and (at := min(self._read_until, look)) < inf:
            self._timer = loop.call_at(at, self._tick)
        elif self._timer is not None and self._timer.when() > (at := min(self._read_until, look)):
            self._timer.cancel()
            self._timer = loop.call_at(at, self._tick)
        reader = self._reader = loop.create_future()
        try:
            await reader
        finally:
            self._asking = None
            if self._reader is reader:  # cancelled
                self._reader = None

    def _tick(self) -> None:
        """The time of a read may be over, or it may be time to look whether the host is still there."""
        self._timer = None
        reader = self._reader
        if reader is None or reader.done():
            return  # the next read sets it again
        use, self._asking = self._asking, None
        if use is not None and use.connector is not None:
            use.connector.watch(use, self._transport)
        if self._loop.time() >= self._read_until:
            self._reader = None
            reader.set_exception(TimeoutError())
        elif self._read_until < inf:
            self._timer = self._loop.call_at(self._read_until, self._tick)

    def _is_ready(self) -> bool:
        """Is there something that the event loop has not read yet, the end perhaps?"""
        if self._ready is None:
            self._ready = sockets.ready_check(self._transport.get_extra_info("socket"))
        return bool(self._ready(0))

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of it. A wait for room may take `timeout` seconds."""
        if not buffer:
            return
        use = current.get()
        if use is not None:
            certain = use.sent or use.replayable or self._facts.multiplexed or not self._used
            if not certain and (self._ended or self._is_ready()):
                # The task has closed it since it was chosen, in a deployment say. Nothing was sent yet.
                raise self._core.ConnectionNotAvailable
            self._used = True
            use.sent = True
            use.stream = self
            self._asked = True
            if use.deadline_at is not None:
                timeout = read_limit(timeout, use.deadline_at, self._clock())
        if self._ended and (self._error is not None or self._upgraded):
            raise self._core.WriteError(str(self._error or "the connection has ended")) from self._error
        self._transport.write(buffer)
        if not self._paused:
            return
        room = self._room = self._room or self._loop.create_future()
        try:
            async with asyncio.timeout(timeout):
                await asyncio.shield(room)
        except TimeoutError as error:
            self.broken_by = self.broken_by or use
            raise self._core.WriteTimeout("timed out") from error
        if self._error is not None:
            raise self._core.WriteError(str(self._error)) from self._error

    def upgrade(self) -> None:
        """It speaks another protocol from here on (WebSocket)."""
        self._upgraded = True

    def close(self) -> None:
        """Close the connection without waiting."""
        if self._transport is None:
            return  # abandoned
        if self._upgraded and self._transport.is_closing():
            return  # what was written is still being sent, perhaps
        self._ended = True
        # TLS would wait for the other side's farewell, which no HTTP client does.
        if self._paused or (self._encrypted and not (self._upgraded and self._has_unsent())):
            self._transport.abort()
        else:
            self._transport.close()

    @property
    def is_over(self) -> bool:
        """Is the connection closed, or being closed?"""
        return self._transport is None or self._transport.is_closing()

    def abandon(self) -> None:
        """Close it where its event loop cannot: that is closed."""
        self._ended = True
        with suppress(OSError, AttributeError):  # it has ended
            sock = self._transport.get_extra_info("socket")
            sock.shutdown(socket.SHUT_RDWR)
            sock._sock.close()  # with TLS the transports hold each other until the collector comes
        self._transport = self._below = None  # else the two would keep each other, and the descriptor

    def _has_unsent(self) -> bool:
        """Would bytes be lost that were written? With TLS the connection below keeps some too."""
        return any(each.get_write_buffer_size() for each in (self._transport, self._below))

    async def aclose(self) -> None:
        """Close the connection."""
        self.close()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> AsyncStream:
        """TLS from here on. The handshake may take what is left of the time to connect."""
        use = current.get()
        limit = timeout
        if use is not None and use.connect_by:
            limit = max(0.05, use.connect_by - self._clock())
        name = self.names.get(server_hostname or "", server_hostname)
        self._below = self._transport
        try:
            async with asyncio.timeout(limit):
                self._transport = await self._loop.start_tls(self._transport, self, ssl_context, server_hostname=name)
        except TimeoutError as error:
            self._transport.abort()
            raise self._core.ConnectTimeout(str(error)) from error
        except OSError as error:
            self._transport.abort()
            raise self._core.ConnectError(str(error)) from error
        except BaseException:  # cancelled too: httpcore does not close what failed to become a connection
            self._transport.abort()
            raise
        self._encrypted = True
        if use is not None:
            use.lease.sent_at = self._clock()
        return self

    def must_close(self) -> bool:
        """Is it better not used any more, idle as it is?"""
        return self._ended or self._facts.must_close(self.state)

    def get_extra_info(self, info: str) -> Any:
        """What httpcore and applications ask of a connection."""
        if info == "is_readable":  # asked of idle connections: not to be used any more?
            if self._fresh:  # asked when its answer was read: the next request will ask again
                self._fresh = False
                return self._ended or self._facts.retired
            return self._ended or bool(self._pieces) or self._facts.must_close(self.state) or self._is_ready()
        if info == "client_addr":
            return self._transport.get_extra_info("sockname")
        if info == "server_addr":
            return self._transport.get_extra_info("peername")
        return self._transport.get_extra_info(info) if info in ("ssl_object", "socket") else None
