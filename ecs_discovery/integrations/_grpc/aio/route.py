"""The channels of gRPC to the endpoints of one target. For asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from ecs_discovery.client.aio.discovery import AsyncDiscovery
from ecs_discovery.core.service import Service
from ecs_discovery.integrations._grpc.channels import Channels, SubChannel
from ecs_discovery.integrations._grpc.route import Plan

__all__ = ["AsyncRoute"]


class AsyncRoute(Channels):
    """See `Channels`."""

    closed_class = grpc.aio.UsageError

    def __init__(self, discovery: AsyncDiscovery, service: Service, plan: Plan) -> None:
        self.discovery = discovery
        self.driver = discovery._driver
        super().__init__(self.driver.engine, service, plan, self.driver.background.force)

    def check_open(self) -> None:
        super().check_open()
        self.discovery._check_open(self.plan.target)

    def open_channel(self, address: str) -> Any:
        plan = self.plan
        # By name: instrumentation that has put its own in their place looks for them there.
        options: Any = {
            "options": plan.options,
            "compression": plan.compression,
            "interceptors": plan.interceptors,
        }
        if plan.credentials is None:
            return grpc.aio.insecure_channel(address, **options)
        return grpc.aio.secure_channel(address, plan.credentials, **options)

    def is_open(self) -> bool:
        return not (self.closed or self.engine.closed or self.discovery._closed)

    def work(self, service: Service) -> None:
        self.driver.background.work(service)

    def shut(self, sub: SubChannel) -> None:
        sub.closed = True
        self.driver.background.tasks.spawn(sub.channel.close())

    def set_alarm(self, seconds: float, action: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(seconds, action)

    async def aclose(self, grace: float | None) -> None:
        """Close all channels. RPCs in flight have `grace` seconds to end."""
        await asyncio.gather(*(sub.channel.close(grace) for sub in self.take_all()))
