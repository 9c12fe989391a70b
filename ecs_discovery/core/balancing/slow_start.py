"""Which nodes a pick looks at twice: those that are warming up, pushed back or full.

A new task has cold caches and compiles as it goes: its share grows over some seconds. When most of
the nodes are new there is no node that could carry the rest, and all take their full share at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from ecs_discovery.config.policies import BalancingPolicy
from ecs_discovery.core.balancing import cost
from ecs_discovery.core.balancing.node import Node
from ecs_discovery.core.balancing.tiers import Fleet

__all__ = ["SlowStart", "deprioritise", "fill", "free", "share"]

_LEAST = 0.1  # of its full share, from the first moment (Envoy's slow start)


class SlowStart:
    """The nodes that are warming up. Guarded by its service's lock."""

    __slots__ = ("_policy", "_ramps", "_young")

    def __init__(self, policy: BalancingPolicy) -> None:
        self._policy = policy
        self._young: dict[Node, None] = {}  # in the order of their coming
        self._ramps = True  # they are few enough for the others to carry the rest

    def start(self, came: Sequence[Node], fleet: Fleet, total: int, now: float) -> None:
        """Begin to warm up those of the nodes that came and are new. There are so many in `total` now."""
        fresh = dict.fromkeys(node for node in came if node.joined is None)
        if fresh:
            known = fleet.sample(fresh) or [node for node in fleet if node not in fresh]
            cost.seed(fresh, known, self._policy, now)
        for node in fresh:
            node.joined = now if total > len(fresh) else -inf  # the first ones are new to this process only
        # One that comes back may be at it still.
        young = [node for node in came if node.joined is not None and now < node.joined + self._policy.slow_start]
        self._young.update(dict.fromkeys(young))
        for node in [node for node in self._young if node.removed or now >= self._end(node)]:
            del self._young[node]
        ramps = 2 * len(self._young) <= total
        changed, self._ramps = ramps is not self._ramps, ramps
        for node in self._young if changed else young:
            node.warm_at = self._end(node) if ramps else -inf
            deprioritise(node)

    def _end(self, node: Node) -> float:
        return (node.joined or 0.0) + self._policy.slow_start


def share(node: Node, policy: BalancingPolicy, now: float) -> float:
    """The part of its full share that it gets now."""
    left = node.warm_at - now
    return max(_LEAST, 1.0 - left / policy.slow_start) if left > 0 else 1.0


def fill(node: Node) -> None:
    """It has as many uses as it may have: nothing is chosen before it has fewer."""
    node.full = True
    node.full_priority_at = inf


def free(node: Node) -> None:
    """It has fewer uses than it may have."""
    node.full = False
    deprioritise(node)


def deprioritise(node: Node) -> None:
    """Work out until when a pick looks twice at it."""
    node.full_priority_at = inf if node.full else max(node.warm_at, node.pushback_ends_at)
