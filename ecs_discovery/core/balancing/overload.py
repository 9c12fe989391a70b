"""Overload: the nodes that said they have too much to do, and whether they are most of all.

One that says so is spared, and the others carry its share. Where most say so there is no node to carry it: the first
whose time is up would get everything, and say so again. Then all carry their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappop, heappush
from math import inf

from ecs_discovery.core.balancing import slow_start
from ecs_discovery.core.balancing.node import Node

__all__ = ["Overload"]


class Overload:
    """The nodes of one service that are pushed back. Guarded by its lock."""

    __slots__ = ("_count", "_ends", "_serial")

    def __init__(self) -> None:
        self._count = 0
        self._serial = 0
        self._ends: list[tuple[float, int, Node]] = []  # a heap; a node that was pushed back again has two

    def add(self, node: Node, now: float, ends_at: float) -> None:
        """The node says so at this moment, and is to be spared until then."""
        self._expire(now)
        node.pushed_at = now
        if ends_at <= node.pushback_ends_at:
            return
        node.pushback_ends_at = ends_at
        slow_start.deprioritise(node)
        if not node.pushed_back:
            node.pushed_back = True
            self._count += 1
        self._serial += 1
        heappush(self._ends, (ends_at, self._serial, node))

    def drop_all(self, nodes: Iterable[Node]) -> None:
        """It is so no longer: they answered a request that came after, or are not used any more."""
        for node in nodes:
            if node.pushed_back:
                node.pushed_back = False
                node.pushback_ends_at = -inf
                self._count -= 1
                slow_start.deprioritise(node)

    def most(self, nodes: int, now: float) -> bool:
        """Are more than half of so many nodes pushed back?"""
        self._expire(now)
        return 2 * self._count > nodes

    def _expire(self, now: float) -> None:
        while self._ends and self._ends[0][0] <= now:
            node = heappop(self._ends)[2]
            if node.pushback_ends_at <= now:
                self.drop_all((node,))
