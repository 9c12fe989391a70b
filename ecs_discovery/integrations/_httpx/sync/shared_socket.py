"""A socket that several threads use, and any of them closes: a WebSocket's, which is read in one and written in others.

States: open, then closed to callers when `close` is called, then closed in the kernel when its last user has let go.
Its number may be another socket's at once from then on, which a thread that still waits would wait for.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from typing import Any, ParamSpec, TypeVar

__all__ = ["SharedSocket"]

P = ParamSpec("P")
R = TypeVar("R")


class SharedSocket:
    """Closes `sock` when nobody uses it any more."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._lock = Lock()
        self._users = 0
        self._closed = False
        self.recv: Callable[[int], bytes] = sock.recv
        self.send: Callable[[Any], int] = sock.send
        if isinstance(sock, ssl.SSLSocket):  # OpenSSL takes one call at a time
            alone = Lock()
            self.recv, self.send = _in_turn(alone, sock.recv), _in_turn(alone, sock.send)

    def use(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function that reads or writes. Raises OSError once it is closed."""
        with self._lock:
            if self._closed:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            self._users += 1
        try:
            return function(*args, **kwargs)
        finally:
            with self._lock:
                self._users -= 1
                self._close_if_free()

    def close(self) -> None:
        """Close it, and wake those that wait for it."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            with suppress(OSError):  # it has ended
                socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
            self._close_if_free()

    def _close_if_free(self) -> None:
        if self._closed and not self._users:
            self._sock.close()


def _in_turn(lock: Lock, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def call(argument: Any) -> Any:
        with lock:
            return function(argument)

    return call
