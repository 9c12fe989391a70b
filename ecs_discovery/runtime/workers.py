"""Workers: a few daemon threads for what must not hold up a caller (lookups, reconnects, health checks).

A thread starts when there is work and all threads are busy. It ends when it had no work for a while, and before a fork.
So an idle process has no threads of ours.
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import Condition, RLock, Thread, current_thread

from ecs_discovery.models import Value
from ecs_discovery.runtime import fork

__all__ = ["Workers"]

_LIMIT = 32
_IDLE = 5.0  # seconds
_QUEUE = 4000  # jobs that wait for a thread, of those that may be dropped


class _Waiting(Value):
    job: Callable[[], object]
    dropped: Callable[[], object] | None
    """What to do if there is no room for it; None: it must be done."""


class Workers:
    """`spawn(job)` runs `job` soon, in some thread. A job must be bounded in time.

    When all threads are busy the newest job goes first: a caller still waits for it. Of jobs that may be dropped a
    bounded number waits. While a fork is coming no job begins; what is spawned then waits until the fork is over.
    """

    def __init__(self, limit: int = _LIMIT) -> None:
        self._limit = limit
        self._wake = Condition(RLock())
        self._jobs: OrderedDict[object, _Waiting] = OrderedDict()
        self._threads: set[Thread] = set()
        self._resting: set[Thread] = set()
        self._closed = False
        fork.track(self)
        fork.track_threads(self)

    def spawn(
        self,
        job: Callable[[], object],
        *,
        inline: bool = True,
        key: object = None,
        dropped: Callable[[], object] | None = None,
    ) -> bool:
        """Run `job` in a worker; if no thread can or may be started, in the calling thread, with `inline`.

        A job that waits takes the place of one with the same `key`. With `dropped` it may be dropped when too many
        wait, which calls that. False if it is not run: once closed, or because it may run in a thread only.
        """
        if _threads_forbidden() or fork.coming(here=True):
            if self._closed or not inline:
                return False
            job()
            return True
        over = None
        with self._wake:
            if self._closed:
                return False
            if fork.coming() or len(self._resting) > len(self._jobs) or len(self._threads) >= self._limit:
                key = object() if key is None else key
                self._jobs[key] = _Waiting(job, dropped)
                self._jobs.move_to_end(key)
                if len(self._jobs) > _QUEUE:
                    oldest, waiting = next(iter(self._jobs.items()))
                    if waiting.dropped is not None:
                        del self._jobs[oldest]
                        over = waiting.dropped
                self._wake.notify()
                thread = None
            else:
                thread = self._hire_locked(job)
        if thread is not None:
            return self._start(thread, job, inline)
        if over is not None:
            over()
        return True

    def queued(self) -> tuple[object, ...]:
        """The keys of the jobs that wait for a thread; the last is the next to begin."""
        with self._wake:
            return tuple(self._jobs)

    def hasten(self, key: object) -> None:
        """Another caller waits for this job: let it be the next to begin."""
        if key in self._jobs:
            with self._wake:
                if key in self._jobs:
                    self._jobs.move_to_end(key)

    def forget(self, key: object) -> None:
        """No caller waits for this job any more: do not begin it."""
        with self._wake:
            self._jobs.pop(key, None)

    def close(self, *, drop: bool = True) -> None:
        """Let the threads end. With `drop` drop the jobs that have not begun, else run them."""
        with self._wake:
            self._closed = True
            if drop:
                self._jobs.clear()
            self._wake.notify_all()

    def replace(self, thread: Thread) -> None:
        """A worker will not end its job in time: it is none of them any more, and another may take its place."""
        with self._wake:
            if thread not in self._threads:
                return
            self._threads.discard(thread)
            self._resting.discard(thread)
            if not self._jobs or self._closed or fork.coming():
                return
            job = self._next_job_locked()
            hired = self._hire_locked(job)
        self._start(hired, job, inline=True)

    # Around a fork

    def before_fork(self, patience: float) -> Sequence[Thread]:
        """Let idle threads end now, and busy ones after their job. The threads there are."""
        if not self._wake.acquire(timeout=patience):
            return ()
        try:
            self._wake.notify_all()
            return tuple(self._threads)
        finally:
            self._wake.release()

    def after_fork_in_parent(self, patience: float) -> None:
        """Begin what was spawned meanwhile, also if it was closed: what was to be dropped is not there any more."""
        if not self._wake.acquire(timeout=patience):
            return  # the next job takes the others along
        try:
            hired = []
            while self._jobs and len(self._threads) < self._limit and not fork.coming():
                job = self._next_job_locked()
                hired.append((self._hire_locked(job), job))
        finally:
            self._wake.release()
        for thread, job in hired:
            self._start(thread, job, inline=True)

    def after_fork(self) -> None:
        """In the child of a fork the threads are not there: start anew. Who waited for a job is not there either."""
        self._wake = Condition(RLock())
        self._jobs = OrderedDict()
        self._threads = set()
        self._resting = set()

    # Threads

    def _next_job_locked(self) -> Callable[[], object]:
        return self._jobs.popitem()[1].job

    def _hire_locked(self, job: Callable[[], object]) -> Thread:
        thread = Thread(target=self._work, args=([job],), name="ecs_discovery", daemon=True)
        self._threads.add(thread)
        return thread

    def _start(self, thread: Thread, job: Callable[[], object], inline: bool) -> bool:
        try:
            thread.start()
        except RuntimeError:  # no thread can be had: at interpreter shutdown, or over a limit of the system
            with self._wake:
                self._threads.discard(thread)
            if not inline:
                return False
            job()
        return True

    def _work(self, first: list[Callable[[], object]]) -> None:
        job: Callable[[], object] | None = first.pop()  # a thread keeps its arguments for as long as it lives
        while job is not None:
            try:
                job()
            except BaseException as error:  # whatever ends this thread: it must not be counted as one that works
                with self._wake:
                    self._threads.discard(current_thread())
                if isinstance(error, SystemExit):
                    return  # as threads do, and without a word to the hook for what went wrong in them
                raise
            job = None  # else an idle thread would keep what it was done for
            job = self._next()

    def _next(self) -> Callable[[], object] | None:
        with self._wake:
            me = current_thread()
            # One that has come into the child of a fork (the thread that forked, a greenlet) is none of its workers.
            if not self._jobs and not self._closed and not fork.coming() and me in self._threads:
                self._resting.add(me)
                self._wake.wait(_IDLE)
                self._resting.discard(me)
            if self._jobs and not fork.coming():
                return self._next_job_locked()
            self._threads.discard(me)
            return None


def _threads_forbidden() -> bool:
    """Would a thread do harm, or is it refused? Isolated sub-interpreters refuse daemon threads (Python 3.12).

    A thread would do harm in uWSGI, in two cases.

    Up to 2.0.26, without `enable-threads`, threads run during requests only. An answer that comes between two requests
    would be read in the next, and be too late.

    And uWSGI forks its workers, without Python's hooks, from a process that has loaded the application. A worker that
    is forked while another thread waits for the interpreter may hang.
    """
    allowed = getattr(threading, "_daemon_threads_allowed", None)
    if allowed is not None and not allowed():
        return True
    uwsgi = sys.modules.get("uwsgi")
    return uwsgi is not None and not (uwsgi.has_threads and uwsgi.worker_id())
