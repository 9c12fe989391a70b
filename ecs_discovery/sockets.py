"""Sockets: connecting to one endpoint, and telling a silent peer from a slow one.

A live kernel acknowledges a request within milliseconds, however slow the application behind it.
On Linux `TCP_INFO` shows that; elsewhere nothing here can tell, and read timeouts must do.
"""

from __future__ import annotations

import asyncio
import select
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

from ecs_discovery.models import Endpoint, is_address

__all__ = ["acknowledged", "connect", "connect_async", "silent", "tune", "wait_for_answer"]

# Offsets in struct tcp_info (linux/tcp.h): eight bytes, then 32-bit fields.
_UNACKED = 8 + 4 * 4
_LAST_ACK = 8 + 4 * 12  # milliseconds since the last acknowledgement came
_RTT = 8 + 4 * 15  # microseconds; smoothed, and stretched by delayed acknowledgements of slow answers
_MIN_RTT = 148  # microseconds; since Linux 4.6
_INFO_SIZE = 152
_KEEPALIVE = (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 1), ("TCP_KEEPCNT", 4))
_TCP_INFO: int | None = getattr(socket, "TCP_INFO", None) if sys.platform == "linux" else None


def connect(endpoint: Endpoint, timeout: float) -> socket.socket:
    """A connected TCP socket, tuned, with its timeout set to `timeout`. Raises OSError."""
    sock = socket.create_connection((endpoint.host, endpoint.port), timeout=timeout)
    try:
        tune(sock)
    except OSError:
        sock.close()
        raise
    return sock


async def connect_async(endpoint: Endpoint) -> socket.socket:
    """The same for asyncio, non-blocking and without a time limit of its own."""
    loop = asyncio.get_running_loop()
    address: Any = (endpoint.host, endpoint.port)
    family: int = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    if not is_address(endpoint.host):  # discovery is switched off: the system resolves, as it would without us
        found = await loop.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
        family, _, _, _, address = found[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        tune(sock)
        await loop.sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


def tune(sock: socket.socket) -> None:
    """No delay for small writes; keep-alive probes that end a connection to a vanished peer in about ten seconds.

    Probes are answered by the peer's kernel, so a slow application is left alone.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def silent(sock: socket.socket, limit: float) -> bool | None:
    """Has the peer's kernel left what was sent unacknowledged, and been quiet, for `limit` seconds?

    None where that cannot be told. Progress of acknowledgements counts as life, so a peer that reads
    a large upload slowly is not silent. On slow paths eight round trips are allowed. Ask no
    sooner than `limit` after sending.
    """
    if _TCP_INFO is None:
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _INFO_SIZE)
    except (OSError, ValueError):
        return None
    if len(info) < _INFO_SIZE:
        return None
    (unacked,) = struct.unpack_from("=I", info, _UNACKED)
    (last_ack,) = struct.unpack_from("=I", info, _LAST_ACK)
    (rtt,) = struct.unpack_from("=I", info, _RTT)
    (shortest,) = struct.unpack_from("=I", info, _MIN_RTT)
    rtt = min(rtt, shortest)
    return bool(unacked > 0 and last_ack >= max(limit * 1000, 8 * rtt / 1000))


def acknowledged(sock: socket.socket) -> bool | None:
    """Is everything sent acknowledged? None where that cannot be told."""
    if _TCP_INFO is None:
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _INFO_SIZE)
    except (OSError, ValueError):
        return None
    return bool(len(info) >= _INFO_SIZE and struct.unpack_from("=I", info, _UNACKED)[0] == 0)


def wait_for_answer(sock: socket.socket, limit: float, timeout: float | None, clock: Callable[[], float]) -> bool:
    """Wait until the peer answers or at least acknowledges. False if its kernel is silent.

    Returns True when there is something to read, when everything is acknowledged after `limit`
    seconds, when that cannot be told, or when `timeout` is over: an ordinary read comes next.
    Under TLS 1.3 session tickets make a fresh connection readable, so there the count must agree.
    """
    if _TCP_INFO is None:
        return True
    encrypted = hasattr(sock, "pending")
    began = clock()
    step = min(limit, timeout) if timeout is not None else limit
    while True:
        readable = _readable(sock, step)
        if readable and (not encrypted or acknowledged(sock) is not False):
            return True
        waited = clock() - began
        if timeout is not None and waited >= timeout:
            return True
        if waited >= limit:
            verdict = silent(sock, limit)
            if verdict:
                return False
            if verdict is None or acknowledged(sock) is not False:
                return True
        if readable:
            select.select([], [], [], min(0.005, limit))  # tickets lie there: look at the count again shortly
        else:
            step = min(limit / 4, 0.1)


def _readable(sock: socket.socket, timeout: float) -> bool:
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        return bool(poll.poll(max(0.0, timeout) * 1000))
    return bool(select.select([sock], [], [], max(0.0, timeout))[0])
