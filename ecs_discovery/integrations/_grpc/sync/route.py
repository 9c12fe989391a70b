"""The channels of gRPC to the endpoints of one target. For threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from ecs_discovery.client.sync.discovery import Discovery
from ecs_discovery.core.service import Service
from ecs_discovery.integrations._grpc.channels import Channels, SubChannel
from ecs_discovery.integrations._grpc.route import Plan

__all__ = ["Route"]


class Route(Channels):
    """See `Channels`. A blocking RPC ends with its channel only: those that may be ended are on one of their own."""

    def __init__(self, discovery: Discovery, service: Service, plan: Plan) -> None:
        self._discovery = discovery  # the default of its settings lives as long as its clients do
        self.driver = discovery._driver
        super().__init__(self.driver.engine, service, plan, self.driver.background.force)

    def open_channel(self, address: str) -> Any:
        plan = self.plan
        # Looked up now, for instrumentation may have put its own in their place.
        if plan.credentials is None:
            return grpc.insecure_channel(address, plan.options, plan.compression)
        return grpc.secure_channel(address, plan.credentials, plan.options, plan.compression)

    def work(self, service: Service) -> None:
        self.driver.background.work(service)

    def shut(self, sub: SubChannel) -> None:
        sub.closed = True
        sub.channel.close()

    def set_alarm(self, seconds: float, action: Callable[[], None]) -> None:
        self.driver.background.alarms.at(self.engine.clock() + seconds, action)

    def close(self) -> None:
        """Close all channels. RPCs in flight end as cancelled."""
        for sub in self.take_all():
            sub.channel.close()
