"""The rules of HTTP."""

from __future__ import annotations

from math import inf

import pytest

from ecs_discovery.config.policies import BalancingPolicy, OutlierPolicy, RetryPolicy
from ecs_discovery.core.balancing.node import Outcome
from ecs_discovery.core.calls.failure_kinds import GOOD, FailureKind
from ecs_discovery.core.calls.http import asked_wait, judge_status, keep_alive_timeout, pushback


@pytest.mark.parametrize(
    ("status", "asked", "patience", "alone", "expected"),
    [
        (200, None, None, True, None),
        (404, None, None, True, None),
        (500, None, None, True, (Outcome.FAILURE, None, None)),
        (503, 7.0, None, True, (Outcome.FAILURE, FailureKind.STATUS, 7.0)),
        (503, 7.0, None, False, (Outcome.FAILURE, FailureKind.STATUS, None)),
        (503, 7.0, 5.0, True, (Outcome.FAILURE, FailureKind.STATUS, inf)),
        (503, 5.0, 7.0, True, (Outcome.FAILURE, FailureKind.STATUS, 5.0)),
    ],
)
def test_what_a_status_says(status, asked, patience, alone, expected):
    found = judge_status(status, OutlierPolicy(), RetryPolicy(), asked=asked, patience=patience, alone=alone)
    if expected is None:
        assert found is GOOD
    else:
        assert (found.outcome, found.failure, found.retry_after) == expected
        assert found.label == f"status {status}"


def test_an_endpoint_that_has_too_much_to_do_says_for_how_long():
    policy = BalancingPolicy(pushback=2.0)
    assert pushback(500, 5.0, policy) is None
    assert pushback(503, None, policy) == 2.0
    assert pushback(429, 5.0, policy) == 5.0
    assert pushback(429, 5000.0, policy) == 300.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        ("soon", None),
        ("Thu, 01 Jan 1970 00:02:00 GMT", 20.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Thu, 01 Jan 2026 00:00:00 +999999999999999", None),
        (f"Thu, 01 Jan {'9' * 20} 00:00:00 GMT", None),
    ],
)
def test_a_retry_after_is_seconds_or_a_date(text, seconds):
    assert asked_wait(text, 100.0) == seconds


@pytest.mark.parametrize(
    ("hint", "seconds"), [(None, inf), ("max=3", inf), ("timeout=5, max=3", 4.0), ("timeout=1", 0.5)]
)
def test_a_server_may_say_how_long_it_keeps_a_connection(hint, seconds):
    assert keep_alive_timeout(hint) == seconds
