"""The fleet: the nodes of a service by their health, priority and zone, and what is chosen from by that.

A node that changes its health, comes or leaves is moved in the sets that hold it; nothing is made anew for the others.
So what a change costs does not grow with the size of the fleet.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator

from ecs_discovery.config.policies import BalancingPolicy, ZonePolicy
from ecs_discovery.core.balancing.locality import by_zone
from ecs_discovery.core.balancing.node import Health, Node
from ecs_discovery.core.balancing.pickers import Picker, make
from ecs_discovery.core.balancing.weights import shares

__all__ = ["Fleet", "Members", "Tier"]

# Looking up a member of an Enum takes longer than all else that is done with it here (Python 3.11).
_HEALTHY, _DOWN = Health.HEALTHY, Health.DOWN
_SAMPLE = 64  # nodes that stand for all others, where all would be too many to look at

Facts = tuple[int, str | None, float]


class Members:
    """Nodes that are chosen from together, and the picker that does so."""

    __slots__ = ("_at", "_balancing", "_picker", "_rng", "_weights", "nodes")

    def __init__(self, balancing: BalancingPolicy, rng: Callable[[], float]) -> None:
        self.nodes: list[Node] = []
        """In no order. Changed in place: pickers hold it."""
        self._balancing = balancing
        self._rng = rng
        self._at: dict[Node, int] = {}
        self._weights: dict[float, int] = {}
        self._picker: Picker | None = None

    def __len__(self) -> int:
        return len(self.nodes)

    def __contains__(self, node: object) -> bool:
        return node in self._at

    @property
    def picker(self) -> Picker:
        """Its picker, made if there is none that fits."""
        if self._picker is None:
            self._picker = make(self.nodes, self._balancing, self._rng, weighted=len(self._weights) > 1)
        return self._picker

    def add(self, node: Node, weight: float) -> None:
        """`weight` is the endpoint's."""
        nodes, weights = self.nodes, self._weights
        self._at[node] = len(nodes)
        nodes.append(node)
        if weight in weights:
            weights[weight] += 1
        else:
            weights[weight] = 1
            if len(weights) == 2:
                self._picker = None  # weights matter now
        if self._picker is not None:
            self._picker.add(node)

    def discard(self, node: Node, weight: float) -> None:
        """`weight` is the one it was added with."""
        at, last = self._at.pop(node), self.nodes.pop()
        if last is not node:  # it takes its place
            self.nodes[at] = last
            self._at[last] = at
        weights = self._weights
        weights[weight] -= 1
        if not weights[weight]:
            del weights[weight]
            if len(weights) == 1:
                self._picker = None  # they matter no longer
        if self._picker is not None:
            self._picker.discard(node)


class _Level:
    """The nodes of one priority."""

    __slots__ = ("connecting", "healthy", "total", "zones")

    def __init__(self, balancing: BalancingPolicy, rng: Callable[[], float]) -> None:
        self.total = 0
        self.healthy = Members(balancing, rng)
        self.connecting = Members(balancing, rng)
        self.zones: dict[str | None, Members] = {}  # the healthy ones, if zones are preferred


class Tier:
    """Nodes of one priority, or of one zone of it, with the part of the uses that is theirs."""

    __slots__ = ("members", "nodes", "picker", "upto")

    def __init__(self, upto: float, members: Members) -> None:
        self.upto = upto
        self.members = members
        self.nodes = members.nodes
        self.picker = members.picker


Tiers = tuple[Tier, ...]


