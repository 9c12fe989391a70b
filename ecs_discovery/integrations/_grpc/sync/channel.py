"""A channel of ours, for threads: gRPC's own interface over the channels to the endpoints."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import grpc

from ecs_discovery.integrations._grpc.route import arguments_of
from ecs_discovery.integrations._grpc.sync.connectivity import Connectivity
from ecs_discovery.integrations._grpc.sync.route import Route
from ecs_discovery.integrations._grpc.sync.stream import StreamStream, UnaryStream
from ecs_discovery.integrations._grpc.sync.unary import StreamUnary, UnaryUnary

__all__ = ["DiscoveryChannel"]


class DiscoveryChannel(grpc.Channel):
    """Chooses an endpoint for each RPC. Made by `insecure_channel` and `secure_channel`."""

    def __init__(self, route: Route) -> None:
        self._route = route
        self._connectivity = Connectivity(route)

    def __repr__(self) -> str:
        return f"<DiscoveryChannel {self._route.plan.target}>"

    def unary_unary(self, method: str, *args: Any, **more: Any) -> Any:
        return UnaryUnary(self._route, "unary_unary", method, arguments_of(*args, **more))

    def unary_stream(self, method: str, *args: Any, **more: Any) -> Any:
        return UnaryStream(self._route, "unary_stream", method, arguments_of(*args, **more))

    def stream_unary(self, method: str, *args: Any, **more: Any) -> Any:
        return StreamUnary(self._route, "stream_unary", method, arguments_of(*args, **more))

    def stream_stream(self, method: str, *args: Any, **more: Any) -> Any:
        return StreamStream(self._route, "stream_stream", method, arguments_of(*args, **more))

    def subscribe(
        self, callback: Callable[[grpc.ChannelConnectivity], None], try_to_connect: bool | None = False
    ) -> None:
        self._connectivity.subscribe(callback, bool(try_to_connect))

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        self._connectivity.unsubscribe(callback)

    def close(self) -> None:
        self._connectivity.close()
        self._route.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
