"""Which nodes a pick looks at twice: those that are warming up, pushed back or full.

A new task has cold caches and compiles as it goes: its share grows over some seconds. When most of
the nodes are new there is nobody who could carry the rest, and all take their full share at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from ecs_discovery.core import cost
from ecs_discovery.core.node import Node
from ecs_discovery.policies import BalancingPolicy

__all__ = ["share", "spare", "welcome"]

_LEAST = 0.1  # of its full share, from the first moment (Envoy's slow start)


def welcome(nodes: Sequence[Node], policy: BalancingPolicy, now: float) -> None:
    """Begin to warm up those of `nodes` that are new."""
    fresh = [node for node in nodes if node.joined is None]
    if not fresh:
        return
    known = [node for node in nodes if node.joined is not None]
    cost.seed(fresh, known, policy, now)
    for node in fresh:
        node.joined = now if known else -inf  # the first ones are new to this process only
    new = [node for node in nodes if node.joined is not None and now < node.joined + policy.slow_start]
    for node in new:
        node.warm_at = (node.joined or 0.0) + policy.slow_start if 2 * len(new) <= len(nodes) else -inf
        spare(node)


def share(node: Node, policy: BalancingPolicy, now: float) -> float:
    """The part of its full share that it gets now."""
    left = node.warm_at - now
    return max(_LEAST, 1.0 - left / policy.slow_start) if left > 0 else 1.0


def spare(node: Node) -> None:
    """Work out until when a pick looks twice at it."""
    node.spared_until = inf if node.full else max(node.warm_at, node.pushed_back_until)
