"""Sockets: connecting to one endpoint, and telling a silent peer from a slow one.

A live kernel acknowledges a request within milliseconds, however slow the application behind it.
On Linux `TCP_INFO` shows that; elsewhere nothing here can tell, and read timeouts must do.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable
from enum import Enum
from errno import EADDRNOTAVAIL, EHOSTUNREACH, EINPROGRESS, EINVAL, EMFILE, ENFILE, ENOBUFS, ENOMEM, EWOULDBLOCK
from threading import Lock
from typing import Any, NamedTuple

from ecs_discovery.models import Endpoint, is_address

__all__ = [
    "Farewell",
    "Leash",
    "Progress",
    "Sign",
    "Tuning",
    "Watch",
    "acknowledged",
    "answered_soon",
    "begin_connect",
    "connect",
    "connect_async",
    "connected",
    "end_connect",
    "is_ours",
    "probe_soon",
    "secure",
    "sign_of",
    "tune",
    "wait_for_answer",
]

# Offsets in struct tcp_info (linux/tcp.h): eight bytes, then 32-bit fields.
_STATE = 0
_PROBES = 3  # keep-alive probes without an answer
_UNACKED = 8 + 4 * 4
_RTT = 8 + 4 * 15  # microseconds; smoothed, and stretched by delayed acknowledgements of slow answers
_BYTES_ACKED = 120  # 64 bits; since Linux 4.1
_MIN_RTT = 148  # microseconds; since Linux 4.6
_INFO_SIZE = 152
# A user timeout takes the place of the count of probes (tcp(7)); a short one would end live peers that read
# an upload late, with their window closed meanwhile.
_KEEPALIVE = (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 1), ("TCP_KEEPCNT", 4), ("TCP_USER_TIMEOUT", 15_000))
_OURS = frozenset({EADDRNOTAVAIL, EMFILE, ENFILE, ENOBUFS, ENOMEM})
_FIN_UNANSWERED = frozenset({4, 9, 11})  # FIN_WAIT1, LAST_ACK and CLOSING (linux/tcp_states.h)
_QUICK = 1  # seconds: the kernel takes no fraction
_FIRST = 0.02  # seconds before the first look at a waiting request
_STEP = 0.05  # seconds between looks at what became of the peer while its answer is waited for
_TCP_INFO: int | None = getattr(socket, "TCP_INFO", None) if sys.platform == "linux" else None


class Leash:
    """A hold on a socket that another thread uses, to end what that thread waits for."""

    __slots__ = ("_cut", "_lock", "_sock")

    def __init__(self) -> None:
        self._sock: socket.socket | None = None
        self._cut = False
        self._lock = Lock()

    def hold(self, sock: Any) -> None:
        """The thread uses this one now. Raises `ConnectionAbortedError` if it is to end."""
        with self._lock:
            if self._cut:
                raise ConnectionAbortedError("nobody waits for it any more")
            self._sock = sock if isinstance(sock, socket.socket) else None

    def drop(self) -> None:
        """It is done with it."""
        with self._lock:
            self._sock = None

    def cut(self) -> None:
        """Have its reads and writes fail, those to come included."""
        with self._lock:
            self._cut = True
            if self._sock is not None:
                try:
                    socket.socket.shutdown(self._sock, socket.SHUT_RDWR)  # TLS's own would pull it from under a read
                except OSError:
                    pass  # it has ended already


class Tuning(NamedTuple):
    """What an application wants of its sockets, as urllib3 says it."""

    source: tuple[str, int] | None = None
    """The address and port to connect from."""
    options: tuple[tuple[Any, ...], ...] = ()
    """Arguments of `setsockopt`."""


class Sign(Enum):
    """What a connect told of the host of an endpoint."""

    ACCEPTS = "accepts"
    REFUSES = "refuses"
    """It is there, and does not listen: a draining task, say."""
    SILENT = "silent"
    UNTOLD = "untold"
    """The connect failed on this side."""


def is_ours(error: OSError) -> bool:
    """Has this side run out of something (descriptors, ports, memory)? That says nothing of the peer."""
    return error.errno in _OURS


def sign_of(error: OSError | None) -> Sign:
    """What the outcome of a connect says."""
    if error is None:
        return Sign.ACCEPTS
    if is_ours(error):
        return Sign.UNTOLD
    # A neighbour that vanished is "no route to host" when ARP has given it up.
    return Sign.SILENT if isinstance(error, TimeoutError) or error.errno == EHOSTUNREACH else Sign.REFUSES


def connect(endpoint: Endpoint, timeout: float, tuning: Tuning | None = None) -> socket.socket:
    """A connected TCP socket, tuned, with its timeout set to `timeout`. Raises OSError."""
    source = tuning.source if tuning is not None else None
    with _refusing:
        sock = socket.create_connection((endpoint.host, endpoint.port), timeout=timeout, source_address=source)
    try:
        tune(sock, tuning)
    except OSError:
        sock.close()
        raise
    return sock


def secure(sock: socket.socket, context: ssl.SSLContext, name: str | None, limit: float) -> ssl.SSLSocket:
    """TLS over a connected socket, which it takes over. Raises `TimeoutError` if it takes more than `limit` seconds:
    a time-out of the socket alone would begin anew with every byte of the handshake."""
    until = time.monotonic() + limit
    secured = context.wrap_socket(sock, server_hostname=name, do_handshake_on_connect=False)
    try:
        secured.setblocking(False)
        while True:
            try:
                secured.do_handshake()
                secured.setblocking(True)
                return secured
            except ssl.SSLWantReadError:
                readable = True
            except ssl.SSLWantWriteError:
                readable = False
            left = until - time.monotonic()
            if left <= 0 or not _ready(secured, left, read=readable):
                raise TimeoutError("timed out in the TLS handshake")
    except BaseException:  # interrupted too: nobody else knows of the socket
        secured.close()
        raise


def begin_connect(endpoint: Endpoint, tuning: Tuning | None = None) -> socket.socket:
    """A non-blocking socket, tuned, that connects by itself: writable when done. The host is an address.

    Raises OSError.
    """
    sock = socket.socket(socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        tune(sock, tuning)
        if tuning is not None and tuning.source is not None:
            sock.bind(tuning.source)
        with _refusing:
            code = sock.connect_ex((endpoint.host, endpoint.port))
        if code not in (0, EINPROGRESS, EWOULDBLOCK):
            raise OSError(code, os.strerror(code))
    except BaseException:  # cancelled and interrupted too: nobody else knows of the socket
        sock.close()
        raise
    return sock


def connected(sock: socket.socket) -> bool:
    """Has a connect that `begin_connect` began ended? A connection and a refusal both show a kernel that lives."""
    return _ready(sock, 0.0, read=False)


def end_connect(sock: socket.socket) -> None:
    """Raises the OSError with which a connect ended that `begin_connect` began."""
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))


async def connect_async(endpoint: Endpoint) -> socket.socket:
    """The same for asyncio, non-blocking and without a time limit of its own."""
    loop = asyncio.get_running_loop()
    address: Any = (endpoint.host, endpoint.port)
    family: int = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    if not is_address(endpoint.host):  # discovery is switched off: the system resolves, as it would without us
        with _refusing:
            found = await loop.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
        family, _, _, _, address = found[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        tune(sock)
        with _refusing:
            await loop.sock_connect(sock, address)
    except BaseException:  # cancelled and interrupted too: nobody else knows of the socket
        sock.close()
        raise
    return sock


class _Refusing:
    """What no socket can connect to (a port above 65535, a host with a NUL) is a connect that failed.

    Python raises other errors than OSError for it, which nobody would retry or hold against the endpoint.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (OverflowError, ValueError, TypeError)):
            raise OSError(EINVAL, f"not to be connected to: {error}") from error


