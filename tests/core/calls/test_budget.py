"""The retry budget."""

from __future__ import annotations

import pytest

from ecs_discovery.config.policies import RetryPolicy
from ecs_discovery.core.calls.budget import RetryBudget


def spend(budget: RetryBudget, now: float) -> int:
    count = 0
    while budget.withdraw(now):
        count += 1
    return count


def test_without_successes_one_retry_a_second_is_allowed_after_a_reserve_of_ten():
    budget = RetryBudget(RetryPolicy(), 0.0)
    assert spend(budget, 0.0) == 10
    assert spend(budget, 0.9) == 0
    assert spend(budget, 5.9) == 5
    assert spend(budget, 1000.0) == 10


def test_a_fifth_of_the_successes_may_be_retried():
    budget = RetryBudget(RetryPolicy(budget_floor=0), 0.0)
    assert not budget.withdraw(0.0)
    for _ in range(100):
        budget.deposit()
    assert spend(budget, 0.0) == 20


def test_successes_count_for_about_ten_seconds():
    budget = RetryBudget(RetryPolicy(budget_floor=0), 0.0)
    for _ in range(100):
        budget.deposit()
    assert budget.balance(0.0) == pytest.approx(20)
    assert budget.balance(10.0) == pytest.approx(20 / 2.71828, rel=0.01)
    assert budget.balance(100.0) < 0.01


def test_successes_over_a_long_pause_count_as_spread_over_it():
    budget = RetryBudget(RetryPolicy(budget_floor=0), 0.0)
    for _ in range(1000):
        budget.deposit()
    # 10 a second for 100 s: ten seconds' worth of them stand at the end.
    assert budget.balance(100.0) == pytest.approx(20, rel=0.01)


def test_the_locks_of_a_child_are_its_own():
    budget = RetryBudget(RetryPolicy(), 0.0)
    budget._lock.acquire()
    budget.reset_lock()
    assert budget.withdraw(0.0)


@pytest.mark.parametrize("rate", [10, 100])
def test_in_an_outage_retries_stay_under_one_a_second_however_high_the_rate(rate: int):
    """Sixty seconds without a success: sixty retries and the reserve of ten."""
    budget = RetryBudget(RetryPolicy(), 0.0)
    retries = sum(budget.withdraw(step / rate) for step in range(60 * rate))
    assert retries <= 70
