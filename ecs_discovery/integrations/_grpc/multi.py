"""One method of a channel, as both worlds have it."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from ecs_discovery.config.options import NONE as NO_OPTIONS
from ecs_discovery.config.options import current_options
from ecs_discovery.core.lease import Lease
from ecs_discovery.errors import Overloaded
from ecs_discovery.integrations._grpc.channels import Channels, SubChannel
from ecs_discovery.integrations._grpc.rpc import Rpc

__all__ = ["MultiCallable"]

C = TypeVar("C", bound=Channels)
_KEPT = 64  # callables; with more, the callables of closed channels are dropped


class MultiCallable(Generic[C]):
    """One method. `kind` is the method of gRPC's channels that makes gRPC's own, from `arguments`."""

    def __init__(self, route: C, kind: str, method: str, arguments: dict[str, Any]) -> None:
        self.route = route
        self.kind = kind
        self.method = method
        self.idempotent = route.plan.methods.includes(method)
        self.streams = kind.startswith("stream")
        """Its requests are a stream."""
        self._arguments = arguments
        self._safe = self.idempotent and not self.streams
        self._found: dict[SubChannel, Any] = {}

    def at(self, sub: SubChannel) -> Any:
        """gRPC's own callable for one endpoint."""
        found = self._found.get(sub)
        if found is None:
            if len(self._found) > _KEPT:
                for each in [each for each in list(self._found) if each.closed]:
                    self._found.pop(each, None)
            found = getattr(sub.channel, self.kind)(self.method, **self._arguments)
            self._found[sub] = found
        return found

    def quick_lease(self, now: float, timeout: Any) -> Lease | None:
        """A use of an endpoint for a first attempt that takes no more than a choice; None for any other."""
        route = self.route
        service, engine = route.service, route.engine
        if not route.is_open():
            route.check_open()
        if (
            now >= service.refresh_at
            or current_options() is not NO_OPTIONS
            or (engine.observers is not None and now >= engine.observers.idle_until)
            or service.admission.crowded
            or service.retry.tenacity is not None
            or not (timeout is None or (type(timeout) in (int, float) and timeout > 0))
        ):
            return None
        lease = Lease(service, now)
        try:
            if lease.pick() is None:
                return None
        except Overloaded:
            return None
        if service.work.due:
            route.work(service)
        return lease

    def rpc(self, timeout: float | None, now: float, replays: Any) -> Rpc:
        """The state of an RPC that began `now`."""
        route = self.route
        return Rpc(route.engine, route.service, route.plan.target, self.method, self.idempotent, timeout, now, replays)
