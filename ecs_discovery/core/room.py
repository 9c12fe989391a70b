"""The queue of those who wait for room at endpoints that are all full."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

__all__ = ["Room"]


class Room:
    """Callbacks in the order of their coming. Needs no lock: each operation on the queue is atomic."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], object]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def queue(self, wake: Callable[[], object], *, first: bool = False) -> None:
        """Call `wake` once when a use has ended: there may be room then. `first`: before all who wait."""
        if first:
            self._waiting.appendleft(wake)
        else:
            self._waiting.append(wake)

    def leave(self, wake: Callable[[], object]) -> bool:
        """Take `wake` out of the queue again. False if it was called."""
        try:
            self._waiting.remove(wake)
        except ValueError:
            return False
        return True

    def wake(self) -> None:
        """Call the first in the queue."""
        try:
            wake = self._waiting.popleft()
        except IndexError:
            return  # somebody else did, or nobody waits
        wake()

    def clear(self) -> None:
        """Forget them all: they are the parent's of a fork."""
        self._waiting.clear()
