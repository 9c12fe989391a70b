"""A resolver for threads as asyncio can use it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from ecs_discovery.errors import ResolutionError, ResolutionTimeout
from ecs_discovery.models import Question, Resolution
from ecs_discovery.resolvers.base import AsyncResolver, Remembering, Resolver
from ecs_discovery.runtime.workers import Workers

__all__ = ["InThreads", "for_asyncio"]


def for_asyncio(resolver: Any, workers: Workers) -> AsyncResolver:
    """A resolver as asyncio can use it: itself, if its `resolve` is a coroutine function, else in threads."""
    if inspect.iscoroutinefunction(resolver.resolve):
        return resolver  # type: ignore[no-any-return]  # it says so itself
    return InThreads(resolver, workers)


class InThreads:
    """A resolver for threads, for asyncio: its lookups run in `workers`, which are not the loop's executor."""

    def __init__(self, resolver: Resolver, workers: Workers) -> None:
        self._resolver = resolver
        self._workers = workers

    def forget(self, question: Question) -> None:
        """See `Remembering.forget`."""
        if isinstance(self._resolver, Remembering):
            self._resolver.forget(question)

    async def resolve(self, question: Question, timeout: float) -> Resolution:
        """As the resolver itself; given up `timeout` seconds after it began, whatever it does."""
        found = await self.resolve_in_turn(question, timeout, lambda: True)
        assert found is not None  # it has begun
        return found

    async def resolve_in_turn(self, question: Question, timeout: float, begin: Callable[[], bool]) -> Resolution | None:
        """See `Queueing.resolve_in_turn`."""
        loop = asyncio.get_running_loop()
        done: Future[Resolution | None] = Future()
        began = False

        def started() -> None:
            nonlocal began
            began = True
            if not limit.expired() and not done.cancelled():
                with suppress(RuntimeError):  # it is over meanwhile
                    limit.reschedule(loop.time() + timeout)

        def job() -> None:
            if not done.set_running_or_notify_cancel():
                return  # no caller waits any more
            try:
                if not begin():
                    done.set_result(None)
                    return
                with suppress(RuntimeError):  # the loop is closed
                    loop.call_soon_threadsafe(started)
                done.set_result(self._resolver.resolve(question, timeout))
            except Exception as error:  # noqa: BLE001  # handed to the caller that awaits it
                done.set_exception(error)

        answer = asyncio.wrap_future(done)
        try:
            async with asyncio.timeout(timeout) as limit:
                if not self._workers.spawn(job, inline=False, key=done):
                    raise ResolutionError(  # here it would hold up the loop, for as long as it likes
                        "not asked: no thread can be started for its resolver",
                        target=str(question),
                        hint="the interpreter is exiting, or threads are not allowed here; use a coroutine function",
                    )
                return await answer
        except TimeoutError as error:
            if began or not limit.expired():
                raise
            raise ResolutionTimeout(
                f"not asked within {timeout:.3g} s: no thread was free for it",
                target=str(question),
                hint="its resolver is at work on as many other names as it has threads",
            ) from error
        finally:
            self._workers.forget(done)
