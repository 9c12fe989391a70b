"""Whether a call is tried again."""

from __future__ import annotations

import pytest
import tenacity

from ecs_discovery.config.policies import RetryPolicy
from ecs_discovery.core.calls.budget import RetryBudget
from ecs_discovery.core.calls.call import Call
from ecs_discovery.core.calls.failure_kinds import FailureKind, Retry
from tests.support import nodes


def call_of(
    *, idempotent: bool = True, deadline: float = 30.0, connect: float = 2.0, budget: float = 1.0, **policy: float
) -> Call:
    made = RetryPolicy(**{"budget_floor": budget, **policy})  # type: ignore[arg-type]
    return Call("orders", made, RetryBudget(made, 0.0), deadline, connect, idempotent)


def attempt(call: Call, failure: FailureKind, now: float = 0.0, **facts: float) -> float | None:
    call.start_attempt(nodes(1)[0])
    decision = call.failed(failure, now, lambda: 0.5, **facts)  # type: ignore[arg-type]
    return decision.after if isinstance(decision, Retry) else None


@pytest.mark.parametrize("idempotent", [True, False])
def test_what_was_never_sent_goes_elsewhere_at_once_whatever_the_method(idempotent: bool):
    call = call_of(idempotent=idempotent)
    assert attempt(call, FailureKind.NOT_SENT) == 0.0


@pytest.mark.parametrize("failure", [FailureKind.CLOSED, FailureKind.STATUS])
def test_what_may_have_been_processed_is_repeated_only_if_idempotent(failure: FailureKind):
    assert attempt(call_of(), failure) is not None
    call = call_of(idempotent=False)
    assert attempt(call, failure) is None
    assert call.reason == "it may have been processed and is not idempotent"


def test_a_body_that_cannot_be_sent_again_is_not():
    call = call_of()
    call.replayable = False
    assert attempt(call, FailureKind.CLOSED) is None
    assert call.reason == "its body cannot be sent again"
    assert attempt(call, FailureKind.NOT_SENT) == 0.0


def test_other_failures_are_not_repeated():
    call = call_of()
    assert attempt(call, FailureKind.OTHER) is None
    assert "not retried" in call.reason


def test_three_attempts_and_one_free_replay_of_what_was_never_sent():
    call = call_of()
    assert [attempt(call, FailureKind.NOT_SENT) for _ in range(4)] == [0.0, 0.0, 0.0, None]
    assert call.reason == "all 3 attempts of RetryPolicy are used, and one more because no task had received it"
    call = call_of()
    assert [attempt(call, FailureKind.CLOSED) for _ in range(3)] == [0.0, 0.0, None]
    call = call_of()
    assert [attempt(call, FailureKind.CLOSED), attempt(call, FailureKind.CLOSED)] == [0.0, 0.0]
    assert attempt(call, FailureKind.NOT_SENT) == 0.0
    assert attempt(call, FailureKind.CLOSED) is None


def test_one_attempt_means_no_retries_at_all():
    assert attempt(call_of(attempts=1), FailureKind.NOT_SENT) is None
    assert attempt(call_of(attempts=1), FailureKind.CLOSED, gone=True) is None


def test_one_replay_of_what_went_to_hosts_that_are_gone_is_free():
    """Three kept connections may lead into a zone that was lost just now."""
    call = call_of(budget=0.0)
    assert attempt(call, FailureKind.CLOSED, gone=True) == 0.0
    assert attempt(call, FailureKind.CLOSED, gone=True) is None
    assert call.reason == "the retry budget is used up"
    call = call_of()
    assert [attempt(call, FailureKind.CLOSED, gone=True) for _ in range(4)] == [0.0, 0.0, 0.0, None]
    assert call.reason == "all 3 attempts of RetryPolicy are used, and one more because no task had received it"


def test_a_request_that_a_vanished_host_may_have_processed_is_repeated_only_if_idempotent():
    call = call_of(idempotent=False)
    assert attempt(call, FailureKind.CLOSED, gone=True) is None
    assert call.reason == "it may have been processed and is not idempotent"


def test_the_free_replay_is_not_taken_from_the_budget_and_others_are():
    call = call_of(budget=0.0)
    assert attempt(call, FailureKind.NOT_SENT) == 0.0
    assert attempt(call, FailureKind.NOT_SENT) is None
    assert call.reason == "the retry budget is used up"


def test_pauses_are_drawn_from_a_bound_that_doubles_to_its_cap():
    call = call_of(attempts=7)
    waits = [attempt(call, FailureKind.STATUS) for _ in range(6)]
    assert waits == pytest.approx([0.0125, 0.025, 0.05, 0.1, 0.125, 0.125])


