"""The last picks and why, for people: a ring of bounded size."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence

from ecs_discovery.core.balancing.node import Node
from ecs_discovery.models import Endpoint, Value

__all__ = ["Candidate", "Pick", "PickHistory"]

APART = 0.05
"""Seconds between ordinary picks that are kept: looking at candidates costs more than picking."""
_CANDIDATES = 4

_Seen = tuple[Endpoint, float, int, float]  # with its load, its uses in flight and its cost


class Candidate(Value):
    """A node that was compared, as it stood then."""

    endpoint: str
    load: float
    """The logarithm of its cost times its uses in flight and one; only differences mean something."""
    pending: int
    cost: float
    """What a use of it cost lately, in seconds."""


class Pick(Value):
    """One pick."""

    at: float
    """When, in monotonic seconds."""
    endpoint: str
    why: str
    """The rule that chose it."""
    candidates: tuple[Candidate, ...]
    """The nodes that were compared, the chosen one first; of many a few."""
    excluded: int
    """How many nodes had been tried before."""


class PickHistory:
    """Guarded by its service's lock."""

    __slots__ = ("_picks",)

    def __init__(self, size: int) -> None:
        # Of each pick when it was, why, what was compared and how many were excluded: texts are made for who reads it.
        self._picks: deque[tuple[float, str, list[_Seen], int]] = deque(maxlen=size)

    def note(self, now: float, node: Node, why: str, nodes: Sequence[Node], exclude: Collection[Node]) -> None:
        """Keep a pick of `node` after a comparison with `nodes`."""
        if not self._picks.maxlen:
            return
        others = [other for other in nodes[: _CANDIDATES + 1] if other is not node][:_CANDIDATES]
        seen = [(each.endpoint, each.load, each.pending, each.cost) for each in (node, *others)]
        self._picks.append((now, why, seen, len(exclude)))

    def picks(self) -> tuple[Pick, ...]:
        """The picks kept, oldest first."""
        return tuple(
            Pick(
                at,
                str(seen[0][0]),
                why,
                tuple(Candidate(str(each), load, pending, cost) for each, load, pending, cost in seen),
                excluded,
            )
            for at, why, seen, excluded in self._picks
        )
