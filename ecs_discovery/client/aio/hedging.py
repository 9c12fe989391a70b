"""Hedging a call: its first attempt, and a second one on another endpoint when that takes long. For asyncio.

It stands in the same order as `hedging.py`, where the books are; the two differ in awaits, and in that a
task can be cancelled and a thread cannot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Generic, TypeVar

from ecs_discovery.client.aio.background import AsyncBackground
from ecs_discovery.client.hedge import Hedge
from ecs_discovery.core.calls.call import Call
from ecs_discovery.core.calls.failure_kinds import Judgement
from ecs_discovery.core.calls.hedge import Hedging
from ecs_discovery.core.lease import Lease

__all__ = ["hedged"]

T = TypeVar("T")


class _Trial(Generic[T]):
    """One of the attempts of a hedged call, in a task of its own."""

    __slots__ = ("_given_up", "_perform", "error", "lease", "result", "task")

    def __init__(self, lease: Lease, perform: Callable[[], Awaitable[T]]) -> None:
        self.lease = lease
        self.result: T | None = None
        self.error: BaseException | None = None
        self.task: asyncio.Task[None] | None = None
        self._perform = perform
        self._given_up = False

    def start(self, told: Callable[[_Trial[T]], object]) -> None:
        """Begin it. `told` is called with it when it has ended, unless it was given up."""
        self.task = asyncio.get_running_loop().create_task(self._run())
        self.task.add_done_callback(partial(self._end, told))

    def give_up(self, tasks: set[asyncio.Task[None]]) -> None:
        """Nobody waits for it any more: cancel it. Its task is among `tasks` until it has ended."""
        self._given_up = True
        if self.task is None or self.task.done():  # no task: it could not be made
            self.lease.release()
            return
        tasks.add(self.task)
        self.task.add_done_callback(tasks.discard)
        self.task.cancel()

    def outcome(self) -> T:
        """Its result. Raises its error."""
        error, self.error = self.error, None  # else the error's frames would keep it, and it them
        if error is not None:
            raise error
        return self.result  # type: ignore[return-value]

    async def _run(self) -> None:
        try:
            self.result = await self._perform()
        except BaseException as error:  # noqa: BLE001  # raised where it is waited for
            self.error = error

    def _end(self, told: Callable[[_Trial[T]], object], task: asyncio.Task[None]) -> None:
        if self._given_up:
            self.result = self.error = None
            self.lease.release()
            return
        if task.cancelled():  # by the end of its loop, before its first step
            self.error = asyncio.CancelledError()
        told(self)


async def _duel(
    background: AsyncBackground,
    hedge: Hedge,
    first: Lease,
    trial: Callable[[Lease], _Trial[T]],
    failed: Callable[[_Trial[T]], object],
) -> _Trial[T]:
    """As `duel`."""
    ended: asyncio.Queue[_Trial[T]] = asyncio.Queue()
    running: list[_Trial[T]] = []

    def start(lease: Lease) -> None:
        running.append(trial(lease))
        running[-1].start(ended.put_nowait)

    try:
        start(first)
        latest: _Trial[T] | None = None
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
            good = latest.error is None
            if good:
                hedge.won(latest.lease)
            if good or not running or not isinstance(latest.error, Exception):
                return latest
            failed(latest)
            latest.error = None  # its frames keep it, and it them
            hedge.alone()
            latest = await ended.get()
    except BaseException:  # cancelled, above all
        losers = _give_up(background, hedge, running)
        # Whoever cancels a call may rely on it that nothing of it goes on.
        await asyncio.gather(*(each.task for each in losers if each.task is not None), return_exceptions=True)
        raise
    finally:
        _give_up(background, hedge, running)


def _give_up(background: AsyncBackground, hedge: Hedge, running: list[_Trial[T]]) -> list[_Trial[T]]:
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

    def failed(trial: _Trial[T]) -> None:
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
        winner = await _duel(
            background, hedge, lease.hand_over(), lambda use: _Trial(use, partial(attempt, use)), failed
        )
        lease.adopt(winner.lease)
        return winner.outcome()

    return run
