"""What both worlds tell tenacity: whether a call goes on, and after how long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tenacity import RetryCallState
from tenacity.retry import retry_if_exception_type
from tenacity.stop import stop_never
from tenacity.wait import wait_none

from ecs_discovery.client.attempt_result import AttemptResult
from ecs_discovery.core.calls.call import Call
from ecs_discovery.core.calls.failure_kinds import NOT_REPEATED, FailureKind, Retry, Stop

__all__ = ["OwnPolicy", "RetryAsDecided", "WaitAsDecided", "last_outcome"]


class RetryAsDecided:
    """tenacity's `retry`: another attempt follows where the decision says so. What is raised ends the call."""

    def __call__(self, state: RetryCallState) -> bool:
        return isinstance(_decision(state), Retry)


class WaitAsDecided:
    """tenacity's `wait`: the decision's seconds."""

    def __call__(self, state: RetryCallState) -> float:
        decision = _decision(state)
        return decision.after if isinstance(decision, Retry) else 0.0


def _decision(state: RetryCallState) -> Retry | Stop | None:
    outcome = state.outcome
    if outcome is None or outcome.failed:  # interrupted, cancelled, or no attempt could begin
        return None
    attempted: AttemptResult[Any] = outcome.result()
    return attempted.decision


class OwnPolicy:
    """What a tenacity object of the application's says of one call. What it leaves at tenacity's defaults is ours.

    `wants`, `waits` and `stops` ask the object. `retry`, `wait` and `stop` are given to tenacity in the place of its
    own. Idempotence, the deadline and the budget hold whatever the object says.
    """

    def __init__(self, given: Any, call: Call, clock: Callable[[], float], rng: Callable[[], float]) -> None:
        self._given = given
        self._call = call
        self._clock = clock
        self._rng = rng
        self._began = clock()
        self._number = call.number
        retry = given.retry
        self._any = type(retry) is retry_if_exception_type and retry.exception_types is Exception

    def start_attempt(self) -> None:
        """Another attempt begins."""
        self._call.failure = None
        self._number = self._call.number
        self._began = self._clock()

    def retry(self, state: RetryCallState) -> bool:
        """Whether there may be another attempt."""
        return self.again(state, self.wants(state))

    def wait(self, state: RetryCallState) -> float:
        """Seconds until the next attempt."""
        return self.pause(self.waits(state))

    def stop(self, state: RetryCallState) -> bool:
        """Whether the call is over although another attempt is wanted."""
        return self.over(state, self.stops(state))

    def wants(self, state: RetryCallState) -> Any:
        """Whether the object wants another attempt; None if that is not its business."""
        if self._objection(state) or self._call.failure is FailureKind.NOT_SENT or self._any:
            return None
        return self._given.retry(state)

    def again(self, state: RetryCallState, wanted: Any) -> bool:
        """Whether there may be another attempt, where the object wants one or not."""
        call = self._call
        why = self._objection(state)
        ours = call.failure is not None and call.failure is not FailureKind.OTHER
        if not why and (call.failure is FailureKind.NOT_SENT or (ours if wanted is None else wanted)):
            call.stop("")
            return True
        call.stop(why or NOT_REPEATED, call.objects_to if why else "")
        return False

    def waits(self, state: RetryCallState) -> Any:
        """The pause that the object wants; None if it leaves that to us."""
        return None if isinstance(self._given.wait, wait_none) else self._given.wait(state)

    def pause(self, wanted: Any) -> float:
        """Seconds until the next attempt, where the object wants so many."""
        return self._call.pause(self._rng, None if wanted is None else lambda: float(wanted))

    def stops(self, state: RetryCallState) -> Any:
        """Whether the object wants no other attempt; None if it leaves that to us."""
        return None if self._given.stop is stop_never else self._given.stop(state)

    def over(self, state: RetryCallState, stopped: Any) -> bool:
        """Whether the call is over, where the object wants that or not."""
        call, now = self._call, self._clock()
        why = call.exhausted() if stopped is None else "the policy's stop says so" if stopped else ""
        if why:
            call.stop(why, "attempts" if stopped is None else "policy")
            return True
        if call.failure is None:
            call.answered(now - self._began)
        return isinstance(call.schedule(state.upcoming_sleep, now), Stop)

    def _objection(self, state: RetryCallState) -> str:
        outcome = state.outcome
        error = outcome.exception() if outcome is not None else None
        if error is not None and not isinstance(error, Exception):
            return "interrupted"  # or cancelled
        return self._call.objection(begun=self._call.number > self._number)


def last_outcome(state: RetryCallState) -> Any:
    """What the last attempt gave or raised: tenacity would raise an error of its own."""
    outcome = state.outcome
    assert outcome is not None
    return outcome.result()
