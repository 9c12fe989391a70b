"""The driver of an `AsyncDiscovery`: its engine, its background, and the attempts of a call. For asyncio.

Integrations get this object; an application never sees it. It stands in the same order as `sync/driver.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from ecs_discovery.client.aio.background import AsyncBackground
from ecs_discovery.client.aio.hedging import hedged
from ecs_discovery.client.aio.network import SYSTEM, Network
from ecs_discovery.client.attempt_result import AttemptResult
from ecs_discovery.client.engine import Engine
from ecs_discovery.client.observing import ObservedCall
from ecs_discovery.core.balancing.node import Outcome
from ecs_discovery.core.calls.call import Call
from ecs_discovery.core.calls.failure_kinds import GOOD, Decision, Judgement
from ecs_discovery.core.calls.hedge import Hedging
from ecs_discovery.core.lease import Lease
from ecs_discovery.core.service import Service
from ecs_discovery.errors import Overloaded
from ecs_discovery.runtime import fork

__all__ = ["AsyncDriver"]

T = TypeVar("T")

_SUCCESS = Outcome.SUCCESS  # looking a member up takes longer than comparing with it (Python 3.11)


class AsyncDriver:
    """What plays calls: `engine` decides, `background` does the I/O, `sleep` waits."""

    __slots__ = ("background", "engine", "first_looks", "sleep")

    def __init__(
        self,
        engine: Engine,
        sleep: Callable[[float], Awaitable[object]],
        resolvers: Mapping[str, Any],
        network: Network = SYSTEM,
    ) -> None:
        self.engine = engine
        self.sleep = sleep
        self.background = AsyncBackground(engine, resolvers, network)
        self.first_looks: Any = None
        """Of the integrations: what has yet to be looked at, in the event loop that asked last."""

    async def run(
        self,
        service: Service,
        call: Call,
        attempt: Callable[[Lease], Awaitable[T]],
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
                return await self._run_observed(observed, service, call, attempt, judge, lookup_deadline_at, hedging)
        if lookup_deadline_at is not None:
            await self.background.ready(service, lookup_deadline_at)
        if hedging is not None:
            attempt = hedged(self.background, hedging, call, attempt, judge)
        attempted: AttemptResult[T] | None = None
        if service.retry.tenacity is None:
            attempted = await self._attempt(service, call, attempt, judge)
            if attempted.decision is None:
                return attempted.result if attempted.error is None else attempted.outcome()  # type: ignore[return-value]

        async def once() -> AttemptResult[T]:
            return await self._attempt(service, call, attempt, judge)

        return await self.pursue(call, once, attempted)

    async def _run_observed(
        self,
        observed: ObservedCall,
        service: Service,
        call: Call,
        attempt: Callable[[Lease], Awaitable[T]],
        judge: Callable[[T | None, Exception | None], Judgement],
        lookup_deadline_at: float | None,
        hedging: Hedging | None,
    ) -> T:
        async def seen(lease: Lease) -> T:
            with observed.attempt(lease):
                return await attempt(lease)

        try:
            result = await self.run(service, call, seen, judge, lookup_deadline_at, hedging)
        except BaseException as error:
            observed.ended(error, call.deadline_at if call.hard else None)
            raise
        observed.ended(None)
        return result

    async def pursue(
        self, call: Call, once: Callable[[], Awaitable[AttemptResult[T]]], attempted: AttemptResult[T] | None = None
    ) -> T:
        """Run `once`, which records each attempt, until the call is over; the last result or exception.

        `attempted` is a first attempt that was made already.
        """
        if call.own_policy is not None:
            retry = fork.load("ecs_discovery.client.aio.retry")  # not before it is needed: it loads tenacity

            async def attempt() -> T:
                return (await once()).outcome()

            engine = self.engine
            found: T = await retry.by_policy(call.own_policy, call, attempt, engine.clock, engine.rng, self.sleep)
            return found
        return await self.go_on(await once() if attempted is None else attempted, once)

    async def go_on(self, attempted: AttemptResult[T], once: Callable[[], Awaitable[AttemptResult[T]]]) -> T:
        """What follows an attempt: others until none is to follow; the last result or exception."""
        if attempted.goes_on:
            retry = fork.load("ecs_discovery.client.aio.retry")  # not before it is needed: it loads tenacity
            attempted = await retry.as_decided(attempted, once, self.sleep)
        return attempted.outcome()

    async def resume(
        self,
        service: Service,
        call: Call,
        lease: Lease,
        error: Exception,
        attempt: Callable[[Lease], Awaitable[T]],
        judge: Callable[[T | None, Exception | None], Judgement],
    ) -> T:
        """As `run`, after a first attempt on `lease` that was made already, and raised `error`."""
        attempted: AttemptResult[T] = AttemptResult(None, error, self._recorded(call, lease, judge(None, error), error))

        async def once() -> AttemptResult[T]:
            return await self._attempt(service, call, attempt, judge)

        return await self.go_on(attempted, once)

    async def _attempt(
        self,
        service: Service,
        call: Call,
        attempt: Callable[[Lease], Awaitable[T]],
        judge: Callable[[T | None, Exception | None], Judgement],
    ) -> AttemptResult[T]:
        background = self.background
        if call.number:
            await background.wait_for_refresh(service, call)
        if service.admission.crowded:
            lease = await background.start_attempt(service, call)
        else:
            try:
                lease = self.engine.start_attempt(service, call)
            except Overloaded:
                lease = await background.start_attempt(service, call)
        if service.work.due:
            background.work(service)
        try:
            result = await attempt(lease)
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
