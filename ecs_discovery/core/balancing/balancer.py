"""The balancer: holds the snapshot that nodes are chosen from, and keeps it in step with their health.

A pick reads one picker. When a node comes, leaves or changes its health, that node is moved; the others stay.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import islice
from math import inf

from ecs_discovery.config.policies import BalancingPolicy, HealthCheckPolicy, OutlierPolicy, ZonePolicy
from ecs_discovery.core.balancing import cost, health, outlier, slow_start
from ecs_discovery.core.balancing.cost import CROWD, MOST, observe
from ecs_discovery.core.balancing.health import HealthChange
from ecs_discovery.core.balancing.health_checks import Check, Checks
from ecs_discovery.core.balancing.node import Health, Node, Outcome, Use
from ecs_discovery.core.balancing.overload import Overload
from ecs_discovery.core.balancing.pick_history import APART, Pick, PickHistory
from ecs_discovery.core.balancing.pickers import Picker, by_key, share_of
from ecs_discovery.core.balancing.recovery import Recovery
from ecs_discovery.core.balancing.slow_start import SlowStart
from ecs_discovery.core.balancing.subset import subset
from ecs_discovery.core.balancing.tiers import Fleet, Tier
from ecs_discovery.core.counters import Counted, Counters
from ecs_discovery.core.resolution import membership

__all__ = ["Balancer", "Work"]

_SMOOTHING = 0.2  # share of a new latency in the displayed average
# Looking up a member of an Enum takes longer than all else that a pick does with it (Python 3.11).
_HEALTHY, _PROBING = Health.HEALTHY, Health.PROBING
_SUCCESS = Outcome.SUCCESS
_NO_LIMIT = 2**30 - 1  # a whole number is compared with another in a fifth of the time it takes with an infinity
_LOOKS = 4  # nodes looked at again when the one chosen is to be spared


class Work:
    """What a driver looks at with each use, without the lock: a plain attribute, since a property costs a call."""

    __slots__ = ("due",)

    def __init__(self) -> None:
        self.due = False
        """There are reconnects or health checks to take."""


class Balancer:
    """Guarded by its service's lock."""

    def __init__(
        self,
        balancing: BalancingPolicy,
        policy: OutlierPolicy,
        zone: ZonePolicy,
        rng: Callable[[], float],
        checks: Checks | None = None,
        own_zone: str | None = None,
        counters: Counters | None = None,
    ) -> None:
        self._balancing = balancing
        self._policy = policy
        self._zone = zone
        self._rng = rng
        self._counters = counters or Counters()
        self._checks = checks or Checks(HealthCheckPolicy(), "", rng)  # off
        self._weighs = balancing.picker == "peak_ewma"
        self._limit = balancing.max_pending or _NO_LIMIT
        self._fleet = Fleet(balancing, zone, rng)
        self._slow_start = SlowStart(balancing)
        self._reserve: tuple[Node, ...] = ()  # outside of this client's subset
        self._client = rng()  # tells it from other clients
        self._tiers: tuple[Tier, ...] = ()  # what is chosen from, by share of the uses
        self._keyed: tuple[Tier, ...] = ()  # the same without regard to zones: keys are for all clients alike
        self._only: Picker | None = None  # its picker, where there is one tier
        self._recovery = Recovery(self._fleet, policy)
        self._probes = self._recovery.probes
        self._stale = False  # every node is to be looked at
        self._wake = inf  # when the first of these ends, or it is to be seen whose health check is due
        self._count = 0  # uses begun
        self._successes = self._failures = 0  # of all nodes
        self._overload = Overload()
        self._pick_history = PickHistory(balancing.explain)
        self._note_at = -inf  # from when on an ordinary pick is kept for people
        self.own_zone = zone.own or own_zone
        """The zone that this process runs in, if that is known and matters."""
        self.panic = False
        self.work = Work()

    def __repr__(self) -> str:
        out, pending = len(self._fleet.out) + len(self._fleet.down), sum(node.pending for node in self._fleet)
        return f"<Balancer {len(self._fleet)} endpoints, {out} out of choice, {pending} in flight>"

    @property
    def all_down(self) -> bool:
        """Is there no node that connects?"""
        return not self._fleet.connecting and all(node.health is Health.DOWN for node in self._reserve)

    def update(self, nodes: tuple[Node, ...], now: float, change: membership.MembersChange | None = None) -> None:
        """Choose from these nodes from now on. `change` is what became of them, if that is known."""
        if self._balancing.subset or change is None:
            known = {*self._fleet, *self._reserve}
            chosen, self._reserve = subset(nodes, self._client, self._balancing)
            stay = set(self._fleet) & set(chosen) - set(change.altered if change is not None else ())
            self._exchange(set(self._fleet) - stay, [node for node in chosen if node not in stay], now)
            self._recovery.look_at_all(chosen, now)
            came = tuple(node for node in nodes if node not in known)
        else:
            self._exchange((*change.left, *change.altered), (*change.came, *change.altered), now)
            came = change.came
        self._slow_start.start(came, self._fleet, len(nodes), now)
        for node in came:
            _reload(node)  # one that is new has a cost now
        self._checks.renew()
        self._arrange()

    def locate(self, zone: str | None, nodes: tuple[Node, ...], now: float) -> None:
        """The process runs in this zone: choose from these nodes by that."""
        if zone != self.own_zone:
            self.own_zone = zone
            self.update(nodes, now)

    def pick(
        self, now: float, exclude: Collection[Node] = (), key: str | bytes | None = None, use: Use | None = None
    ) -> Node | None:
        """The node for the next use, which is begun and held by `use` (end it with `release`).

        None if all are excluded, or have as many uses as they may.
        """
        if now >= self._wake:
            self._awake(now)
        picker = self._only
        if picker is None or key is not None or self._probes:
            node = self._pick_specially(now, exclude, key)
        else:
            node = picker.pick(self._rng, exclude)
            if node is None or now < node.full_priority_at:
                node = self._pick_twice(picker, node, now, exclude)
            elif now >= self._note_at:
                self._note(now, node, self._balancing.picker, picker.compared(), exclude)
        if node is None:
            return None
        self._count = node.picked = self._count + 1
        # Nothing is called until it is counted: an asynchronous exception comes before all of that or after.
        pending = node.pending = node.pending + 1
        if use is not None:
            use.node = node
            use.open = True
        try:
            node.load = node.score + CROWD[pending]
        except IndexError:
            node.load = node.score + CROWD[MOST]
        node.uses += 1
        if pending >= self._limit:
            slow_start.fill(node)
        return node

    def pick_this(self, node: Node, use: Use | None = None) -> Node | None:
        """As `pick`, of one node. None if it must not be used."""
        if node.removed or node.health is not Health.HEALTHY or node.full:
            return None
        self._count = node.picked = self._count + 1
        pending = node.pending = node.pending + 1
        if use is not None:
            use.node = node
            use.open = True
        node.load = node.score + CROWD[pending if pending < MOST else MOST]
        node.uses += 1
        if pending >= self._limit:
            slow_start.fill(node)
        return node

    def release(self, node: Node, use: Use | None = None) -> None:
        """A use of `node` has ended, unless it had already; what it told of the node is `observe`d apart."""
        if use is not None:
            if not use.open:
                return
            use.open = False  # nothing is called until it is counted
        if not node.pending:
            return
        pending = node.pending = node.pending - 1
        try:
            node.load = node.score + CROWD[pending]
        except IndexError:
            node.load = node.score + CROWD[MOST]
        if node.full and pending < self._limit:
            slow_start.free(node)
        if node.health is _PROBING and pending < node.probe and node not in self._probes:
            self._probes.append(node)  # the probe told nothing: the next request is one

    def finish(
        self, node: Node, outcome: Outcome, now: float, seconds: float | None = None, use: Use | None = None
    ) -> HealthChange | None:
        """`release`, and then `observe`: first, so that an exception in what follows leaves no use over."""
        if (
            outcome is not _SUCCESS
            or seconds is None
            or node.pushed_back
            or node.full
            or node.consecutive
            or node.health is not _HEALTHY
            or not self._weighs
            or use is None
            or not use.open
            or not node.pending
        ):
            self.release(node, use)
            return self.observe(node, outcome, now, seconds)
        # What the two would do, with one look at the node: nearly always. Nothing is called once the use is ended.
        if now >= node.window_ends:
            outlier.roll(node, self._policy, now, self._successes, self._failures)
        score = observe(node, seconds, False, self._balancing, now)
        use.open = False
        pending = node.pending = node.pending - 1
        node.answered_at = now
        node.successes += 1
        self._successes += 1
        old = node.latency
        node.latency = seconds if old is None else old + _SMOOTHING * (seconds - old)
        try:
            node.load = score + CROWD[pending]
        except IndexError:
            node.load = score + CROWD[MOST]
        return None

    def observe(self, node: Node, outcome: Outcome, now: float, seconds: float | None = None) -> HealthChange | None:
        """Judge a node by something that happened to it.

        `seconds` is how long the use took; None if it was no use.
        """
        change: HealthChange | None = None
        if outcome is _SUCCESS:
            node.answered_at = now
            if seconds is not None:
                if now >= node.window_ends:
                    outlier.roll(node, self._policy, now, self._successes, self._failures)
                node.successes += 1
                self._successes += 1
                if node.pushed_back and now - seconds >= node.pushed_at:
                    self._overload.drop_all((node,))  # it answers again
                old = node.latency
                node.latency = seconds if old is None else old + _SMOOTHING * (seconds - old)
                if self._weighs:
                    cost.observe(node, seconds, False, self._balancing, now)
                    _reload(node)
            if not node.consecutive and node.health is _HEALTHY:
                return None
            change = health.answered(node, now)
        elif outcome is Outcome.UNANSWERED:
            return None if node.waiting else self.observe(node, Outcome.CONNECT, now, seconds)
        elif node.endpoint.proxied:
            node.failures += outcome is not Outcome.NEUTRAL
            return None  # it stands for all tasks: there is nothing to put in its place
        elif outcome is Outcome.FAILURE:
            outlier.roll(node, self._policy, now, self._successes, self._failures)
            node.failures += 1
            self._failures += 1
            good, bad = self._successes, self._failures
            if self._weighs and seconds is not None:
                cost.observe(node, seconds, not outlier.common(node, good, bad), self._balancing, now)
                _reload(node)
            allowed = self._may_eject()
            change = health.failed(
                node, self._policy, now, self._rng, good=good, bad=bad, may_eject=allowed, withheld=self._withheld
            )
        elif outcome is Outcome.CONNECT:
            node.failures += 1
            self._failures += 1
            change = health.refused(node, self._policy, now)
            if change is None:  # its pause may be longer now
                self._recovery.look(node, now)
                self._schedule()
        return self._follow(node, change, now)

    def _follow(self, node: Node, change: HealthChange | None, now: float) -> HealthChange | None:
        """Do what a change of health asks for."""
        if change is None:
            return None
        if change.after is _HEALTHY and self._weighs:  # what it did before is paid for
            cost.seed([node], self._fleet.sample((node,)), self._balancing, now)
            _reload(node)
        self._recovery.look(node, now)
        if change.before is Health.DOWN:
            self._recovery.revived(now)
        self._arrange()
        return change

    def checked(self, check: Check, outcome: Outcome, why: str, now: float) -> HealthChange | None:
        """Judge a node by a check that ended, `why` being its result in words."""
        node, before = check.node, check.node.health
        if outcome is Outcome.UNANSWERED:
            outcome = Outcome.NEUTRAL if node.waiting else Outcome.CONNECT
        if not self._checks.book(check, outcome, why, now):
            return None
        self._counters.add(Counted.HEALTH_CHECKS, "ok" if outcome is _SUCCESS else "failed")
        if node.removed:
            return None
        if outcome is Outcome.CONNECT:
            return self.observe(node, outcome, now)  # as any other connect
        change = self._follow(
            node, self._checks.judge(check, now, may_eject=self._may_eject(), withheld=self._withheld), now
        )
        if outcome is _SUCCESS and before is Health.DOWN:
            return self.observe(node, outcome, now)
        if change is None:  # checks may keep it out no longer, or the next one be due earlier
            self._recovery.look(node, now)
            self._schedule()
        return change

    def push_back(self, node: Node, now: float, ends_at: float) -> None:
        """The node said that it is overloaded: it is chosen after all others until then, unless most say so."""
        self._overload.add(node, now, ends_at)

    def picks(self) -> tuple[Pick, ...]:
        """The last picks, oldest first: all that were out of the ordinary and a sample of the others."""
        return self._pick_history.picks()

    def after_fork(self, gone: Iterable[Node] = ()) -> None:
        """No use of the parent's ends here, on those that are `gone` either: count anew, and look at every node's
        health at the next pick."""
        nodes = (*self._fleet, *self._reserve)
        for node in (*nodes, *gone):
            node.pending = 0
            _reload(node)
            slow_start.free(node)
            health.after_fork(node)
        self._recovery.after_fork()
        self._client = self._rng()
        chosen, self._reserve = subset(nodes, self._client, self._balancing)
        self._exchange(set(self._fleet) - set(chosen), [node for node in chosen if node not in self._fleet], -inf)
        self._checks.after_fork(nodes)
        self._stale = True
        self._wake = -inf

    def pop_reconnects(self) -> tuple[Node, ...]:
        """Nodes whose reconnect is due, each once and a few at a time: report with `observe` (SUCCESS or CONNECT)."""
        taken = self._recovery.pop()
        self._schedule()
        return taken

    def pop_checks(self, now: float) -> tuple[Check, ...]:
        """The health checks to begin now, each once: report each with `checked`."""
        taken = self._checks.pop_due(now)
        self._schedule()
        return taken

    def _pick_specially(self, now: float, exclude: Collection[Node], key: str | bytes | None) -> Node | None:
        """A pick where there are probes to make, a key, or several tiers."""
        if self._probes and key is None:
            node = self._recovery.probe(exclude)
            if node is not None:
                self._pick_history.note(now, node, "probe after an ejection", (), exclude)
                return node
        at = share_of(key) if key is not None else self._rng()
        tiers = self._tiers if key is None else self._keyed
        first = next((tier for tier in tiers if at < tier.upto), None)
        for tier in (first, *tiers) if first is not None else tiers:
            if key is not None:
                node = self._by_key(tier, key, exclude)
            else:
                node = tier.picker.pick(self._rng, exclude)
                if node is not None and now < node.full_priority_at:
                    node = self._look_again(tier.picker, node, now, exclude)
            if node is not None:
                self._note(now, node, "key" if key is not None else "share of its tier", (), exclude)
                return node
        return self._last_resort(now, exclude)

    def _by_key(self, tier: Tier, key: str | bytes, exclude: Collection[Node]) -> Node | None:
        node = by_key((*tier.nodes, *self._probes) if self._probes else tier.nodes, key, exclude)
        if node is None or node.full:
            return None
        if node.health is Health.PROBING and node in self._probes:
            self._probes.remove(node)  # its key comes back to it, and is the probe
            health.start_probe(node)
        return node

    def _pick_twice(self, picker: Picker, node: Node | None, now: float, exclude: Collection[Node]) -> Node | None:
        """The picker has chosen a node that is to be spared, or none."""
        if node is not None:
            node = self._look_again(picker, node, now, exclude)
        if node is None:
            return self._last_resort(now, exclude)
        self._note(now, node, self._balancing.picker, picker.compared(), exclude)
        return node

    def _note(self, now: float, node: Node, why: str, compared: Sequence[Node], exclude: Collection[Node]) -> None:
        """Keep an ordinary pick for people, if it is time for one."""
        if now >= self._note_at:
            self._note_at = now + APART
            self._pick_history.note(now, node, why, compared, exclude)

    def _look_again(self, picker: Picker, node: Node, now: float, exclude: Collection[Node]) -> Node | None:
        """`node` was chosen and is to be spared. Another, or the best of those that may be used at all."""
        passed = list(exclude)
        resort: Node | None = None
        chosen: Node | None = node
        all_carry = self._overload.most(len(self._fleet), now)
        for _ in range(_LOOKS):
            if chosen is None:
                return resort
            if now >= chosen.full_priority_at:
                return chosen
            if not chosen.full:
                if all_carry or now >= chosen.pushback_ends_at:
                    if self._rng() < slow_start.share(chosen, self._balancing, now):
                        return chosen
                    chosen.picked = self._count  # it had its turn
                # Of those that are all to be spared the picker's first choice, which has the least load.
                if resort is None or chosen.pushback_ends_at <= now < resort.pushback_ends_at:
                    resort = chosen
            passed.append(chosen)
            chosen = picker.pick(self._rng, passed)
        if chosen is not None and now >= chosen.full_priority_at:
            return chosen
        return resort or next((other for tier in self._tiers for other in tier.nodes if _free(other, exclude)), None)

    def _last_resort(self, now: float, exclude: Collection[Node]) -> Node | None:
        """A spare: a healthy node, else the node that was used longest ago of those that connect, else of the others.

        Where other nodes are only full, only a healthy node is a spare: the caller is to wait for room.
        """
        limited = self._limit != _NO_LIMIT and any(
            node.full and node not in exclude for tier in self._tiers for node in tier.nodes
        )
        best = self._fleet.fallback(exclude, self._reserve, healthy=limited)
        if best is not None:
            self._fleet.use(best)
            others = (*islice(self._fleet.out, _LOOKS), *islice(self._fleet.down, _LOOKS))
            self._pick_history.note(now, best, "last resort", others, exclude)
        return best

    def _withheld(self, cause: str) -> None:
        self._counters.add(Counted.EJECTIONS_WITHHELD, cause)

    def _may_eject(self) -> bool:
        return outlier.ejection_allowed(self._fleet.healthy, len(self._fleet.out), self._policy)

    def _exchange(self, left: Collection[Node], came: Iterable[Node], now: float) -> None:
        self._recovery.exchange(left, came, now)
        self._overload.drop_all(left)

    def _awake(self, now: float) -> None:
        if self._stale:
            self._stale = False
            self._recovery.look_at_all(tuple(self._fleet), now)
            self._arrange()
        if self._recovery.advance(now):
            self._arrange()
        if now >= self._checks.at:
            self._checks.use(self._fleet, now)
        self._schedule()

    def _schedule(self) -> None:
        self._wake = min(self._recovery.next, self._checks.at)
        self.work.due = self._recovery.due or self._checks.ready

    def _arrange(self) -> None:
        self.panic = outlier.panicking(self._fleet.healthy, self._fleet.connecting, self._policy)
        self._tiers, self._keyed = self._fleet.tiers(self.panic, self.own_zone)
        self._only = self._tiers[0].picker if len(self._tiers) == 1 else None
        self._schedule()


def _free(node: Node, exclude: Collection[Node]) -> bool:
    return not node.full and node not in exclude


def _reload(node: Node) -> None:
    """Work out its load after its cost or its uses have changed."""
    pending = node.pending
    node.load = node.score + CROWD[pending if pending < MOST else MOST]
