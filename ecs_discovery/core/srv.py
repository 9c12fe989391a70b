"""SRV priorities and weights (RFC 2782): which endpoints are chosen from, and how often each.

Lower priorities are tiers. A tier takes all uses while it is healthy enough; as its healthy share
falls below 1/1.4, the next one takes over what it can no longer carry (Envoy's overprovisioning
factor), and gives back as it recovers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

from ecs_discovery.core.node import Health, Node

__all__ = ["Draw", "shares"]

_OVERPROVISIONING = 1.4
_ZERO = 0.01  # weight 0 is legal and means: hardly ever, but not never (RFC 2782, page 3)


def shares(nodes: Sequence[Node]) -> list[tuple[float, tuple[Node, ...]]]:
    """The tiers that carry load now, each with its share of it; the shares add up to 1.

    `nodes` are all endpoints. With no healthy one there are no shares.
    """
    ordered = sorted(nodes, key=lambda node: node.endpoint.priority)
    tiers = [tuple(tier) for _, tier in groupby(ordered, key=lambda node: node.endpoint.priority)]
    found: list[tuple[float, tuple[Node, ...]]] = []
    left = 1.0
    for tier in tiers:
        healthy = tuple(node for node in tier if node.health is Health.HEALTHY)
        capacity = min(left, _OVERPROVISIONING * len(healthy) / len(tier))
        if capacity > 0:
            found.append((capacity, healthy))
            left -= capacity
    total = 1.0 - left
    return [(share / total, tier) for share, tier in found] if total else []


class Draw:
    """Draws indexes in proportion to unequal weights in constant time (Walker 1977, Vose 1991)."""

    __slots__ = ("_alias", "_chance", "_count")

    def __init__(self, weights: Sequence[float]) -> None:
        self._count = len(weights)
        usable = [weight if weight > 0 else _ZERO for weight in weights]
        mean = sum(usable) / self._count
        scaled = [weight / mean for weight in usable]
        self._chance = [1.0] * self._count
        self._alias = list(range(self._count))
        small = [index for index, weight in enumerate(scaled) if weight < 1]
        large = [index for index, weight in enumerate(scaled) if weight >= 1]
        while small and large:
            low, high = small.pop(), large[-1]
            self._chance[low] = scaled[low]
            self._alias[low] = high
            scaled[high] -= 1 - scaled[low]
            if scaled[high] < 1:
                small.append(large.pop())

    def __call__(self, dice: Callable[[], float]) -> int:
        """One index; `dice` is in [0, 1)."""
        at = dice() * self._count
        index = int(at)
        return index if at - index < self._chance[index] else self._alias[index]
