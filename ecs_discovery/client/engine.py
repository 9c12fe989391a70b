"""The engine: what both drivers share. It decides and keeps books; it does no I/O and waits for nothing.

`Discovery` and `AsyncDiscovery` drive it; one engine may be driven by both at once (`share=`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from random import Random
from threading import RLock
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from weakref import WeakSet

from ecs_discovery.client.emitter import EventEmitter
from ecs_discovery.client.observing import ObservedCall, Observers
from ecs_discovery.config.options import NONE as NO_OPTIONS
from ecs_discovery.config.options import current_options
from ecs_discovery.config.settings import Settings, inspection_directory
from ecs_discovery.core.balancing.node import Node, Outcome
from ecs_discovery.core.calls import liveness
from ecs_discovery.core.calls.call import Call
from ecs_discovery.core.calls.failure_kinds import Decision, Judgement, Retry
from ecs_discovery.core.counters import Counted, Counters
from ecs_discovery.core.directory import Directory
from ecs_discovery.core.lease import Lease
from ecs_discovery.core.rate_limiter import RateLimiter
from ecs_discovery.core.resolution.cache import Freshness
from ecs_discovery.core.resolution.sources import Due
from ecs_discovery.core.service import Service
from ecs_discovery.errors import (
    ClosedError,
    ConfigurationError,
    DeadlineExceeded,
    ResolutionError,
    ResolutionTimeout,
    foreign,
    without_frames,
)
from ecs_discovery.events import CallStarted, Event, LookupEnded, Observer
from ecs_discovery.models import DNS_SCHEMES, Question, Resolution
from ecs_discovery.resolvers.base import Remembering
from ecs_discovery.resolvers.hosts import HostsFile
from ecs_discovery.resolvers.registry import Schemes
from ecs_discovery.runtime import fork
from ecs_discovery.runtime.single_flight import Flight, Flights, fault_of
from ecs_discovery.runtime.sockets import ConnectResult

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from ecs_discovery.client.inspection import Inspection
    from ecs_discovery.client.snapshot import ServiceSnapshot
    from ecs_discovery.resolvers.cloud_map.sync import CloudMapResolver

__all__ = ["BUILT_IN_SCHEMES", "Engine", "Recorded", "Telemetry", "attach_everywhere", "detach_everywhere", "engines"]

_SUCCESS = Outcome.SUCCESS  # looking a member up takes longer than comparing with it (Python 3.11)
logger = logging.getLogger("ecs_discovery")

_LOST = 2.0  # seconds after its time limit that a lookup is given up for lost

BUILT_IN_SCHEMES = ("a", "aaaa", "srv", "dns", "static", "auto", "http", "https")
"""Schemes that cannot be given another resolver. `cloudmap` is built in too, and can."""


class Telemetry(Protocol):
    """What makes discoveries seen (`Discovery(telemetry=)`)."""

    def attach(self, engine: Engine) -> None:
        """Look at this engine from now on. Called once or more for each."""


_engines: WeakSet[Engine] = WeakSet()
_everywhere: list[Telemetry] = []
_ATTACHING = RLock()


def attach_everywhere(telemetry: Telemetry) -> None:
    """Attach it to every engine of the process that has none of its kind, now and when others are made."""
    with _ATTACHING:
        _everywhere.append(telemetry)
        engines = list(_engines)
    for engine in engines:
        if type(engine.telemetry) is not type(telemetry):  # else each call would be told twice
            telemetry.attach(engine)


def detach_everywhere(telemetry: Telemetry) -> None:
    """Attach it to no engine that is made from now on."""
    with _ATTACHING:
        _everywhere.remove(telemetry)


def engines() -> tuple[Engine, ...]:
    """Every engine of the process."""
    with _ATTACHING:
        return tuple(_engines)


class Recorded(NamedTuple):
    """What follows an attempt that was recorded."""

    decision: Decision | None
    """None: the call is done, or its own policy decides."""
    ask: tuple[Question, ...]
    """Questions to ask at once."""


NOTHING = Recorded(None, ())


class Engine:
    """`clock` gives monotonic seconds, `wall_clock` seconds since 1970, `rng` numbers in [0, 1). Tests replace them."""

    def __init__(
        self,
        settings: Settings,
        *,
        resolvers: Mapping[str, Any] | None = None,
        on_event: Callable[[Event], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        rng: Random | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.wall_clock = wall_clock
        self.random = rng if rng is not None else Random()
        self.rng = self.random.random
        self.resolvers = dict(resolvers or {})
        for scheme in self.resolvers:
            if scheme in BUILT_IN_SCHEMES:
                raise ConfigurationError("resolvers", scheme, f"a scheme other than {', '.join(BUILT_IN_SCHEMES)}")
        path = settings.dns.hosts_file
        alias = HostsFile.shared(path).has_alias if path else lambda name: False
        self.directory = Directory(settings, self.rng, Schemes({"cloudmap", *self.resolvers}), alias)
        self.flights = Flights()
        self.queries = 0
        """Lookups begun."""
        self.counters = Counters()
        """Of what belongs to no service: lookups."""
        self.rate_limiter = RateLimiter(settings.dns.max_queries, settings.dns.max_queries)
        self.emitter = EventEmitter(on_event)
        self.observers: Observers | None = None
        """Replaced whole, by who holds the lock; readers take it as it is."""
        self._observing = RLock()
        self._cloud_map: dict[str, CloudMapResolver] = {}
        self._claim = max(settings.dns.timeout, settings.cloud_map.timeout)
        self.closed = False
        self._located = False
        fork.track(self)
        if telemetry is not None and not hasattr(telemetry, "attach"):
            raise ConfigurationError("telemetry", telemetry, "an object such as OpenTelemetry()")
        directory = inspection_directory()
        self.telemetry = telemetry
        with _ATTACHING:
            _engines.add(self)
            wanted = [each for each in _everywhere if type(each) is not type(telemetry)]
        for each in (*wanted, *([] if telemetry is None else [telemetry])):
            each.attach(self)
        self._inspection: Inspection | None = None
        if directory is not None:  # nearly never, and then it is worth an import
            self._inspection = fork.load("ecs_discovery.client.inspection").attach(self, directory)

    def __repr__(self) -> str:
        return f"<Engine {self.directory!r}>"

    # Services and what is known of them

    def service(self, target: str, default_port: int | None = None) -> Service:
        """The service of a target. Raises `ClosedError`, and `ConfigurationError` for what is no target."""
        if self.closed:
            self.check_open(target)
        if default_port is None:  # a look without a further call, in front of every lease
            found = self.directory.named.get(target)
            if found is not None:
                return found
        return self.directory.service(target, default_port, self.clock())

    def known(self, target: str) -> Service:
        """The service of a target as it is in use, for a look at it."""
        self.check_open(target)
        return self.directory.known(target, self.clock())

    def due(self, service: Service, *, waited: Collection[Question] = ()) -> Due:
        """What is to be asked before the service can be used; `waited` are questions that were asked just now."""
        due = self.directory.due(service, self.clock(), waited=waited, claim=self._claim)
        self.emit(service)
        return due

    def join(
        self, question: Question, loop: AbstractEventLoop | None = None, wanted: float | None = None
    ) -> tuple[Flight, bool]:
        """The flight for a question, and whether the caller leads it, in `loop` or a thread.

        `wanted` is until when the caller waits for it; None if no caller need wait.
        """
        now = self.clock()
        if self.flights.lost(question, now):
            self.lost(question)
        return self.flights.join(question, now, self.limit(question) + _LOST, loop, wanted=wanted)

    def start_lookup(self, question: Question, flight: Flight) -> bool:
        """A lookup has its thread, or its turn: its time limit counts from now. False if nobody waits any more."""
        if self.flights.start(question, flight, self.clock(), self.limit(question) + _LOST):
            return True
        self.lost(question)
        return False

    def crowded_out(self, question: Question, flight: Flight) -> None:
        """Too many lookups wait for a thread, and this is the oldest."""
        error = ResolutionError(
            "not asked: too many other lookups wait for a thread",
            target=str(question),
            hint="does its source answer? are fewer names enough?",
        )
        self.landed(question, error)
        self.flights.land(question, flight)

    def lost(self, question: Question) -> None:
        """A lookup ended without an outcome, because its event loop did: who needs the answer waits for the next."""
        now = self.clock()
        self.directory.cache.lose(question, now)
        for service in self.directory.dependents(question):
            service.refresh_at = min(service.refresh_at, now)

    def check_open(self, target: str) -> None:
        """Raises `ClosedError` if it is closed."""
        if self.closed:
            raise ClosedError("this discovery is closed", target=str(target), hint="make a new discovery")

    def limit(self, question: Question) -> float:
        """Seconds a lookup of this question may take."""
        settings = self.settings
        return settings.cloud_map.timeout if question.scheme == "cloudmap" else settings.dns.timeout

    def cloud_map(self) -> CloudMapResolver:
        """The resolver for Cloud Map that both drivers ask through, unless they were given one."""
        found = self._cloud_map.get("cloudmap")
        if found is None:
            from ecs_discovery.resolvers.cloud_map.sync import CloudMapResolver

            made = CloudMapResolver(self.settings.cloud_map, clock=self.clock)
            found = self._cloud_map.setdefault("cloudmap", made)  # all who come at once get the first
        return found

    def forget(self, resolver: object, question: Question) -> None:
        """Have a resolver that answers from memory ask its source the next time."""
        if isinstance(resolver, Remembering):
            resolver.forget(question)

    def delay(self, question: Question) -> float:
        """Take the right to one lookup of this question; if there is none left, the seconds until there is one."""
        delay = self.rate_limiter.delay(self.clock()) if question.scheme in DNS_SCHEMES else 0.0
        self.queries += not delay
        return delay

    def refusal(self, question: Question) -> ResolutionError | None:
        """Why a lookup must not be made now: DNS was asked as often as allowed. None if it may."""
        if not self.delay(question):
            return None
        return ResolutionError(
            f"over the limit of {self.settings.dns.max_queries:g} DNS lookups per second",
            target=str(question),
            hint="DnsPolicy(max_queries=…); the VPC resolver drops packets above 1,024 per second and interface",
        )

    def may_query(self) -> bool:
        """Take the right to one question to DNS; False if that was asked as often as allowed."""
        return self.rate_limiter.try_acquire(self.clock())

    def is_answered(self, question: Question) -> bool:
        """Did another caller get an answer between the decision to ask and now?"""
        look = self.directory.cache.lookup(question, self.clock())
        return look.freshness in (Freshness.FRESH, Freshness.NEGATIVE)

    def locating(self, service: Service) -> bool:
        """Is it time to find out in which zone the process runs? Once, and only if a service cares."""
        if not service.wants_zone or self._located:
            return False
        self._located = True
        return True

    def located(self, zone: str | None) -> None:
        """The process runs in this zone; None if that cannot be told."""
        if zone is None:
            logger.warning("no zone is preferred: the zone of this task is unknown; set ZonePolicy(own=…)")
        self.directory.locate(zone, self.clock())

    def landed(
        self, question: Question, outcome: Resolution | Exception, flight: Flight | None = None
    ) -> tuple[Question, ...]:
        """Take over the outcome of a lookup. Questions to ask next, if it raises any. `flight` is the lookup's, if it
        may have been forgotten meanwhile."""
        if flight is not None and self.flights.was_forgotten(flight):
            return ()
        now = self.clock()
        if not isinstance(outcome, Exception) and (fault := fault_of(outcome)):
            outcome = self.unexpected(question, TypeError(fault))
        if isinstance(outcome, Exception):
            without_frames(outcome)
        how = "ok" if isinstance(outcome, Resolution) else type(outcome).__name__
        self.counters.add(Counted.LOOKUPS, question.scheme, how)
        if self.observers is not None and (began_at := self.flights.began_at(question)) is not None:
            self.observers.ended(LookupEnded(question, how, now - began_at))
        self.directory.store(question, outcome, now)
        asked: dict[Question, None] = {}
        for service in self.directory.dependents(question):
            if service.resolution is not None or isinstance(outcome, Resolution):
                # No claim: what only a caller would wait for is left to the next caller.
                due = self.directory.due(service, now, waited=(question,))
                self.emit(service)
                asked.update(dict.fromkeys(due.ask))
        asked.pop(question, None)
        return tuple(asked)

    def unexpected(self, question: Question, error: BaseException) -> ResolutionError:
        """A resolver raised what it should not: an error of ours that keeps it."""
        named = ResolutionError(f"its resolver failed: {type(error).__name__}: {foreign(error)}", target=str(question))
        named.__cause__ = error
        return named

    def too_slow(self, service: Service, seconds: float) -> ResolutionTimeout:
        servers = ", ".join(self.settings.dns.nameservers) or "the servers of /etc/resolv.conf"
        asked = {question.scheme for question in service.wanted()}
        dns = (
            f"DNS was asked at {servers}: are UDP and TCP port 53 open to this task?" if asked & {*DNS_SCHEMES} else ""
        )
        return ResolutionTimeout(
            f"not resolved within {max(0.0, seconds):.2g} s",
            target=service.target,
            hint=None if seconds <= 0 else dns or f"no answer came for {', '.join(map(str, service.wanted()))}",
        )

    def use(self, service: Service) -> Resolution:
        """What is known of a service that is ready. Raises the `ResolutionError` that says why if that is nothing."""
        resolution = service.resolution
        if resolution is None:
            raise service.unusable()
        return resolution

    def call(
        self,
        service: Service,
        *,
        idempotent: bool | None = None,
        repeatable: bool = False,
        deadline: float | None = None,
        connect: float | None = None,
        key: str | bytes | None = None,
        now: float | None = None,
        target: str | None = None,
    ) -> Call:
        """The state of one call that began `now`. What is None is taken from `options(...)`, then from the policies.

        `repeatable` is whether its kind (an HTTP method) is idempotent, where the caller says nothing.
        """
        if now is None:
            now = self.clock()
        chosen = current_options()
        if chosen is not NO_OPTIONS:
            deadline = chosen.deadline if deadline is None else deadline
            idempotent = chosen.idempotent if idempotent is None else idempotent
            key = chosen.key if key is None else key
        timeout = service.timeout
        deadline_at = now + (timeout.deadline if deadline is None else deadline)
        connect_deadline_at = now + (timeout.connect if connect is None else connect)
        return Call(
            service.target if target is None else target,
            service.retry,
            service.budget,
            deadline_at,
            connect_deadline_at if connect_deadline_at < deadline_at else deadline_at,
            repeatable if idempotent is None else idempotent,
            key,
            deadline is not None,
            service.counters,
            now,
        )

    def start_attempt(self, service: Service, call: Call, prefer: Node | None = None) -> Lease:
        """Choose an endpoint for the next attempt: `prefer` if it takes requests, else, if possible, an untried one.

        Raises `DeadlineExceeded`, or a `ResolutionError` if there is no endpoint.
        """
        now = self.clock()
        if now >= call.deadline_at:
            raise DeadlineExceeded("the deadline has passed", target=call.target, attempts=call.reports)
        lease = Lease(service, now)
        node = service.pick_this(prefer, lease) if prefer is not None else None
        if node is None:
            node = service.pick(now, call.tried, call.key, lease)
        if node is None:
            node = service.pick(now, (), None, lease)
        if node is None:
            raise service.unusable()
        call.start_attempt(node)
        lease.number = call.number
        return lease

    def connect_limit(self, service: Service, call: Call) -> float:
        """Seconds the attempt just begun may take to connect."""
        return call.connect_share(self.clock(), service.untried(call.tried))

    def patience(self, call: Call) -> float:
        """Seconds to wait for a lookup before another attempt: half of the connect time that is left."""
        return max(0.0, min(call.connect_deadline_at, call.deadline_at) - self.clock()) / 2

    def record_attempt(self, call: Call, lease: Lease, judgement: Judgement, error: object = "") -> Recorded:
        """Record how an attempt went: what follows, and the questions to ask at once."""
        now = self.clock()
        return self.decide(call, lease, judgement, now, lease.finish(judgement.outcome, now), error)

    def decide(
        self, call: Call, lease: Lease, judgement: Judgement, now: float, has_events: bool, error: object = ""
    ) -> Recorded:
        """The part of `record_attempt` after the node was judged."""
        service = lease.service
        decision: Decision | None = None
        if judgement.failure is None:
            if judgement.outcome is _SUCCESS:  # an answered 500 is no success, and earns no retries
                service.budget.deposit()
        else:
            call.report(
                lease.node, judgement.label, judgement.failure.value, lease.started_at, now, error, number=lease.number
            )
            decision = call.failed(
                judgement.failure,
                now,
                self.rng,
                retry_after=judgement.retry_after,
                choices=service.untried(call.tried),
                seconds=now - lease.started_at,
                gone=judgement.outcome is Outcome.CONNECT,
            )
        if call.observed is not None:
            if isinstance(error, BaseException):
                call.observed.raised(lease, error)
            call.observed.judged(lease, judgement, decision.after if isinstance(decision, Retry) else None)
        if has_events:
            self.emit(service)
        if judgement.outcome in (Outcome.CONNECT, Outcome.UNANSWERED):
            return Recorded(decision, service.force(now, self.settings.dns.min_refresh))
        return Recorded(decision, ()) if decision is not None else NOTHING

    def reconnected(self, service: Service, node: Node, worked: bool) -> None:
        if service.observe(node, Outcome.SUCCESS if worked else Outcome.CONNECT, self.clock()):
            self.emit(service)

    def looked(self, service: Service, node: Node, sign: ConnectResult, began: float) -> tuple[Question, ...]:
        """Report a look at an endpoint that was in doubt, begun then. Questions to ask at once, if any."""
        now = self.clock()
        if sign is ConnectResult.ACCEPTS:
            liveness.accepted(node, now)
        if sign in (ConnectResult.ACCEPTS, ConnectResult.INCONCLUSIVE):
            return ()
        silent = sign is ConnectResult.SILENT
        if silent and (node.waiting or node.answered_at >= began):
            return ()  # its queue for connections may be full: silence there proves nothing of a host that lives
        if service.observe(node, Outcome.UNANSWERED if silent else Outcome.CONNECT, now):
            self.emit(service)
        return service.force(now, self.settings.dns.min_refresh)

    def vanished(self, node: Node, since: float) -> None:
        """What was sent to the node on an open connection has met silence since then."""
        liveness.vanished(node, since, self.clock())

    def snapshot(self, service: Service) -> ServiceSnapshot:
        from ecs_discovery.client.snapshot import snapshot_of  # for a look at it only

        return snapshot_of(service, self.clock())

    def observe(self, observer: Observer) -> None:
        """Tell this observer of each call that begins from now on, and of its attempts."""
        with self._observing:
            known = () if self.observers is None else self.observers.each
            self.observers = Observers((*known, observer), self.clock)

    def unobserve(self, observer: Observer) -> None:
        """Tell this observer no more."""
        with self._observing:
            known = self.observers.each if self.observers is not None else ()
            left = tuple(each for each in known if each is not observer)
            self.observers = Observers(left, self.clock) if left else None

    def start_over(self) -> None:
        """Forget every answer, the answers in flight too, and all that was learnt of endpoints. For tests."""
        self.flights.forget_all()
        self.directory.start_over(self.clock())

    def observed(self, kind: str, target: str, now: float, method: str = "", url: str = "") -> ObservedCall | None:
        """A call begins: tell the observers. None if there are none, or none is interested."""
        observers = self.observers
        if observers is None or now < observers.idle_until:
            return None
        return observers.call_started(CallStarted(kind, target, method, url))

    def emit(self, service: Service) -> None:
        """Log what changed and hand it to the hook."""
        self.emitter.emit(service)

    # Life cycle

    def close(self) -> None:
        self.closed = True
        if self._inspection is not None:
            self._inspection.closed()
        self.flights.land_all()
        for resolver in self._cloud_map.values():
            resolver.close()

    def after_fork(self) -> None:
        """Fresh locks and rng: children that share rng would all pick the same endpoints in the same order."""
        self._observing = RLock()
        self.random.seed()
        self.flights.reset()
        self.emitter.after_fork()
        self.rate_limiter.reset_lock()
        self.counters.after_fork()
        self.directory.reset_locks()
