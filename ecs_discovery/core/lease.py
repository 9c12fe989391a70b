"""A lease: one use of a node under way."""

from __future__ import annotations

from ecs_discovery.core.balancing.node import Node, Outcome
from ecs_discovery.core.service import Service
from ecs_discovery.models import Endpoint

__all__ = ["Lease"]


class Lease:
    """Counts as load on its node from its making until it is finished, released or forgotten.

    Make it right after `Service.pick`, which began the use.
    """

    __slots__ = ("_epoch", "_open", "began", "node", "sent", "service")

    def __init__(self, service: Service, node: Node, now: float) -> None:
        self.service = service
        self.node = node
        self.began = now
        self.sent = now
        """From when its latency counts: connecting is not what a use of the node costs."""
        self._open = True
        self._epoch = service.epoch

    @property
    def endpoint(self) -> Endpoint:
        return self.node.endpoint

    def finish(self, outcome: Outcome, now: float) -> bool:
        """End it and record how it went. True if there are events to tell."""
        if not self._open or self._epoch != self.service.epoch:
            return False
        self._open = False
        return self.service.finish(self.node, outcome, now, now - self.sent)

    def observe(self, outcome: Outcome, now: float) -> bool:
        """Record how it went while it goes on (the answer's head came, its body has yet to)."""
        return self.service.observe(self.node, outcome, now, now - self.sent)

    def release(self) -> None:
        """End it without a word on how it went."""
        if self._open and self._epoch == self.service.epoch:
            self._open = False
            self.service.release(self.node)

    def hand_over(self) -> Lease:
        """A lease of this use, which is then no longer this one's: there is nothing to end here until `take`."""
        other = Lease(self.service, self.node, self.began)
        other.sent, other._epoch = self.sent, self._epoch
        other._open, self._open = self._open, False
        return other

    def take(self, other: Lease) -> None:
        """Be the lease of the use that `other` was of."""
        self.node, self.began, self.sent, self._epoch = other.node, other.began, other.sent, other._epoch
        self._open, other._open = other._open, False

    def __del__(self) -> None:
        if self._open and self._epoch == self.service.epoch:
            self.service.abandon(self.node)
