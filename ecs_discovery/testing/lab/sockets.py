"""What the lab does to sockets below the level of asyncio: listen, drop every packet, reset."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import socket
import struct
import sys

__all__ = [
    "BACKLOG",
    "bind",
    "can_drop_packets",
    "close_listener",
    "drop_packets",
    "fill_backlog",
    "has_loopback_network",
    "let_packets_in",
    "reset",
]

BACKLOG = 1024

# linux/filter.h and asm-generic/socket.h; the socket module has no names for these.
_SO_ATTACH_FILTER = 26
_SO_DETACH_FILTER = 27
_RETURN_ZERO_BYTES = struct.pack("HBBI", 0x06, 0, 0, 0)


def bind(address: str, port: int) -> socket.socket:
    """A TCP socket bound to `address` and `port` (0: any free port) that does not listen yet, so that connecting to it
    is refused."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if sys.platform != "win32":  # there the option would let another process take the port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
    except OSError:
        sock.close()
        raise
    return sock


@functools.cache
def has_loopback_network() -> bool:
    """True if all of 127.0.0.0/8 can be bound, as on Linux; on macOS only 127.0.0.1 can."""
    try:
        bind("127.0.0.2", 0).close()
    except OSError:
        return False
    return True


@functools.cache
def can_drop_packets() -> bool:
    """True if `drop_packets` works here."""
    if not sys.platform.startswith("linux"):
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        try:
            drop_packets(sock)
        except OSError:
            return False
    return True


def drop_packets(sock: socket.socket) -> None:
    """Have the kernel drop every packet that arrives for `sock` before TCP sees it: nothing is acknowledged.

    On a listening socket that goes for SYNs: connecting to it times out.
    """
    code = ctypes.create_string_buffer(_RETURN_ZERO_BYTES)
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(code)))


def let_packets_in(sock: socket.socket) -> None:
    """Undo `drop_packets`."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
    except OSError as error:
        if error.errno != errno.ENOENT:  # there was no filter
            raise


def fill_backlog(listener: socket.socket) -> list[socket.socket]:
    """Make connecting to `listener` time out without a filter, by filling its accept queue.

    Returns the connections that fill it: it stays full as long as they are open and no connection is accepted."""
    listener.listen(0)
    fillers: list[socket.socket] = []
    for _ in range(4):
        filler = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        fillers.append(filler)
        filler.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            filler.connect(listener.getsockname())
    return fillers


def close_listener(listener: socket.socket) -> None:
    """Close it so that connecting is refused even while a forked child has a copy of it."""
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def reset(sock: socket.socket) -> None:
    """Reset the connection of `sock` now where possible, else when `sock` is closed. It must be closed next."""
    if sock.fileno() < 0:
        return
    # The option has two shorts on Windows and two ints elsewhere.
    linger = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    if sys.platform.startswith("linux"):
        # Connecting to no address family disconnects: a reset at once, though a forked child may hold a copy.
        nowhere = struct.pack("H14x", socket.AF_UNSPEC)
        ctypes.CDLL(None).connect(sock.fileno(), nowhere, len(nowhere))
