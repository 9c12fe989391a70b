"""What an input of whatever kind may cost: the same bounds for all parsers."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from hypothesis import HealthCheck, settings

CPU = 0.05  # seconds that a hostile answer may cost
MEMORY = 8 * 2**20  # bytes at the peak
_SLACK = 10  # a shared machine under load, coverage and tracing are allowed this much more time


unhurried = settings(
    # A time limit for each example would measure the machine; what is bounded is measured by `assert_cheap`.
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    max_examples=200,
)


def cost(work: Callable[[], Any], *, runs: int = 3) -> tuple[float, int]:
    """Seconds of CPU (the least of a few runs) and bytes at the peak that `work` takes, whatever it raises."""
    seconds = min(_timed(work) for _ in range(runs))
    tracemalloc.start()
    try:
        _timed(work)
        return seconds, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def assert_cheap(work: Callable[[], Any]) -> None:
    """Fails if `work` costs more than a hostile input may."""
    seconds, memory = cost(work)
    assert seconds <= CPU * _SLACK, f"{seconds * 1000:.0f} ms of CPU"
    assert memory <= MEMORY, f"{memory / 2**20:.1f} MiB"


def _timed(work: Callable[[], Any]) -> float:
    began = time.thread_time()
    with suppress(Exception):  # only the cost matters
        work()
    return time.thread_time() - began
