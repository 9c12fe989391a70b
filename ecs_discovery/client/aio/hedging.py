"""Hedging a call: its first attempt, and a second one on another endpoint when that takes long. For asyncio.

What is decided is in `core.calls.hedge`, and what both worlds keep of a call in `client/hedge.py`. It stands in the
same order as `sync/hedging.py`. The two differ in awaits: a task can be cancelled, a thread cannot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Generic, TypeVar

from ecs_discovery.client.aio.background import AsyncBackground
from ecs_discovery.client.aio.tasks import Tasks
from ecs_discovery.client.hedge import Hedge
from ecs_discovery.core.calls.call import Call
from ecs_discovery.core.calls.failure_kinds import Judgement
from ecs_discovery.core.calls.hedge import Hedging
from ecs_discovery.core.lease import Lease

__all__ = ["Trial", "duel", "hedged"]

T = TypeVar("T")


class Trial(Generic[T]):
    """One of the attempts of a hedged call, in a task of its own. `drop` lets go of a result that is not wanted."""

    __slots__ = ("_drop", "_given_up", "_perform", "error", "lease", "result", "task")

    def __init__(
        self, lease: Lease, perform: Callable[[], Awaitable[T]], *, drop: Callable[[T], object] | None = None
    ) -> None:
        self._drop = drop
        self.lease = lease
        self.result: T | None = None
        self.error: BaseException | None = None
        self.task: asyncio.Task[None] | None = None
        self._perform = perform
        self._given_up = False

    def start(self, told: Callable[[Trial[T]], object]) -> None:
        """Begin it. `told` is called with it when it has ended, unless it was given up."""
        self.task = asyncio.get_running_loop().create_task(self._run())
        self.task.add_done_callback(partial(self._end, told))

    def give_up(self, tasks: Tasks) -> None:
        """No caller waits for it any more: cancel it. Its task is among `tasks` until it has ended."""
        self._given_up = True
        if self.task is None or self.task.done():  # no task: it could not be made
            self._let_go()
            return
        tasks.hold(self.task)
        self.task.cancel()

    def outcome(self) -> T:
        """Its result. Raises its error."""
        error, self.error = self.error, None  # else the error's frames would keep it, and it them
        if error is not None:
            raise error
        return self.result  # type: ignore[return-value]

    def _let_go(self) -> None:
        result, self.result, self.error = self.result, None, None
        if result is not None and self._drop is not None:
            self._drop(result)
        self.lease.release()

    async def _run(self) -> None:
        try:
            self.result = await self._perform()
        except BaseException as error:  # noqa: BLE001  # raised where it is waited for
            self.error = error

    def _end(self, told: Callable[[Trial[T]], object], task: asyncio.Task[None]) -> None:
        if self._given_up:
            self._let_go()
            return
        if task.cancelled():  # by the end of its loop, before its first step
            self.error = asyncio.CancelledError()
        told(self)


async def duel(
    background: AsyncBackground,
    hedge: Hedge,
    first: Lease,
    trial: Callable[[Lease], Trial[T]],
    wanted: Callable[[Trial[T]], bool],
    failed: Callable[[Trial[T]], Awaitable[object]],
) -> Trial[T]:
    """Run `trial(first)`, and another beside it once `hedge.delay` is over: the one that counts.

    That is the first that is `wanted`, else the last. One that is not, while the other goes on, is handed to
    `failed`.
    """
    ended: asyncio.Queue[Trial[T]] = asyncio.Queue()
    running: list[Trial[T]] = []

    def start(lease: Lease) -> None:
        running.append(trial(lease))
        running[-1].start(ended.put_nowait)

    try:
        start(first)
        latest: Trial[T] | None = None
        with suppress(TimeoutError):
            async with asyncio.timeout(hedge.delay):
                latest = await ended.get()
        if latest is None:
            rival = hedge.start_rival() if ended.empty() else None
            if rival is not None:
                start(rival)
            latest = await ended.get()
        while True:
            running.remove(latest)
            good = wanted(latest)
            if good:
                hedge.won(latest.lease)
            if good or not running or not isinstance(latest.error, Exception | None):
                return latest
            await failed(latest)
            latest.result = latest.error = None  # its frames keep it, and it them
            hedge.alone()
            latest = await ended.get()
    except BaseException:  # cancelled, above all
        losers = _give_up(background, hedge, running)
        # Who cancels a call may rely on it that nothing of the call goes on.
        await asyncio.gather(*(each.task for each in losers if each.task is not None), return_exceptions=True)
        raise
    finally:
        _give_up(background, hedge, running)


def _give_up(background: AsyncBackground, hedge: Hedge, running: list[Trial[T]]) -> list[Trial[T]]:
    hedge.alone()
    losers = running[:]
    running.clear()
    for loser in losers:
        hedge.lost(loser.lease)
        loser.give_up(background.tasks)
    return losers


def hedged(
    background: AsyncBackground,
    hedging: Hedging,
    call: Call,
    attempt: Callable[[Lease], Awaitable[T]],
    judge: Callable[[T | None, Exception | None], Judgement],
) -> Callable[[Lease], Awaitable[T]]:
    """As `hedged`."""
    engine = background.engine

    async def failed(trial: Trial[T]) -> None:
        error = trial.error
        assert isinstance(error, Exception)
        background.force(engine.record_attempt(call, trial.lease, judge(None, error), error).ask)

    async def run(lease: Lease) -> T:
        if call.number > 1 or not call.idempotent:
            return await attempt(lease)
        hedge = Hedge(engine, hedging, call, lease)
        if hedge.delay is None:
            result = await attempt(lease)
            hedge.won(lease)
            return result
        winner = await duel(
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