_refusing = _Refusing()


def tune(sock: socket.socket, tuning: Tuning | None = None) -> None:
    """No delay for small writes; keep-alive probes that end a connection to a vanished peer in about 15 seconds.
    `tuning` comes last, so that what the application says holds.

    Probes are answered by the peer's kernel, so a slow application is left alone.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
    for each in tuning.options if tuning is not None else ():
        sock.setsockopt(*each)


class Progress:
    """How far a peer's kernel has acknowledged what was sent, look by look.

    What it sends itself does not count: a retransmission of an old answer says nothing about a new request.
    """

    __slots__ = ("_acked", "_probed", "_since", "_sock")

    def __init__(self, sock: Any) -> None:  # what transports give as their socket is none
        self._sock = sock
        self._acked = -1
        self._since = 0.0
        self._probed: float | None = None
        """When a keep-alive probe was first seen to be without an answer."""

    def silent(self, limit: float, now: float) -> bool | None:
        """Has nothing been acknowledged for `limit` seconds although something is due? None where that cannot be told.

        The time counts from the first look after the last progress, so a peer that reads a large upload slowly is not
        silent. A keep-alive probe of the kernel's is due too. On slow paths eight round trips are allowed.
        """
        info = _info(self._sock)
        if info is None:
            return None
        (unacked,) = struct.unpack_from("=I", info, _UNACKED)
        (acked,) = struct.unpack_from("=Q", info, _BYTES_ACKED)
        if not unacked and info[_PROBES]:
            if self._probed is None:
                self._probed = now
            since = self._probed
        else:
            self._probed = None
            if not unacked or acked != self._acked:
                self._acked, self._since = acked, now
                return False
            since = self._since
        rtt = min(struct.unpack_from("=I", info, _RTT) + struct.unpack_from("=I", info, _MIN_RTT))
        return bool(now - since >= max(limit, 8e-6 * rtt))


class Farewell:
    """A connection that nobody needs is closed on our side, to see whether the peer's kernel acknowledges that.

    A kernel that lives does so at once, however busy its application and however full its queue for connections.
    """

    __slots__ = ("_sock", "began")

    def __init__(self, sock: socket.socket, now: float) -> None:
        self._sock = sock
        self.began = now
        try:
            socket.socket.shutdown(sock, socket.SHUT_WR)  # TLS's own would wait for the peer
        except OSError:
            pass  # it was reset: then there is nothing to wait for

    @property
    def acknowledged(self) -> bool:
        """True too where that cannot be told."""
        info = _info(self._sock)
        return info is None or info[_STATE] not in _FIN_UNANSWERED

    def close(self) -> None:
        """Nothing more is to be learnt from it."""
        self._sock.close()


def probe_soon(sock: Any, idle: int = _QUICK) -> int | None:
    """Have the kernel send a keep-alive probe when nothing was heard for so many seconds. The seconds before that."""
    option = getattr(socket, "TCP_KEEPIDLE", None)
    try:
        before: int = sock.getsockopt(socket.IPPROTO_TCP, option)
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE):  # the application's own socket
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _QUICK)
        if idle < before or idle > _QUICK:
            sock.setsockopt(socket.IPPROTO_TCP, option, idle)
    except (OSError, ValueError, AttributeError, TypeError):
        return None
    return before


def acknowledged(sock: socket.socket) -> bool | None:
    """Is everything sent acknowledged? None where that cannot be told."""
    info = _info(sock)
    return None if info is None else bool(struct.unpack_from("=I", info, _UNACKED)[0] == 0)


def _info(sock: Any) -> bytes | None:
    if _TCP_INFO is None:
        return None
    try:
        info: bytes = sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _INFO_SIZE)
    except (OSError, ValueError, AttributeError, TypeError):  # a socket of another library's need not have it
        return None
    return info if isinstance(info, bytes) and len(info) == _INFO_SIZE else None


def answered_soon(sock: Any, limit: float, timeout: float | None) -> bool:
    """Has the answer come by the first look? To be asked before `wait_for_answer`, which costs more. Never under TLS:
    session tickets make a fresh connection readable."""
    if hasattr(sock, "pending"):
        return False
    step = min(_FIRST, limit / 4)
    return _ready(sock, step if timeout is None else min(step, timeout))


def wait_for_answer(
    sock: socket.socket,
    limit: float,
    timeout: float | None,
    clock: Callable[[], float],
    gone: Callable[[], bool] | None = None,
) -> bool:
    """Wait until the peer answers, or everything is acknowledged. False if its kernel is silent.

    Returns True when there is something to read, when everything is acknowledged after `limit`
    seconds, when that cannot be told, or when `timeout` is over: an ordinary read comes next. With `gone`,
    what is acknowledged is waited for here, and False returned when `gone()` says that the peer has vanished since.
    Under TLS 1.3 session tickets make a fresh connection readable, so there the count must agree.
    """
    if _TCP_INFO is None and gone is None:
        return True
    encrypted = hasattr(sock, "pending")
    began = clock()
    step = min(_FIRST, limit / 4)  # most answers come sooner, and cost no look
    progress: Progress | None = None
    while True:
        readable = _ready(sock, step if timeout is None else min(step, timeout))
        if readable and (not encrypted or acknowledged(sock) is not False):
            return True
        progress = progress or Progress(sock)
        now = clock()
        waited = now - began
        if timeout is not None and waited >= timeout:
            return True
        verdict = progress.silent(limit, now)
        if verdict is None and _TCP_INFO is not None:
            return True  # no socket of the kernel's: another library's TLS, or a mock
        if verdict or (gone is not None and gone()):
            return False
        if gone is None and waited >= limit and (verdict is None or acknowledged(sock) is not False):
            return True
        if readable:
            select.select([], [], [], min(0.005, limit))  # tickets lie there: look at the count again shortly
        step = min(limit / 4, _STEP)


class Watch:
    """Looks at a connection of the running event loop until it is ended, and calls `silent()` once if it falls silent.

    It does so by `Progress`, or when `gone()` says that the peer has vanished. Only reads socket options, so whoever
    owns the connection goes on reading and writing.
    """

    __slots__ = ("_clock", "_gone", "_limit", "_loop", "_progress", "_silent", "_sock", "_timer")

    def __init__(
        self,
        sock: Any,
        limit: float,
        clock: Callable[[], float],
        gone: Callable[[], bool],
        silent: Callable[[], object],
    ) -> None:
        self._sock = sock
        self._progress = Progress(sock)
        self._limit = limit
        self._clock = clock
        self._gone = gone
        self._silent = silent
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(min(_FIRST, limit / 4), self._look)

    def probe_soon(self) -> None:
        """Have the kernel ask the peer's soon whether it is there."""
        probe_soon(self._sock)

    def end(self) -> None:
        """Look no longer."""
        self._timer.cancel()

    def _look(self) -> None:
        if self._progress.silent(self._limit, self._clock()) or self._gone():
            self._silent()
        else:
            self._timer = self._loop.call_later(min(self._limit / 4, _STEP), self._look)


def _ready(sock: socket.socket, timeout: float, *, read: bool = True) -> bool:
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(sock, select.POLLIN if read else select.POLLOUT)
        return bool(poll.poll(max(0.0, timeout) * 1000))
    reading, writing = ([sock], []) if read else ([], [sock])
    return any(select.select(reading, writing, [], max(0.0, timeout)))
