"""The retry loop for threads: tenacity drives what follows a first attempt that failed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from ecs_discovery.core.calls.call import Call

if TYPE_CHECKING:
    from tenacity import Retrying

__all__ = ["by_policy", "go_on"]

T = TypeVar("T")


def go_on(
    first: Callable[[], T],
    attempt: Callable[[], T],
    pause: Callable[[], float | None],
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Attempts until `pause()` is None; then the last one's result or exception.

    `first()` gives the outcome of the attempt that was made already, `pause()` the seconds to wait
    after the latest one.
    """
    from tenacity import Retrying  # not before something has failed
    from tenacity.stop import stop_never

    from ecs_discovery.client.retry import _retry, _wait

    attempts = iter((first,))

    def run() -> T:
        return next(attempts, attempt)()

    loop = Retrying(sleep=sleep, stop=stop_never, wait=_wait(pause), retry=_retry(pause), reraise=True)
    return loop(run)


def by_policy(
    given: Retrying,
    call: Call,
    attempt: Callable[[], T],
    clock: Callable[[], float],
    rng: Callable[[], float],
    sleep: Callable[[float], None],
) -> T:
    """The attempts of `call` as the application's tenacity object wants them; the last one's result or exception."""
    from tenacity.nap import sleep as tenacity_sleep

    from ecs_discovery.client.retry import OwnPolicy, _outcome

    own = OwnPolicy(given, call, clock, rng)

    def run() -> T:
        own.start_attempt()
        return attempt()

    loop = given.copy(
        sleep=sleep if given.sleep is tenacity_sleep else given.sleep,
        retry=lambda state: own.again(state, own.wants(state)),
        wait=lambda state: own.pause(own.waits(state)),
        stop=lambda state: own.over(state, own.stops(state)),
        retry_error_callback=given.retry_error_callback or _outcome,
    )
    return loop(run)
