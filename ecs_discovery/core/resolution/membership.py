"""Membership: the endpoints believed to exist now, with the history of each.

An endpoint that stays keeps its node, and so its load and health; one that comes back within five
minutes finds its history again. An empty answer is a claim, not the truth.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter

from ecs_discovery.core.balancing import health
from ecs_discovery.core.balancing.node import Health, Node
from ecs_discovery.models import Endpoint, Resolution, Value, replace

__all__ = ["MembersChange", "Membership"]

Key = tuple[str, int, str | None]

EMPTY_APART = 30.0
"""Two empty answers this many seconds apart are needed before they are believed."""
EMPTY_AT_LAST = 300.0
"""After this long, empty answers are believed although endpoints still answer."""
_HISTORY = 300.0  # seconds the history of a removed endpoint is kept
_HISTORY_SIZE = 1000
_SOURCES = 16  # by name, remembered of an endpoint: a resolver may give each answer another name
# What is chosen by: all else that a source says of an endpoint is for people.
_RULES = attrgetter("priority", "weight", "zone", "proxied")


_DOWN = Health.DOWN  # looking a member up takes longer than comparing with it (Python 3.11)


class MembersChange(Value):
    """What an answer changed."""

    came: tuple[Node, ...]
    left: tuple[Node, ...]
    altered: tuple[Node, ...]
    """Endpoints that stay, with another priority, weight or zone."""


class Membership:
    """Guarded by its service's lock. `nodes` is replaced, never changed: readers may keep it."""

    def __init__(self) -> None:
        self.nodes: tuple[Node, ...] = ()
        self.adopted: tuple[Endpoint, ...] | None = None
        """The endpoints of the answer that was taken over last; None if the nodes may differ from it."""
        self._of: dict[int, Node] = {}  # by the identity of their endpoints, which they keep alive
        self._by_key: dict[Key, Node] = {}
        self._gone: dict[Key, tuple[float, Node]] = {}  # the one that left first, first
        self._witnessed: dict[str, tuple[Resolution, float]] = {}  # the newest answers, to be told to nodes
        self._empty_since: float | None = None

    def __repr__(self) -> str:
        return f"<Membership {len(self.nodes)} endpoints>"

    @property
    def doubted(self) -> bool:
        """True while empty answers contradict the endpoints that are still used."""
        return self._empty_since is not None

    def replace(self, endpoints: Iterable[Endpoint], now: float) -> MembersChange | None:
        """Take over an answer. What it changed of what is chosen from, and how; None if nothing."""
        self._empty_since = None
        named = tuple(endpoints)
        of = self._of
        found: list[Node | None] = list(map(of.get, map(id, named)))
        stay = set(found)
        if None not in stay and len(stay) == len(found) == len(of):
            return None  # the very same, mostly in another order
        if len(stay) - (None in stay) < len(found) - found.count(None) or self._repeated(named, found):
            # Once in the place of the first, with the facts of the last.
            named = tuple({endpoint.key: endpoint for endpoint in named}.values())
            found = list(map(of.get, map(id, named)))
        came: list[Node] = []
        altered: list[Node] = []
        for at, node in enumerate(found):
            if node is not None:
                continue
            endpoint = named[at]
            key = endpoint.key
            known = self._by_key.get(key)
            if known is None:
                known = self._by_key[key] = self._returning(endpoint, now) or Node(endpoint)
                came.append(known)
            else:
                del of[id(known.endpoint)]
                if _RULES(known.endpoint) != _RULES(endpoint):
                    altered.append(known)
            known.endpoint = endpoint
            of[id(endpoint)] = known
            found[at] = known
        left: list[Node] = []
        if len(of) > len(found):
            stay = set(found)
            left = [node for node in self.nodes if node not in stay]
        if came or left:
            for node in left:
                self._forget(node)
            self._remember(left, now)
            self.nodes = tuple(found)  # type: ignore[arg-type]  # none of them is None any more
        elif not altered:
            return None
        return MembersChange(tuple(came), tuple(left), tuple(altered))

    def _repeated(self, named: Sequence[Endpoint], found: Sequence[Node | None]) -> bool:
        """Is one of those that are new named twice, or besides the one in whose place it is?"""
        keys = [endpoint.key for endpoint, node in zip(named, found, strict=True) if node is None]
        if len(set(keys)) < len(keys):
            return True
        known = [node for node in map(self._by_key.get, keys) if node is not None]
        return bool(known) and not set(known).isdisjoint(found)

    def _forget(self, node: Node) -> None:
        del self._of[id(node.endpoint)], self._by_key[node.endpoint.key]

    def witness(self, answers: Iterable[Resolution], now: float) -> None:
        """Keep which source named which endpoint, and when."""
        self._expire(now)
        for answer in answers:
            last = self._witnessed.get(answer.source)
            if last is not None and last[0] is not answer:
                self._tell(*last)
            if len(self._witnessed) >= _SOURCES:
                self.seen()
            self._witnessed[answer.source] = (answer, now)

    def seen(self) -> None:
        """Tell the nodes which source named them last. The work waits for the next answer, or for a snapshot."""
        for answer, at in self._witnessed.values():
            self._tell(answer, at)
        self._witnessed.clear()

    def _tell(self, answer: Resolution, at: float) -> None:
        named = answer.hosts
        for node in [node for node in self.nodes if node.endpoint.host in named]:
            if node.seen is None:
                node.seen = {}
            node.seen.pop(answer.source, None)
            if len(node.seen) >= _SOURCES:
                del node.seen[next(iter(node.seen))]  # that is seen longest ago
            node.seen[answer.source] = at

    def pruned(self, resolution: Resolution) -> Resolution:
        """What is to be believed of an answer joined with earlier ones.

        Endpoints that are down, and missing in the newest answer, are left out, but never all endpoints. ECS stops a
        task as soon as it is deregistered: refused and named no more is gone. If it is there after all, a later answer
        brings it back.
        """
        if resolution.named is None or self.doubted:
            return resolution
        down, named = self._down(), resolution.named
        if not down:
            return resolution
        kept = tuple([each for each in resolution.endpoints if each.host in named or each.key not in down])
        return replace(resolution, endpoints=kept) if 0 < len(kept) < len(resolution.endpoints) else resolution

    def drop(self, node: Node, now: float) -> MembersChange | None:
        """Leave out one node that went down and that the newest answer does not name; what that changed.

        None if it is no member, or the last, or empty answers are not believed yet.
        """
        if self.doubted or node.removed or len(self.nodes) < 2 or self._of.get(id(node.endpoint)) is not node:
            return None
        at = self.nodes.index(node)
        self.nodes = self.nodes[:at] + self.nodes[at + 1 :]
        self._forget(node)
        self._remember((node,), now)
        return MembersChange((), (node,), ())

    def _down(self) -> set[Key]:
        """The endpoints that do not connect, whether they are members now or may come back."""
        down = _DOWN
        found = {node.endpoint.key for node in self.nodes if node.health is down}
        found.update([key for key, (_, node) in self._gone.items() if node.health is down])
        return found

    def empty(self, now: float, *, agreed: bool = False) -> bool:
        """An empty answer came. True if the endpoints are now given up.

        At once if the registry itself `agreed`. Else they stay until two empty answers at least 30 s apart
        stand and either no endpoint answered in between or five minutes have passed.
        """
        if not self.nodes:
            return False
        if self._empty_since is None:
            self._empty_since = now
        since = self._empty_since
        waited = now - since
        if not agreed and waited < EMPTY_APART:
            return False
        if not agreed and waited < EMPTY_AT_LAST and any(node.answered_at > since for node in self.nodes):
            return False
        self._remember(self.nodes, now)
        self.nodes = ()
        self._of.clear()
        self._by_key.clear()
        self._empty_since = None
        return True

    def gone(self) -> tuple[Node, ...]:
        """Those that left and may come back."""
        return tuple(node for _, node in self._gone.values())

    def _returning(self, endpoint: Endpoint, now: float) -> Node | None:
        left, node = self._gone.pop(endpoint.key, (0.0, None))
        if node is None or now - left > _HISTORY:
            return None
        node.removed = False
        health.returned(node, now)
        return node

    def _remember(self, nodes: Iterable[Node], now: float) -> None:
        gone = self._gone
        for node in nodes:
            node.removed = True
            key = node.endpoint.key
            gone.pop(key, None)
            gone[key] = (now, node)
        self._expire(now)

    def _expire(self, now: float) -> None:
        gone = self._gone
        while gone:
            key = next(iter(gone))
            if now - gone[key][0] <= _HISTORY and len(gone) <= _HISTORY_SIZE:
                break
            del gone[key]
