"""The driver of an `AsyncDiscovery`: its engine, its background, and the attempts of a call. For asyncio.

Integrations get this object; an application never sees it. It stands in the same order as `sync/driver.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from ecs_discovery.client.aio import retry
from ecs_discovery.client.aio.background import AsyncBackground
from ecs_discovery.client.engine import Engine
from ecs_discovery.client.failures import Judgement
from ecs_discovery.core.calls.call import Call
from ecs_discovery.core.lease import Lease
from ecs_discovery.core.service import Service

__all__ = ["AsyncDriver"]

T = TypeVar("T")


class AsyncDriver:
    """What plays calls: `engine` decides, `background` does the I/O, `sleep` waits."""

    __slots__ = ("background", "engine", "sleep")

    def __init__(
        self, engine: Engine, sleep: Callable[[float], Awaitable[object]], resolvers: Mapping[str, Any]
    ) -> None:
        self.engine = engine
        self.sleep = sleep
        self.background = AsyncBackground(engine, resolvers)

    async def run(
        self,
        service: Service,
        call: Call,
        attempt: Callable[[Lease], Awaitable[T]],
        judge: Callable[[T | None, Exception | None], Judgement],
    ) -> T:
        """As `Driver.run`."""

        async def once() -> T:
            call.wait = None  # whatever ends this attempt early ends the call
            await self.background.wait_for_refresh(service, call)
            lease = await self.background.start_attempt(service, call)
            if service.work_due:
                self.background.work(service)
            try:
                result = await attempt(lease)
            except Exception as error:
                self.background.force(self.engine.record_attempt(call, lease, judge(None, error), error))
                raise
            except BaseException:  # cancelled or interrupted: the use is over, and says nothing of the endpoint
                lease.release()
                raise
            judgement = judge(result, None)
            self.background.force(self.engine.record_attempt(call, lease, judgement, judgement.label))
            return result

        return await self.pursue(call, once)

    async def pursue(self, call: Call, once: Callable[[], Awaitable[T]]) -> T:
        """As `Driver.pursue`."""
        if call.own_policy is not None:
            engine = self.engine
            return await retry.by_policy(call.own_policy, call, once, engine.clock, engine.rng, self.sleep)
        failed: list[Exception] = []  # taken out below, for kept in this frame the error would keep the frame
        result: T | None = None
        try:
            result = await once()
        except Exception as error:
            if call.wait is None:
                raise
            failed.append(error)
        # Outside of the block: else the first error would be the context of the later ones.
        if call.wait is None:
            return result  # type: ignore[return-value]

        async def first() -> T:
            if failed:
                raise failed.pop()
            return result  # type: ignore[return-value]

        return await retry.go_on(first, once, lambda: call.wait, self.sleep)
