"""Coming back: when nodes that are out of choice are tried again, and how.

An ejected node waits for its time, and then for one request, its probe. One that is down waits for a pause to end, and
then for the driver, which opens a connection to it. What ends with time is a heap, so that a pick looks at one number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from heapq import heappop, heappush
from itertools import islice
from math import inf

from ecs_discovery.config.policies import OutlierPolicy
from ecs_discovery.core.balancing import health
from ecs_discovery.core.balancing.node import Health, Node
from ecs_discovery.core.balancing.tiers import Fleet

__all__ = ["Recovery"]

_HEALTHY = Health.HEALTHY  # looking a member up takes longer than comparing with it (Python 3.11)
_RECONNECTS = 32  # reconnects of one service in flight


class Recovery:
    """Guarded by its service's lock."""

    __slots__ = ("_due", "_ends", "_fleet", "_policy", "_revived", "_serial", "_timed", "_trying", "probes")

    def __init__(self, fleet: Fleet, policy: OutlierPolicy) -> None:
        self.probes: deque[Node] = deque()
        """Nodes whose ejection is over: each waits for one request."""
        self._fleet = fleet
        self._policy = policy
        self._due: dict[Node, None] = {}  # nodes that are down and may be tried again
        self._trying: set[Node] = set()  # those that the driver tries
        self._revived = -inf  # when pauses were last cut short because a node was back
        self._ends: list[tuple[float, int, Node]] = []  # a heap of when ejections and pauses end
        self._timed: dict[Node, float] = {}  # the end of each that counts
        self._serial = 0

    @property
    def next(self) -> float:
        """When the next ejection or pause ends."""
        return self._ends[0][0] if self._ends else inf

    @property
    def due(self) -> bool:
        """Are there reconnects to take?"""
        return bool(self._due) and len(self._trying) < _RECONNECTS

    def pop(self) -> tuple[Node, ...]:
        """Nodes to reconnect to, each once and a few at a time."""
        taken = tuple(islice(self._due, max(0, _RECONNECTS - len(self._trying))))
        for node in taken:
            del self._due[node]
        self._trying.update(taken)
        return taken

    def probe(self, exclude: Collection[Node]) -> Node | None:
        """The node that waited longest for its probe, which is begun; None if there is none to be used."""
        if not self.probes or self.probes[0].full or self.probes[0] in exclude:
            return None
        node = self.probes.popleft()
        health.start_probe(node)
        return node

    def exchange(self, left: Iterable[Node], came: Iterable[Node], now: float) -> None:
        """Those that left are not chosen from any more, and those that came are."""
        for node in left:
            self._fleet.remove(node)
            self._due.pop(node, None)
            self._trying.discard(node)
            self._timed.pop(node, None)
            if node in self.probes:
                self.probes.remove(node)
        for node in came:
            self._fleet.add(node)
            if node.health is not _HEALTHY:
                self.look(node, now)

    def after_fork(self) -> None:
        """No probe of the parent's decides here, and nothing that it tries is tried."""
        self.probes.clear()
        self._trying.clear()

    def look(self, node: Node, now: float) -> None:
        """Its health may have changed, or its time be up: see what follows when."""
        if node not in self._fleet:
            return  # in reserve, or gone
        if health.time_up(node, now) is not None:
            self.probes.append(node)
        state = node.health
        if state is not Health.DOWN or not node.reconnecting:
            self._trying.discard(node)  # the driver has reported, or it is back
        if state is not Health.DOWN:
            self._due.pop(node, None)
        if state is Health.PROBING:
            if node.pending < node.probe and node not in self.probes:
                self.probes.append(node)  # it left and came back, or its probe was forgotten
        elif node in self.probes:
            self.probes.remove(node)
        if state is Health.DOWN and now >= node.state_ends_at:
            self._due[node] = None
            self._trying.discard(node)
            health.start_reconnect(node, self._policy, now)
        if state in (Health.DOWN, Health.EJECTED) and now < node.state_ends_at:
            if self._timed.get(node) != node.state_ends_at:
                self._timed[node] = node.state_ends_at
                self._serial += 1
                heappush(self._ends, (node.state_ends_at, self._serial, node))
        else:
            self._timed.pop(node, None)
        self._fleet.move(node)

    def look_at_all(self, nodes: Iterable[Node], now: float) -> None:
        """As `look`."""
        for node in nodes:
            self.look(node, now)

    def advance(self, now: float) -> bool:
        """Look at the nodes whose time is up. True if there are any."""
        found = False
        while self._ends and self._ends[0][0] <= now:
            ends_at, _, node = heappop(self._ends)
            if self._timed.get(node) == ends_at:
                del self._timed[node]
                self.look(node, now)
                found = True
        return found

    def revived(self, now: float) -> None:
        """A node that was down is back. If most are, what kept them from connecting may be over for all."""
        down = self._fleet.down
        if 2 * len(down) < len(self._fleet) or now < self._revived + self._policy.connect_min:
            return
        self._revived = now
        for node in list(down):
            if health.shorten(node, self._policy, now):
                self.look(node, now)
