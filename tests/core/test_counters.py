"""Counters: what is out of the ordinary is counted, once each, and adds up."""

from __future__ import annotations

import pytest

from ecs_discovery.config.policies import BalancingPolicy, OutlierPolicy, RetryPolicy
from ecs_discovery.core.balancing.node import Health, Node, Outcome
from ecs_discovery.core.calls.budget import RetryBudget
from ecs_discovery.core.calls.call import Call
from ecs_discovery.core.calls.failure_kinds import FailureKind
from ecs_discovery.core.counters import Counted, Counters
from ecs_discovery.core.service import Service
from ecs_discovery.models import Endpoint
from tests.support import endpoints, service_of

NODE = Node(Endpoint("10.0.0.1", 80))


def call_of(counters: Counters, *, idempotent: bool = True, deadline: float = 30.0, **policy: float) -> Call:
    made = RetryPolicy(**policy)  # type: ignore[arg-type]
    return Call("orders", made, RetryBudget(made, 0.0), deadline, 5.0, idempotent, counters=counters)


def test_counts_are_kept_by_kind_and_added_up():
    counters = Counters()
    counters.add(Counted.RETRIES, "closed")
    counters.add(Counted.RETRIES, "closed")
    counters.add(Counted.RETRIES, "status")
    counters.add(Counted.LOOKUPS, "a", "ok", number=3)
    assert counters.total(Counted.RETRIES) == 3
    assert counters.total(Counted.RETRIES, "closed") == 2
    assert counters.total(Counted.HEDGES) == 0
    assert counters.read() == {"retries": {"closed": 2, "status": 1}, "lookups": {"a ok": 3}}


def test_kinds_without_end_are_counted_together():
    counters = Counters()
    for number in range(1000):
        counters.add(Counted.LOOKUPS, "own", f"Error{number}")
    found = counters.read()["lookups"]
    assert len(found) == 65
    assert found["other"] == 1000 - 64


def test_the_child_of_a_fork_begins_at_zero():
    service = service_of(static=endpoints(2))
    assert service.counters.total(Counted.MEMBERS, "added") == 2
    service.reset_lock()
    assert service.counters.read() == {}


@pytest.mark.parametrize(
    ("failure", "counted"),
    [
        (FailureKind.CLOSED, (Counted.RETRIES, "closed")),
        (FailureKind.STATUS, (Counted.RETRIES, "status")),
        (FailureKind.NOT_SENT, (Counted.REPLAYS,)),
    ],
)
def test_an_attempt_that_follows_a_failure_counts_when_it_begins(failure: FailureKind, counted: tuple[Counted, str]):
    counters = Counters()
    call = call_of(counters)
    call.start_attempt(NODE)
    call.failed(failure, 0.0, lambda: 0.5)
    assert counters.read() == {}
    call.start_attempt(NODE)
    assert counters.total(*counted) == 1
    assert sum(sum(each.values()) for each in counters.read().values()) == 1


def test_only_one_replay_of_a_call_is_free():
    counters = Counters()
    call = call_of(counters, attempts=3)
    for _ in range(3):
        call.start_attempt(NODE)
        call.failed(FailureKind.NOT_SENT, 0.0, lambda: 0.5)
    assert (counters.total(Counted.REPLAYS), counters.total(Counted.RETRIES, "connect")) == (1, 1)


def test_an_attempt_beside_another_is_a_hedge():
    counters = Counters()
    call = call_of(counters)
    call.start_attempt(NODE)
    call.start_hedge(NODE)
    assert counters.read() == {"hedges": {"total": 1}}


@pytest.mark.parametrize(
    ("denied_by", "call", "failure"),
    [
        ("not_idempotent", {"idempotent": False}, FailureKind.CLOSED),
        ("attempts", {"attempts": 1}, FailureKind.CLOSED),
        ("deadline", {"deadline": 0.0}, FailureKind.CLOSED),
        ("budget", {"budget": 0.0, "budget_floor": 0.0}, FailureKind.CLOSED),
        ("body", {}, FailureKind.CLOSED),
    ],
)
def test_what_denies_a_retry_is_counted(denied_by: str, call: dict[str, float], failure: FailureKind):
    counters = Counters()
    made = call_of(counters, **call)  # type: ignore[arg-type]
    made.replayable = denied_by != "body"
    made.start_attempt(NODE)
    made.failed(failure, 0.0, lambda: 0.5)
    assert counters.read() == {"retries_denied": {denied_by: 1}}


def test_a_failure_that_no_retry_would_help_is_denied_nothing():
    counters = Counters()
    call = call_of(counters)
    call.start_attempt(NODE)
    call.failed(FailureKind.OTHER, 0.0, lambda: 0.5)
    assert counters.read() == {}


def fail(service: Service, node: Node, times: int, now: float) -> None:
    """Its requests fail, while those to the last endpoint succeed."""
    for _ in range(times):
        service.observe(node, Outcome.FAILURE, now, 0.01)
        service.observe(service.nodes[-1], Outcome.SUCCESS, now, 0.01)


def test_ejections_are_counted_by_cause_and_those_that_may_not_be_too():
    service = service_of(static=endpoints(4), outlier=OutlierPolicy(max_ejected=0.25))
    first, second, third, _ = service.nodes
    for node in service.nodes:
        for _ in range(20):
            service.observe(node, Outcome.SUCCESS, 1000.0, 0.01)
    fail(service, first, 5, 1001.0)
    assert service.counters.total(Counted.EJECTIONS, "consecutive_failures") == 1
    fail(service, second, 7, 1001.0)
    assert second.health is Health.HEALTHY
    assert service.counters.total(Counted.EJECTIONS_WITHHELD, "consecutive_failures") > 0
    service.observe(third, Outcome.CONNECT, 1002.0)
    service.observe(third, Outcome.CONNECT, 1002.0)
    assert service.counters.total(Counted.EJECTIONS, "connect") == 1
    service.observe(third, Outcome.SUCCESS, 1003.0)
    assert service.counters.read()["revivals"] == {"down": 1}


def test_an_ejected_endpoint_that_does_not_connect_either_is_one_ejection():
    service = service_of(static=endpoints(4))
    node = service.nodes[0]
    for other in service.nodes:
        service.observe(other, Outcome.SUCCESS, 1000.0, 0.01)
    fail(service, node, 5, 1001.0)
    service.observe(node, Outcome.CONNECT, 1002.0)
    assert node.health is Health.DOWN
    assert service.counters.read()["ejections"] == {"consecutive_failures": 1}


def test_panic_pushbacks_and_early_lookups_are_counted_once_each():
    service = service_of(static=endpoints(2), balancing=BalancingPolicy())
    for node in service.nodes:
        service.observe(node, Outcome.CONNECT, 1000.0)
    assert service.counters.total(Counted.PANICS) <= 1
    service.push_back(service.nodes[0], 1000.0, 5.0)
    service.push_back(service.nodes[0], 1001.0, 5.0)
    assert service.counters.total(Counted.PUSHBACKS) == 1
    service.force(1000.0, 5.0)
    service.force(1000.5, 5.0)
    assert service.counters.total(Counted.FORCED_LOOKUPS) == 1
