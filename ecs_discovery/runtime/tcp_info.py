"""TCP: telling a silent peer from a slow one.

A live kernel acknowledges a request within milliseconds, however slow the application behind it. On Linux
`TCP_INFO` shows that; elsewhere nothing here can tell, and read timeouts decide.
"""

from __future__ import annotations

import select
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

from ecs_discovery.runtime.sockets import is_ready

__all__ = ["Farewell", "Progress", "Watch", "acknowledged", "first_look", "probe_soon", "wait_for_answer"]

# Offsets in struct tcp_info (linux/tcp.h): eight bytes, then 32-bit fields.
_STATE = 0

_PROBES = 3  # keep-alive probes without an answer

_UNACKED = 8 + 4 * 4

_RTT = 8 + 4 * 15  # microseconds; smoothed, and stretched by delayed acknowledgements of slow answers

_BYTES_ACKED = 120  # 64 bits; since Linux 4.1

_MIN_RTT = 148  # microseconds; since Linux 4.6

_INFO_SIZE = 152

_FIN_UNANSWERED = frozenset({4, 9, 11})  # FIN_WAIT1, LAST_ACK and CLOSING (linux/tcp_states.h)

_QUICK = 1  # seconds: the kernel takes no fraction

_FIRST = 0.02  # seconds before the first look at a waiting request

_STEP = 0.05  # seconds between looks at what became of the peer while its answer is waited for

_TCP_INFO: int | None = getattr(socket, "TCP_INFO", None) if sys.platform == "linux" else None


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
    """A connection that is not needed is closed on our side, to see whether the peer's kernel acknowledges that.

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


def first_look(limit: float, timeout: float | None) -> float:
    """Seconds until the first look at what became of the peer; most answers come sooner."""
    step = min(_FIRST, limit / 4)
    return step if timeout is None or timeout > step else max(0.0, timeout)


def wait_for_answer(
    sock: socket.socket,
    limit: float,
    timeout: float | None,
    clock: Callable[[], float],
    gone: Callable[[], bool] | None = None,
) -> bool:
    """Wait until the peer answers, or everything is acknowledged. False if its kernel is silent.

    After True an ordinary read comes next. There is something to read, everything is acknowledged after `limit`
    seconds, that cannot be told, or `timeout` is over. With `gone`,
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
        readable = is_ready(sock, step if timeout is None else min(step, timeout))
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

    It does so by `Progress`, or when `gone()` says that the peer has vanished. Only reads socket options, so
    that the owner of the connection goes on reading and writing.
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
        import asyncio  # a program of threads does without

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
