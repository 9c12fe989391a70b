"""The retry loop for threads: tenacity drives what follows a first attempt that failed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from tenacity import Retrying
from tenacity.nap import sleep as tenacity_sleep
from tenacity.stop import stop_never

from ecs_discovery.client.attempt_result import AttemptResult
from ecs_discovery.client.retry import OwnPolicy, RetryAsDecided, WaitAsDecided, last_outcome
from ecs_discovery.core.calls.call import Call

__all__ = ["as_decided", "by_policy"]

T = TypeVar("T")


def as_decided(
    first: AttemptResult[T], attempt: Callable[[], AttemptResult[T]], sleep: Callable[[float], None]
) -> AttemptResult[T]:
    """The last of the attempts that follow `first`, which was made already and failed."""
    made = [first]
    loop = Retrying(sleep=sleep, stop=stop_never, wait=WaitAsDecided(), retry=RetryAsDecided(), reraise=True)
    return loop(lambda: made.pop() if made else attempt())


def by_policy(
    given: Any,
    call: Call,
    attempt: Callable[[], T],
    clock: Callable[[], float],
    rng: Callable[[], float],
    sleep: Callable[[float], None],
) -> T:
    """The attempts of `call` as the application's tenacity object wants them; the last one's result or exception.

    A copy of the object drives all of them.
    """
    own = OwnPolicy(given, call, clock, rng)

    def run() -> T:
        own.start_attempt()
        return attempt()

    loop = given.copy(
        sleep=sleep if given.sleep is tenacity_sleep else given.sleep,
        retry=own.retry,
        wait=own.wait,
        stop=own.stop,
        retry_error_callback=given.retry_error_callback or last_outcome,
    )
    return loop(run)  # type: ignore[no-any-return]
