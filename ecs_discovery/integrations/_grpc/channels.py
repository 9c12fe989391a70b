"""The channels of gRPC to the endpoints of one target."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

from ecs_discovery.client.engine import Engine
from ecs_discovery.core.balancing.node import Node
from ecs_discovery.core.lease import Lease
from ecs_discovery.core.service import Service
from ecs_discovery.errors import ClosedError, combined
from ecs_discovery.integrations._grpc.route import Plan, address_of
from ecs_discovery.integrations._grpc.watch import InFlight, Watch, given_up
from ecs_discovery.models import Question
from ecs_discovery.runtime import fork

__all__ = ["Channels", "SubChannel"]


class SubChannel(InFlight):
    """A channel of gRPC's to one endpoint."""

    __slots__ = ("channel", "closed", "retired")

    def __init__(self, node: Node, channel: Any) -> None:
        super().__init__(node)
        self.channel = channel
        self.closed = False
        """No RPC may begin."""
        self.retired = False
        """The endpoint has left: it closes with its last RPC."""


class Channels(ABC):
    """One target: its service, and the channels to each endpoint.

    There may be two to an endpoint, to which gRPC gives one connection: one of them is for RPCs that may be ended with
    their channel.
    """

    closed_class: type[Exception] = ValueError
    """What gRPC raises where a channel that was closed is used."""

    def __init__(
        self, engine: Engine, service: Service, plan: Plan, force: Callable[[Sequence[Question]], object]
    ) -> None:
        self.engine = engine
        self.service = service
        self.plan = plan
        self.closed = False
        self.watch = Watch(engine, service, self.all, self.set_alarm, force)
        self._generation = service.generation
        self._safe: dict[Node, SubChannel] = {}
        self._plain: dict[Node, SubChannel] = {}
        self._retired: set[SubChannel] = set()
        self._parents: list[Any] = []
        self._lock = Lock()
        fork.track(self)

    @abstractmethod
    def open_channel(self, address: str) -> Any:
        """gRPC's own channel to one address."""

    @abstractmethod
    def shut(self, sub: SubChannel) -> None:
        """Close a channel that no RPC is on, or whose RPCs are to end."""

    @abstractmethod
    def set_alarm(self, seconds: float, action: Callable[[], None]) -> None:
        """Call `action` after so many seconds."""

    @abstractmethod
    def work(self, service: Service) -> None:
        """Begin what is due in the background."""

    def is_open(self) -> bool:
        """May RPCs begin?"""
        return not (self.closed or self.engine.closed)

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
            raise combined(ClosedError, self.closed_class)(
                "the channel is closed", target=self.plan.target, hint="make a new channel"
            )
        self.engine.check_open(self.plan.target)

    def take_all(self) -> list[SubChannel]:
        """The channel is closed: all that there are, to be closed."""
        self.closed = True
        with self._lock:
            subs = self.all()
            self._safe, self._plain, self._retired = {}, {}, set()
        for sub in subs:
            sub.closed = True
            sub.end_test()
        return subs

    def all(self) -> list[SubChannel]:
        """Those that there are now."""
        return [*list(self._safe.values()), *list(self._plain.values()), *list(self._retired)]

    def after_fork(self) -> None:
        """In the child the connections are the parent's: they are kept, unused, since to close them would be to say so
        to the other side."""
        self._parents.extend(self.all())
        self._safe, self._plain, self._retired = {}, {}, set()
        self._lock = Lock()
        self.watch.running = False

    def _make(self, node: Node, safe: bool) -> SubChannel:
        with self._lock:
            self.check_open()
            subs = self._safe if safe else self._plain
            found = subs.get(node)
            if found is not None and not found.closed:
                return found
            made = SubChannel(node, self.open_channel(address_of(node.endpoint)))
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
        sub.end_test()
        self.shut(sub)
