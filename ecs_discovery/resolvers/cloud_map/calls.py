"""The calls to Cloud Map in flight, and their hard end.

A client's time limits hold for each read alone: an answer that comes a byte at a time would hold a thread for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock, Thread, current_thread, get_ident
from typing import Any

from ecs_discovery.runtime.sockets import AbortHandle
from ecs_discovery.runtime.workers import Workers

__all__ = ["Calls"]


class _Running:
    __slots__ = ("abort", "lost", "overdue_at", "thread")

    def __init__(self, thread: Thread, overdue_at: float) -> None:
        self.thread = thread
        self.overdue_at = overdue_at
        self.abort = AbortHandle()
        self.lost = False


class Calls:
    """Each call has `longest` seconds. Then its connection is shut down.

    That may not end the call: the client is another one, or the system looks a name up. Then another thread takes its
    place, for `spare` calls at most.
    """

    def __init__(self, workers: Workers, clock: Callable[[], float], *, longest: float, replacements: int) -> None:
        self._workers = workers
        self._clock = clock
        self._longest = longest
        self._spare = replacements
        self._running: dict[int, _Running] = {}
        self._lock = Lock()

    @contextmanager
    def call(self) -> Iterator[None]:
        """A call of this thread, for a `with` block."""
        me = get_ident()
        with self._lock:
            self._running[me] = _Running(current_thread(), self._clock() + self._longest)
        try:
            yield
        finally:
            with self._lock:
                self._running.pop(me, None)

    def end_overdue(self) -> None:
        """End the calls that have had their time."""
        now = self._clock()
        with self._lock:
            overdue = [each for each in self._running.values() if now >= each.overdue_at]
            lost = sum(each.lost for each in overdue)
            for each in overdue:
                if not each.lost and lost < self._spare:
                    each.lost = True
                    lost += 1
                    self._workers.replace(each.thread)
        for each in overdue:
            each.abort.cut()

    def hold(self, sock: Any) -> None:
        """This thread's call goes over this socket. Raises `ConnectionAbortedError` if it has had its time."""
        mine = self._running.get(get_ident())
        if mine is not None:
            mine.abort.hold(sock)

    def watch(self, client: Any) -> None:
        """Have the connections of a client of botocore's tell their sockets. Does nothing to a client of another kind.

        botocore names no place for this. Where a version has it elsewhere, threads that hang are replaced all the same.
        """
        session = getattr(getattr(client, "_endpoint", None), "http_session", None)
        pools: Any = getattr(session, "_pool_classes_by_scheme", None)
        if not isinstance(pools, dict):
            return
        for scheme, pool in list(pools.items()):
            connection = getattr(pool, "ConnectionCls", None)
            if isinstance(connection, type):
                watched = _watched(connection, self.hold)
                pools[scheme] = type(pool.__name__, (pool,), {"ConnectionCls": watched})

    def after_fork(self) -> None:
        """In the child of a fork none of them runs."""
        self._lock = Lock()
        self._running = {}


def _watched(base: Any, hold: Callable[[Any], None]) -> type:
    class Watched(base):  # type: ignore[misc]  # whatever connection the client makes
        def connect(self) -> None:
            super().connect()
            hold(self.sock)

        def request(self, *args: Any, **options: Any) -> Any:
            if self.sock is not None:  # kept open since an earlier call
                hold(self.sock)
            return super().request(*args, **options)

    return Watched
