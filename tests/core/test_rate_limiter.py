"""The rate limiter."""

from __future__ import annotations

import pytest

from ecs_discovery.core.rate_limiter import RateLimiter


def taken(rate_limiter: RateLimiter, now: float) -> int:
    count = 0
    while rate_limiter.try_acquire(now):
        count += 1
    return count


def test_a_burst_is_allowed_and_then_the_rate():
    rate_limiter = RateLimiter(10, 20)
    assert taken(rate_limiter, 5.0) == 20
    assert taken(rate_limiter, 5.09) == 0
    assert taken(rate_limiter, 5.5) == 5
    assert taken(rate_limiter, 1000.0) == 20


def test_over_a_minute_no_more_than_rate_and_burst_go_through():
    rate_limiter = RateLimiter(10, 20)
    assert sum(rate_limiter.try_acquire(tick / 100) for tick in range(6000)) == pytest.approx(600 + 20, abs=1)


def test_a_rate_below_one_a_second_lets_one_through_at_a_time():
    rate_limiter = RateLimiter(0.1, 0.2)
    assert taken(rate_limiter, 0.0) == 1
    assert taken(rate_limiter, 9.0) == 0
    assert taken(rate_limiter, 10.1) == 1


def test_a_clock_that_goes_back_gives_nothing():
    rate_limiter = RateLimiter(10, 1)
    assert taken(rate_limiter, 100.0) == 1
    assert taken(rate_limiter, 50.0) == 0


def test_it_says_what_it_has_and_gets_a_fresh_lock_after_a_fork():
    rate_limiter = RateLimiter(10, 20)
    rate_limiter.try_acquire(0.0)
    rate_limiter._lock.acquire()
    rate_limiter.reset_lock()
    assert rate_limiter.try_acquire(0.0)
    assert repr(rate_limiter) == "<RateLimiter 18.0 of 20 calls, 10 per second>"
