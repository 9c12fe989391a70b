"""The background of a `Discovery`: lookups, reconnects and health checks in worker threads, and waiting for them.

It stands in the same order as `aio/background.py`; the two differ in awaits.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED
from concurrent.futures import wait as wait_for_flights
from contextlib import suppress
from functools import partial
from math import inf
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from ecs_discovery.client.engine import Engine
from ecs_discovery.client.health_check import INCONCLUSIVE, report
from ecs_discovery.client.sync.health_check import examine
from ecs_discovery.client.sync.lookup_group import LookupGroup
from ecs_discovery.core.balancing.health_checks import Check
from ecs_discovery.core.balancing.node import Node
from ecs_discovery.core.calls import liveness
from ecs_discovery.core.calls.admission import Place
from ecs_discovery.core.calls.call import Call
from ecs_discovery.core.calls.race import probe_timeout
from ecs_discovery.core.lease import Lease
from ecs_discovery.core.service import Service
from ecs_discovery.errors import Overloaded, ResolutionError, foreign
from ecs_discovery.models import DNS_SCHEMES, Endpoint, Question, Resolution
from ecs_discovery.resolvers.base import Resolver
from ecs_discovery.resolvers.registry import load
from ecs_discovery.resolvers.static import StaticResolver
from ecs_discovery.runtime import fork, sockets
from ecs_discovery.runtime.alarms import Alarms
from ecs_discovery.runtime.single_flight import Flight
from ecs_discovery.runtime.sockets import ConnectResult, sign_of
from ecs_discovery.runtime.task_metadata import own_zone
from ecs_discovery.runtime.workers import Workers

__all__ = ["Background"]

T = TypeVar("T")

logger = logging.getLogger("ecs_discovery")

_LOOK_INTERVAL = 0.25  # seconds between looks whether a leader still works on what is waited for
_CHECKERS = 8  # health checks of all services in flight
_BRIEF = 0.25  # seconds for a lookup that no caller waits for, where no thread can be had
_LONGEST = 5.0  # seconds after which a look at an endpoint has been lost, and another may begin


class Background:
    """Runs what must not hold up a caller. Threads start when there is work and end when there is none."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.dns: Resolver | None = None
        """The resolver for DNS; made when first needed."""
        self.attempts = Workers(sys.maxsize)
        """The threads of hedged attempts: as many as are in flight, since none may wait for another."""
        self.alarms = Alarms(engine.clock)
        self._warned_of_loop = False
        self._workers = Workers()
        self._own: dict[str, Workers] = {}  # per scheme besides DNS: a resolver that blocks must not stop the others
        self._closed = False
        self._connects = Workers()  # for reconnects: endpoints that have vanished must not hold up lookups
        self._checkers = Workers(_CHECKERS)  # of their own: checks of tasks that hang must not hold up lookups
        fork.track(self)

    def ready(self, service: Service, until: float) -> None:
        """Wait until the service can be used, no longer than `until` (monotonic).

        Raises `ResolutionError` when it cannot be resolved and nothing was known.
        """
        engine = self.engine
        if engine.locating(service):
            self._connects.spawn(self._locate)  # only lookups wait for the others: there all may be dropped
        waited: set[Question] = set()
        began = engine.clock()
        while engine.clock() >= service.refresh_at:
            due = engine.due(service, waited=waited)
            # What is known will do: leave time to connect, also where a lookup must be made right here.
            here = until if service.resolution is None else (engine.clock() + until) / 2
            for question in due.ask:
                self._ask(question, here=here)
            if due.error is not None:
                raise due.error
            if due.again and service.resolution is None:
                continue  # another caller took over newer answers meanwhile: look at those
            if not due.wait:
                return
            self._warn_in_event_loop(service)
            self._ask_together(due.wait, until, here)
            flights = {question: self._ask(question, until=until, here=here) for question in due.wait}
            left = here - engine.clock()
            if left <= 0 or not self._any_landed(flights, left):
                if service.resolution is not None:
                    return
                raise engine.too_slow(service, until - began)
            engine.check_open(service.target)
            waited.update(question for question, flight in flights.items() if flight.done())

    def _ask_together(self, questions: Sequence[Question], until: float, here: float) -> None:
        """Begin the lookups of these questions in one worker, over one exchange, unless they are in flight.

        The caller waits `until` then. Where no thread can be had, the lookups are made at once and end by `here`.
        """
        engine = self.engine
        if self._closed or not all(question.scheme in DNS_SCHEMES for question in questions):
            return
        if self.dns is not None and not hasattr(self.dns, "lookups"):
            return  # a resolver that answers one question at a time
        mine: dict[Question, Flight] = {}
        for question in questions:
            flight, leads = engine.join(question, wanted=until)
            if leads:
                mine[question] = flight
        if not mine:
            return

        def dropped() -> None:
            for question, flight in mine.items():
                engine.crowded_out(question, flight)

        if not self._workers.spawn(partial(self._fly_together, mine), inline=False, dropped=dropped):
            self._fly_together(mine, here)

    def _warn_in_event_loop(self, service: Service) -> None:
        """Waiting here would stop a whole event loop: say so, once."""
        loops = sys.modules.get("asyncio.events")
        if not self._warned_of_loop and loops is not None and loops._get_running_loop() is not None:
            self._warned_of_loop = True
            logger.warning(
                "%s: a lookup of a synchronous Discovery holds up the event loop: use AsyncDiscovery, or a thread",
                foreign(service.target),
            )

    def _any_landed(self, flights: Mapping[Question, Flight], timeout: float) -> bool:
        clock = self.engine.clock
        until = clock() + timeout
        left = timeout
        while left > 0:
            if wait_for_flights(flights.values(), min(left, _LOOK_INTERVAL), FIRST_COMPLETED).done:
                return True
            self.engine.flights.end_lost(flights, clock())  # one that an event loop leads may have lost its loop
            left = min(left - _LOOK_INTERVAL, until - clock())
        return False

    def ask(
        self, question: Question, *, force: bool = False, allowed: bool = False, until: float | None = None
    ) -> Flight:
        """Look a question up in the background, unless a lookup of it is in flight. With `force`, whatever is cached;
        `allowed` if the right to that was taken with `Engine.delay`. The caller waits `until` then; None: it does not.
        """
        return self._ask(question, force, allowed, until, until)

    def _ask(
        self,
        question: Question,
        force: bool = False,
        allowed: bool = False,
        until: float | None = None,
        here: float | None = None,
    ) -> Flight:
        """As `ask`. Where no thread can be had, the lookup is made at once and ends by `here` (default: soon)."""
        engine = self.engine
        if force:  # before the flight is joined: one that is in flight must not answer from memory either
            engine.forget(self._resolver(question.scheme), question)
        flight, leads = engine.join(question, wanted=until)
        pool = self._pool(question.scheme)
        if not leads:
            if until is not None:
                pool.hasten(question)
            return flight
        job = partial(self._fly, question, flight, force, allowed)
        dropped = partial(engine.crowded_out, question, flight)
        if not pool.spawn(job, inline=False, key=question, dropped=dropped):
            if self._closed:
                engine.flights.land(question, flight)
            else:
                self._fly(question, flight, force, allowed, engine.clock() + _BRIEF if here is None else here)
        return flight

    def _pool(self, scheme: str) -> Workers:
        """The threads for lookups of a scheme."""
        if scheme in DNS_SCHEMES:
            return self._workers
        found = self._own.get(scheme)
        if found is None:
            found = self._own.setdefault(scheme, Workers())  # all who come at once get the first
            if self._closed:
                found.close()
        return found

    def wait_for_refresh(self, service: Service, call: Call) -> None:
        """Before another attempt on endpoints none of which connects: wait for a lookup in flight, a while."""
        if call.number and service.all_down:
            flights = self.engine.flights.in_flight(service.wanted())
            if flights:
                wait_for_flights(flights, self.engine.patience(call), FIRST_COMPLETED)

    def start_attempt(self, service: Service, call: Call, prefer: Node | None = None) -> Lease:
        """As `Engine.start_attempt`; where every endpoint is full, wait for room."""
        if not service.admission.crowded:
            try:
                return self.engine.start_attempt(service, call, prefer)
            except Overloaded:
                pass
        return self.wait_for_admission(
            service, call.connect_deadline_at, partial(self.engine.start_attempt, service, call)
        )

    def wait_for_admission(self, service: Service, until: float, choose: Callable[[], T]) -> T:
        """What `choose` gives as soon as it is this caller's turn and it is not `Overloaded` any more; that is raised
        after `until` (monotonic)."""
        if not service.balancing.wait_for_room:
            return choose()
        # A queue, for its lock may be had again by a finaliser or a signal handler that ends a use meanwhile.
        room, gate = service.admission, SimpleQueue[None]()
        place = Place(partial(gate.put, None))
        try:
            room.queue(place)
            while True:
                left = until - self.engine.clock()
                if room.turn(place):
                    try:
                        return choose()
                    except Overloaded:
                        if left <= 0:
                            raise
                elif left <= 0:
                    raise service.unusable()
                with suppress(Empty):
                    gate.get(timeout=left)
        finally:
            room.leave(place)

    def force(self, questions: Sequence[Question]) -> None:
        """Ask these again now, whatever is cached."""
        here = self.engine.clock() + _BRIEF
        for question in questions:
            self._ask(question, force=True, here=here)

    def work(self, service: Service) -> None:
        """Begin what is due: reconnects to endpoints that were down, and health checks."""
        for node in service.pop_reconnects():
            self._connects.spawn(partial(self._reconnect, service, node))
        for check in service.pop_checks(self.engine.clock()):
            if not self._checkers.spawn(partial(self._examine, service, check), inline=False):
                report(self.engine, service, check, INCONCLUSIVE)  # a check must not hold up a request

    def accepts(self, service: Service, endpoint: Endpoint) -> bool:
        """Does it accept a connection now?"""
        return self._look(service, endpoint) is ConnectResult.ACCEPTS

    def suspect(self, service: Service, node: Node) -> None:
        """A caller met a refused connection, or silence: find out in the background whether it is this endpoint's."""
        if liveness.try_start_probe(node, self.engine.clock(), _LONGEST):
            self._connects.spawn(partial(self._check, service, node))

    # In workers

    def _fly_together(self, flights: Mapping[Question, Flight], until: float | None = None) -> None:
        """Make these lookups, which end by `until` at the latest."""
        engine = self.engine
        following: tuple[Question, ...] = ()
        try:
            if not self._closed:
                resolver: Any = self._resolver(next(iter(flights)).scheme)
                group = LookupGroup(engine, resolver.lookups())
                for question, flight in flights.items():
                    group.start(question, flight)
                following = group.finish(until)
        finally:
            for question, flight in flights.items():
                engine.flights.land(question, flight)  # again is as once
        for question in following:
            self._ask(question)

    def _check(self, service: Service, node: Node) -> None:
        try:
            began = self.engine.clock()
            sign = self._look(service, node.endpoint)
        finally:
            liveness.end_probe(node)
        self.force(self.engine.looked(service, node, sign, began))

    def _look(self, service: Service, endpoint: Endpoint) -> ConnectResult:
        try:
            sockets.connect(endpoint, probe_timeout(service.connect_time)).close()
        except OSError as error:
            return sign_of(error)
        return ConnectResult.ACCEPTS

    def _fly(self, question: Question, flight: Flight, force: bool, allowed: bool, until: float = inf) -> None:
        engine = self.engine
        if not engine.start_lookup(question, flight):
            return
        limit = min(engine.limit(question), until - engine.clock())
        following: tuple[Question, ...] = ()
        try:
            if limit > 0 and (force or not engine.is_answered(question)):
                following = engine.landed(question, self._lookup(question, allowed, limit))
        finally:
            engine.flights.land(question, flight)
        for other in following:
            self._ask(other, here=until if until < inf else None)

    def _lookup(self, question: Question, allowed: bool, limit: float) -> Resolution | Exception:
        refused = None if allowed else self.engine.refusal(question)
        if refused is not None:
            return refused
        try:
            return self._resolver(question.scheme).resolve(question, limit)
        except ResolutionError as error:
            return error
        except Exception as error:  # noqa: BLE001  # a resolver's fault is an answer too: callers wait for one
            return self.engine.unexpected(question, error)
        except (KeyboardInterrupt, SystemExit) as error:  # without an answer it would be asked again at once
            self.engine.landed(question, self.engine.unexpected(question, error))
            raise
        except BaseException as error:  # noqa: BLE001  # asyncio's CancelledError, say
            return self.engine.unexpected(question, error)

    def _resolver(self, scheme: str) -> Resolver:
        given: Resolver | None = self.engine.resolvers.get(scheme)
        if given is not None:
            return given
        if scheme == "static":
            return StaticResolver()
        if scheme == "cloudmap":
            return self.engine.cloud_map()
        if scheme not in DNS_SCHEMES:
            found: Resolver = self.engine.resolvers.setdefault(scheme, load(scheme))
            return found
        if self.dns is None:
            kind = fork.load("ecs_discovery.resolvers.dns.sync").DnsResolver  # not before it is needed
            self.dns = kind(self.engine.settings.dns, may_ask=self.engine.may_query)
        return self.dns

    def _locate(self) -> None:
        self.engine.located(own_zone())

    def _reconnect(self, service: Service, node: Node) -> None:
        try:
            sockets.connect(node.endpoint, self.engine.settings.timeout.connect).close()
        except OSError:
            self.engine.reconnected(service, node, False)
        else:
            self.engine.reconnected(service, node, True)

    def _examine(self, service: Service, check: Check) -> None:
        found = INCONCLUSIVE
        try:
            found = examine(check)
        finally:
            self.force(report(self.engine, service, check, found))
        self.work(service)  # the next ones may begin

    # Life cycle

    def close(self) -> None:
        """Drop what has not begun."""
        self._closed = True
        for workers in (self._workers, *self._own.copy().values(), self._connects):
            workers.close()
        self._checkers.close()
        self.attempts.close(drop=False)  # callers wait for those
        self.alarms.close()

    def after_fork(self) -> None:
        """In the child of a fork there are no workers, and no sockets of its own."""
        self.dns = None
