"""The balancer: holds the snapshot that nodes are chosen from, and keeps it in step with their health.

A pick reads one tuple. The tuple is rebuilt only when a node comes, leaves or changes its health.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from math import inf

from ecs_discovery.core import outlier
from ecs_discovery.core.node import Health, Node, Outcome
from ecs_discovery.core.pickers import Picker, by_key, by_weight
from ecs_discovery.core.srv import Draw, shares
from ecs_discovery.policies import OutlierPolicy

__all__ = ["Balancer"]

_SMOOTHING = 0.2  # share of a new latency in the displayed average


class Balancer:
    """Guarded by its service's lock."""

    def __init__(self, picker: Picker, policy: OutlierPolicy, dice: Callable[[], float]) -> None:
        self._picker = picker
        self._policy = policy
        self._dice = dice
        self._nodes: tuple[Node, ...] = ()
        self._usable: tuple[Node, ...] = ()  # what the picker chooses from
        self._tiers: tuple[_Tier, ...] = ()  # instead of it, where priorities or weights differ
        self._spare: tuple[Node, ...] = ()  # chosen when all usable ones are excluded: lower tiers, then down ones
        self._probes: deque[Node] = deque()  # ejections that are over: each waits for one request
        self._wake = inf  # when the next ejection or pause ends
        self._count = 0
        self.panic = False
        self.reconnect: tuple[Node, ...] = ()
        """Nodes that are down and may be tried again: the driver takes them with `take_reconnects`."""

    def __repr__(self) -> str:
        out = sum(node.health is not Health.HEALTHY for node in self._nodes)
        pending = sum(node.pending for node in self._nodes)
        return f"<Balancer {len(self._nodes)} endpoints, {out} out of choice, {pending} in flight>"

    def update(self, nodes: tuple[Node, ...], now: float) -> None:
        """Choose from these nodes from now on."""
        self._nodes = nodes
        self._rebuild(now)

    def pick(self, now: float, exclude: Collection[Node] = (), key: str | bytes | None = None) -> Node | None:
        """The node for the next use, which is begun (end it with `release`); None if all are excluded."""
        if now >= self._wake:
            self._rebuild(now)
        node = None
        if key is not None:
            node = by_key((*self._usable, *self._probes) if self._probes else self._usable, key, exclude)
            if node is not None and node.health is Health.PROBING and node in self._probes:
                self._probes.remove(node)  # its key comes back to it, and is the probe
        elif self._probes:
            node = self._probe(exclude)
        if node is None:
            if self._tiers:
                node = self._pick_tier(exclude, key)
            elif key is None:
                node = self._picker.pick(self._usable, self._dice, exclude)
            if node is None:
                node = self._last_resort(exclude)
                if node is None:
                    return None
        node.pending += 1
        node.uses += 1
        self._count += 1
        node.picked = self._count
        return node

    def release(self, node: Node) -> None:
        """A use of `node` has ended; what it told of the node is `observe`d apart."""
        node.pending -= 1
        if node.health is Health.PROBING and not node.pending and node not in self._probes:
            self._probes.append(node)  # the probe told nothing: the next request is one

    def observe(self, node: Node, outcome: Outcome, now: float, seconds: float | None = None) -> Health | None:
        """Judge a node by something that happened to it. Its new health if that changed, else None.

        `seconds` is how long a successful use took.
        """
        before = node.health
        if node.endpoint.proxied and outcome is not Outcome.SUCCESS:
            node.failures += outcome is not Outcome.NEUTRAL
            return None  # it stands for all tasks: there is nothing to put in its place
        if outcome is Outcome.SUCCESS:
            node.answered = now
            if seconds is not None:
                node.successes += 1
                old = node.latency
                node.latency = seconds if old is None else old + _SMOOTHING * (seconds - old)
            if not node.consecutive and before is Health.HEALTHY:
                return None
            outlier.on_success(node, now)
        elif outcome is Outcome.FAILURE:
            node.failures += 1
            healthy = before is Health.HEALTHY
            # One that was out already stays out, whatever the cap says.
            if outlier.on_failure(node, self._policy, now, self._dice) and (
                not healthy or outlier.ejection_allowed(self._nodes, self._policy)
            ):
                node.health = Health.EJECTED
                node.ejected_until = node.until
                node.ejections += 1
                node.reason = f"{node.consecutive} failures in a row"
        elif outcome is Outcome.CONNECT:
            node.failures += 1
            outlier.on_connect_failure(node, self._policy, now)
            node.reason = f"{node.connect_failures} failed connects"
        if node.health is before and outcome is not Outcome.CONNECT:
            return None
        self._rebuild(now)
        return node.health if node.health is not before else None

    def after_fork(self) -> None:
        """No use of the parent's ends here: count anew, and look at every node's health at the next pick."""
        for node in self._nodes:
            node.pending = 0
            node.reconnecting = False
        self._probes.clear()
        self._wake = -inf

    def take_reconnects(self) -> tuple[Node, ...]:
        """The nodes whose reconnect is due, once: report each with `observe` (SUCCESS or CONNECT)."""
        nodes, self.reconnect = self.reconnect, ()
        return nodes

    def _probe(self, exclude: Collection[Node]) -> Node | None:
        while self._probes:
            node = self._probes[0]
            if node.removed or node.health is not Health.PROBING:
                self._probes.popleft()
            elif node in exclude:
                return None
            else:
                return self._probes.popleft()
        return None

    def _last_resort(self, exclude: Collection[Node]) -> Node | None:
        """The spare that was picked longest ago, those that connect first."""
        best: Node | None = None
        for node in self._spare:
            if node in exclude:
                continue
            if best is None or (node.health is Health.DOWN, node.picked) < (best.health is Health.DOWN, best.picked):
                best = node
        return best

    def _rebuild(self, now: float) -> None:
        due: list[Node] = []
        self._wake = inf
        for node in self._nodes:
            if node.health is Health.EJECTED:
                if now >= node.until:
                    node.health = Health.PROBING
                    self._probes.append(node)
                else:
                    self._wake = min(self._wake, node.until)
            elif node.health is Health.PROBING:
                if not node.pending and node not in self._probes:
                    self._probes.append(node)  # it left and came back, or its probe was forgotten
            elif node.health is Health.DOWN:
                if now >= node.until:
                    due.append(node)
                    node.reconnecting = True
                    node.until = now + self._policy.connect_max  # in case the driver never reports
                self._wake = min(self._wake, node.until)
        self.reconnect = tuple(node for node in self.reconnect if node.health is Health.DOWN) + tuple(due)
        self.panic = outlier.panicking(self._nodes, self._policy)
        if self.panic:  # health is ignored, priorities are not
            connecting = [node for node in self._nodes if node.health is not Health.DOWN]
            top = min((node.endpoint.priority for node in connecting), default=0)
            tiers = [(1.0, tuple(node for node in connecting if node.endpoint.priority == top))]
        else:
            tiers = shares(self._nodes)
        self._choose_from(tiers)

    def _choose_from(self, tiers: Sequence[tuple[float, tuple[Node, ...]]]) -> None:
        made, upto = [], 0.0
        for share, nodes in tiers:
            upto += share
            made.append(_Tier(upto, nodes))
        chosen = {node for tier in made for node in tier.nodes}
        plain = len(made) < 2 and not any(tier.draw for tier in made)
        self._usable = made[0].nodes if made else ()
        self._tiers = () if plain else tuple(made)
        self._spare = tuple(node for node in self._nodes if node not in chosen)

    def _pick_tier(self, exclude: Collection[Node], key: str | bytes | None) -> Node | None:
        at = self._dice()
        tier = next((tier for tier in self._tiers if at < tier.upto), self._tiers[-1])
        for other in (tier, *self._tiers):
            if key is not None:
                node = by_key(other.nodes, key, exclude)
            elif other.draw is not None:
                node = by_weight(other.nodes, other.draw, self._dice, exclude)
            else:
                node = self._picker.pick(other.nodes, self._dice, exclude)
            if node is not None:
                return node
        return None


class _Tier:
    """Nodes of one priority, with the part of the uses that is theirs."""

    __slots__ = ("draw", "nodes", "upto")

    def __init__(self, upto: float, nodes: tuple[Node, ...]) -> None:
        self.upto = upto
        self.nodes = nodes
        weights = [node.endpoint.weight for node in nodes]
        self.draw = Draw(weights) if len(set(weights)) > 1 else None