class Fleet:
    """The nodes that are chosen from. Guarded by its service's lock. `rng` is in [0, 1)."""

    def __init__(self, balancing: BalancingPolicy, zone: ZonePolicy, rng: Callable[[], float]) -> None:
        self.out: dict[Node, None] = {}
        """Those that are ejected or probed, the one that was used longest ago first, as far as that is known."""
        self.down: dict[Node, None] = {}
        """Those that are down, in the same order."""
        self._balancing = balancing
        self._zone = zone
        self._rng = rng
        self._placed: dict[Node, Facts] = {}
        self._levels: dict[int, _Level] = {}
        self._used: tuple[Members, ...] = ()
        self._tiers: Tiers = ()  # what there was last, where it was one level

    def __len__(self) -> int:
        return len(self._placed)

    def __contains__(self, node: object) -> bool:
        return node in self._placed

    def __iter__(self) -> Iterator[Node]:
        return iter(self._placed)

    @property
    def healthy(self) -> int:
        """How many are healthy."""
        return len(self._placed) - len(self.out) - len(self.down)

    @property
    def connecting(self) -> int:
        """How many are not down."""
        return len(self._placed) - len(self.down)

    def add(self, node: Node) -> None:
        """It is one of them now."""
        endpoint = node.endpoint
        facts = self._placed[node] = (endpoint.priority, endpoint.zone, endpoint.weight)
        level = self._levels.get(facts[0])
        if level is None:
            level = _Level(self._balancing, self._rng)
            self._levels[facts[0]] = level
            self._levels = dict(sorted(self._levels.items()))
        level.total += 1
        if node.health is _HEALTHY and not self._zone.prefer:  # mostly
            level.connecting.add(node, facts[2])
            level.healthy.add(node, facts[2])
        else:
            self.move(node)

    def remove(self, node: Node) -> None:
        """It is none of them any more."""
        priority, zone, weight = self._placed.pop(node)
        level = self._levels[priority]
        level.total -= 1
        for members in (level.healthy, level.connecting, *filter(None, [level.zones.get(zone)])):
            if node in members:
                members.discard(node, weight)
        self.out.pop(node, None)
        self.down.pop(node, None)
        if not level.total:
            del self._levels[priority]

    def move(self, node: Node) -> None:
        """Its health may have changed."""
        priority, zone, weight = self._placed[node]
        level, health = self._levels[priority], node.health
        _put(level.connecting, node, weight, health is not _DOWN)
        _put(level.healthy, node, weight, health is _HEALTHY)
        if self._zone.prefer:
            if zone not in level.zones:
                level.zones[zone] = Members(self._balancing, self._rng)
            _put(level.zones[zone], node, weight, health is _HEALTHY)
        if health is _DOWN:
            self.down.setdefault(node)
        else:
            self.down.pop(node, None)
        if health is _HEALTHY or health is _DOWN:
            self.out.pop(node, None)
        else:
            self.out.setdefault(node)

    def tiers(self, panic: bool, own_zone: str | None) -> tuple[Tiers, Tiers]:
        """What is chosen from, and the same without regard to zones."""
        levels = self._levels.values()
        if len(levels) == 1 and not panic and not self._zone.prefer:  # mostly
            (only,) = levels
            members = only.healthy
            if not members:
                self._tiers, self._used = (), ()
            elif (
                not self._tiers or self._tiers[0].members is not members or self._tiers[0].picker is not members.picker
            ):
                self._tiers, self._used = _made([(1.0, members)]), (members,)
            return self._tiers, self._tiers
        self._tiers = ()
        if panic:  # health is ignored, priorities are not
            top = next(([(1.0, level.connecting)] for level in levels if level.connecting), [])
            tiers = plain = _made(top)
        else:
            parts = list(zip(shares([(len(level.healthy), level.total) for level in levels]), levels, strict=True))
            tiers = plain = _made([(share, level.healthy) for share, level in parts if share])
            if self._zone.prefer and own_zone is not None:
                tiers = _made([part for share, level in parts if share for part in self._zones(share, level, own_zone)])
        self._used = tuple(tier.members for tier in tiers)
        return tiers, plain

    def fallback(self, exclude: Collection[Node], reserve: Collection[Node], *, healthy: bool) -> Node | None:
        """One that is not chosen from now: a healthy one, else that used longest ago of those that connect, else of the
        others. Those in `reserve` come last. If it must be `healthy`, None if there is none."""
        for members in self._fallbacks():
            node = members.picker.pick(self._rng, exclude)
            if node is not None and node.full:
                node = next((other for other in members.nodes if _free(other, exclude)), None)
            if node is not None:
                return node
        kept = min((node for node in reserve if _free(node, exclude)), key=_worth, default=None)
        if healthy or (kept is not None and kept.health is _HEALTHY):
            return kept if kept is not None and kept.health is _HEALTHY else None
        found = next((node for node in self.out if _free(node, exclude)), None)
        if found is None and (kept is None or kept.health is _DOWN):
            found = next((node for node in self.down if _free(node, exclude)), None)
        return found if found is not None else kept

    def _fallbacks(self) -> Iterator[Members]:
        """The healthy ones that are not chosen from now, those of the lowest priority number first."""
        for level in self._levels.values():
            for members in level.zones.values() if self._zone.prefer else (level.healthy,):
                taken = (members, level.healthy, level.connecting)
                if members and not any(used is each for used in self._used for each in taken):
                    yield members

    def use(self, node: Node) -> None:
        """It was used although it is not healthy: another is used before it comes next."""
        for waiting in (self.out, self.down):
            if node in waiting:
                del waiting[node]
                waiting[node] = None

    def sample(self, but: Collection[Node]) -> list[Node]:
        """Healthy nodes that stand for all of them: all, if they are few."""
        found: list[Node] = []
        for level in self._levels.values():
            nodes = level.healthy.nodes
            found += [node for node in nodes[:: len(nodes) // _SAMPLE + 1] if node not in but]
        return found

    def _zones(self, share: float, level: _Level, own_zone: str) -> Iterable[tuple[float, Members]]:
        counts = {zone: len(members) for zone, members in level.zones.items() if members}
        split = by_zone(counts, own_zone, self._zone)
        if split is None:
            return [(share, level.healthy)]
        return [(share * part, level.zones[zone]) for part, zone in split]


def _free(node: Node, exclude: Collection[Node]) -> bool:
    return not node.full and node not in exclude


def _worth(node: Node) -> tuple[bool, bool, int]:
    return node.health is _DOWN, node.health is not _HEALTHY, node.picked


def _put(members: Members, node: Node, weight: float, there: bool) -> None:
    if there is not (node in members):
        if there:
            members.add(node, weight)
        else:
            members.discard(node, weight)


def _made(parts: Iterable[tuple[float, Members]]) -> Tiers:
    made, upto = [], 0.0
    for share, members in parts:
        upto += share
        made.append(Tier(upto, members))
    return tuple(made)
