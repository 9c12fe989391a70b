"""The queue of those who wait for room at endpoints that are all full: first come, first served.

While a caller waits, a newcomer queues as well: else it would take the place of the caller that was called for it. A
call that its receiver has no use for goes to the next.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import RLock

__all__ = ["AdmissionQueue", "Place"]


class Place:
    """A place in the queue. `wake` tells its holder to look for room; False if its holder is gone."""

    __slots__ = ("called", "wake")

    def __init__(self, wake: Callable[[], bool | None]) -> None:
        self.wake = wake
        self.called = False
        """Its holder was told to look, and has not done so yet."""


class AdmissionQueue:
    """Those who wait, in the order of their coming. A leaf lock guards it; no holder is called under it."""

    __slots__ = ("_lock", "_places", "_unheard", "crowded")

    def __init__(self) -> None:
        self.crowded = False
        """A caller waits. Read without the lock."""
        self._lock = RLock()  # a finaliser may end a use in the middle of anything
        self._places: dict[Place, None] = {}
        self._unheard = 0  # calls that found all holders called already

    def __len__(self) -> int:
        return len(self._places)

    def queue(self, place: Place) -> Place:
        """Take the place at the end of the queue. Begin what ends in `leave` before: an asynchronous exception may
        come as soon as the place is taken."""
        with self._lock:
            self._places[place] = None
            self.crowded = True
        return place

    def turn(self, place: Place) -> bool:
        """May its holder look for room now? If it was called, or is the first in the queue."""
        with self._lock:
            if place.called:
                place.called = False
                return True
            return next(iter(self._places), None) is place

    def leave(self, place: Place) -> None:
        """Its holder waits no longer, whether it has found room or not. A call it had no use for is passed on."""
        with self._lock:
            if place not in self._places:
                return  # forgotten
            del self._places[place]
            self.crowded = bool(self._places)
            pass_on = place.called or self._unheard > 0
            if not place.called:
                self._unheard = max(0, self._unheard - 1)
        if pass_on:
            self.wake()

    def wake(self) -> None:
        """A use has ended, or there is room for another reason: call the first who was not called yet."""
        while True:
            with self._lock:
                place = next((place for place in self._places if not place.called), None)
                if place is None:
                    self._unheard = self._unheard + 1 if self._places else 0
                    return
                place.called = True
            if place.wake() is not False:
                return
            with self._lock:  # its holder is gone: call the next
                self._places.pop(place, None)
                self.crowded = bool(self._places)

    def wake_all(self) -> None:
        """There is room for more than one use: call all."""
        for _ in range(len(self._places)):
            self.wake()

    def clear(self) -> None:
        """Forget them all: they are the parent's of a fork."""
        self._lock = RLock()
        self._places = {}
        self._unheard = 0
        self.crowded = False
