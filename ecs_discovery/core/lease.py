"""A lease: one use of a node in flight."""

from __future__ import annotations

from collections.abc import Collection

from ecs_discovery.core.balancing.node import Node, Outcome, Use
from ecs_discovery.core.service import Service
from ecs_discovery.models import Endpoint

__all__ = ["Lease"]


class Lease(Use):
    """Counts as load on its node from `pick` until it is finished, released or forgotten."""

    __slots__ = ("_epoch", "number", "sent_at", "service", "started_at")

    def __init__(self, service: Service, now: float) -> None:
        self.open = False
        self.service = service
        self.started_at = now
        self.sent_at = now
        """From when its latency counts: connecting is not what a use of the node costs."""
        self._epoch = service.epoch
        self.number = 1
        """The number of its attempt."""

    def pick(self, exclude: Collection[Node] = (), key: str | bytes | None = None) -> Node | None:
        """Begin a use of the node that its service chooses. None if there is none left."""
        return self.service.pick(self.started_at, exclude, key, self)

    @property
    def endpoint(self) -> Endpoint:
        return self.node.endpoint

    def finish(self, outcome: Outcome, now: float) -> bool:
        """End it and record how it went. True if there are events to tell."""
        if not self.open or self._epoch != self.service.epoch:
            return False
        return self.service.finish(self.node, outcome, now, now - self.sent_at, self)

    def observe(self, outcome: Outcome, now: float) -> bool:
        """Record how it went while it goes on (the answer's head came, its body has yet to)."""
        return self.service.observe(self.node, outcome, now, now - self.sent_at)

    def release(self) -> None:
        """End it without a word on how it went."""
        if self.open and self._epoch == self.service.epoch:
            self.service.release(self.node, self)

    def hand_over(self) -> Lease:
        """Give the use to a new lease, which is returned. This lease has nothing to end until it calls `adopt`."""
        other = Lease(self.service, self.started_at)
        other.node, other.sent_at, other._epoch, other.number = self.node, self.sent_at, self._epoch, self.number
        other.open, self.open = self.open, False
        return other

    def adopt(self, other: Lease) -> None:
        """Be the lease of the use that `other` was of."""
        self.node, self.started_at, self.sent_at, self._epoch = (
            other.node,
            other.started_at,
            other.sent_at,
            other._epoch,
        )
        self.open, other.open = other.open, False

    def __del__(self) -> None:
        try:
            if not self.open or self._epoch != self.service.epoch:
                return
        except AttributeError:
            return  # an asynchronous exception came before it was made
        self.service.abandon(self)
