"""The governor."""

from __future__ import annotations

import pytest

from ecs_discovery.core.rate_limiter import Governor


def taken(governor: Governor, now: float) -> int:
    count = 0
    while governor.take(now):
        count += 1
    return count


def test_a_burst_is_allowed_and_then_the_rate():
    governor = Governor(10, 20)
    assert taken(governor, 5.0) == 20
    assert taken(governor, 5.09) == 0
    assert taken(governor, 5.5) == 5
    assert taken(governor, 1000.0) == 20


def test_over_a_minute_no_more_than_rate_and_burst_go_through():
    governor = Governor(10, 20)
    assert sum(governor.take(tick / 100) for tick in range(6000)) == pytest.approx(600 + 20, abs=1)


def test_a_rate_below_one_a_second_lets_one_through_at_a_time():
    governor = Governor(0.1, 0.2)
    assert taken(governor, 0.0) == 1
    assert taken(governor, 9.0) == 0
    assert taken(governor, 10.1) == 1


def test_a_clock_that_goes_back_gives_nothing():
    governor = Governor(10, 1)
    assert taken(governor, 100.0) == 1
    assert taken(governor, 50.0) == 0


def test_it_says_what_it_has_and_gets_a_fresh_lock_after_a_fork():
    governor = Governor(10, 20)
    governor.take(0.0)
    governor._lock.acquire()
    governor.reset_lock()
    assert governor.take(0.0)
    assert repr(governor) == "<Governor 18.0 of 20 calls, 10 per second>"
