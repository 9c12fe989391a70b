"""What a use of a node costs: a peak-sensitive moving average of its latency, with errors as load.

The average follows Finagle's PeakEWMA: it rises at once and sinks with time. It sinks while the node
is not used too, so that a slow node is tried again. Two things differ.

- It rises to the least of the last three uses. One or two slow uses are a garbage collection or a
  new connection. With a bare peak three equal nodes take turns in being avoided.
- Costs are kept as logarithms shifted by time (forward decay, Cormode et al. 2009). All sink alike,
  so that a pick compares them as they stand.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import exp, log

from ecs_discovery.config.policies import BalancingPolicy
from ecs_discovery.core.balancing.node import Node

__all__ = ["CROWD", "EQUAL", "MOST", "observe", "seed"]

EQUAL = 0.5
"""Loads that differ by less count as equal: a factor of 1.65, less than that between no use pending and one."""
_ERROR = 10.0  # a failed use counts as this many times slower (ServiceTalk)
_ERROR_COST = 5.0  # seconds; the most that a failed use counts, unless it took longer
_ALMOST = 1.01
_GREATEST = 60.0  # seconds; a cost above says nothing more, and would take long to sink


MOST = 4095
"""Uses in flight above this number make no difference."""
CROWD = tuple(map(log, range(1, MOST + 2)))
"""What uses in flight add to a score, by their number."""


def observe(node: Node, seconds: float, failed: bool, policy: BalancingPolicy, now: float) -> float:
    """A use of `node` took this long. Its score, by which its load has to be worked out anew."""
    cost = node.cost
    least = policy.least_latency
    if seconds <= least and cost == least and not failed:  # as fast as it was: all there is to do mostly
        node.last_cost = node.last_but_one = least
        node.cost_at = now
        score = node.score = node.log_cost + now / policy.decay
        return score
    spent = min(max(seconds, least), _GREATEST)
    if failed:
        spent = max(spent, min(_ERROR * max(spent, cost), _ERROR_COST))
    if spent > cost:
        cost = max(cost, min(spent, node.last_cost, node.last_but_one))
    else:
        cost = spent + (cost - spent) * exp(min(0.0, node.cost_at - now) / policy.decay)
        if cost < _ALMOST * least:
            cost = least
    node.last_but_one = node.last_cost
    node.last_cost = spent
    node.cost = cost
    node.cost_at = now
    node.log_cost = log(cost)
    score = node.score = node.log_cost + now / policy.decay
    return score


def seed(fresh: Iterable[Node], known: Sequence[Node], policy: BalancingPolicy, now: float) -> None:
    """Give nodes the median cost of the known ones: as unknowns they would be flooded, or starved.

    Their loads have to be worked out anew then.
    """
    scores = sorted(node.score for node in known)
    score = scores[len(scores) // 2] if scores else log(policy.least_latency) + now / policy.decay
    for node in fresh:
        node.score = score
        # A pool that was idle for hours has sunk to next to nothing: costs cannot rise from there.
        cost = exp(score - now / policy.decay)
        node.cost = cost if cost > _ALMOST * policy.least_latency else policy.least_latency
        node.log_cost = log(node.cost)
        node.cost_at = now
        node.last_cost = node.last_but_one = 0.0
