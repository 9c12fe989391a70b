"""Outlier detection: when a node is taken out of choice, for how long, and what brings it back.

Pure rules over nodes; the balancer applies them. A node that does badly is an outlier only if it does worse than the
others did meanwhile: trouble that all share (an overload, a database that is down) passes no sooner for taking some of
them out, and the others then carry more than they can. The others are taken together, and not one by one: with up to
four endpoints a mean minus 1.9 standard deviations can never eject anybody.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf, log
from operator import add

from ecs_discovery.config.policies import OutlierPolicy
from ecs_discovery.core.balancing.node import Health, Node

__all__ = ["ejection_allowed", "on_connect_failure", "on_failure", "on_success", "panicking", "roll"]

_CALM = 30.0  # healthy for this many seconds takes off one ejection
_NEARLY_ALL = 0.9
_CHANCE = -log(
    1e-6
)  # as many failures that would be there with a greater chance, were it as the others are, are theirs


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
    if was is Health.DOWN and (now < node.ejected_until or node.failed_checks):
        node.health, node.until = Health.EJECTED, node.ejected_until
        node.reason = node.failed_checks or node.reason
        return False
    node.health = Health.HEALTHY
    node.healthy_since = now
    node.reason = ""
    node.window_ends = -inf  # what it did before is paid for
    if node.ejections:
        node.ejections -= 1
    return True


def on_failure(
    node: Node, policy: OutlierPolicy, now: float, rng: Callable[[], float], good: int = 0, bad: int = 0
) -> str:
    """Record a failure; the reason if the node should be ejected, until `node.until` then, else "".

    `good` and `bad` are the successes and failures of all nodes together. The failure is counted already.
    """
    node.consecutive += 1
    if node.consecutive == 1:
        node.streak = (node.successes, node.failures, good, bad)
    alone = not _shared_streak(node, good, bad)
    if node.health is Health.HEALTHY:
        if node.consecutive >= policy.consecutive_failures and alone:
            reason = f"{node.consecutive} failures in a row"
        else:
            successes, all_ = _low_rate(node, policy, good, bad)
            if not all_:
                return ""
            reason = f"{successes} of the last {all_} requests succeeded"
        calm = now - node.healthy_since
        node.ejections = max(0, node.ejections - int(min(calm / _CALM, 1e6)))
    elif node.health is Health.PROBING:
        reason = "failed again after an ejection"
        if not alone:
            node.ejections = max(0, node.ejections - 1)  # as do the others now: no reason to leave it out for longer
    else:
        return ""
    span = min(policy.eject_max, policy.eject_min * 2.0 ** min(node.ejections, 30))
    # Half fixed, half drawn, so that clients do not come back together; never past the cap.
    node.until = now + span * (0.5 + 0.5 * rng())
    return reason


def common(node: Node, good: int, bad: int) -> bool:
    """Before a failure is recorded: is it one in a row of them, in which nearly all that the others did failed as well?

    Then it says nothing of the node. `good` and `bad` are the successes and failures of all nodes together.
    """
    if not node.consecutive:
        return False
    theirs, others = _meanwhile(node, good, bad)
    return others > 0 and theirs >= _NEARLY_ALL * others


def roll(node: Node, policy: OutlierPolicy, now: float, good: int, bad: int) -> None:
    """Before a success or failure is counted: begin another half window if this one is over.

    `good` and `bad` are the successes and failures of all nodes together.
    """
    if now < node.window_ends:
        return
    half = policy.success_rate_window / 2
    recent = now < node.window_ends + half
    node.window_before = _since(node.window, node, good, bad) if recent else (0, 0, 0, 0)
    node.window = (node.successes, node.failures, good, bad)
    node.window_ends = now + half


def _low_rate(node: Node, policy: OutlierPolicy, good: int, bad: int) -> tuple[int, int]:
    """Successes, and requests, in this half window and the one before; (0, 0) if they are no reason to eject it."""
    own, all_, theirs, others = _lately(node, good, bad)
    successes = all_ - own
    if all_ < policy.success_rate_requests or successes >= policy.success_rate * all_:
        return 0, 0
    if theirs and successes * others >= policy.success_rate * all_ * (others - theirs):
        return 0, 0  # the others do hardly better
    return (0, 0) if _explained(own, all_, theirs, others) else (successes, all_)


def _shared_streak(node: Node, good: int, bad: int) -> bool:
    """Do the others fail so often that it would meet with its streak as well, were it as they are?

    Both since it began and lately: a streak alone is short, and how the others did in it may be luck.
    """
    streak = node.consecutive
    if _explained(streak, streak, *_meanwhile(node, good, bad)):
        return True
    _, _, theirs, others = _lately(node, good, bad)
    return _explained(streak, streak, theirs, others)


def _meanwhile(node: Node, good: int, bad: int) -> tuple[int, int]:
    """Failures and requests of the others since its streak began."""
    own_good, own_bad, good, bad = _since(node.streak, node, good, bad)
    return bad - own_bad, good + bad - own_good - own_bad


def _lately(node: Node, good: int, bad: int) -> tuple[int, int, int, int]:
    """Its failures and requests in this half window and the one before, and those of the others."""
    own_good, own_bad, good, bad = map(add, _since(node.window, node, good, bad), node.window_before)
    own = own_good + own_bad
    return own_bad, own, bad - own_bad, good + bad - own


def _since(then: tuple[int, int, int, int], node: Node, good: int, bad: int) -> tuple[int, int, int, int]:
    """How much the counts grew that were these then: its successes and failures, and all nodes' together."""
    return node.successes - then[0], node.failures - then[1], good - then[2], bad - then[3]


def _explained(bad: int, all_: int, theirs: int, others: int) -> bool:
    """Are `bad` of `all_` no surprise for one that fails as often as others do, `theirs` of `others` times?

    By the bound of Chernoff on the chance of so many.
    """
    if theirs <= 0 or others <= 0:
        return False
    share, expected = bad / all_, theirs / others
    if share <= expected:
        return True
    surprise = share * log(share / expected)
    if share < 1:
        surprise += (1 - share) * log((1 - share) / (1 - expected))
    return all_ * surprise < _CHANCE


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


def shorten(node: Node, policy: OutlierPolicy, now: float) -> bool:
    """A node that is down waits no longer than after its first failed connect. True if that changed something."""
    if node.reconnecting or node.connect_failures <= 1:
        return False
    pause = min(policy.connect_max, policy.connect_min * 2.0 ** min(node.connect_failures - 1, 30))
    node.connect_failures = 1
    node.until = min(node.until, max(now, node.until - pause + policy.connect_min))
    return True


def ejection_allowed(healthy: int, ejected: int, policy: OutlierPolicy) -> bool:
    """May one more node be ejected? Counted as it would be afterwards, and never the last healthy one.

    Nodes that do not even connect stand outside the counts.
    """
    return healthy > 1 and ejected + 1 <= policy.max_ejected * (healthy + ejected)


def panicking(healthy: int, connecting: int, policy: OutlierPolicy) -> bool:
    """True when so few of the nodes that connect are healthy that their ejections are better ignored."""
    return healthy < policy.panic_threshold * connecting
