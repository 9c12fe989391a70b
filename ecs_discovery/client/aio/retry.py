"""The retry loop for asyncio: tenacity drives what follows a first attempt that failed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any, TypeVar

from tenacity import AsyncRetrying, RetryCallState
from tenacity.stop import stop_never

from ecs_discovery.client.attempt_result import AttemptResult
from ecs_discovery.client.retry import OwnPolicy, RetryAsDecided, WaitAsDecided, last_outcome
from ecs_discovery.core.calls.call import Call

__all__ = ["as_decided", "by_policy"]

T = TypeVar("T")

_DEFAULT = AsyncRetrying()


async def as_decided(
    first: AttemptResult[T],
    attempt: Callable[[], Awaitable[AttemptResult[T]]],
    sleep: Callable[[float], Awaitable[object]],
) -> AttemptResult[T]:
    """The last of the attempts that follow `first`, which was made already and failed."""
    made = [first]

    async def run() -> AttemptResult[T]:
        return made.pop() if made else await attempt()

    async def rest(seconds: float) -> None:
        await sleep(seconds)

    loop = AsyncRetrying(sleep=rest, stop=stop_never, wait=WaitAsDecided(), retry=RetryAsDecided(), reraise=True)
    return await loop(run)


async def by_policy(
    given: Any,  # of either kind
    call: Call,
    attempt: Callable[[], Awaitable[T]],
    clock: Callable[[], float],
    rng: Callable[[], float],
    sleep: Callable[[float], Awaitable[object]],
) -> T:
    """The attempts of `call` as the application's tenacity object wants them; the last one's result or exception.

    A copy of the object drives all of them. An object for threads drives them too, without its own `sleep`.
    """
    own = OwnPolicy(given, call, clock, rng)

    async def run() -> T:
        own.start_attempt()
        return await attempt()

    async def rest(seconds: float) -> None:
        await sleep(seconds)

    async def retry(state: RetryCallState) -> bool:
        return own.again(state, await _awaited(own.wants(state)))

    async def wait(state: RetryCallState) -> float:
        return own.pause(await _awaited(own.waits(state)))

    async def stop(state: RetryCallState) -> bool:
        return own.over(state, await _awaited(own.stops(state)))

    asynchronous = isinstance(given, AsyncRetrying)
    parts: dict[str, Any] = {
        "sleep": rest if not asynchronous or given.sleep is _DEFAULT.sleep else given.sleep,
        "retry": retry,
        "wait": wait,
        "stop": stop,
        "retry_error_callback": given.retry_error_callback or last_outcome,
    }
    if asynchronous:
        return await given.copy(**parts)(run)  # type: ignore[no-any-return]
    for name in ("before", "after", "before_sleep", "enabled"):
        if hasattr(given, name):  # tenacity has `enabled` from 9.2 on
            parts[name] = getattr(given, name)
    return await AsyncRetrying(**parts)(run)


async def _awaited(value: Any) -> Any:
    return await value if isawaitable(value) else value
