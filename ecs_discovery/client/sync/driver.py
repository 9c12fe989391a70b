"""The driver of a `Discovery`: its engine, its background, and the attempts of a call. For threads.

Integrations get this object; an application never sees it. It stands in the same order as `aio/driver.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ecs_discovery.client.attempt_result import AttemptResult
from ecs_discovery.client.engine import Engine
from ecs_discovery.client.observing import ObservedCall
from ecs_discovery.client.sync.background import Background
from ecs_discovery.client.sync.hedging import hedged
from ecs_discovery.core.balancing.node import Outcome
from ecs_discovery.core.calls.call import Call
from ecs_discovery.core.calls.failure_kinds import GOOD, Decision, Judgement
from ecs_discovery.core.calls.hedge import Hedging
from ecs_discovery.core.lease import Lease
from ecs_discovery.core.service import Service
from ecs_discovery.errors import Overloaded
from ecs_discovery.runtime import fork

__all__ = ["Driver"]

T = TypeVar("T")

_SUCCESS = Outcome.SUCCESS  # looking a member up takes longer than comparing with it (Python 3.11)


class Driver:
    """What plays calls: `engine` decides, `background` does the I/O, `sleep` waits."""

    __slots__ = ("background", "engine", "sleep")

    def __init__(self, engine: Engine, sleep: Callable[[float], None]) -> None:
        self.engine = engine
        self.sleep = sleep
        self.background = Background(engine)

    def run(
        self,
        service: Service,
        call: Call,
        attempt: Callable[[Lease], T],
        judge: Callable[[T | None, Exception | None], Judgement],
        lookup_deadline_at: float | None = None,
        hedging: Hedging | None = None,
        kind: str = "call",
    ) -> T:
        """Attempts of one call until one is good or no other is allowed; the last result or exception.

        Before the first the service is waited for until `lookup_deadline_at` (monotonic), unless that is None.
        """
        if self.engine.observers is not None and call.observed is None:
            observed = self.engine.observed(kind, call.target, call.started_at)
            if observed is not None:
                call.observed = observed
                return self._run_observed(observed, service, call, attempt, judge, lookup_deadline_at, hedging)
        if lookup_deadline_at is not None:
            self.background.ready(service, lookup_deadline_at)
        if hedging is not None:
            attempt = hedged(self.background, hedging, call, attempt, judge)
        attempted: AttemptResult[T] | None = None
        if service.retry.tenacity is None:
            attempted = self._attempt(service, call, attempt, judge)
            if attempted.decision is None:
                return attempted.result if attempted.error is None else attempted.outcome()  # type: ignore[return-value]

        def once() -> AttemptResult[T]:
            return self._attempt(service, call, attempt, judge)

        return self.pursue(call, once, attempted)

    def _run_observed(
        self,
        observed: ObservedCall,
        service: Service,
        call: Call,
        attempt: Callable[[Lease], T],
        judge: Callable[[T | None, Exception | None], Judgement],
        lookup_deadline_at: float | None,
        hedging: Hedging | None,
    ) -> T:
        def seen(lease: Lease) -> T:
            with observed.attempt(lease):
                return attempt(lease)

        try:
            result = self.run(service, call, seen, judge, lookup_deadline_at, hedging)
        except BaseException as error:
            observed.ended(error, call.deadline_at if call.hard else None)
            raise
        observed.ended(None)
        return result

    def pursue(self, call: Call, once: Callable[[], AttemptResult[T]], attempted: AttemptResult[T] | None = None) -> T:
        """Run `once`, which records each attempt, until the call is over; the last result or exception.

        `attempted` is a first attempt that was made already.
        """
        if call.own_policy is not None:
            retry = fork.load("ecs_discovery.client.sync.retry")  # not before it is needed: it loads tenacity

            def attempt() -> T:
                return (once()).outcome()

            engine = self.engine
            found: T = retry.by_policy(call.own_policy, call, attempt, engine.clock, engine.rng, self.sleep)
            return found
        return self.go_on(once() if attempted is None else attempted, once)

    def go_on(self, attempted: AttemptResult[T], once: Callable[[], AttemptResult[T]]) -> T:
        """What follows an attempt: others until none is to follow; the last result or exception."""
        if attempted.goes_on:
            retry = fork.load("ecs_discovery.client.sync.retry")  # not before it is needed: it loads tenacity
            attempted = retry.as_decided(attempted, once, self.sleep)
        return attempted.outcome()

    def resume(
        self,
        service: Service,
        call: Call,
        lease: Lease,
        error: Exception,
        attempt: Callable[[Lease], T],
        judge: Callable[[T | None, Exception | None], Judgement],
    ) -> T:
        """As `run`, after a first attempt on `lease` that was made already, and raised `error`."""
        attempted: AttemptResult[T] = AttemptResult(None, error, self._recorded(call, lease, judge(None, error), error))

        def once() -> AttemptResult[T]:
            return self._attempt(service, call, attempt, judge)

        return self.go_on(attempted, once)

    def _attempt(
        self,
        service: Service,
        call: Call,
        attempt: Callable[[Lease], T],
        judge: Callable[[T | None, Exception | None], Judgement],
    ) -> AttemptResult[T]:
        background = self.background
        if call.number:
            background.wait_for_refresh(service, call)
        if service.admission.crowded:
            lease = background.start_attempt(service, call)
        else:
            try:
                lease = self.engine.start_attempt(service, call)
            except Overloaded:
                lease = background.start_attempt(service, call)
        if service.work.due:
            background.work(service)
        try:
            result = attempt(lease)
        except Exception as error:  # noqa: BLE001  # raised when no attempt follows
            # No variable holds the error when this is left: a frame that its traceback keeps would keep it.
            return AttemptResult(None, error, self._recorded(call, lease, judge(None, error), error))
        except BaseException:  # cancelled or interrupted: the use is over, and says nothing of the endpoint
            lease.release()
            raise
        judgement = judge(result, None)
        if judgement is GOOD:  # nearly always
            engine = self.engine
            if lease.finish(_SUCCESS, engine.clock()):
                engine.emit(service)
            service.budget.deposit()
            if call.observed is not None:
                call.observed.judged(lease, judgement, None)
            return AttemptResult(result, None, None)
        return AttemptResult(result, None, self._recorded(call, lease, judgement, judgement.label))

    def _recorded(self, call: Call, lease: Lease, judgement: Judgement, error: object) -> Decision | None:
        decision, ask = self.engine.record_attempt(call, lease, judgement, error)
        if ask:
            self.background.force(ask)
        return decision
