"""Outlier detection: when a node is taken out of choice, for how long, and what brings it back.

Pure rules over nodes; the balancer applies them. A node is judged by itself and not against the
others: with up to four endpoints a mean minus 1.9 standard deviations can never eject anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

from ecs_discovery.core.node import Health, Node
from ecs_discovery.policies import OutlierPolicy

__all__ = ["ejection_allowed", "on_connect_failure", "on_failure", "on_success", "panicking", "roll"]

_CALM = 30.0  # healthy for this many seconds takes off one ejection


def on_success(node: Node, now: float) -> bool:
    """Record good behaviour; True if this made the node healthy again.

    One that was ejected before it was down is ejected still, until its time is up; so is one that fails its health
    checks, until they succeed.
    """
    was = node.health
    node.consecutive = 0
    node.connect_failures = 0
    node.reconnecting = False
    if was is Health.HEALTHY:
        return False
    if was is Health.EJECTED:
        return False  # a request from before the ejection, or one sent in panic: the probe decides
    if was is Health.DOWN and (now < node.ejected_until or node.unfit):
        node.health, node.until = Health.EJECTED, node.ejected_until
        node.reason = node.unfit or node.reason
        return False
    node.health = Health.HEALTHY
    node.healthy_since = now
    node.reason = ""
    node.window_ends = -inf  # what it did before is paid for
    if node.ejections:
        node.ejections -= 1
    return True


def on_failure(node: Node, policy: OutlierPolicy, now: float, dice: Callable[[], float]) -> str:
    """Record a failure; the reason if the node should be ejected, until `node.until` then, else "".

    The failure is counted already.
    """
    node.consecutive += 1
    if node.health is Health.HEALTHY:
        if node.consecutive >= policy.consecutive_failures:
            reason = f"{node.consecutive} failures in a row"
        else:
            good, all_ = _lately(node)
            if all_ < policy.success_rate_requests or good >= policy.success_rate * all_:
                return ""
            reason = f"{good} of the last {all_} requests succeeded"
        calm = now - node.healthy_since
        node.ejections = max(0, node.ejections - int(min(calm / _CALM, 1e6)))
    elif node.health is Health.PROBING:
        reason = "failed again after an ejection"
    else:
        return ""
    span = min(policy.eject_max, policy.eject_min * 2.0 ** min(node.ejections, 30))
    # Half fixed, half drawn, so that clients do not come back together; never past the cap.
    node.until = now + span * (0.5 + 0.5 * dice())
    return reason


def roll(node: Node, policy: OutlierPolicy, now: float) -> None:
    """Before a success or failure is counted: begin another half window if this one is over."""
    if now < node.window_ends:
        return
    half = policy.success_rate_window / 2
    if now < node.window_ends + half:
        good, bad, _, _ = node.window
        node.window = (node.successes, node.failures, node.successes - good, node.failures - bad)
    else:
        node.window = (node.successes, node.failures, 0, 0)
    node.window_ends = now + half


def _lately(node: Node) -> tuple[int, int]:
    """Successes, and requests, in this half window and the one before."""
    good, bad, good_before, bad_before = node.window
    successes = node.successes - good + good_before
    return successes, successes + node.failures - bad + bad_before


def on_connect_failure(node: Node, policy: OutlierPolicy, now: float) -> bool:
    """Record a failed connect: the node is down until a connect succeeds. True if it was not down before.

    `node.until` is when the next connect may be tried.
    """
    changed = node.health is not Health.DOWN
    if changed or node.reconnecting or now >= node.until:  # connects that began together are one piece of news
        node.reconnecting = False
        node.until = now + min(policy.connect_max, policy.connect_min * 2.0 ** min(node.connect_failures, 30))
        node.connect_failures += 1
    node.health = Health.DOWN
    return changed


def ejection_allowed(nodes: Sequence[Node], policy: OutlierPolicy) -> bool:
    """May one more node be ejected? Counted as it would be afterwards, and never the last healthy one.

    Nodes that do not even connect stand outside the count.
    """
    healthy = ejected = 0
    for node in nodes:
        if node.health is Health.HEALTHY:
            healthy += 1
        elif node.health is not Health.DOWN:
            ejected += 1
    return healthy > 1 and ejected + 1 <= policy.max_ejected * (healthy + ejected)


def panicking(nodes: Sequence[Node], policy: OutlierPolicy) -> bool:
    """True when so few of the nodes that connect are healthy that their ejections are better ignored."""
    healthy = sum(node.health is Health.HEALTHY for node in nodes)
    connecting = sum(node.health is not Health.DOWN for node in nodes)
    return healthy < policy.panic_threshold * connecting
