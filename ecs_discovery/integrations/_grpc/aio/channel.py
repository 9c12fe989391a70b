"""A channel of ours, for asyncio: the interface of `grpc.aio` over the channels to the endpoints."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from ecs_discovery.errors import ResolutionError
from ecs_discovery.integrations._grpc.aio.calls import (
    AsyncMultiCallable,
    StreamStreamCall,
    StreamUnaryCall,
    UnaryStreamCall,
    UnaryUnaryCall,
)
from ecs_discovery.integrations._grpc.aio.route import AsyncRoute
from ecs_discovery.integrations._grpc.route import arguments_of

__all__ = ["AsyncDiscoveryChannel"]

_STATES = (
    grpc.ChannelConnectivity.READY,
    grpc.ChannelConnectivity.CONNECTING,
    grpc.ChannelConnectivity.IDLE,
    grpc.ChannelConnectivity.TRANSIENT_FAILURE,
)
_LOOK = 0.05  # seconds between looks at the state of the channels


class _UnaryUnary(AsyncMultiCallable, grpc.aio.UnaryUnaryMultiCallable):  # type: ignore[type-arg]
    call_class = UnaryUnaryCall


class _UnaryStream(AsyncMultiCallable, grpc.aio.UnaryStreamMultiCallable):  # type: ignore[type-arg]
    call_class = UnaryStreamCall


class _StreamUnary(AsyncMultiCallable, grpc.aio.StreamUnaryMultiCallable):  # type: ignore[type-arg]
    call_class = StreamUnaryCall


class _StreamStream(AsyncMultiCallable, grpc.aio.StreamStreamMultiCallable):  # type: ignore[type-arg]
    call_class = StreamStreamCall


class AsyncDiscoveryChannel(grpc.aio.Channel):
    """Chooses an endpoint for each RPC. Made by `insecure_channel` and `secure_channel`."""

    def __init__(self, route: AsyncRoute) -> None:
        self._route = route

    def __repr__(self) -> str:
        return f"<AsyncDiscoveryChannel {self._route.plan.target}>"

    def unary_unary(self, method: str, *args: Any, **more: Any) -> Any:
        return _UnaryUnary(self._route, "unary_unary", method, arguments_of(*args, **more))

    def unary_stream(self, method: str, *args: Any, **more: Any) -> Any:
        return _UnaryStream(self._route, "unary_stream", method, arguments_of(*args, **more))

    def stream_unary(self, method: str, *args: Any, **more: Any) -> Any:
        return _StreamUnary(self._route, "stream_unary", method, arguments_of(*args, **more))

    def stream_stream(self, method: str, *args: Any, **more: Any) -> Any:
        return _StreamStream(self._route, "stream_stream", method, arguments_of(*args, **more))

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        route = self._route
        if route.closed:
            return grpc.ChannelConnectivity.SHUTDOWN
        if try_to_connect:
            for node in route.service.nodes[:3]:
                route.find(node, False)
        found = {sub.channel.get_state(try_to_connect) for sub in route.all() if not sub.closed}
        return next((state for state in _STATES if state in found), grpc.ChannelConnectivity.IDLE)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        while self.get_state() is last_observed_state:
            await asyncio.sleep(_LOOK)

    async def channel_ready(self) -> None:
        route = self._route
        while True:
            route.check_open()
            try:
                now = route.engine.clock()
                await route.driver.background.ready(route.service, now + route.service.timeout.connect)
            except ResolutionError:
                pass  # it may be there later: the caller says how long to wait
            if self.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY:
                return
            await asyncio.sleep(_LOOK)

    async def close(self, grace: float | None = None) -> None:
        await self._route.aclose(grace)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
