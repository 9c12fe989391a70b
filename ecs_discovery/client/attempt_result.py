"""How one attempt of a call ended, and what follows: the value that the retry loops hand around."""

from __future__ import annotations

from typing import Generic, TypeVar

from ecs_discovery.core.calls.failure_kinds import Decision, Retry

__all__ = ["AttemptResult"]

T = TypeVar("T")


class AttemptResult(Generic[T]):
    """Its result or its error, and the decision; None as the decision if the call is done with it."""

    __slots__ = ("decision", "error", "result")

    def __init__(self, result: T | None, error: Exception | None, decision: Decision | None) -> None:
        self.result = result
        self.error = error
        self.decision = decision

    @property
    def goes_on(self) -> bool:
        """Does another attempt follow?"""
        return isinstance(self.decision, Retry)

    def outcome(self) -> T:
        """Its result. Raises its error."""
        error, self.error = self.error, None  # else the error's frames would keep it, and it them
        if error is not None:
            raise error
        return self.result  # type: ignore[return-value]
