"""Outlier detection: whether a node does worse than the others.

Keeps what that is told by, and judges; what follows from it is for `health`. A node that does badly is an outlier only
if it does worse than the others did meanwhile. Trouble that all share (an overload, a database that is down) passes no
sooner for taking some of them out. The others would then carry more than they can.

The others are taken together. Compared one by one with a mean minus 1.9 standard deviations, none of up to four
endpoints could ever be ejected.
"""

from __future__ import annotations

from math import inf, log
from operator import add

from ecs_discovery.config.policies import OutlierPolicy
from ecs_discovery.core.balancing.node import Node

__all__ = [
    "common",
    "count_failure",
    "ejection_allowed",
    "end_streak",
    "forgive",
    "panicking",
    "reason_to_eject",
    "roll",
]

_NEARLY_ALL = 0.9
# As many failures that would be there with a greater chance, were it as the others are, are theirs.
_CHANCE = -log(1e-6)


def end_streak(node: Node) -> None:
    """It did well."""
    node.consecutive = 0


def forgive(node: Node) -> None:
    """It is back in choice: what it did before is paid for."""
    node.window_ends = -inf


def count_failure(node: Node, good: int, bad: int) -> bool:
    """Count one more in a row. True if that is its own doing, and not what the others meet as well.

    `good` and `bad` are the successes and failures of all nodes together, this one included.
    """
    node.consecutive += 1
    if node.consecutive == 1:
        node.streak = (node.successes, node.failures, good, bad)
    return not _shared_streak(node, good, bad)


def reason_to_eject(node: Node, policy: OutlierPolicy, alone: bool, good: int, bad: int) -> tuple[str, str]:
    """Why a node that just failed does worse than the others, in a word and for people; "" if it does not.

    `alone` is whether its failures in a row are its own doing. `good` and `bad` are those of all nodes together.
    """
    if node.consecutive >= policy.consecutive_failures and alone:
        return "consecutive_failures", f"{node.consecutive} failures in a row"
    successes, all_ = _low_rate(node, policy, good, bad)
    return ("success_rate", f"{successes} of the last {all_} requests succeeded") if all_ else ("", "")


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


def ejection_allowed(healthy: int, ejected: int, policy: OutlierPolicy) -> bool:
    """May one more node be ejected? Counted as it would be afterwards, and never the last healthy one.

    Nodes that do not even connect stand outside the counts.
    """
    return healthy > 1 and ejected + 1 <= policy.max_ejected * (healthy + ejected)


def panicking(healthy: int, connecting: int, policy: OutlierPolicy) -> bool:
    """True when so few of the nodes that connect are healthy that their ejections are better ignored."""
    return healthy < policy.panic_threshold * connecting
