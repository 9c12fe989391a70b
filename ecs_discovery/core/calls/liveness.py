"""When a request that waits for an answer should look closer whether its endpoint is still there.

An endpoint that took a request and vanished looks like an endpoint that works on the request. Another caller may
never meet its silence: with a use in flight it is not the first choice. So a request that waits long looks for
itself, unless the endpoint has shown life lately.
"""

from __future__ import annotations

from math import inf

from ecs_discovery.core.balancing.node import Node

__all__ = ["LivenessTimer", "accepted", "end_probe", "try_start_probe", "vanished", "watch"]


def watch(node: Node, count: int) -> None:
    """So many more (or, below 0, fewer) requests in flight look whether the node's host is there."""
    node.waiting += count


def try_start_probe(node: Node, now: float, seconds: float) -> bool:
    """May a caller find out now whether the node is there? False if another caller does. For this many seconds at most
    others may not, or until `end_look`."""
    if now < node.suspect_again_at:
        return False
    node.suspect_again_at = now + seconds
    return True


def end_probe(node: Node) -> None:
    """What was begun is over: another caller may look."""
    node.suspect_again_at = -inf


def accepted(node: Node, now: float) -> None:
    """It accepted a connection."""
    node.accepted_at = now


def vanished(node: Node, since: float, now: float) -> None:
    """What was sent on an open connection has met silence since then. A kernel that lives acknowledges: the node's host
    is gone, unless a request was answered meanwhile. Other requests in flight to the node then stop waiting."""
    if node.answered_at < since:
        node.gone_at = now


class LivenessTimer:
    """One wait for an answer of `node`, begun at `now`. Times are monotonic seconds."""

    __slots__ = ("_began", "_next", "_node", "_pause", "_told")

    def __init__(self, node: Node, now: float, patience: float) -> None:
        self._node = node
        self._began = now
        self._pause = patience
        self._next = now + patience
        self._told = False

    @property
    def gone(self) -> bool:
        """Has the endpoint been found to have vanished since?"""
        return self._node.gone_at > self._began

    def due(self, now: float) -> bool:
        """Is it time to look closer? Once, after the patience; later while others meet life."""
        if self._told or now < self._next:
            return False
        alive = max(self._node.answered_at, self._node.accepted_at)
        if now < alive + self._pause:
            self._next = alive + self._pause
            return False
        self._told = True
        return True
