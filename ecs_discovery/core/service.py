"""A service: all state of one target. What the drivers talk to.

It turns what the cache knows into members, and members into choices. One lock guards all of it; it
is held for arithmetic only, never over I/O, a callback or another lock. What changed is left in
`events` for the driver to tell.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from threading import Lock
from typing import Any

from ecs_discovery.core.balancer import Balancer
from ecs_discovery.core.budget import RetryBudget
from ecs_discovery.core.cache import Freshness, Lookup
from ecs_discovery.core.membership import Membership
from ecs_discovery.core.node import Health, Node, Outcome
from ecs_discovery.core.pickers import LeastPending
from ecs_discovery.core.plan import Group
from ecs_discovery.errors import NoEndpoints, ResolutionError, TargetNotFound
from ecs_discovery.events import (
    EndpointsChanged,
    Event,
    HealthChanged,
    LookupFailed,
    LookupRecovered,
    Notice,
    PanicChanged,
)
from ecs_discovery.models import Endpoint, Question, Resolution
from ecs_discovery.policies import BalancingPolicy, OutlierPolicy, RetryPolicy, TimeoutPolicy

__all__ = ["Due", "Service"]

_EVENTS = 256  # events kept until a driver tells them

_NONE = (TargetNotFound, NoEndpoints)  # "there is none", as opposed to "could not be asked"

Looks = Mapping[Question, Lookup[Resolution]]


@dataclass(frozen=True, slots=True)
class Due:
    """What a driver must do before the service can be used."""

    ask: tuple[Question, ...] = ()
    """Start look-ups of these; nobody need wait."""
    wait: tuple[Question, ...] = ()
    """Start look-ups of these and wait for them."""
    error: ResolutionError | None = None
    """Nothing to wait for: it cannot be used, because of this."""
    again: bool = False
    """What is wanted has changed: judge again with it."""


class Service:
    """Everything known and decided about one target.

    `dice` returns a number in [0, 1). Times are monotonic seconds, given by the caller.
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
        tls_name: str,
        hint: str | None,
        dice: Callable[[], float],
        now: float,
    ) -> None:
        self.target = target
        self.tls_name = tls_name
        """The name that TLS certificates are verified for."""
        self.retry = retry
        self.timeout = timeout
        self.budget = RetryBudget(retry, now)
        self.questions: tuple[Question, ...] = tuple(dict.fromkeys(q for group in groups for q in group.questions))
        self.resolution: Resolution | None = None
        """The endpoints believed to exist now, or None while nothing is known."""
        self.fresh_until = -inf
        """Until then `resolution` needs no second look. Readers compare it without the lock."""
        self.generation = 0
        """Grows each time an endpoint comes or leaves."""
        self._groups = tuple(groups)
        self._hint = hint
        self._lock = Lock()
        self._membership = Membership()
        self._balancer = Balancer(LeastPending(balancing.full_scan), outlier, dice)
        self._outlier = outlier
        self._chosen: int | None = None  # the group that answers
        self._narrowed: tuple[Question, ...] = ()  # those of its questions that have an answer
        self._serials: dict[Question, int] = {}
        self._surprised = False
        self._failing = False
        self._forced = -inf
        self._events: deque[Event] = deque(maxlen=_EVENTS)
        self._abandoned: deque[Node] = deque()
        if static:
            self._accept(Resolution(tuple(static), inf, "static"), now)
            self.fresh_until = inf

    def __repr__(self) -> str:
        return f"<Service {self.target} {self._balancer!r}>"

    # What is known

    def wanted(self) -> tuple[Question, ...]:
        """The questions whose answers matter now."""
        with self._lock:
            return self.questions if self._chosen is None else self._narrowed

    def judge(self, looks: Looks, now: float, *, waited: bool = False) -> Due:
        """Take over what the cache knows and say what to ask.

        `looks` holds a lookup for each of `wanted()`. With `waited`, the look-ups that were due have
        been made: what is known now has to do, however short its TTL.
        """
        if waited:
            looks = {question: _settled(look) for question, look in looks.items()}
        with self._lock:
            if any(look.serial < self._serials.get(question, 0) for question, look in looks.items()):
                return Due()  # read before a later report was applied: that one stands
            self._serials.update((question, look.serial) for question, look in looks.items())
            return self._judge_locked(looks, now)

    def force(self, now: float, apart: float) -> tuple[Question, ...]:
        """The questions to ask again at once because an endpoint failed; none if that was done lately."""
        with self._lock:
            if now < self._forced + apart:
                return ()
            self._forced = now
            return self._narrowed or self.questions

    # Using it

    def pick(self, now: float, exclude: Collection[Node] = (), key: str | bytes | None = None) -> Node | None:
        """Choose a node and begin a use of it; end it with `release`. None if there is none left.

        With `key`, calls with one key go to one node while it is usable.
        """
        with self._lock:
            while self._abandoned:
                self._balancer.release(self._abandoned.popleft())
            return self._balancer.pick(now, exclude, key)

    def release(self, node: Node) -> None:
        """End a use."""
        with self._lock:
            self._balancer.release(node)

    def abandon(self, node: Node) -> None:
        """End a use from a finaliser: the lock may be held by this very thread, so it is done at the next pick."""
        self._abandoned.append(node)

    def observe(self, node: Node, outcome: Outcome, now: float, seconds: float | None = None) -> bool:
        """Record what a use, or a reconnect, told of a node. True if there are events to tell."""
        with self._lock:
            panic = self._balancer.panic
            changed = self._balancer.observe(node, outcome, now, seconds)
            return changed is not None and self._tell_locked(node, changed, panic, now)

    def finish(self, node: Node, outcome: Outcome, now: float, seconds: float | None = None) -> bool:
        """End a use and record what it told, at once. True if there are events to tell."""
        with self._lock:
            panic = self._balancer.panic
            changed = self._balancer.observe(node, outcome, now, seconds)
            self._balancer.release(node)
            return changed is not None and self._tell_locked(node, changed, panic, now)

    def untried(self, tried: Collection[Node]) -> int:
        """How many endpoints are not among `tried`."""
        return sum(node not in tried for node in self._membership.nodes)

    @property
    def reconnects_due(self) -> bool:
        """True if `take_reconnects` has nodes. Read without the lock."""
        return bool(self._balancer.reconnect)

    def take_reconnects(self) -> tuple[Node, ...]:
        """Nodes to try a connection to, each once: report with `observe`."""
        with self._lock:
            return self._balancer.take_reconnects()

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The current nodes."""
        return self._membership.nodes

    def take_events(self) -> tuple[Event, ...]:
        """What changed since the last call."""
        with self._lock:
            events = tuple(self._events)
            self._events.clear()
            return events

    def facts(self) -> dict[str, Any]:
        """Its state in one consistent look, for snapshots."""
        with self._lock:
            return {
                "panic": self._balancer.panic,
                "doubted": self._membership.doubted,
                "failing": self._failing,
                "group": self._chosen,
                "nodes": self._membership.nodes,
            }

    def reset_lock(self) -> None:
        """Fresh locks and no uses under way, for the child of a fork."""
        self._lock = Lock()
        self.budget.reset_lock()
        for node in self._membership.nodes:
            node.pending = 0
            node.reconnecting = False

    # Under the lock

    def _judge_locked(self, looks: Looks, now: float) -> Due:
        known = bool(self._membership.nodes)
        indexes = range(len(self._groups)) if self._chosen is None else (self._chosen,)
        ask: list[Question] = []
        wait: list[Question] = []
        failed: Exception | None = None
        absent: list[Exception] = []
        for index in indexes:
            group = self._groups[index]
            mine = {q: looks[q] for q in group.questions if q in looks}
            missing = [q for q, look in mine.items() if look.freshness is Freshness.MISSING]
            found = [look for look in mine.values() if look.value is not None]
            if missing and not found:
                # Nothing of this group is known: everything that may be needed is asked at once.
                cold = [q for q, look in looks.items() if look.freshness is Freshness.MISSING]
                if known:
                    self.fresh_until = now
                    return Due(ask=tuple(cold))
                return Due(wait=tuple(cold))
            if found:
                for question, look in mine.items():
                    if look.freshness is Freshness.EXPIRED:
                        wait.append(question)
                    elif look.refresh:
                        ask.append(question)
                return self._found_locked(index, mine, ask, wait, failed, now)
            errors = [look.error for look in mine.values() if look.error is not None]
            trouble = next((e for e in errors if not isinstance(e, _NONE)), None)
            if trouble is None:
                absent += errors
            elif failed is None:
                failed = trouble
            if trouble is not None and not self._other_source(index):
                break
        if self._chosen is not None and failed is None:
            self._chosen, self._narrowed = None, ()  # gone as it was known: look at everything again
            self.fresh_until = now
            return Due(again=True)
        return self._nothing_locked(looks, failed, absent, now)

    def _found_locked(
        self,
        index: int,
        looks: Looks,
        ask: list[Question],
        wait: list[Question],
        failed: Exception | None,
        now: float,
    ) -> Due:
        group = self._groups[index]
        answers = [look.value for look in looks.values() if look.value is not None]
        endpoints = group.endpoints(endpoint for answer in answers for endpoint in answer.endpoints)
        errors = [look.error for look in looks.values() if look.value is not None and look.error is not None]
        self.fresh_until = min(look.until for look in looks.values() if not _absent(look))
        if not endpoints:
            error = NoEndpoints("its answers carry no port", target=self.target, hint=self._hint)
            return Due(tuple(ask), tuple(wait), None if self._membership.nodes else error)
        if failed is None:
            # A failed source earlier in the row may come back: it is asked again, this one is not settled on.
            self._chosen = index
            self._narrowed = tuple(q for q, look in looks.items() if not _absent(look))
        if group.surprise and not self._surprised:
            self._surprised = True
            self._events.append(Notice(self.target, group.surprise))
        self._trouble_locked(errors[0] if errors else None)
        fresh = all(look.freshness is Freshness.FRESH for look in looks.values() if look.value is not None)
        self._accept(
            Resolution(
                endpoints,
                min(answer.ttl for answer in answers),
                "+".join(dict.fromkeys(answer.source for answer in answers)),
                any(answer.partial for answer in answers),
                not fresh,
            ),
            now,
        )
        return Due(tuple(ask), tuple(wait))

    def _nothing_locked(self, looks: Looks, failed: Exception | None, absent: Sequence[Exception], now: float) -> Due:
        self.fresh_until = min((look.until for look in looks.values()), default=now)
        # Of "no such name" and "no such record" the second says more: the name is there.
        error = failed or next(iter(sorted(absent, key=lambda e: not isinstance(e, NoEndpoints))), None)
        if self._membership.nodes:
            panic = self._balancer.panic
            if failed is None and self._membership.empty(now):
                self._balancer.update((), now)
                self.resolution = None
                self.generation += 1
                self._events.append(EndpointsChanged(self.target, (), f"empty answers: {error}"))
                self._panic_locked(panic)
            else:
                self._trouble_locked(error)
                if self.resolution is not None and not self.resolution.stale:
                    self.resolution = replace(self.resolution, stale=True)
                return Due()
        return Due(error=self._named(error))

    def _accept(self, resolution: Resolution, now: float) -> None:
        if resolution != self.resolution:
            self.resolution = resolution
        if self._membership.replace(resolution.endpoints, now):
            panic = self._balancer.panic
            self.generation += 1
            self._balancer.update(self._membership.nodes, now)
            self._events.append(EndpointsChanged(self.target, resolution.endpoints, resolution.source))
            self._panic_locked(panic)

    def _named(self, error: Exception | None) -> ResolutionError:
        """The error in terms of the target, with the look-up's own as its cause."""
        kind = type(error) if isinstance(error, ResolutionError) else ResolutionError
        named = kind(str(error) if error is not None else "nothing is known of it", target=self.target, hint=self._hint)
        named.__cause__ = error
        return named

    def _other_source(self, index: int) -> bool:
        return any(group.source != self._groups[index].source for group in self._groups[index + 1 :])

    def _trouble_locked(self, error: Exception | None) -> None:
        if (error is not None) == self._failing:
            return
        self._failing = error is not None
        if error is None:
            self._events.append(LookupRecovered(self.target))
        else:
            self._events.append(LookupFailed(self.target, str(error), len(self._membership.nodes)))

    def _tell_locked(self, node: Node, health: Health, panic: bool, now: float) -> bool:
        seconds = max(0.0, node.until - now) if health is not Health.HEALTHY else 0.0
        self._events.append(HealthChanged(self.target, node.endpoint, health.value, node.reason, seconds))
        self._panic_locked(panic)
        return True

    def _panic_locked(self, before: bool) -> None:
        if self._balancer.panic is not before:
            self._events.append(PanicChanged(self.target, self._balancer.panic))


def _settled(look: Lookup[Resolution]) -> Lookup[Resolution]:
    """A lookup that was just made, as one that nobody need wait for again."""
    if look.freshness is Freshness.EXPIRED:
        return replace(look, freshness=Freshness.STALE, refresh=False)
    if look.freshness is Freshness.MISSING and look.error is not None:
        return replace(look, freshness=Freshness.NEGATIVE, refresh=False)
    return look


def _absent(look: Lookup[Resolution]) -> bool:
    """Is the answer that there is none?"""
    return look.value is None and isinstance(look.error, _NONE)
