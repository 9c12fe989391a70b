"""Hedging a call: its first attempt, and a second one on another endpoint when that takes long. For threads.

What is decided is in `core.calls.hedge`, and what both worlds keep of a call in `client/hedge.py`. It stands in the
same order as `aio/hedging.py`. The two differ in awaits: a task can be cancelled, a thread cannot.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from queue import Empty, SimpleQueue
from threading import RLock
from typing import Generic, TypeVar

from ecs_discovery.client.failures import forget
from ecs_discovery.client.hedge import Hedge
from ecs_discovery.client.sync.background import Background
from ecs_discovery.core.calls.call import Call
from ecs_discovery.core.calls.failure_kinds import Judgement
from ecs_discovery.core.calls.hedge import Hedging
from ecs_discovery.core.lease import Lease
from ecs_discovery.runtime.workers import Workers

__all__ = ["Trial", "duel", "hedged"]

T = TypeVar("T")


class Trial(Generic[T]):
    """One of the attempts of a hedged call, in a thread of its own.

    `cut` has `perform` over soon, if that is possible; `drop` lets go of a result that is not wanted.
    """

    __slots__ = ("_cut", "_drop", "_ended", "_given_up", "_lock", "_perform", "error", "lease", "result")

    def __init__(
        self,
        lease: Lease,
        perform: Callable[[], T],
        *,
        cut: Callable[[], object] | None = None,
        drop: Callable[[T], object] | None = None,
    ) -> None:
        self.lease = lease
        self.result: T | None = None
        self.error: BaseException | None = None
        self._perform = perform
        self._cut = cut
        self._drop = drop
        self._lock = RLock()
        self._ended = self._given_up = False

    def start(self, workers: Workers, told: Callable[[Trial[T]], object]) -> None:
        """Begin it, with the caller's context variables. `told` is called with it when it has ended, unless it was
        given up."""
        context = copy_context()

        def job() -> None:
            context.run(self._run, told)

        if not workers.spawn(job):
            job()

    def give_up(self) -> None:
        """No caller waits for it any more."""
        with self._lock:
            self._given_up = True
            ended = self._ended
        if ended:
            self._let_go()
        elif self._cut is not None:
            self._cut()

    def outcome(self) -> T:
        """Its result. Raises its error."""
        error, self.error = self.error, None  # else the error's frames would keep it, and it them
        if error is not None:
            raise error
        return self.result  # type: ignore[return-value]

    def _run(self, told: Callable[[Trial[T]], object]) -> None:
        try:
            self.result = self._perform()
        except BaseException as error:  # noqa: BLE001  # raised where it is waited for
            self.error = error
        with self._lock:
            self._ended = True
            unwanted = self._given_up
        if unwanted:
            self._let_go()
        else:
            told(self)

    def _let_go(self) -> None:
        """The use ends when it really has, so that an attempt that cannot be cut short counts as load till then."""
        result, error = self.result, self.error
        self.result = self.error = None
        self.lease.release()
        if error is not None:
            forget(error)
        elif self._drop is not None:
            self._drop(result)  # type: ignore[arg-type]


def duel(
    background: Background,
    hedge: Hedge,
    first: Lease,
    trial: Callable[[Lease], Trial[T]],
    wanted: Callable[[Trial[T]], bool],
    failed: Callable[[Trial[T]], object],
) -> Trial[T]:
    """Run `trial(first)`, and another beside it once `hedge.delay` is over: the one that counts.

    That is the first that is `wanted`, else the last. One that is not, while the other goes on, is handed to
    `failed`.
    """
    ended: SimpleQueue[Trial[T]] = SimpleQueue()
    running: list[Trial[T]] = []

    def start(lease: Lease) -> None:
        running.append(trial(lease))
        running[-1].start(background.attempts, ended.put)

    try:
        start(first)
        try:
            latest = ended.get(timeout=hedge.delay)
        except Empty:
            rival = hedge.start_rival()
            if rival is not None:
                start(rival)
            latest = ended.get()
        while True:
            running.remove(latest)
            good = wanted(latest)
            if good:
                hedge.won(latest.lease)
            if good or not running or not isinstance(latest.error, Exception | None):
                return latest
            failed(latest)
            if latest.error is not None:
                forget(latest.error)
            latest.result = latest.error = None  # the error's frames keep it, and it them
            hedge.alone()
            latest = ended.get()
    finally:
        hedge.alone()
        for loser in running:
            hedge.lost(loser.lease)
            loser.give_up()


def hedged(
    background: Background,
    hedging: Hedging,
    call: Call,
    attempt: Callable[[Lease], T],
    judge: Callable[[T | None, Exception | None], Judgement],
) -> Callable[[Lease], T]:
    """`attempt`, hedged if it is the first of a call that may be repeated."""
    engine = background.engine

    def failed(trial: Trial[T]) -> None:
        error = trial.error
        assert isinstance(error, Exception)
        background.force(engine.record_attempt(call, trial.lease, judge(None, error), error).ask)

    def run(lease: Lease) -> T:
        if call.number > 1 or not call.idempotent:
            return attempt(lease)
        hedge = Hedge(engine, hedging, call, lease)
        if hedge.delay is None:
            result = attempt(lease)
            hedge.won(lease)
            return result
        winner = duel(
            background,
            hedge,
            lease.hand_over(),
            lambda use: Trial(use, partial(attempt, use)),
            lambda trial: trial.error is None,
            failed,
        )
        lease.adopt(winner.lease)
        lease.number = winner.lease.number
        if call.observed is not None:
            call.observed.moved(winner.lease, lease)
        return winner.outcome()

    return run
