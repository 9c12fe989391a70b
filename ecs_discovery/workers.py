"""Workers: a few daemon threads for what must not hold up a caller: look-ups, reconnects and
health checks.

A thread starts when there is work and none is idle, and ends when it had none for a while, so that
a process that does nothing has none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Condition, Lock, Thread

from ecs_discovery import _fork

__all__ = ["Workers"]

_LIMIT = 32
_IDLE = 5.0  # seconds


class Workers:
    """`spawn(job)` runs `job` soon, in some thread. A job must be bounded in time.

    When all threads are busy the newest job goes first: somebody still waits for it.
    """

    def __init__(self, limit: int = _LIMIT) -> None:
        self._limit = limit
        self._wake = Condition(Lock())
        self._jobs: deque[Callable[[], object]] = deque()
        self._threads = 0
        self._idle = 0
        self._closed = False
        _fork.track(self)

    def spawn(self, job: Callable[[], object], *, inline: bool = True) -> bool:
        """Run `job` in a worker; if no thread can be started, in the calling thread, with `inline`.

        False if it is not run: once closed, or because it may run in a thread only.
        """
        with self._wake:
            if self._closed:
                return False
            if self._idle > len(self._jobs) or self._threads >= self._limit:
                self._jobs.append(job)
                self._wake.notify()
                return True
            self._threads += 1
        try:
            Thread(target=self._work, args=([job],), name="ecs_discovery", daemon=True).start()
        except RuntimeError:  # no thread can be had: interpreter shutdown, uWSGI without threads
            with self._wake:
                self._threads -= 1
            if not inline:
                return False
            job()
        return True

    def close(self, *, drop: bool = True) -> None:
        """Drop what has not begun, unless told not to, and let the threads end."""
        with self._wake:
            self._closed = True
            if drop:
                self._jobs.clear()
            self._wake.notify_all()

    def after_fork(self) -> None:
        """In the child of a fork the threads are not there: start anew."""
        self._wake = Condition(Lock())
        self._jobs = deque()
        self._threads = self._idle = 0

    def _work(self, first: list[Callable[[], object]]) -> None:
        job: Callable[[], object] | None = first.pop()  # a thread keeps its arguments for as long as it lives
        while job is not None:
            try:
                job()
            except BaseException:  # whatever ends this thread: it must not be counted as one that works
                with self._wake:
                    self._threads -= 1
                raise
            job = None  # else an idle thread would keep what it was done for
            job = self._next()

    def _next(self) -> Callable[[], object] | None:
        with self._wake:
            self._idle += 1
            if not self._jobs and not self._closed:
                self._wake.wait(_IDLE)
            self._idle -= 1
            if self._jobs:
                return self._jobs.pop()
            self._threads -= 1
            return None
