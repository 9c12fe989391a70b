"""The retry loop: tenacity drives what follows a first attempt that failed.

The first attempt runs outside of it, so that a call that succeeds at once pays nothing. What
tenacity is told is what our own decision says: whether to go on, and after how long.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, Retrying
from tenacity.stop import stop_never

__all__ = ["go_on", "go_on_async"]

T = TypeVar("T")


def go_on(
    first: Callable[[], T],
    attempt: Callable[[], T],
    pause: Callable[[], float | None],
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Attempts until `pause()` is None; then the last one's result or exception.

    `first()` gives the outcome of the attempt that was made already, `pause()` the seconds to wait
    after the latest one.
    """
    attempts = iter((first,))

    def run() -> T:
        return next(attempts, attempt)()

    loop = Retrying(sleep=sleep, stop=stop_never, wait=_wait(pause), retry=_retry(pause), reraise=True)
    return loop(run)


async def go_on_async(
    first: Callable[[], Awaitable[T]],
    attempt: Callable[[], Awaitable[T]],
    pause: Callable[[], float | None],
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> T:
    """As `go_on`, awaiting."""
    attempts = iter((first,))

    async def run() -> T:
        return await next(attempts, attempt)()

    async def rest(seconds: float) -> None:
        await sleep(seconds)

    loop = AsyncRetrying(sleep=rest, stop=stop_never, wait=_wait(pause), retry=_retry(pause), reraise=True)
    return await loop(run)


def _retry(pause: Callable[[], float | None]) -> Callable[[RetryCallState], bool]:
    def again(state: RetryCallState) -> bool:
        outcome = state.outcome
        error = outcome.exception() if outcome is not None else None
        if error is not None and not isinstance(error, Exception):
            return False  # interrupted or cancelled
        return pause() is not None

    return again


def _wait(pause: Callable[[], float | None]) -> Callable[[RetryCallState], float]:
    return lambda state: pause() or 0.0
