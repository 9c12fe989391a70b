"""When somebody who waits for an answer should have its endpoint looked at.

An endpoint that took a request and vanished looks like one that works on it. Nobody else may meet its
silence: with a use under way it is not the first choice. So who waits long asks for a look, unless
the endpoint has shown life lately.
"""

from __future__ import annotations

from ecs_discovery.core.node import Node

__all__ = ["Doubt"]


class Doubt:
    """One wait for an answer of `node`, begun at `now`. Times are monotonic seconds."""

    __slots__ = ("_began", "_next", "_node", "_pause")

    def __init__(self, node: Node, now: float, patience: float) -> None:
        self._node = node
        self._began = now
        self._pause = patience
        self._next = now + patience

    @property
    def gone(self) -> bool:
        """Has the endpoint been found to have vanished since?"""
        return self._node.gone > self._began

    def due(self, now: float) -> bool:
        """Is a look due? First after the patience, then after twice as long each time: a slow handler is no news."""
        if now < self._next:
            return False
        alive = max(self._node.answered, self._node.accepted)
        if now < alive + self._pause:  # somebody else met life meanwhile
            self._next = alive + self._pause
            return False
        self._pause *= 2
        self._next = now + self._pause
        return True
