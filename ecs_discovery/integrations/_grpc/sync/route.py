"""The channels of gRPC to the endpoints of one target. For threads."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Any

import grpc

from ecs_discovery.client.sync.discovery import Discovery
from ecs_discovery.core.balancing.node import Node
from ecs_discovery.core.lease import Lease
from ecs_discovery.core.service import Service
from ecs_discovery.errors import ClosedError, combined
from ecs_discovery.integrations._grpc.route import Plan, address_of
from ecs_discovery.integrations._grpc.watch import InFlight, Watch, given_up
from ecs_discovery.runtime import fork

__all__ = ["Route", "SubChannel"]


class SubChannel(InFlight):
    """A channel of gRPC's to one endpoint."""

    __slots__ = ("channel", "closed", "retired")

    def __init__(self, node: Node, channel: grpc.Channel) -> None:
        super().__init__(node)
        self.channel = channel
        self.closed = False
        """No RPC may begin."""
        self.retired = False
        """The endpoint has left: it closes with its last RPC."""

    def close(self) -> None:
        """Close it. RPCs in flight end as cancelled."""
        self.closed = True
        self.end_test()
        self.channel.close()


class Route:
    """One target: its service, and two channels to each endpoint.

    gRPC gives both one connection. RPCs that may be repeated are on a channel of their own: a blocking RPC ends with
    its channel only.
    """

    def __init__(self, discovery: Discovery, service: Service, plan: Plan) -> None:
        self._discovery = discovery  # the default of its settings lives as long as its clients do
        self.driver = driver = discovery._driver
        self.engine = driver.engine
        self.service = service
        self.plan = plan
        self.closed = False
        self.watch = Watch(driver.engine, service, self._places, self._alarm, driver.background.force)
        self._generation = service.generation
        self._safe: dict[Node, SubChannel] = {}
        self._plain: dict[Node, SubChannel] = {}
        self._retired: set[SubChannel] = set()
        self._parents: list[Any] = []
        self._lock = Lock()
        fork.track(self)

    def find(self, node: Node, safe: bool) -> SubChannel:
        """The channel to an endpoint, made if there is none. `safe` is whether the watch may end its RPCs."""
        if self._generation != self.service.generation:
            self._sweep()
        found = (self._safe if safe else self._plain).get(node)
        return found if found is not None and not found.closed else self._make(node, safe)

    def begin(self, sub: SubChannel, lease: Lease, end: Callable[[], object] | None) -> bool:
        """An RPC begins. False if the channel was closed just now."""
        sub.active[lease] = end
        if sub.closed:
            self.end(sub, lease)
            return False
        if end is not None and not self.watch.running:
            self.watch.start()
        return True

    def end(self, sub: SubChannel, lease: Lease) -> bool:
        """An RPC has ended. Did the watch end it?"""
        ended_by = sub.active.pop(lease, None)
        if sub.retired and not sub.active:
            self._close_retired(sub)
        return ended_by is given_up

    def check_open(self) -> None:
        """Raises `ClosedError`, which is a `ValueError` too where the channel is closed."""
        if self.closed:
            raise combined(ClosedError, ValueError)(
                "Cannot invoke RPC on closed channel!", target=self.plan.target, hint="make a new one"
            )
        self.engine.check_open(self.plan.target)

    def close(self) -> None:
        """Close all channels. RPCs in flight end as cancelled."""
        self.closed = True
        with self._lock:
            subs = self._places()
            self._safe, self._plain, self._retired = {}, {}, set()
        for sub in subs:
            sub.close()

    def after_fork(self) -> None:
        """In the child the connections are the parent's: they are kept, unused, since to close them would be to say so
        to the other side."""
        self._parents.extend(self._places())
        self._safe, self._plain, self._retired = {}, {}, set()
        self._lock = Lock()
        self.watch.running = False

    def _places(self) -> list[SubChannel]:
        return [*list(self._safe.values()), *list(self._plain.values()), *list(self._retired)]

    def _alarm(self, seconds: float, action: Callable[[], None]) -> None:
        self.driver.background.alarms.at(self.engine.clock() + seconds, action)

    def _make(self, node: Node, safe: bool) -> SubChannel:
        plan, address = self.plan, address_of(node.endpoint)
        with self._lock:
            self.check_open()
            subs = self._safe if safe else self._plain
            found = subs.get(node)
            if found is not None and not found.closed:
                return found
            # Looked up now, for instrumentation may have put its own in their place.
            if plan.credentials is None:
                channel = grpc.insecure_channel(address, plan.options, plan.compression)
            else:
                channel = grpc.secure_channel(address, plan.credentials, plan.options, plan.compression)
            made = SubChannel(node, channel)
            if node.removed:  # chosen just before it left: for this RPC only
                made.retired = True
                self._retired.add(made)
            else:
                subs[node] = made
            return made

    def _sweep(self) -> None:
        """Retire the channels to endpoints that have left."""
        with self._lock:
            self._generation = self.service.generation
            for subs in (self._safe, self._plain):
                for node in [node for node in subs if node.removed]:
                    sub = subs.pop(node)
                    sub.retired = True
                    self._retired.add(sub)
            idle = [sub for sub in self._retired if not sub.active]
        for sub in idle:
            self._close_retired(sub)

    def _close_retired(self, sub: SubChannel) -> None:
        with self._lock:
            sub.closed = True
            if sub.active or sub not in self._retired:  # an RPC that began meanwhile sees it closed, and ends
                sub.closed = sub not in self._retired
                return
            self._retired.discard(sub)
        sub.close()