def test_with_no_other_endpoint_left_there_is_a_pause():
    call = call_of()
    assert attempt(call, FailureKind.CLOSED, choices=0) == pytest.approx(0.0125)


def test_retry_after_is_honoured_inside_the_deadline_only():
    assert attempt(call_of(), FailureKind.STATUS, retry_after=3.0) == 3.0
    call = call_of(deadline=2.0)
    assert attempt(call, FailureKind.STATUS, retry_after=3.0) is None
    assert call.reason == "no time left"


def test_connects_end_with_the_connect_time_and_requests_with_the_deadline():
    assert attempt(call_of(connect=2.0), FailureKind.NOT_SENT, now=2.0) is None
    assert attempt(call_of(connect=2.0), FailureKind.CLOSED, now=2.0) == 0.0
    assert attempt(call_of(deadline=10.0, connect=20.0), FailureKind.NOT_SENT, now=10.0) is None


@pytest.mark.parametrize(
    ("number", "choices", "share"),
    [(1, 2, 2 / 3), (2, 1, 1.0), (3, 0, 2.0), (1, 0, 2.0), (1, 1, 1.0), (4, 5, 2.0)],
)
def test_the_connect_time_is_shared_among_the_attempts_that_may_follow(number: int, choices: int, share: float):
    call = call_of()
    call.number = number
    assert call.connect_share(0.0, choices) == pytest.approx(share)
    assert call.connect_share(5.0, choices) == 0.1


def test_time_spent_on_a_sent_request_and_its_pause_is_not_connect_time():
    call = call_of(connect=2.0)
    assert attempt(call, FailureKind.CLOSED, now=9.0, seconds=9.0) == 0.0
    assert call.connect_share(9.0, 0) == pytest.approx(2.0)
    assert attempt(call, FailureKind.NOT_SENT, now=10.0, seconds=1.0) == 0.0
    assert call.connect_share(10.0, 0) == pytest.approx(1.0)
    call = call_of()
    assert attempt(call, FailureKind.STATUS, retry_after=5.0) == 5.0
    assert call.connect_share(5.0, 0) == pytest.approx(2.0)


def test_the_failure_of_one_of_two_attempts_under_way_decides_nothing_and_costs_nothing():
    call = call_of()
    call.hedged = True
    assert attempt(call, FailureKind.CLOSED) is None
    assert call.reason == ""
    assert call._budget.balance(0.0) == 10.0
    call.hedged = False
    assert attempt(call, FailureKind.CLOSED) == 0.0


def test_reports_name_the_endpoint_the_class_and_the_time():
    call = call_of()
    call.report(nodes(1)[0], "connect", "connect", 0.0, 0.0123, OSError("refused"))
    assert [str(report) for report in call.reports] == ["10.0.0.1:80 connect after 12 ms: refused"]


def test_reports_say_the_kind_the_number_and_the_start_of_each_attempt():
    call = call_of()
    call.started_at = 10.0
    for number, node in enumerate(nodes(2)):
        call.start_attempt(node)
        call.report(node, "read timeout", "error", 10.0 + number, 10.5 + number)
    told = [(report.kind, report.number, report.start, report.seconds) for report in call.reports]
    assert told == [("error", 1, 0.0, 0.5), ("error", 2, 1.0, 0.5)]


def test_an_application_that_has_a_policy_of_its_own_is_told_and_decides():
    own = tenacity.Retrying()
    call = call_of(tenacity=own)  # type: ignore[arg-type]
    assert call.own_policy is own
    assert attempt(call, FailureKind.STATUS) is None
    assert (call.failure, call.reason) == (FailureKind.STATUS, "")


def test_a_pause_of_the_applications_own_takes_the_place_of_the_backoff():
    call = call_of()
    assert call.pause(lambda: 0.5) == 0.0, "nothing has failed"
    assert call.pause(lambda: 0.5, lambda: 7.0) == 7.0, "an answer that its policy repeats"
    attempt(call, FailureKind.STATUS)
    assert call.pause(lambda: 0.5, lambda: 7.0) == 7.0


def test_time_that_went_into_an_answer_is_not_taken_from_connecting():
    call = call_of(connect=2.0)
    call.answered(3.0)
    assert call.connect_deadline_at == 5.0


def test_endpoints_that_an_attempt_has_tried_beside_its_own_count_as_tried():
    call, (first, second) = call_of(), nodes(2)
    call.start_attempt(first)
    call.add_tried(second)
    assert (call.tried, call.number) == ((first, second), 1)
