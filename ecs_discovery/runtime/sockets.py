"""Sockets: connecting to one endpoint, for threads and asyncio.

What a failed connect says of the endpoint is told by the kernel's error alone.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable
from enum import Enum
from errno import EADDRNOTAVAIL, EHOSTUNREACH, EINPROGRESS, EINVAL, EMFILE, ENFILE, ENOBUFS, ENOMEM, EWOULDBLOCK
from threading import Lock
from typing import TYPE_CHECKING, Any

from ecs_discovery.config.targets import is_address
from ecs_discovery.models import Endpoint, Value

if TYPE_CHECKING:
    import ssl

__all__ = [
    "AbortHandle",
    "ConnectResult",
    "Tuning",
    "connect",
    "connect_async",
    "connected",
    "finish_connect",
    "is_ours",
    "ready_check",
    "secure",
    "sign_of",
    "start_connect",
    "tune",
]

# A user timeout takes the place of the count of probes (tcp(7)); a short one would end live peers that read
# an upload late, with their window closed meanwhile.
_KEEPALIVE = (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 1), ("TCP_KEEPCNT", 4), ("TCP_USER_TIMEOUT", 15_000))

_OURS = frozenset({EADDRNOTAVAIL, EMFILE, ENFILE, ENOBUFS, ENOMEM})


class AbortHandle:
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


class Tuning(Value):
    """What an application wants of its sockets, as urllib3 and aiohttp say it."""

    source: tuple[str, int] | None = None
    """The address and port to connect from."""
    options: tuple[tuple[Any, ...], ...] = ()
    """Arguments of `setsockopt`."""
    make: Callable[[tuple[Any, ...]], socket.socket] | None = None
    """Makes a socket from a result of `getaddrinfo`. For asyncio."""


class ConnectResult(Enum):
    """What a connect told of the host of an endpoint."""

    ACCEPTS = "accepts"
    REFUSES = "refuses"
    """It is there, and does not listen: a draining task, say."""
    SILENT = "silent"
    INCONCLUSIVE = "untold"
    """The connect failed on this side."""


def is_ours(error: OSError) -> bool:
    """Has this side run out of something (descriptors, ports, memory)? That says nothing of the peer."""
    return error.errno in _OURS


def sign_of(error: OSError | None) -> ConnectResult:
    """What the outcome of a connect says."""
    if error is None:
        return ConnectResult.ACCEPTS
    if is_ours(error):
        return ConnectResult.INCONCLUSIVE
    # A neighbour that vanished is "no route to host" when ARP has given it up.
    return (
        ConnectResult.SILENT
        if isinstance(error, TimeoutError) or error.errno == EHOSTUNREACH
        else ConnectResult.REFUSES
    )


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
    import ssl  # the context has it loaded

    deadline_at = time.monotonic() + limit
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
            left = deadline_at - time.monotonic()
            if left <= 0 or not is_ready(secured, left, read=readable):
                raise TimeoutError("timed out in the TLS handshake")
    except BaseException:  # interrupted too: no other code knows of the socket
        secured.close()
        raise


def start_connect(endpoint: Endpoint, tuning: Tuning | None = None) -> socket.socket:
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
    except BaseException:  # cancelled and interrupted too: no other code knows of the socket
        sock.close()
        raise
    return sock


def connected(sock: socket.socket) -> bool:
    """Has a connect that `start_connect` started ended? A connection and a refusal both show a kernel that lives."""
    return is_ready(sock, 0.0, read=False)


def finish_connect(sock: socket.socket) -> None:
    """Raises the OSError with which a connect ended that `start_connect` started."""
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))


async def connect_async(endpoint: Endpoint, tuning: Tuning | None = None) -> socket.socket:
    """The same for asyncio, non-blocking and without a time limit of its own."""
    import asyncio  # a program of threads does without

    loop = asyncio.get_running_loop()
    address: Any = (endpoint.host, endpoint.port)
    family: int = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    if not is_address(endpoint.host):  # discovery is switched off: the system resolves, as it would without us
        with _refusing:
            found = await loop.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
        family, _, _, _, address = found[0]
    if tuning is not None and tuning.make is not None:
        sock = tuning.make((family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address))
    else:
        sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        tune(sock, tuning)
        if tuning is not None and tuning.source is not None:
            sock.bind(tuning.source)
        with _refusing:
            await loop.sock_connect(sock, address)
    except BaseException:  # cancelled and interrupted too: no other code knows of the socket
        sock.close()
        raise
    return sock


class _Refusing:
    """What no socket can connect to (a port above 65535, a host with a NUL) is a connect that failed.

    Python raises other errors than OSError for it, which no caller would retry or hold against the endpoint.
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


def ready_check(sock: Any) -> Callable[[float], object]:
    """`is_ready` for one socket, but in milliseconds. It is made once, because that takes longer than to ask it."""
    if not hasattr(select, "poll"):
        return lambda milliseconds: is_ready(sock, milliseconds / 1000)
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return poll.poll


def is_ready(sock: socket.socket, timeout: float, *, read: bool = True) -> bool:
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(sock, select.POLLIN if read else select.POLLOUT)
        return bool(poll.poll(max(0.0, timeout) * 1000))
    reading, writing = ([sock], []) if read else ([], [sock])
    return any(select.select(reading, writing, [], max(0.0, timeout)))
