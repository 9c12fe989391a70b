"""One request over its attempts: what threads and asyncio share of it.

A library's exchange is a subclass of `SyncExchange` or `AsyncExchange` and supplies five things:

- `send` to an endpoint,
- `table` from its exceptions to faults,
- its timeouts (`connect`, `read`),
- whether its body can be replayed,
- its error classes (`as_error`).

The methods under "What a library supplies" are all that it knows of its own responses.

A first attempt makes as little as possible: no `Call` before the first failure, unless something asks for one.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, MutableMapping
from typing import Any, Generic, TypeVar

from ecs_discovery.client.engine import Engine
from ecs_discovery.client.observing import ObservedAttempt, ObservedCall
from ecs_discovery.config.options import NONE as NO_OPTIONS
from ecs_discovery.config.options import current_options
from ecs_discovery.core.balancing.node import Node, Outcome
from ecs_discovery.core.calls.call import Call
from ecs_discovery.core.calls.failure_kinds import Decision, FailureKind, Fault, Judgement, Stop
from ecs_discovery.core.calls.http import IDEMPOTENT, SAFE, asked_wait, judge_status, pushback
from ecs_discovery.core.lease import Lease
from ecs_discovery.core.service import Service
from ecs_discovery.errors import DeadlineExceeded, DiscoveryError
from ecs_discovery.integrations.http.errors import reason_of, without_frames
from ecs_discovery.integrations.http.failure_table import FailureTable
from ecs_discovery.integrations.http.history import AttemptHistory
from ecs_discovery.models import Question

__all__ = ["AttemptUse", "Exchange", "add_fields", "remove_fields"]

R = TypeVar("R")

_SUCCESS = Outcome.SUCCESS  # looking a member up takes longer than comparing with it (Python 3.11)
_TLS_FAULTS = (Fault.CERTIFICATE, Fault.TLS)


class AttemptUse:
    """One attempt's use of an endpoint, and how far it has come."""

    __slots__ = ("done", "history", "in_body", "lease", "recorded", "replayable", "sent", "watched")

    def __init__(self, lease: Lease, replayable: bool) -> None:
        self.lease = lease
        self.replayable = replayable
        """The request may go elsewhere although it was sent."""
        self.sent = False
        """True from the moment bytes of the request may have left. The library's `send` sets it."""
        self.in_body = False
        """The head of the answer has come."""
        self.done = True
        """Once it was answered: the whole answer has come. Where the library's `send` says that it has not, the library
        ends the lease when it has."""
        self.recorded = False
        """How it ended has been recorded."""
        self.history: AttemptHistory | None = None
        """The attempts, once this one was answered."""
        self.watched = False
        """Its task looks, or will look, whether the host behind the connection is there. For asyncio alone."""


U = TypeVar("U", bound=AttemptUse)


