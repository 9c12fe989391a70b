"""When a call is hedged, and how often at most."""

from __future__ import annotations

from math import inf
from random import Random

import pytest

from ecs_discovery.config.policies import HedgePolicy, RetryPolicy
from ecs_discovery.core.calls.budget import RetryBudget
from ecs_discovery.core.calls.hedge import Hedging


def hedging_of(*, budget: RetryBudget | None = None, **policy: float) -> Hedging:
    retry = RetryPolicy(budget_floor=1000)
    return Hedging(HedgePolicy(enabled=True, **policy), budget or RetryBudget(retry, 0.0))  # type: ignore[arg-type]


def taught(hedging: Hedging, *latencies: float) -> Hedging:
    """It has seen calls with these latencies, and has an allowance."""
    for _ in range(100):
        hedging.delay(inf)
    for seconds in latencies:
        hedging.learn(seconds)
    return hedging


def test_nothing_is_hedged_before_twenty_latencies_are_known():
    hedging = taught(hedging_of(), *[0.01] * 19)
    assert hedging.delay(30) is None
    hedging.learn(0.01)
    assert hedging.delay(30) == 0.01


def test_a_call_is_hedged_at_the_percentile():
    hedging = taught(hedging_of(percentile=0.9), *(number / 1000 for number in range(1, 101)))
    assert hedging.delay(30) == 0.091


def test_a_call_is_not_hedged_sooner_than_the_least_delay():
    assert taught(hedging_of(min_delay=0.05), *[0.01] * 20).delay(30) == 0.05


def test_a_call_is_not_hedged_where_the_median_no_longer_fits_its_time():
    hedging = taught(hedging_of(), *[0.1] * 15, *[0.5] * 5)
    assert hedging.delay(0.61) == 0.5
    assert hedging.delay(0.59) is None


def test_only_the_latest_latencies_count():
    hedging = taught(hedging_of(), *[1.0] * 500)
    for _ in range(500):
        hedging.learn(0.01)
    assert hedging.delay(30) == 0.01
    assert repr(hedging) == "<Hedging 5.05 allowed, 500 latencies>"


@pytest.mark.parametrize("order", [(0.01, 0.02, 0.01), (inf, 0.01, 0.02), (0.02, inf, inf)])
def test_what_leaves_the_window_leaves_the_ranks(order: tuple[float, ...]):
    hedging = hedging_of()
    for seconds in (*order * 200, *[0.3] * 500):
        hedging.learn(seconds)
    assert hedging._ranked == [0.3] * 500


def test_first_attempts_that_were_cut_short_count_as_slow():
    """Left out, they would make the rest look faster, and the next hedges start sooner."""
    hedging = taught(hedging_of(), *[0.01] * 90, *[0.2] * 6, *[inf] * 4)
    assert hedging.delay(30) == 0.2


def test_nothing_is_hedged_where_too_many_were_cut_short_to_tell_the_percentile():
    assert taught(hedging_of(), *[0.01] * 90, *[inf] * 10).delay(inf) is None


@pytest.mark.parametrize("seed", range(5))
def test_the_delay_does_not_drift_while_hedges_win(seed: int):
    """A tenth of the calls take 1 s, the others 10 to 20 ms; hedges always win. The percentile of what there is
    stays where it is without hedging: between 10 and 20 ms at 85 %, however long it goes on."""
    rng = Random(seed)
    hedging = hedging_of(percentile=0.85, max_extra=0.15)
    delays = []
    for _ in range(20_000):
        seconds = 1.0 if rng.random() < 0.1 else 0.01 + 0.01 * rng.random()
        delay = hedging.delay(30)
        if delay is None or seconds <= delay or not hedging.try_acquire(0.0):
            hedging.learn(seconds)
        else:
            delays.append(delay)
            hedging.learn(inf if seconds > delay + 0.01 else seconds)
    assert len(delays) > 1000
    # Of 500 calls 450 ± 7 are fast, so the 425th is in the upper part of theirs.
    assert min(delays[-500:]) > 0.0175
    assert max(delays[-500:]) < 0.0205


def test_hedges_stay_within_their_share_of_the_calls():
    hedging = hedging_of()
    hedges = 0
    for _ in range(10_000):
        hedging.learn(0.01)
        if hedging.delay(30) is not None:
            hedges += hedging.try_acquire(0.0)
    assert 0.045 * 10_000 < hedges <= 0.05 * 10_000


def test_calls_that_need_no_hedge_save_up_ten():
    hedging = taught(hedging_of(max_extra=1.0), *[0.01] * 20)
    for _ in range(1000):
        hedging.delay(30)
    assert sum(hedging.try_acquire(0.0) for _ in range(100)) == 10
    assert hedging.try_acquire(0.0) is False


def test_a_hedge_takes_from_the_retry_budget():
    budget = RetryBudget(RetryPolicy(), 0.0)
    hedging = taught(hedging_of(budget=budget))
    before = budget.balance(0.0)
    assert hedging.try_acquire(0.0)
    assert budget.balance(0.0) == before - 1


def test_without_a_retry_budget_there_is_no_hedge_and_the_allowance_is_kept():
    budget = RetryBudget(RetryPolicy(), 0.0)
    while budget.withdraw(0.0):
        pass
    hedging = taught(hedging_of(budget=budget), *[0.01] * 20)
    assert not hedging.try_acquire(0.0)
    assert hedging.delay(30) == 0.01
    assert sum(hedging.try_acquire(1000.0) for _ in range(100)) == 5


def test_a_forked_child_gets_a_fresh_lock():
    hedging = taught(hedging_of(), *[0.01] * 20)
    hedging._lock.acquire()
    hedging.reset_lock()
    assert hedging.delay(30) == 0.01
