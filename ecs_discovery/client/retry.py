"""What both worlds tell tenacity: whether a call goes on, and after how long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tenacity import RetryCallState
from tenacity.retry import retry_if_exception_type
from tenacity.stop import stop_never
from tenacity.wait import wait_none

from ecs_discovery.core.calls.call import Call
from ecs_discovery.core.calls.failure_kinds import NOT_REPEATED, Failure

__all__: list[str] = []


class OwnPolicy:
    """What a tenacity object of the application's says of one call. What it leaves at tenacity's defaults is ours."""

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

    def wants(self, state: RetryCallState) -> Any:
        """Whether the object wants another attempt; None if that is not its business."""
        if self._objection(state) or self._call.failure is Failure.NOT_SENT or self._any:
            return None
        return self._given.retry(state)

    def again(self, state: RetryCallState, wanted: Any) -> bool:
        """Whether there may be another attempt."""
        call = self._call
        call.reason = self._objection(state)
        if call.reason:
            return False
        ours = call.failure is not None and call.failure is not Failure.OTHER
        if call.failure is Failure.NOT_SENT or (ours if wanted is None else wanted):
            return True
        call.reason = NOT_REPEATED
        return False

    def waits(self, state: RetryCallState) -> Any:
        """The pause that the object wants; None if it leaves that to us."""
        return None if isinstance(self._given.wait, wait_none) else self._given.wait(state)

    def pause(self, wanted: Any) -> float:
        """Seconds until the next attempt."""
        return self._call.pause(self._rng, None if wanted is None else lambda: float(wanted))

    def stops(self, state: RetryCallState) -> Any:
        """Whether the object wants no other attempt; None if it leaves that to us."""
        return None if self._given.stop is stop_never else self._given.stop(state)

    def over(self, state: RetryCallState, stopped: Any) -> bool:
        """Whether the call is over although another attempt is wanted."""
        call, now = self._call, self._clock()
        call.reason = call.exhausted() if stopped is None else "the policy's stop says so" if stopped else ""
        if call.reason:
            return True
        if call.failure is None:
            call.connect_deadline_at += now - self._began  # it was good: its time went into the answer
        call.schedule(state.upcoming_sleep, now)
        return call.wait is None

    def _objection(self, state: RetryCallState) -> str:
        outcome = state.outcome
        error = outcome.exception() if outcome is not None else None
        if error is not None and not isinstance(error, Exception):
            return "interrupted"  # or cancelled
        return self._call.objection(begun=self._call.number > self._number)


def _outcome(state: RetryCallState) -> Any:
    outcome = state.outcome
    assert outcome is not None
    return outcome.result()


def _retry(pause: Callable[[], float | None]) -> Callable[[RetryCallState], bool]:
    def again(state: RetryCallState) -> bool:
        outcome = state.outcome
        error = outcome.exception() if outcome is not None else None
        if error is not None and not isinstance(error, Exception):
            return False  # interrupted or cancelled
        return pause() is not None

    return again


def _wait(pause: Callable[[], float | None]) -> Callable[[RetryCallState], float]:
    return lambda state: pause() or 0.0
