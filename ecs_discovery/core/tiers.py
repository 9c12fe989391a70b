"""Tiers: what nodes are chosen from, and the share of the uses that each has."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ecs_discovery.core.node import Health, Node
from ecs_discovery.core.pickers import Picker, make
from ecs_discovery.core.srv import shares
from ecs_discovery.core.zone import by_zone
from ecs_discovery.policies import BalancingPolicy, ZonePolicy

__all__ = ["Tier", "arrange"]


class Tier:
    """Nodes of one priority, or of one zone of it, with the part of the uses that is theirs."""

    __slots__ = ("nodes", "picker", "upto")

    def __init__(self, upto: float, nodes: tuple[Node, ...], picker: Picker) -> None:
        self.upto = upto
        self.nodes = nodes
        self.picker = picker


def arrange(
    nodes: Sequence[Node],
    *,
    panic: bool,
    balancing: BalancingPolicy,
    zone: ZonePolicy,
    own_zone: str | None,
    dice: Callable[[], float],
) -> tuple[tuple[Tier, ...], tuple[Tier, ...]]:
    """The tiers, and the same without regard to zones."""
    if panic:  # health is ignored, priorities are not
        connecting = [node for node in nodes if node.health is not Health.DOWN]
        top = min((node.endpoint.priority for node in connecting), default=0)
        parts = [(1.0, tuple(node for node in connecting if node.endpoint.priority == top))]
    else:
        parts = shares(nodes)
    plain = _made(parts, balancing, dice)
    if not zone.prefer or own_zone is None or panic:
        return plain, plain
    split = [(share, by_zone(members, own_zone, zone)) for share, members in parts]
    return _made([(share * part, members) for share, zones in split for part, members in zones], balancing, dice), plain


def _made(
    parts: Sequence[tuple[float, tuple[Node, ...]]], balancing: BalancingPolicy, dice: Callable[[], float]
) -> tuple[Tier, ...]:
    made, upto = [], 0.0
    for share, nodes in parts:
        upto += share
        made.append(Tier(upto, nodes, make(nodes, balancing, dice)))
    return tuple(made)
