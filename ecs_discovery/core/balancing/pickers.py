"""Pickers: rules that choose one node of several. They never block, and change no node.

A picker is made for a list of nodes, and is told when one was added to that or taken out. `rng` is in [0, 1).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from math import inf, log
from typing import Any, Protocol

from ecs_discovery.config.policies import BalancingPolicy
from ecs_discovery.core.balancing.cost import EQUAL
from ecs_discovery.core.balancing.lottery import Lottery
from ecs_discovery.core.balancing.node import Node

__all__ = ["AtRandom", "ByWeight", "InTurn", "LeastLoad", "Picker", "by_key", "make", "share_of"]

_TRIES = 4  # draws among exclusions before all nodes are looked at
_TURNS = 4096  # longest schedule of a weighted round robin, unless there are more nodes than that
_SPILL = 2.0  # a key's node with more than this many times the average of pending uses is full for it
_SPILL_LEAST = 8  # … and more than this many


class Picker(Protocol):
    def pick(self, rng: Callable[[], float], exclude: Collection[Node]) -> Node | None:
        """A node outside of `exclude`, or None if all are in it."""

    def compared(self) -> Sequence[Node]:
        """The nodes that the last pick compared, for people."""

    def add(self, node: Node) -> None:
        """It was added to the nodes."""

    def discard(self, node: Node) -> None:
        """It was taken out of the nodes."""


def make(nodes: Sequence[Node], policy: BalancingPolicy, rng: Callable[[], float], *, weighted: bool = False) -> Picker:
    """The picker for these nodes; `weighted` is whether their weights differ."""
    if policy.picker == "random":
        return AtRandom(nodes)
    if policy.picker == "round_robin":
        return InTurn(nodes, rng)
    equal = EQUAL if policy.picker == "peak_ewma" else 0.0
    return ByWeight(nodes, equal) if weighted else LeastLoad(nodes, policy.full_scan, equal)


class LeastLoad:
    """The node with the least load of two drawn at random, or of all in a small set.

    Loads that differ by less than `equal` count as equal, and of equals the least recently picked is
    chosen, so that sequential calls go round. The two drawn are distinct: drawn independently they would be
    the same node half of the time in a set of two. Constant time in the number of nodes; with
    exclusions expected constant time, at worst linear.
    """

    __slots__ = ("_count", "_equal", "_few", "_first", "_full_scan", "_nodes", "_pairs", "_rest", "_second")

    def __init__(self, nodes: Sequence[Node], full_scan: int, equal: float) -> None:
        self._nodes = nodes
        self._full_scan = full_scan
        self._equal = equal
        self._recount()

    def _recount(self) -> None:
        self._count = len(self._nodes)
        self._pairs = self._count * (self._count - 1)
        self._few = 0 < self._count <= self._full_scan
        self._rest = tuple(self._nodes[1:]) if self._few else ()
        self._first: Node | None = None
        self._second: Node | None = None

    def add(self, node: Node) -> None:
        self._recount()

    def discard(self, node: Node) -> None:
        self._recount()

    def compared(self) -> Sequence[Node]:
        return self._nodes if self._first is None or self._second is None else (self._first, self._second)

    def pick(self, rng: Callable[[], float], exclude: Collection[Node]) -> Node | None:
        nodes = self._nodes
        if self._few:
            if exclude:
                return self._least(exclude)
            best = nodes[0]
            oldest = best.picked
            least = best.load
            for node in self._rest:
                if node.load < least:
                    least = node.load
                if node.picked < oldest:
                    oldest = node.picked
                    best = node
            # Mostly it is the turn of this one.
            return best if best.load <= least + self._equal else self._least(exclude)
        pairs = self._pairs
        if not pairs:
            return None
        count = self._count
        tries = _TRIES
        while True:
            pair = int(rng() * pairs)
            first = nodes[pair % count]
            second = nodes[pair // count]  # any but the last
            if first is second:
                second = nodes[-1]
            if exclude:
                if first in exclude:
                    first = second
                if first in exclude:
                    tries -= 1
                    if tries:
                        continue
                    return self._least(exclude)
                if second in exclude:
                    return first
            self._first = first
            self._second = second
            more = first.load - second.load
            equal = self._equal
            if more > equal:
                return second
            return first if first.picked <= second.picked or more < -equal else second

    def _least(self, exclude: Collection[Node]) -> Node | None:
        nodes = [node for node in self._nodes if node not in exclude] if exclude else self._nodes
        if not nodes:
            return None
        bound = min(node.load for node in nodes) + self._equal
        return min((node for node in nodes if node.load <= bound), key=_picked)  # the one whose turn it is


class ByWeight:
    """Of two nodes drawn by their weights, the first unless it has more load for its weight.

    Equal ones are picked in proportion to their weights. Expected constant time; with exclusions at worst linear.
    """

    __slots__ = ("_compared", "_equal", "_lots", "_mean", "_nodes")

    def __init__(self, nodes: Sequence[Node], equal: float) -> None:
        self._nodes = nodes
        self._lots = Lottery(nodes)
        self._equal = equal
        self._mean = self._lots.mean
        self._compared: tuple[Node, ...] = ()

    def add(self, node: Node) -> None:
        self._lots.add(node)

    def discard(self, node: Node) -> None:
        self._lots.discard(node)

    def compared(self) -> Sequence[Node]:
        return self._compared

    def pick(self, rng: Callable[[], float], exclude: Collection[Node]) -> Node | None:
        nodes, lots = self._nodes, self._lots
        if not nodes:
            return None
        for _ in range(_TRIES if exclude else 1):
            first, second = lots(rng), lots(rng)
            self._mean = lots.mean
            if exclude and first in exclude:
                first = second
            if exclude and first in exclude:
                continue
            if exclude and second in exclude:
                return first
            self._compared = (first, second)
            return first if self._load(first) <= self._load(second) + self._equal else second
        return min((node for node in nodes if node not in exclude), key=self._load_of, default=None)

    def _load(self, node: Node) -> float:
        # Only what is pending counts by weight: with nothing pending the draw alone decides between equals.
        # A weight of 0 is compared as a little more than nothing.
        return node.score + log(1.0 + node.pending * self._mean / max(node.endpoint.weight, 0.01))

    def _load_of(self, node: Node) -> float:
        return self._load(node) - log(max(node.endpoint.weight, 0.01))


class InTurn:
    """Round robin: each node as often as its weight says, its turns evenly apart.

    Constant time; with exclusions at worst linear. It starts at random, so that many clients do not move in step.
    """

    __slots__ = ("_at", "_left", "_nodes", "_turns", "_unit", "_weights")

    def __init__(self, nodes: Sequence[Node], rng: Callable[[], float]) -> None:
        self._nodes = nodes
        self._renew()
        self._at = int(rng() * len(self._turns))

    def _renew(self) -> None:
        self._weights = {node: max(node.endpoint.weight, 0.01) for node in self._nodes}
        self._unit, self._turns = _schedule(self._weights)
        self._left: set[Node] = set()  # their turns pass

    def add(self, node: Node) -> None:
        weight = max(node.endpoint.weight, 0.01)
        if node in self._left and self._weights[node] == weight:
            self._left.remove(node)
        elif node in self._left or not self._turns:
            self._renew()
        else:
            self._weights[node] = weight
            times, total = max(1, round(weight / self._unit)), len(self._turns)
            for turn in range(times):  # evenly apart, the first one soon
                at = (self._at + 1 + int((turn + 0.5) / times * total)) % (total + 1)
                self._turns.insert(at, node)

    def discard(self, node: Node) -> None:
        self._left.add(node)
        if 16 * len(self._left) > len(self._weights):
            self._renew()

    def compared(self) -> Sequence[Node]:
        return ()

    def pick(self, rng: Callable[[], float], exclude: Collection[Node]) -> Node | None:
        turns, left = self._turns, self._left
        for _ in range(len(turns)):
            self._at = at = (self._at + 1) % len(turns)
            node = turns[at]
            if (not exclude or node not in exclude) and (not left or node not in left):
                return node
        return None


class AtRandom:
    """A node drawn by its weight. Constant time; with exclusions expected constant time, at worst linear."""

    __slots__ = ("_lots", "_nodes")

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = nodes
        self._lots = Lottery(nodes) if len({node.endpoint.weight for node in nodes}) > 1 else None

    def add(self, node: Node) -> None:
        if self._lots is not None:
            self._lots.add(node)

    def discard(self, node: Node) -> None:
        if self._lots is not None:
            self._lots.discard(node)

    def compared(self) -> Sequence[Node]:
        return ()

    def pick(self, rng: Callable[[], float], exclude: Collection[Node]) -> Node | None:
        nodes: Sequence[Node] = self._nodes
        lots = self._lots
        for _ in range(_TRIES if exclude else 1):
            if not nodes:
                return None
            node = nodes[int(rng() * len(nodes))] if lots is None else lots(rng)
            if not exclude or node not in exclude:
                return node
        nodes = [node for node in nodes if node not in exclude]
        return nodes[int(rng() * len(nodes))] if nodes else None


def by_key(nodes: Sequence[Node], key: str | bytes, exclude: Collection[Node]) -> Node | None:
    """The node that `key` belongs to, the same in every process: weighted rendezvous hashing.

    When a node leaves, only its own keys move (Thaler and Ravishankar 1998). A node that has far more pending uses
    than the average passes its keys on to the next (bounded loads, Mirrokni et al. 2016). Linear in the number of
    nodes.
    """
    from hashlib import blake2b  # not before a key is met: it loads OpenSSL

    data = key.encode(errors="surrogatepass") if isinstance(key, str) else key
    choices = [node for node in nodes if node not in exclude] if exclude else nodes
    if not choices:
        return None
    pending = sum(node.pending for node in choices)
    bound = max(_SPILL_LEAST, _SPILL * (pending + 1) / len(choices))
    best: Node | None = None
    highest = -inf
    for node in choices:
        if node.full or node.pending >= bound:
            continue
        value = _hash(blake2b, data, str(node.endpoint).encode()[:64])
        score = -max(node.endpoint.weight, 0.01) / log(value)
        if score > highest:
            best, highest = node, score
    return best or min(choices, key=_pending)


def share_of(key: str | bytes) -> float:
    """A number in [0, 1) that belongs to `key`, the same in every process."""
    from hashlib import blake2b  # as above

    return _hash(blake2b, key.encode(errors="surrogatepass") if isinstance(key, str) else key, b"")


def _hash(blake2b: Any, data: bytes, salt: bytes) -> float:
    digest = blake2b(data, digest_size=8, key=salt).digest()
    return ((int.from_bytes(digest, "big") >> 11) + 0.5) / 2.0**53  # neither 0 nor 1


def _pending(node: Node) -> int:
    return node.pending


def _picked(node: Node) -> int:
    return node.picked


def _schedule(weights: Mapping[Node, float]) -> tuple[float, list[Node]]:
    """The nodes in the order of their turns, each as often as its weight says and its turns evenly apart; and the
    weight that makes one turn."""
    values = weights.values()
    if len(set(values)) < 2:
        return next(iter(values), 1.0), list(weights)
    unit = max(min(values), sum(values) / max(_TURNS, len(weights)))
    turns = []
    for node, weight in weights.items():
        times = max(1, round(weight / unit))
        turns += [((turn + 0.5) / times, node) for turn in range(times)]
    turns.sort(key=_when)
    return unit, [node for _, node in turns]


def _when(turn: tuple[float, Node]) -> float:
    return turn[0]
