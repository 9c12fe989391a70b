"""Leases for threads: `with discovery.lease("cache:6379") as lease:`."""

from __future__ import annotations

from typing import Self

from ecs_discovery.client.lease_scope import LeaseScope
from ecs_discovery.client.sync.driver import Driver
from ecs_discovery.errors import Overloaded

__all__ = ["LeaseContext"]


class LeaseContext(LeaseScope):
    """What `Discovery.lease` returns: enter it to get an endpoint."""

    __slots__ = ()
    _driver: Driver

    def __enter__(self) -> Self:
        service = self._service
        now = self._driver.engine.clock()
        if now >= service.refresh_at:
            self._driver.background.ready(service, now + service.timeout.connect)
        if not service.admission.crowded:
            try:
                self._start(now)
                return self
            except Overloaded:
                pass
        self._driver.background.wait_for_admission(service, now + service.timeout.connect, self._start_now)
        return self

    __exit__ = LeaseScope._end
