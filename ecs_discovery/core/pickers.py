"""Pickers: rules that choose one node of several. They never block and change nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from hashlib import blake2b
from typing import Protocol

from ecs_discovery.core.node import Node
from ecs_discovery.core.srv import Draw

__all__ = ["LeastPending", "Picker", "by_key", "by_weight"]


class Picker(Protocol):
    def pick(self, nodes: Sequence[Node], dice: Callable[[], float], exclude: Collection[Node]) -> Node | None:
        """One of `nodes` that is not in `exclude`, or None if there is none. `dice` is in [0, 1)."""


class LeastPending:
    """The node with fewest pending uses of two drawn at random, or of all in a small set.

    Ties go to the least recently picked, so that sequential calls go round. The two are distinct:
    drawn independently they would be the same node half of the time in a set of two. Constant
    time in the number of nodes; with exclusions expected constant time, at worst linear.
    """

    def __init__(self, full_scan: int) -> None:
        self._full_scan = full_scan

    def pick(self, nodes: Sequence[Node], dice: Callable[[], float], exclude: Collection[Node]) -> Node | None:
        count = len(nodes)
        if count > self._full_scan:
            for _ in range(4 if exclude else 1):
                i = int(dice() * count)
                j = int(dice() * (count - 1))
                if j >= i:
                    j += 1
                first, second = nodes[i], nodes[j]
                if exclude:
                    if first in exclude:
                        first = second
                    if first in exclude:
                        continue
                    if second in exclude:
                        return first
                if first.pending != second.pending:
                    return first if first.pending < second.pending else second
                return first if first.picked <= second.picked else second
        best: Node | None = None
        for node in nodes:
            if exclude and node in exclude:
                continue
            if (
                best is None
                or node.pending < best.pending
                or (node.pending == best.pending and node.picked < best.picked)
            ):
                best = node
        return best


def by_key(nodes: Sequence[Node], key: str | bytes, exclude: Collection[Node]) -> Node | None:
    """The node that `key` belongs to, the same in every process (rendezvous hashing, Thaler and Ravishankar 1998).

    When a node leaves, only its own keys move. Linear in the number of nodes.
    """
    data = key.encode() if isinstance(key, str) else key
    best: Node | None = None
    highest = b""
    for node in nodes:
        if exclude and node in exclude:
            continue
        score = blake2b(data, digest_size=8, key=str(node.endpoint).encode()[:64]).digest()
        if best is None or score > highest:
            best, highest = node, score
    return best


def by_weight(nodes: Sequence[Node], draw: Draw, dice: Callable[[], float], exclude: Collection[Node]) -> Node | None:
    """Of two nodes drawn by their weights, the first unless it has more pending uses for its weight.

    Idle nodes are picked in proportion to their weights. Expected constant time; with exclusions at worst linear.
    """
    for _ in range(4 if exclude else 1):
        first, second = nodes[draw(dice)], nodes[draw(dice)]
        if exclude and first in exclude:
            first = second
        if exclude and first in exclude:
            continue
        if exclude and second in exclude:
            return first
        # A weight of 0 is compared as a little more than nothing.
        load = first.pending * max(second.endpoint.weight, 0.01)
        return first if load <= second.pending * max(first.endpoint.weight, 0.01) else second
    return min((node for node in nodes if node not in exclude), key=_load, default=None)


def _load(node: Node) -> float:
    return (node.pending + 1) / max(node.endpoint.weight, 0.01)
