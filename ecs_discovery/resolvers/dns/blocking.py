"""Waiting for the sockets of a client, for threads."""

from __future__ import annotations

import select
import socket
import time

__all__ = ["Sockets"]


class Sockets:
    """The sockets of one client, and a wait until one of them is ready.

    Without a descriptor of its own: a client has a few sockets, and lives for a millisecond.
    """

    def __init__(self) -> None:
        self._reading: set[socket.socket] = set()
        self._writing: set[socket.socket] = set()
        self._watched = 0
        self._poll = select.poll() if hasattr(select, "poll") else None

    def watch(self, sock: socket.socket, *, write: bool = False) -> None:
        """See `Watcher.watch`."""
        self._watched += 1
        if self._poll is not None:
            self._poll.register(sock, select.POLLOUT if write else select.POLLIN)
        else:
            (self._writing if write else self._reading).add(sock)

    def unwatch(self, sock: socket.socket, *, write: bool = False) -> None:
        """See `Watcher.unwatch`."""
        self._watched -= 1
        if self._poll is not None:
            self._poll.unregister(sock)
        else:
            (self._writing if write else self._reading).discard(sock)

    def wait(self, seconds: float) -> list[int]:
        """The descriptors that are ready, none after so many seconds."""
        seconds = max(0.0, seconds)
        if not seconds and not self._watched:
            return []  # as when a lookup begins: the system need not be asked
        if self._poll is not None:
            return [descriptor for descriptor, _ in self._poll.poll(seconds * 1000)]
        if not self._reading and not self._writing:
            time.sleep(seconds)  # Windows cannot wait for no socket
            return []
        # There a refused connect is told among the exceptional.
        found = select.select(self._reading, self._writing, self._writing, seconds)
        return list({sock.fileno() for ready in found for sock in ready})
