"""Judging: what an attempt's result or exception says of its endpoint, and of trying again."""

from __future__ import annotations

from collections.abc import Callable
from traceback import clear_frames
from typing import NamedTuple

from ecs_discovery.core.node import Outcome
from ecs_discovery.core.retry import Failure
from ecs_discovery.errors import DiscoveryError

__all__ = ["GOOD", "Judgement", "failure_of", "forget", "judge_exception"]


class Judgement(NamedTuple):
    """What an attempt's result or exception says."""

    outcome: Outcome
    failure: Failure | None
    """None: the call is done with it."""
    label: str
    retry_after: float | None = None


GOOD = Judgement(Outcome.SUCCESS, None, "ok")


_CHAIN = 16  # causes looked at


def causes(error: BaseException) -> list[BaseException]:
    """The exception and what led to it, nearest first."""
    found: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in found and len(found) < _CHAIN:
        found.append(current)
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return found


def forget(error: BaseException) -> None:
    """Have an exception that nobody will see keep nothing.

    Libraries keep exceptions in the frames that these came through (urllib3 does), and with them all that a request
    holds, until the garbage collector comes.
    """
    for cause in causes(error):
        clear_frames(cause.__traceback__)


def failure_of(error: BaseException) -> Failure:
    """The class of a failure, read off an exception of any library: what caused it decides.

    A refused connection was never used. Another OSError or an early end of the stream may be
    repeated if the call is idempotent. Anything else is not ours to repeat.
    """
    for cause in causes(error):
        if isinstance(cause, ConnectionRefusedError):
            return Failure.NOT_SENT
        if isinstance(cause, DiscoveryError):
            return Failure.OTHER
        if isinstance(cause, (OSError, EOFError)):
            return Failure.CLOSED
    return Failure.OTHER


def judge_exception(
    error: Exception, is_failure: Callable[[BaseException], bool] | None, *, accepts: bool = False
) -> Judgement:
    """What an exception of the caller's own code says.

    `accepts` is whether the endpoint was found to accept connections after it: then it was somebody else
    who refused, or not at the first exchange, and something may have been processed.
    """
    failure = failure_of(error)
    if failure is Failure.NOT_SENT:
        if not accepts:
            return Judgement(Outcome.CONNECT, failure, "connect")
        failure = Failure.CLOSED
    counts = True if is_failure is None else bool(is_failure(error))
    return Judgement(Outcome.FAILURE if counts else Outcome.SUCCESS, failure, type(error).__name__)
