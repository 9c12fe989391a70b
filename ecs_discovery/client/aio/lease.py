"""Leases for asyncio: `async with discovery.lease("cache:6379") as lease:`."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from ecs_discovery.client.aio.driver import AsyncDriver
from ecs_discovery.client.lease_scope import LeaseScope
from ecs_discovery.errors import Overloaded

__all__ = ["AsyncLeaseContext"]


class AsyncLeaseContext(LeaseScope):
    """What `AsyncDiscovery.lease` returns: enter it with `async with` to get an endpoint."""

    __slots__ = ()
    _driver: AsyncDriver

    async def __aenter__(self) -> Self:
        service = self._service
        now = self._driver.engine.clock()
        if now >= service.refresh_at:
            await self._driver.background.ready(service, now + service.timeout.connect)
        if not service.admission.crowded:
            try:
                self._start(now)
                return self
            except Overloaded:
                pass
        await self._driver.background.wait_for_admission(service, now + service.timeout.connect, self._start_now)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end(kind, error, traceback)
