"""A lease: one use of a node under way."""

from __future__ import annotations

from ecs_discovery.core.node import Node, Outcome
from ecs_discovery.core.service import Service
from ecs_discovery.models import Endpoint

__all__ = ["Lease"]


class Lease:
    """Counts as load on its node from its making until it is finished, released or forgotten.

    Make it right after `Service.pick`, which began the use.
    """

    __slots__ = ("_epoch", "_open", "began", "node", "service")

    def __init__(self, service: Service, node: Node, now: float) -> None:
        self.service = service
        self.node = node
        self.began = now
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
        return self.service.finish(self.node, outcome, now, now - self.began)

    def observe(self, outcome: Outcome, now: float) -> bool:
        """Record how it went while it goes on (the answer's head came, its body has yet to)."""
        return self.service.observe(self.node, outcome, now, now - self.began)

    def release(self) -> None:
        """End it without a word on how it went."""
        if self._open and self._epoch == self.service.epoch:
            self._open = False
            self.service.release(self.node)

    def __del__(self) -> None:
        if self._open and self._epoch == self.service.epoch:
            self.service.abandon(self.node)
