"""The retry loop for asyncio: tenacity drives what follows a first attempt that failed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, TypeVar

from ecs_discovery.core.calls.call import Call

if TYPE_CHECKING:
    from tenacity import RetryCallState

__all__ = ["by_policy", "go_on"]

T = TypeVar("T")


async def go_on(
    first: Callable[[], Awaitable[T]],
    attempt: Callable[[], Awaitable[T]],
    pause: Callable[[], float | None],
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> T:
    """As `go_on`, awaiting."""
    from tenacity import AsyncRetrying  # not before something has failed
    from tenacity.stop import stop_never

    from ecs_discovery.client.retry import _retry, _wait

    attempts = iter((first,))

    async def run() -> T:
        return await next(attempts, attempt)()

    async def rest(seconds: float) -> None:
        await sleep(seconds)

    loop = AsyncRetrying(sleep=rest, stop=stop_never, wait=_wait(pause), retry=_retry(pause), reraise=True)
    return await loop(run)


async def by_policy(
    given: Any,  # of either kind
    call: Call,
    attempt: Callable[[], Awaitable[T]],
    clock: Callable[[], float],
    rng: Callable[[], float],
    sleep: Callable[[float], Awaitable[object]],
) -> T:
    """As `by_policy`, awaiting."""
    from tenacity import AsyncRetrying

    from ecs_discovery.client.retry import OwnPolicy, _outcome

    own = OwnPolicy(given, call, clock, rng)

    async def run() -> T:
        own.start_attempt()
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
        "sleep": rest if not asynchronous or given.sleep is AsyncRetrying().sleep else given.sleep,
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


async def _awaited(value: Any) -> Any:
    return await value if isawaitable(value) else value
