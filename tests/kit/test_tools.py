"""The clock, the recorders, `no_waits` and the assertions."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest

from ecs_discovery import BalancingPolicy, Discovery, RetryPolicy, ServiceConfig, TimeoutPolicy
from ecs_discovery.events import EndpointsChanged, HealthChanged
from ecs_discovery.testing import Clock, EventLog, Recorder, assert_attempts, assert_spread, no_waits, quick
from ecs_discovery.testing.simulation import Report

TWO = {"orders": "static://10.0.0.1:80,10.0.0.2:80"}


def refuses(attempt):
    raise ConnectionRefusedError("refused")


def breaks(attempt):
    raise ConnectionResetError("reset")


def test_a_clock_moves_forward_only():
    clock = Clock()
    assert clock.advance(5) == clock() == 1005
    with pytest.raises(ValueError, match="0 or more"):
        clock.advance(-1)


def test_the_probe_comes_after_the_pause(ecs_clock, ecs_stub, ecs_events):
    ecs_stub.service("orders", ["10.0.0.1:80", "10.0.0.2:80"])
    turns = BalancingPolicy(picker="round_robin")
    with Discovery(clock=ecs_clock, services=ecs_stub.services, balancing=turns) as discovery:
        for _ in range(20):
            with suppress(ZeroDivisionError), discovery.lease("orders") as lease:
                1 / (lease.host != "10.0.0.1")
        assert ecs_events.last(HealthChanged).health == "ejected"
        ecs_clock.advance(10)
        with discovery.lease("orders") as first, discovery.lease("orders") as second:
            assert "10.0.0.1" in (first.host, second.host)


def test_an_event_that_did_not_come_is_an_error_that_lists_those_that_did(ecs_stub):
    ecs_stub.service("orders", ["10.0.0.1:80"])
    with EventLog() as log, Discovery(namespace="prod.local") as discovery:
        discovery.resolve("orders")
        assert [event.target for event in log.of(EndpointsChanged)] == ["orders"]
        with pytest.raises(AssertionError, match=r"no HealthChanged among 1 events.*1 endpoints from stub"):
            log.last(HealthChanged)
        log.clear()
        assert len(log) == 0


def test_events_after_its_end_are_not_heard():
    with EventLog() as log:
        pass
    with Discovery(services=TWO) as discovery:
        discovery.resolve("orders")
    assert len(log) == 0


@pytest.mark.parametrize("everywhere", [True, False])
def test_a_recorder_counts_calls_and_their_attempts(everywhere):
    with Discovery(services=TWO) as discovery, Recorder(None if everywhere else discovery) as recorder:
        discovery.call("orders", lambda attempt: None)
        with pytest.raises(ConnectionResetError):
            discovery.call("orders", breaks)
        with pytest.raises(ConnectionResetError):
            discovery.call("orders", breaks, idempotent=True)
    assert len(recorder.calls) == 3
    assert recorder.amplification > 1
    assert recorder.attempts_per_call("orders") == recorder.amplification
    assert recorder.attempts_per_call("billing") == 1
    assert set(recorder.by_endpoint("orders")) <= {"10.0.0.1:80", "10.0.0.2:80"}
    assert sum(recorder.by_endpoint().values()) == len(recorder.attempts)


def test_a_recorder_of_all_sees_a_discovery_that_is_made_later():
    with Recorder() as recorder, Discovery(services=TWO) as discovery:
        discovery.call("orders", lambda attempt: None)
    assert len(recorder.calls) == 1


def test_a_recorder_that_was_closed_records_no_more():
    with Discovery(services=TWO) as discovery:
        with Recorder() as recorder:
            pass
        recorder.close()
        discovery.call("orders", lambda attempt: None)
        assert recorder.calls == []
        assert discovery._engine.observers is None


@pytest.mark.parametrize("everywhere", [True, False])
def test_a_recorder_that_was_closed_records_no_end_of_a_call_in_flight(everywhere):
    with Discovery(services=TWO) as discovery, Recorder(None if everywhere else discovery) as recorder:
        discovery.call("orders", lambda attempt: recorder.close())
    assert recorder.calls == recorder.attempts == []


def test_a_recorder_counts_a_service_by_any_of_its_names():
    with Discovery(services=TWO) as discovery, Recorder(discovery) as recorder:
        discovery.call("orders", lambda attempt: None)
        with pytest.raises(ConnectionResetError):
            discovery.call("orders:80", breaks, idempotent=True)
    for name in ("orders", "orders:80", "orders.prod.local", "cloudmap://prod.local/orders"):
        assert recorder.by_endpoint(name) == recorder.by_endpoint()
        assert recorder.attempts_per_call(name) == recorder.amplification > 1
    assert recorder.by_endpoint("billing.prod.local") == {}


SLOW = RetryPolicy(attempts=5, backoff_min=30, backoff_max=30, budget_floor=100)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("before", [True, False])
def test_no_retry_waits_in_the_block(before, own):
    """Pauses of up to 30 s are none."""
    services = {"orders": ServiceConfig(TWO["orders"], retry=SLOW)} if own else TWO
    made = Discovery(services=services, retry=SLOW)
    if before:
        made.resolve("orders")
    began = time.monotonic()
    with made as discovery, no_waits():
        with pytest.raises(ConnectionResetError):
            discovery.call("orders", breaks, idempotent=True)
        assert discovery._engine.service("orders").timeout.connect == 0.2
        assert time.monotonic() - began < 2


def test_time_limits_are_as_they_were_after_the_block():
    with Discovery(services=TWO, retry=SLOW, timeout=TimeoutPolicy(connect=0.1)) as discovery:
        discovery.resolve("orders")
        with no_waits():
            service = discovery._engine.service("orders")
            assert (service.timeout.connect, service.timeout.deadline) == (0.1, 2.0)
            assert discovery._engine.service("orders:81").retry.backoff_max == 0
        assert (service.timeout.connect, service.timeout.deadline, service.retry) == (0.1, 30.0, SLOW)
        assert discovery._engine.service("orders:81").retry == SLOW
        assert discovery._engine.service("orders:82").retry == SLOW


@pytest.mark.parametrize("target", ["orders", "orders:8080", "orders.prod.local", "orders.prod.local:8080"])
@pytest.mark.parametrize("before", [True, False])
def test_a_declared_service_has_its_own_policies_after_the_block_however_it_is_written(target, before):
    own = ServiceConfig("srv://orders.prod.local", retry=SLOW, timeout=TimeoutPolicy(connect=3, deadline=40))
    with Discovery(namespace="prod.local", services={"orders": own}) as discovery:
        if before:
            discovery._engine.service(target)
        with no_waits():
            service = discovery._engine.service(target)
            assert (service.retry.attempts, service.retry.backoff_max, service.timeout.connect) == (5, 0, 0.2)
        assert (service.retry, service.timeout) == (own.retry, own.timeout)
        assert discovery._engine.service(target) is service


def test_a_service_is_one_service_in_the_block_and_after_it():
    """Its health would be counted twice if another way of writing its name made another."""
    own = ServiceConfig("srv://orders.prod.local", retry=SLOW)
    with Discovery(namespace="prod.local", services={"orders": own}) as discovery:
        before = discovery._engine.service("orders:8080")
        with no_waits():
            assert discovery._engine.service("orders.prod.local:8080") is before


def test_blocks_that_do_not_nest_leave_nothing_behind():
    """As two threads have them, or two fixtures."""
    with Discovery(services=TWO, retry=SLOW, timeout=TimeoutPolicy(connect=3, deadline=40)) as discovery:
        service = discovery._engine.service("orders")

        def times():
            return service.timeout.connect, service.timeout.deadline, service.retry.backoff_max

        first, second = no_waits(connect=0.1), no_waits(deadline=1)
        with first:
            second.__enter__()
            assert times() == (0.1, 1, 0)
        assert times() == (0.2, 1, 0)
        made = Discovery(services=TWO, retry=SLOW)
        assert made._engine.service("orders").retry.backoff_max == 0
        second.__exit__(None, None, None)
        assert times() == (3, 40, 30)
        with made:
            assert made._engine.service("orders").retry == SLOW


def test_a_discovery_that_is_made_as_the_last_block_ends_is_not_quick():
    """Its engine has seen that a block is open, and is told after its end."""
    with Discovery(services=TWO, retry=SLOW) as discovery:
        with no_waits():
            late = quick._quick
        late.attach(discovery._engine)
        assert discovery._engine.service("orders").retry == SLOW


def test_an_even_spread_passes_and_an_uneven_one_is_shown():
    assert_spread({"a": 90, "b": 110})
    assert_spread([100, 100, 75, 125])
    with pytest.raises(AssertionError, match="not within 25% of the mean of 100: a: 50, b: 150"):
        assert_spread({"a": 50, "b": 150})


@pytest.mark.parametrize("counts", [{}, [], [0, 0, 0], {"a": 0}])
def test_a_spread_of_nothing_is_a_failure(counts):
    with pytest.raises(AssertionError, match="there were no requests"):
        assert_spread(counts)


def test_attempts_of_no_calls_are_a_failure():
    with Recorder() as recorder:
        for nothing in (Report([], [], [], 0, 1), recorder):
            with pytest.raises(AssertionError, match="there were no calls"):
                assert_attempts(nothing, at_most=1)


def test_attempts_over_the_bound_are_shown():
    assert_attempts(1.2, at_most=1.2)
    with pytest.raises(AssertionError, match=r"1\.5 attempts per call, over 1\.2"):
        assert_attempts(1.5, at_most=1.2)
