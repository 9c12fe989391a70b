"""The retry loop: tenacity drives what follows a first attempt that failed.

The first attempt runs outside of it, so that a call that succeeds at once pays nothing. What
tenacity is told is what our own decision says: whether to go on, and after how long. Where the
application gave a tenacity object as its policy, a copy of that one drives all attempts, within
what is safe: idempotence, the deadline and the budget hold as ever.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any, TypeVar

from tenacity import AsyncRetrying, RetryCallState, Retrying
from tenacity.nap import sleep as tenacity_sleep
from tenacity.retry import retry_if_exception_type
from tenacity.stop import stop_never
from tenacity.wait import wait_none

from ecs_discovery.core.retry import NOT_REPEATED, Call, Failure

__all__ = ["by_policy", "by_policy_async", "go_on", "go_on_async"]

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


def by_policy(
    given: Retrying,
    call: Call,
    attempt: Callable[[], T],
    clock: Callable[[], float],
    dice: Callable[[], float],
    sleep: Callable[[float], None],
) -> T:
    """The attempts of `call` as the application's tenacity object wants them; the last one's result or exception."""
    own = _Own(given, call, clock, dice)

    def run() -> T:
        own.begin()
        return attempt()

    loop = given.copy(
        sleep=sleep if given.sleep is tenacity_sleep else given.sleep,
        retry=lambda state: own.again(state, own.wants(state)),
        wait=lambda state: own.pause(own.waits(state)),
        stop=lambda state: own.over(state, own.stops(state)),
        retry_error_callback=given.retry_error_callback or _outcome,
    )
    return loop(run)


async def by_policy_async(
    given: Any,  # of either kind
    call: Call,
    attempt: Callable[[], Awaitable[T]],
    clock: Callable[[], float],
    dice: Callable[[], float],
    sleep: Callable[[float], Awaitable[object]],
) -> T:
    """As `by_policy`, awaiting."""
    own = _Own(given, call, clock, dice)

    async def run() -> T:
        own.begin()
        return await attempt()

    async def rest(seconds: float) -> None:
        await sleep(seconds)

    async def again(state: RetryCallState) -> bool:
        return own.again(state, await _awaited(own.wants(state)))

    async def pause(state: RetryCallState) -> float:
        return own.pause(await _awaited(own.waits(state)))

    async def over(state: RetryCallState) -> bool:
        return own.over(state, await _awaited(own.stops(state)))

    asynchronous = isinstance(given, AsyncRetrying)
    parts: dict[str, Any] = {
        "sleep": rest if not asynchronous or given.sleep is _DEFAULT.sleep else given.sleep,
        "retry": again,
        "wait": pause,
        "stop": over,
        "retry_error_callback": given.retry_error_callback or _outcome,
    }
    if asynchronous:
        return await given.copy(**parts)(run)  # type: ignore[no-any-return]
    for name in ("before", "after", "before_sleep", "enabled"):
        parts[name] = getattr(given, name)
    return await AsyncRetrying(**parts)(run)


class _Own:
    """What a tenacity object of the application's says of one call. What it leaves at tenacity's defaults is ours."""

    def __init__(self, given: Any, call: Call, clock: Callable[[], float], dice: Callable[[], float]) -> None:
        self._given = given
        self._call = call
        self._clock = clock
        self._dice = dice
        self._began = clock()
        self._number = call.number
        retry = given.retry
        self._any = type(retry) is retry_if_exception_type and retry.exception_types is Exception

    def begin(self) -> None:
        """Another attempt begins."""
        self._call.failure = None
        self._number = self._call.number
        self._began = self._clock()

    def wants(self, state: RetryCallState) -> Any:
        """Whether the object wants another attempt; None if that is not its business."""
        if self._objection(state) or self._call.failure is Failure.NOT_SENT or self._any:
            return None
        return self._given.retry(state)

    def again(self, state: RetryCallState, wanted: Any) -> bool:
        """Whether there may be another attempt."""
        call = self._call
        call.reason = self._objection(state)
        if call.reason:
            return False
        ours = call.failure is not None and call.failure is not Failure.OTHER
        if call.failure is Failure.NOT_SENT or (ours if wanted is None else wanted):
            return True
        call.reason = NOT_REPEATED
        return False

    def waits(self, state: RetryCallState) -> Any:
        """The pause that the object wants; None if it leaves that to us."""
        return None if isinstance(self._given.wait, wait_none) else self._given.wait(state)

    def pause(self, wanted: Any) -> float:
        """Seconds until the next attempt."""
        return self._call.pause(self._dice, None if wanted is None else lambda: float(wanted))

    def stops(self, state: RetryCallState) -> Any:
        """Whether the object wants no other attempt; None if it leaves that to us."""
        return None if self._given.stop is stop_never else self._given.stop(state)

    def over(self, state: RetryCallState, stopped: Any) -> bool:
        """Whether the call is over although another attempt is wanted."""
        call, now = self._call, self._clock()
        call.reason = call.exhausted() if stopped is None else "the policy's stop says so" if stopped else ""
        if call.reason:
            return True
        if call.failure is None:
            call.connect_until += now - self._began  # it was good: its time went into the answer
        call.schedule(state.upcoming_sleep, now)
        return call.wait is None

    def _objection(self, state: RetryCallState) -> str:
        outcome = state.outcome
        error = outcome.exception() if outcome is not None else None
        if error is not None and not isinstance(error, Exception):
            return "interrupted"  # or cancelled
        return self._call.objection(begun=self._call.number > self._number)


_DEFAULT = AsyncRetrying()


def _outcome(state: RetryCallState) -> Any:
    outcome = state.outcome
    assert outcome is not None
    return outcome.result()


async def _awaited(value: Any) -> Any:
    return await value if isawaitable(value) else value


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
