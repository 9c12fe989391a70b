"""Alarms: something to be done at a time unless it is called off before, such as cutting a request at its deadline.

One thread serves all of them. It is there only while there are alarms, and not during a fork.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from itertools import count
from threading import Condition, Thread
from types import TracebackType
from typing import Self

from ecs_discovery.runtime import fork
from ecs_discovery.runtime.workers import Workers

__all__ = ["Alarm", "Alarms"]

_TIDY = 64  # alarms that were called off before their time
_LOOK = 1.0  # seconds between looks whether an alarm is still set: calling one off wakes no thread


class Alarm:
    """One alarm. Leaving its block calls it off."""

    __slots__ = ("_alarms", "action")

    def __init__(self, action: Callable[[], object], alarms: Alarms) -> None:
        self.action: Callable[[], object] | None = action
        self._alarms = alarms

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.action = None  # it stays in the heap for a while, and keeps nothing
        self._alarms.called_off += 1


class Alarms:
    """`clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._wake = Condition()
        self._heap: list[tuple[float, int, Alarm]] = []
        self._number = count()
        self._running = False
        self.called_off = 0
        """About how many in the heap were called off: no lock, a lost update only delays the tidying."""
        self._workers = Workers(1)
        fork.track(self)
        fork.track_threads(self)

    def at(self, when: float, action: Callable[[], object]) -> Alarm:
        """Do `action`, which must be quick, at `when`. Where no thread can be had nothing is done."""
        alarm = Alarm(action, self)
        with self._wake:
            if self.called_off > _TIDY and self.called_off > len(self._heap) // 2:
                self._tidy_locked()
            heappush(self._heap, (when, next(self._number), alarm))
            start, self._running = not self._running, True
            if not start and self._heap[0][2] is alarm:
                self._wake.notify()
        if start and not self._workers.spawn(self._run, inline=False):
            self._running = False
        return alarm

    def close(self) -> None:
        """Those that are set still ring; the thread ends once there are none."""
        with self._wake:
            self._wake.notify()
        self._workers.close(drop=False)

    def _tidy_locked(self) -> None:
        self._heap = [each for each in self._heap if each[2].action is not None]
        heapify(self._heap)
        self.called_off = 0

    def _run(self) -> None:
        while True:
            with self._wake:
                self._tidy_locked()
                if not self._heap or fork.coming():
                    self._running = False
                    return
                left = self._heap[0][0] - self._clock()
                if left > 0:
                    self._wake.wait(min(left, _LOOK))
                    continue
                action = heappop(self._heap)[2].action
            if action is not None:
                action()

    # Around a fork

    def before_fork(self, patience: float) -> Sequence[Thread]:
        """Let the thread end; what is set is kept."""
        if self._wake.acquire(timeout=patience):
            self._wake.notify_all()
            self._wake.release()
        return ()

    def after_fork_in_parent(self, patience: float) -> None:
        """Go on with what is set."""
        if not self._wake.acquire(timeout=patience):
            return
        start = bool(self._heap) and not self._running
        self._running = self._running or start
        self._wake.release()
        if start and not self._workers.spawn(self._run, inline=False):
            self._running = False

    def after_fork(self) -> None:
        """In the child no caller waits for what was set in the parent."""
        self._wake = Condition()
        self._heap = []
        self._running = False