class Exchange(Generic[R, U], ABC):
    """`method` is the request's. `pinned` is the endpoint that the first attempt prefers."""

    __slots__ = (
        "_call",
        "_fault",
        "_handled",
        "_response",
        "_started_at",
        "_use",
        "driver",
        "engine",
        "method",
        "pinned",
        "service",
        "target",
    )

    table: FailureTable
    """The library's exceptions."""
    is_request: bool = True
    """False for an exchange that only connects: what becomes of its request is not known, and observers are not
    told."""
    connect: Any
    """The application's limit for connecting, in seconds; None for none."""
    read: Any
    """The same for waiting for the answer."""
    verified: bool = False
    """The same TLS options were accepted by another endpoint: where they fail, the endpoint is to blame."""

    def __init__(
        self,
        driver: Any,
        service: Service,
        target: str,
        method: str,
        pinned: Node | None = None,
    ) -> None:
        self.driver = driver
        self.engine: Engine = driver.engine
        self.service = service
        self.target = target
        """The name and port of the URL: another caller may have named the same service in another way first."""
        self.method = method
        self.pinned = pinned
        self._started_at = 0.0
        self._call: Call | None = None
        self._use: U | None = None
        self._response: R | None = None
        self._fault: Fault | None = None
        self._handled = sys.exception()  # what the application is handling led to none of our errors

    # What a library supplies

    @abstractmethod
    def make_use(self, lease: Lease) -> U:
        """The use of an endpoint that `send` is given."""

    def replayable(self) -> bool:
        """Can the body be sent a second time?"""
        return True

    def concurrent(self) -> bool:
        """Can two attempts read the body at once?"""
        return self.replayable()

    def rewind(self) -> None:
        """Another attempt follows: have the body read from its start again."""

    def has_key(self) -> bool:
        """Does the request carry an `Idempotency-Key`, by which its receiver knows a repetition?"""
        return False

    def url(self) -> str:
        """The URL as the application wrote it, for observers."""
        return ""

    def carry(self, fields: Mapping[str, str], added: set[str], use: U) -> None:
        """Have the request carry these header fields (see `add_fields`) when `use` is sent. Another use of the same
        request may be in flight."""

    def put_down(self, added: set[str]) -> None:
        """Take from the request what it has from `carry`."""

    @abstractmethod
    def status(self, response: R) -> int:
        """The status of an answer."""

    @abstractmethod
    def field(self, response: R, name: str) -> str | None:
        """A header field of an answer."""

    def keep(self, response: R, use: U) -> None:
        """Attach what is known of the attempts to an answer."""

    @abstractmethod
    def as_error(self, told: DiscoveryError | Call, error: Exception, use: U | None) -> Exception:
        """What the caller is raised: an error of the library's class with the whole story, which is `told`.

        `told` is a `DiscoveryError` where no attempt was to blame. Else it is the call, and `error` its last attempt's.
        """

    # The call

    @property
    def call(self) -> Call:
        """The state of the call. Made when something first needs it."""
        call = self._call
        if call is None:
            repeatable = self.method in IDEMPOTENT or self.has_key()
            call = self._call = self.engine.call(
                self.service, repeatable=repeatable, connect=self.connect, now=self._started_at, target=self.target
            )
            if self._use is not None:
                call.start_attempt(self._use.lease.node)
        return call

    @property
    def idempotent(self) -> bool:
        """May the request be repeated, by its method or by the application's word?"""
        if self._call is not None:
            return self._call.idempotent
        return self.method in IDEMPOTENT or self.has_key()

    @property
    def last_fault(self) -> Fault | None:
        """What went wrong with the last attempt that failed."""
        return self._fault

    def begins(self) -> Lease | None:
        """A first attempt begins: its use of an endpoint. None if it needs a call, or more than a choice."""
        engine, service = self.engine, self.service
        if engine.closed:
            engine.check_open(service.target)
        now = self._started_at = engine.clock()
        observers = engine.observers
        if observers is not None and now >= observers.idle_until and self.is_request:
            observed = engine.observed("http", self.target, now, self.method, self.url())
            if observed is not None:
                self.call.observed = observed
                return None
        if current_options() is not NO_OPTIONS or service.retry.tenacity is not None or service.hedging is not None:
            return None
        if now >= service.refresh_at or service.admission.crowded or self.pinned is not None:
            return None
        lease = Lease(service, now)
        return lease if service.pick(now, (), None, lease) is not None else None

    def may_hedge(self) -> bool:
        """May it be in flight twice at once? Changes need the application's word for that: a change that comes late,
        after the next change, undoes that next change."""
        if self.service.hedging is None or self.call.number > 1 or not self.concurrent():
            return False
        return self.call.idempotent and (self.method in SAFE or bool(current_options().idempotent))

    def is_wanted(self, response: R) -> bool:
        """Is this answer as good as any other would be?"""
        return self.status(response) not in self.service.retry.statuses

    def deadline_at(self) -> float | None:
        """The end of a deadline that the caller gave."""
        call = self._call
        return call.deadline_at if call is not None and call.hard else None

    def connect_limit(self) -> float:
        """Seconds that the attempt just begun may take to connect."""
        return self.engine.connect_limit(self.service, self.call)

    # How an attempt ended

    def answered(self, response: R, use: U) -> Decision | None:
        """Record an answer. What follows; None if it is the caller's."""
        service, lease, engine = self.service, use.lease, self.engine
        use.recorded = True
        status = self.status(response)
        now = engine.clock()
        if status < 400 and self._call is None:  # nearly always
            over = lease.open and use.done  # both at once take less than one after the other
            if lease.finish(_SUCCESS, now) if over else lease.observe(_SUCCESS, now):
                engine.emit(service)
            service.budget.deposit()
            use.history = AttemptHistory(lease.node.endpoint, now - lease.started_at, (), True)
            self.keep(response, use)
            return None
        call = self.call
        asked = asked_wait(self.field(response, "Retry-After"), engine.wall_clock()) if status >= 400 else None
        judgement = judge_status(
            status,
            service.outlier,
            service.retry,
            asked=asked,
            patience=self.read if isinstance(self.read, (int, float)) else None,
            alone=not service.untried(call.tried),
        )
        if call.observed is not None:
            call.observed.answered(lease, status)
        has_events = lease.observe(judgement.outcome, now)
        spared = pushback(status, asked, service.balancing)
        if spared is not None:
            has_events = service.push_back(lease.node, now, spared) or has_events
        if use.done:
            lease.release()
        if judgement.failure is not None or call.own_policy is not None:
            self._recall(call)
            self._response = response
        decision, _ = engine.decide(call, lease, judgement, now, has_events)
        if isinstance(decision, Stop):
            self._response = None  # it is the caller's
        use.history = AttemptHistory(
            lease.node.endpoint,
            now - lease.started_at,
            call.reports,
            judgement.failure is None,
            lease.number,
            lease.started_at - call.started_at,
        )
        self.keep(response, use)
        return decision

    def failed(self, error: Exception, use: U) -> tuple[Decision | None, tuple[Question, ...]]:
        """Record an error. What follows, and the questions to ask at once. Raises `DeadlineExceeded` where the caller's
        deadline has passed."""
        call, lease, engine = self.call, use.lease, self.engine
        use.recorded = True
        if call.observed is not None:
            call.observed.raised(lease, error)
        fault = self.table.fault(error, sent=use.sent, handled=self._handled)
        wrong = isinstance(error, DiscoveryError) or (fault is None and isinstance(error, ValueError))
        if wrong and not use.sent:
            lease.release()  # the request itself is wrong
            return None, ()
        label = fault.label if fault is not None else type(error).__name__
        if fault is None:
            fault = Fault.UNKNOWN
        if fault.kind is FailureKind.OTHER and not self.is_of_connection(error):
            fault, label = Fault.NOT_OURS, type(error).__name__  # whatever led to it: a body that cannot be read, say
        if use.sent:
            self._recall(call)
        now = engine.clock()
        if call.hard and now >= call.deadline_at and fault is not Fault.SILENT:
            fault, label = Fault.DEADLINE, Fault.DEADLINE.label
        self._fault = fault
        kind, outcome, why = fault.kind, fault.outcome, ""
        if fault in _TLS_FAULTS:
            if self.verified:
                outcome = Outcome.FAILURE
            if not lease.service.untried(call.tried):
                # The same endpoint has the same certificate.
                kind, why = FailureKind.OTHER, "no endpoint is left that might have another certificate or protocol"
        elif self.is_counted(use):
            outcome = Outcome.NEUTRAL
        elif fault is Fault.SILENT:
            engine.vanished(lease.node, now - engine.settings.connection.ack_timeout)  # others may wait for it
        has_events = lease.observe(outcome, now)
        lease.release()  # a body that broke off has ended it already
        said = "no answer by then"
        if fault is not Fault.DEADLINE:
            said = reason_of(error).removeprefix(f"{lease.node.endpoint}: ")
        decision, ask = engine.decide(call, lease, Judgement(outcome, kind, label), now, has_events, said)
        if why and isinstance(decision, Stop):
            decision = call.stop(why)
        if fault is Fault.DEADLINE:
            raise DeadlineExceeded(
                "not done within the deadline", target=call.target, attempts=call.reports
            ) from without_frames(error)
        return decision, ask

    def failed_in_body(self, error: Exception, use: U) -> Exception:
        """Record that an answer broke off while the caller read it: the error for the caller."""
        fault = self.table.fault(error, sent=True) or Fault.UNKNOWN
        if not self.is_of_connection(error):
            return error
        call, lease, now = self.call, use.lease, self.engine.clock()
        if call.hard and now >= call.deadline_at:
            fault = Fault.DEADLINE
        self._fault = fault
        call.report(
            lease.node,
            fault.label,
            fault.kind.value,
            lease.started_at,
            now,
            reason_of(error),
            number=lease.number,
        )
        if lease.observe(fault.outcome, now):
            self.engine.emit(self.service)
        if fault is not Fault.DEADLINE:
            return self.error_for_caller(error)
        late = DeadlineExceeded("not done within the deadline", target=call.target, attempts=call.reports)
        late.__cause__ = without_frames(error)
        return self.error_for_caller(late)

    def ran_out(self) -> None:
        """The caller's deadline has ended the attempt in flight."""
        use = self._use
        if use is None or use.recorded:
            return
        use.recorded = True
        lease, now = use.lease, self.engine.clock()
        fault, call = Fault.DEADLINE, self.call
        call.report(lease.node, fault.label, fault.kind.value, lease.started_at, now, "no answer by then")
        if call.observed is not None:
            call.observed.attempt_ended(lease, fault.kind.value, fault.label)
        if lease.observe(fault.outcome, now):
            self.engine.emit(self.service)

    def over(self, error: BaseException | None) -> None:
        """The call is over: this is raised, if anything."""
        observed = self._call.observed if self._call is not None else None
        if observed is not None:
            if observed.fields_added:  # they are of this call alone: not of a redirect, nor of the request sent again
                self.put_down(observed.fields_added)
            observed.ended(error)

    def observe_attempt(self, observed: ObservedCall, use: U) -> ObservedAttempt:
        """The attempt begins, in this thread or task: `with` is to be around its `send`."""
        attempt = observed.attempt(use.lease)
        self.carry(attempt.headers(), observed.fields_added, use)
        return attempt

    def is_of_connection(self, error: Exception) -> bool:
        """Does an error that no row of the table knows speak of the connection?"""
        return isinstance(error, OSError)

    def is_counted(self, use: U) -> bool:
        """Has the end of the connection been held against the endpoint by another request on it (HTTP/2)?"""
        return False

    def error_for_caller(self, error: Exception) -> Exception:
        """The error for the caller."""
        if isinstance(error, DiscoveryError):
            if error.target == self.service.target != self.target:
                error = error.about(self.target)
            return self.as_error(error, error, self._use)
        call = self._call
        if call is None or not call.reports or not self.is_of_connection(error):
            return error
        call.default_port = self.service.default_port
        return self.as_error(call, without_frames(error), self._use)

    def _recall(self, call: Call) -> None:
        call.replayable = self.replayable()


def add_fields(fields: Mapping[str, str], headers: MutableMapping[str, str], added: set[str]) -> None:
    """Set header fields, but for the names that the application has set. The fields in `added`, which an attempt before
    has set, are taken out."""
    remove_fields(headers, added)
    for name, value in fields.items():
        if name not in headers:
            added.add(name)
            headers[name] = value


def remove_fields(headers: MutableMapping[str, str], added: set[str]) -> None:
    """Undo `add_fields`."""
    for name in added:
        headers.pop(name, None)
    added.clear()
