"""Lots: nodes drawn by their weights, while nodes come and leave."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ecs_discovery.core.balancing.node import Node
from ecs_discovery.core.balancing.weights import Draw

__all__ = ["Lottery"]

_TRIES = 4  # draws of nodes that left before all is made anew


class Lottery:
    """Draws nodes by their weights. It is made anew when a sixteenth of the nodes are others. Until then nodes that
    left are drawn in vain, and nodes that came are drawn apart."""

    __slots__ = ("_came", "_draw", "_drawn", "_left", "_nodes", "_total", "_weights")

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = nodes
        self._renew()

    def _renew(self) -> None:
        self._drawn = tuple(self._nodes)
        self._weights = {node: max(node.endpoint.weight, 0.01) for node in self._drawn}
        self._draw = Draw(list(self._weights.values())) if self._drawn else None
        self._total = sum(self._weights.values())
        self._came: dict[Node, float] = {}
        self._left: set[Node] = set()

    @property
    def mean(self) -> float:
        """The mean weight of the nodes, nearly."""
        return self._total / max(1, len(self._drawn))

    def add(self, node: Node) -> None:
        weight = max(node.endpoint.weight, 0.01)
        if node in self._left and self._weights[node] == weight:
            self._left.remove(node)
        else:
            self._came[node] = weight

    def discard(self, node: Node) -> None:
        if node in self._came:
            del self._came[node]
        else:
            self._left.add(node)

    def __call__(self, rng: Callable[[], float]) -> Node:
        """One node. There must be one."""
        if 16 * (len(self._came) + len(self._left)) > len(self._drawn):
            self._renew()
        draw, drawn, came = self._draw, self._drawn, self._came
        assert draw is not None
        for _ in range(_TRIES):
            if came:
                at = rng() * (self._total + sum(came.values()))
                for node, weight in came.items():
                    at -= weight
                    if at < 0:
                        return node
            node = drawn[draw(rng)]
            if not self._left or node not in self._left:
                return node
        self._renew()
        return self(rng)
