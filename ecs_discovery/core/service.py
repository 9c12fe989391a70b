"""A service: all state of one target. What the drivers talk to.

It turns what the cache knows into members, and members into choices. One lock guards all of it; it
is held for arithmetic only, never over I/O, a callback or another lock. What changed is kept as
news for the driver to tell.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from math import inf
from operator import attrgetter
from threading import RLock
from typing import Any

from ecs_discovery.config.policies import (
    BalancingPolicy,
    HedgePolicy,
    OutlierPolicy,
    RetryPolicy,
    TimeoutPolicy,
    ZonePolicy,
)
from ecs_discovery.core.balancing.balancer import Balancer
from ecs_discovery.core.balancing.health import HealthChange
from ecs_discovery.core.balancing.health_checks import Check, Checks
from ecs_discovery.core.balancing.node import Health, Node, Outcome, Use
from ecs_discovery.core.calls import liveness
from ecs_discovery.core.calls.admission import AdmissionQueue
from ecs_discovery.core.calls.budget import RetryBudget
from ecs_discovery.core.calls.hedge import Hedging
from ecs_discovery.core.counters import Counted, Counters
from ecs_discovery.core.event_buffer import EventBuffer
from ecs_discovery.core.resolution.membership import MembersChange, Membership
from ecs_discovery.core.resolution.questions import Group
from ecs_discovery.core.resolution.sources import Due, Evaluation, Looks, SourceSelection, without_wait
from ecs_discovery.errors import DiscoveryError, NoEndpoints, Overloaded, ResolutionError, TargetNotFound
from ecs_discovery.events import EndpointsChanged, Event, Notice, PushedBack
from ecs_discovery.models import Endpoint, Question, Resolution, replace

__all__ = ["Service"]

_ANYWHERE = ZonePolicy()
_FACTS = attrgetter("stale", "ttl", "source", "partial", "estimate", "named")  # of an answer, beside its endpoints
_SMOOTHING = 0.2  # share of a new connect time in the average


class Service:
    """Everything known and decided about one target.

    `rng` returns a number in [0, 1). Times are monotonic seconds, given by the caller.
    """

    def __init__(
        self,
        target: str,
        groups: Sequence[Group],
        static: Sequence[Endpoint],
        *,
        balancing: BalancingPolicy,
        outlier: OutlierPolicy,
        retry: RetryPolicy,
        timeout: TimeoutPolicy,
        zone: ZonePolicy = _ANYWHERE,
        own_zone: str | None = None,
        hedge: HedgePolicy | None = None,
        checks: Checks | None = None,
        tls_name: str,
        hint: str | None,
        rng: Callable[[], float],
        now: float,
    ) -> None:
        self.target = target
        self.tls_name = tls_name
        """The name that TLS certificates are verified for; "" where the target has no name."""
        self.retry = retry
        self.timeout = timeout
        self.outlier = outlier
        self.balancing = balancing
        self.budget = RetryBudget(retry, now)
        self.hedging = Hedging(hedge, self.budget) if hedge is not None and hedge.enabled else None
        """None: its calls are not hedged."""
        # Python 3.11 shares the keys of at most 29 attributes among instances. With more, every look costs more.
        self._sources = SourceSelection(groups)
        self.questions = self._sources.questions
        """Every question that may matter."""
        self.resolution: Resolution | None = None
        """The endpoints believed to exist now, or None while nothing is known."""
        self.refresh_at = -inf
        """Until then `resolution` needs no second look. Readers compare it without the lock."""
        self.used_at = -inf
        """When it was last chosen from, or brought up to date, which follows a use."""
        self.epoch = 0
        """Grows with each fork: a use begun before it does not end here."""
        self.generation = 0
        """Grows each time an endpoint comes, leaves or goes down."""
        self.connect_time: float | None = None
        """A moving average of how long connects took, in seconds; None before the first."""
        self.admission = AdmissionQueue()
        """Those who wait because every endpoint is full."""
        self._hint = hint
        self._lock = RLock()
        self._membership = Membership()
        self.counters = Counters()
        self._balancer = Balancer(balancing, outlier, zone, rng, checks, own_zone, self.counters)
        self.wants_zone = zone.prefer and not zone.own
        """It is to prefer the own zone, and was not told which that is."""
        self.work = self._balancer.work
        """`due` is True if there are reconnects or health checks to take."""
        self._choose = self._balancer.pick
        self._reason: Exception | None = None  # why nothing is known
        self._forced = -inf
        self._events = EventBuffer(target)
        self._abandoned: deque[Use] = deque()
        if static:
            self._accept(Resolution(tuple(static), inf, "static"), now)
            self.refresh_at = inf

    def __repr__(self) -> str:
        return f"<Service {self.target} {self._balancer!r}>"

    # What is known

    def wanted(self) -> tuple[Question, ...]:
        """The questions whose answers matter now."""
        with self._lock:
            return self._sources.wanted

    def judge(self, looks: Looks, now: float, *, waited: Collection[Question] = ()) -> Due:
        """Take over what the cache knows and say what to ask.

        `looks` holds a lookup for each of `wanted()`. Those in `waited` were asked just now: what is known
        of them has to do, however short its TTL.
        """
        if waited:
            looks = {question: without_wait(look) if question in waited else look for question, look in looks.items()}
        self.used_at = now
        with self._lock:
            events = self._sources.adopt(looks)
            if events is None:
                return Due(again=True)
            evaluation = self._sources.evaluate(looks, now, known=bool(self._membership.nodes))
            self.refresh_at = evaluation.refresh_at
            if evaluation.notice:
                self._events.add(Notice(self.target, evaluation.notice))
            if evaluation.answer is not None:
                self._events.lookup(evaluation.error, len(self._membership.nodes))
                self._events.refused(evaluation.answer.refused)
                self._adopt_locked(evaluation.answer, now)
                self._membership.witness(events, now)
            elif evaluation.error is not None:
                return self._keep_or_drop_locked(evaluation, now)
            due = Due(evaluation.ask, evaluation.wait, again=evaluation.again)
        if self.admission.crowded:
            self.admission.wake_all()  # there may be more endpoints now
        return due

    def unusable(self) -> DiscoveryError:
        """The error that says why no endpoint can be used, with the lookup's own as its cause."""
        if self._membership.nodes:
            return Overloaded(
                "every endpoint has as many uses in flight as it may have",
                target=self.target,
                hint="BalancingPolicy(max_pending=…), or more tasks",
            )
        return self._named(self._reason)

    def force(self, now: float, apart: float) -> tuple[Question, ...]:
        """The questions to ask again at once because an endpoint failed.

        None of them if that was done less than `apart` seconds ago. When all endpoints are down, `apart` is one second
        at most.
        """
        with self._lock:
            if self.all_down:
                apart = min(apart, 1.0)
            if now < self._forced + apart:
                return ()
            self._forced = now
            self.counters.add(Counted.FORCED_LOOKUPS)
            return self._sources.wanted

    # Using it

    def pick(
        self, now: float, exclude: Collection[Node] = (), key: str | bytes | None = None, use: Use | None = None
    ) -> Node | None:
        """Choose a node and begin a use of it, held by `use`; end it with `release`. None if there is none left. With
        `key`, calls with one key go to one node while it is usable."""
        self.used_at = now
        with self._lock:
            if self._abandoned:
                self._end_abandoned_locked()
            choose = self._choose
            return choose(now, exclude, key, use)

    def pick_this(self, node: Node, use: Use | None = None) -> Node | None:
        """Begin a use of this node: what follows its answer may have to reach the same node. None if the node is
        gone, not healthy, or full."""
        with self._lock:
            return self._balancer.pick_this(node, use)

    def watch(self, node: Node, count: int) -> None:
        """So many more (or, below 0, fewer) requests in flight look whether the node's host is there."""
        with self._lock:
            liveness.watch(node, count)

    def release(self, node: Node, use: Use | None = None) -> None:
        """End a use."""
        try:
            with self._lock:
                self._balancer.release(node, use)
            if self.admission.crowded:
                self.admission.wake()
        except BaseException:  # asynchronous: no caller may be left waiting for room that there is
            self.admission.wake()
            raise

    def abandon(self, use: Use) -> None:
        """End a use from a finaliser: the lock may be held by this very thread, so it is done at the next pick."""
        self._abandoned.append(use)
        if self.admission.crowded:
            self.admission.wake()

    def observe(self, node: Node, outcome: Outcome, now: float, seconds: float | None = None) -> bool:
        """Record what a use, or a reconnect, told of a node. True if there are events to tell."""
        with self._lock:
            change = self._balancer.observe(node, outcome, now, seconds)
            if change is not None:
                self._record_change_locked(node, change, now)
        if change is None:
            return False
        if self.admission.crowded:
            self.admission.wake_all()  # it may be back in choice
        return True

    def finish(
        self, node: Node, outcome: Outcome, now: float, seconds: float | None = None, use: Use | None = None
    ) -> bool:
        """End a use and record what it told, at once. True if there are events to tell."""
        try:
            with self._lock:
                change = self._balancer.finish(node, outcome, now, seconds, use)
                if change is not None:
                    self._record_change_locked(node, change, now)
            if self.admission.crowded:
                self.admission.wake()
        except BaseException:  # asynchronous: no caller may be left waiting for room that there is
            self.admission.wake()
            raise
        return change is not None

    def locate(self, zone: str | None, now: float) -> None:
        """The process runs in this zone."""
        with self._lock:
            if self.wants_zone:
                self._balancer.locate(zone, self._membership.nodes, now)

    def push_back(self, node: Node, now: float, seconds: float) -> bool:
        """The node said that it is overloaded: others are chosen before it. True if there are events to tell."""
        with self._lock:
            known = now < node.pushback_ends_at
            self._balancer.push_back(node, now, now + seconds)
            if known or seconds <= 0:  # "try again after 0 seconds" is said with every answer
                return False
            self._events.add(PushedBack(self.target, node.endpoint, seconds))
            self.counters.add(Counted.PUSHBACKS)
            return True

    def connected(self, seconds: float) -> None:
        """Learn from a connect that took this long."""
        old = self.connect_time  # no lock: a lost update is one sample less
        self.connect_time = seconds if old is None else old + _SMOOTHING * (seconds - old)

    @property
    def all_down(self) -> bool:
        """Is there no endpoint that connects? Then a lookup in flight is the only hope."""
        return self._balancer.all_down

    def untried(self, tried: Collection[Node]) -> int:
        """How many endpoints are not among `tried`. Until all were tried, `tried` names each once."""
        count = len(self._membership.nodes)
        if len(tried) == 1:  # a first attempt, nearly always
            (node,) = tried
            return count if node.removed else count - 1
        return max(0, count - sum(not node.removed for node in tried))

    def pop_reconnects(self) -> tuple[Node, ...]:
        """Nodes to try a connection to, each once: report with `observe`."""
        with self._lock:
            return self._balancer.pop_reconnects()

    def pop_checks(self, now: float) -> tuple[Check, ...]:
        """Health checks to begin, each once: report with `checked`."""
        with self._lock:
            return self._balancer.pop_checks(now)

    def checked(self, check: Check, outcome: Outcome, why: str, now: float) -> bool:
        """Record how a health check ended, `why` being its result in words. True if there are events to tell.

        CONNECT: it was not connected to; NEUTRAL: nothing can be told.
        """
        with self._lock:
            change = self._balancer.checked(check, outcome, why, now)
            if change is not None:
                self._record_change_locked(check.node, change, now)
            return change is not None

    @property
    def default_port(self) -> int | None:
        """The scheme's port, if the endpoints have it because no record and no caller has named another."""
        return self._sources.default_port

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The current nodes."""
        return self._membership.nodes

    @property
    def used(self) -> bool:
        """Was any of its endpoints ever chosen?"""
        return any(node.uses for node in self._membership.nodes)

    def pop_events(self) -> tuple[Event, ...]:
        """What changed since the last call."""
        with self._lock:
            return self._events.pop()

    def facts(self, *, picks: bool = True) -> dict[str, Any]:
        """Its state in one consistent look, for snapshots. The last picks take longest: leave them out if not shown."""
        with self._lock:
            self._membership.seen()
            return {
                "panic": self._balancer.panic,
                "doubted": self._membership.doubted,
                "failing": self._events.failing,
                "nodes": self._membership.nodes,
                "picks": self._balancer.picks() if picks else (),
                "counts": self.counters.read(),
            }

    def start_over(self, now: float) -> None:
        """Forget every answer and all that was learnt of endpoints. What needs no lookup stays."""
        if not self.questions:
            return
        with self._lock:
            self._sources = SourceSelection(self._sources.groups)
            self._membership = Membership()
            self._balancer.update((), now)
            self.resolution = self._reason = None
            self.refresh_at = self._forced = -inf
            self.generation += 1
            self.connect_time = None
            self.budget = RetryBudget(self.retry, now)

    def reset_lock(self) -> None:
        """Fresh locks and no uses in flight, for the child of a fork."""
        self._lock = RLock()
        self.budget.reset_lock()
        self.counters.after_fork()
        if self.hedging is not None:
            self.hedging.reset_lock()
        self.epoch, self._abandoned = self.epoch + 1, deque()
        self.admission.clear()
        self._balancer.after_fork(self._membership.gone())

    # Under the lock

    def _end_abandoned_locked(self) -> None:
        while self._abandoned:
            use = self._abandoned[0]
            self._balancer.release(use.node, use)
            # Only now, and if a handler that ran meanwhile has not: an exception before this loses none.
            if self._abandoned and self._abandoned[0] is use:
                self._abandoned.popleft()

    def _keep_or_drop_locked(self, evaluation: Evaluation, now: float) -> Due:
        """There is no answer. What was known stays, unless emptiness has stood for long enough."""
        self._reason = evaluation.error
        self._membership.adopted = None
        if not self._membership.nodes:
            return Due(evaluation.ask, evaluation.wait, self._named(evaluation.error))
        known = len(self._membership.nodes)
        if evaluation.empty and self._membership.empty(now, agreed=evaluation.agreed):
            self.counters.add(Counted.MEMBERS, "removed", number=known)
            self._balancer.update((), now)
            self.resolution = None
            self.generation += 1
            self._events.add(EndpointsChanged(self.target, (), f"empty answers: {evaluation.error}"))
            self._tell_panic_locked()
            return Due(error=self._named(evaluation.error))
        self._events.lookup(evaluation.error, len(self._membership.nodes))
        if self.resolution is not None and not self.resolution.stale:
            self.resolution = replace(self.resolution, stale=True)
        return Due(evaluation.ask, evaluation.wait)

    def _adopt_locked(self, answer: Resolution, now: float) -> None:
        """Take over an answer; one that was taken over before costs nothing, however many endpoints it has."""
        known = self.resolution
        if known is None or answer.endpoints is not self._membership.adopted or answer.refused != known.refused:
            self._membership.adopted = answer.endpoints
            self._accept(answer, now)
        elif _FACTS(answer) != _FACTS(known):
            self.resolution = (
                answer if answer.endpoints is known.endpoints else replace(answer, endpoints=known.endpoints)
            )

    def _accept(self, resolution: Resolution, now: float) -> None:
        resolution = self._membership.pruned(resolution)
        if resolution != self.resolution:
            self.resolution = resolution
        change = self._membership.replace(resolution.endpoints, now)
        if change is None:
            return
        self._take_change_locked(change, resolution, now)

    def _drop_locked(self, node: Node, known: Resolution, now: float) -> None:
        """Leave out an endpoint that went down and that the newest answer does not name."""
        change = self._membership.drop(node, now)
        if change is not None:
            host, key = node.endpoint.host, node.endpoint.key
            left = tuple([each for each in known.endpoints if each.host != host or each.key != key])
            self.resolution = replace(known, endpoints=left)
            self._take_change_locked(change, self.resolution, now)

    def _take_change_locked(self, change: MembersChange, resolution: Resolution, now: float) -> None:
        self._balancer.update(self._membership.nodes, now, change)
        for kind, nodes in (("added", change.came), ("removed", change.left)):
            if nodes:
                self.counters.add(Counted.MEMBERS, kind, number=len(nodes))
        if change.came or change.left:
            self.generation += 1
            self._events.add(EndpointsChanged(self.target, resolution.endpoints, resolution.source))
        self._tell_panic_locked()

    def _tell_panic_locked(self) -> None:
        if self._events.panic(self._balancer.panic) and self._balancer.panic:
            self.counters.add(Counted.PANICS)

    def _named(self, error: Exception | None) -> ResolutionError:
        """The error in terms of the target, with the lookup's own as its cause."""
        kind = NoEndpoints if error is None else type(error) if isinstance(error, ResolutionError) else ResolutionError
        text, hint = str(error) if error is not None else "has no endpoints now", self._hint
        if isinstance(error, DiscoveryError) and error.target == self.target:
            text = error.message  # it is named in front of that
        if hint is not None and isinstance(error, DiscoveryError) and error.hint is not None:
            if hint.startswith("no namespace"):
                # Here lies the cause: advice on spelling or ports would lead away from it.
                text = f"{error.target}: {error.message}" if error.target else error.message
            elif isinstance(error, TargetNotFound) or "port" in error.hint:
                hint = None  # there is no such name, or its own advice says the same
        named = kind(text, target=self.target, hint=hint)
        named.__cause__ = error
        return named

    def _record_change_locked(self, node: Node, change: HealthChange, now: float) -> None:
        down = change.after is Health.DOWN
        self.generation += down  # its idle connections are worth nothing
        self._events.health(node, change, now)
        if change.cause and change.before not in (Health.EJECTED, Health.DOWN):  # else it was out already
            self.counters.add(Counted.EJECTIONS, change.cause)
        elif change.after is Health.HEALTHY:
            self.counters.add(Counted.REVIVALS, change.before.value)
        self._tell_panic_locked()
        known = self.resolution
        if down and known is not None and known.named and node.endpoint.host not in known.named:
            self._drop_locked(node, known, now)  # it is gone for good
