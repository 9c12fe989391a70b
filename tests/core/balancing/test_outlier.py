"""Outlier rules, and the health that follows from them, on single nodes and small fleets."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ecs_discovery.config.policies import BalancingPolicy, OutlierPolicy, ZonePolicy
from ecs_discovery.core.balancing import health, outlier
from ecs_discovery.core.balancing.balancer import Balancer
from ecs_discovery.core.balancing.health import HealthChange
from ecs_discovery.core.balancing.node import Health, Node, Outcome
from tests.support import nodes

POLICY = OutlierPolicy()


def highest() -> float:
    return 1.0 - 2**-53


def revived(node: Node, now: float) -> bool:
    """Did something good that happened to it make it healthy again?"""
    change = health.answered(node, now)
    return change is not None and change.after is Health.HEALTHY


def fail(node: Node, now: float, rng: Callable[[], float] = highest) -> str:
    """Why it is ejected by one more failure; "" if it is not."""
    change = health.failed(node, POLICY, now, rng)
    return change.reason if change is not None and change.after is Health.EJECTED else ""


def test_the_fifth_failure_in_a_row_ejects():
    (node,) = nodes(1)
    assert [fail(node, 0.0) for _ in range(5)] == [""] * 4 + ["5 failures in a row"]
    assert node.health is Health.EJECTED


def test_a_change_is_told_with_what_was_and_what_is():
    (node,) = nodes(1)
    for _ in range(4):
        fail(node, 0.0)
    change = health.failed(node, POLICY, 100.0, lambda: 0.0)
    assert change == HealthChange(Health.HEALTHY, Health.EJECTED, "5 failures in a row", 102.5, "consecutive_failures")
    change = health.refused(node, POLICY, 101.0)
    assert change == HealthChange(Health.EJECTED, Health.DOWN, "1 failed connect", 102.0, "connect")
    change = health.answered(node, 102.0)
    assert change == HealthChange(Health.DOWN, Health.EJECTED, "1 failed connect", 102.5, "")
    change = health.time_up(node, 102.5)
    assert change == HealthChange(Health.EJECTED, Health.PROBING, "1 failed connect", 102.5, "")
    change = health.answered(node, 102.6)
    assert change == HealthChange(Health.PROBING, Health.HEALTHY, "", 102.5, "")


def test_a_failure_that_may_eject_nobody_leaves_earlier_ejections_to_count():
    (node,) = nodes(1)
    node.ejections = 3
    for _ in range(9):
        assert health.failed(node, POLICY, 1e6, highest, may_eject=False) is None
    assert (node.health, node.ejections, node.state_ends_at) == (Health.HEALTHY, 3, 0.0)


def test_a_success_in_between_starts_the_count_again():
    (node,) = nodes(1)
    for _ in range(4):
        fail(node, 0.0)
    assert not revived(node, 50.0)
    assert not fail(node, 0.0)


def test_ejections_double_from_five_seconds_to_three_hundred():
    (node,) = nodes(1)
    node.health = Health.PROBING
    spans = []
    for _ in range(9):
        began = node.state_ends_at
        assert fail(node, began)
        spans.append(round(node.state_ends_at - began, 6))
        health.time_up(node, node.state_ends_at)
    assert spans == [5, 10, 20, 40, 80, 160, 300, 300, 300]


def test_jitter_shortens_an_ejection_by_half_at_most():
    (node,) = nodes(1)
    node.health = Health.PROBING
    fail(node, 100.0, lambda: 0.0)
    assert node.state_ends_at == 102.5


def test_an_ejected_node_is_not_revived_by_a_request_from_before():
    (node,) = nodes(1)
    node.health = Health.EJECTED
    assert not revived(node, 50.0)
    assert node.health is Health.EJECTED


def test_failures_of_an_ejected_node_do_not_eject_it_again():
    (node,) = nodes(1)
    node.health = Health.EJECTED
    node.consecutive = 10
    assert not fail(node, 0.0)


@pytest.mark.parametrize("health", [Health.PROBING, Health.DOWN])
def test_a_success_brings_a_probed_or_down_node_back_and_takes_an_ejection_off(health: Health):
    (node,) = nodes(1)
    node.health, node.ejections, node.reason = health, 2, "5 failures in a row"
    assert revived(node, 50.0)
    assert (node.health, node.ejections, node.reason) == (Health.HEALTHY, 1, "")
    node.health, node.ejections = health, 0
    assert revived(node, 50.0)
    assert node.ejections == 0


def test_failed_connects_set_aside_for_one_second_doubling_to_thirty_two():
    (node,) = nodes(1)
    now, spans = 0.0, []
    for _ in range(8):
        health.refused(node, POLICY, now)
        spans.append(node.state_ends_at - now)
        now = node.state_ends_at
    assert spans == [1, 2, 4, 8, 16, 32, 32, 32]
    assert node.health is Health.DOWN


def test_connects_that_failed_together_count_once():
    (node,) = nodes(1)
    assert health.refused(node, POLICY, 0.0)
    assert not health.refused(node, POLICY, 0.1)
    assert (node.state_ends_at, node.connect_failures) == (1.0, 1)


def test_a_failed_reconnect_counts_although_its_pause_was_moved():
    (node,) = nodes(1)
    health.refused(node, POLICY, 0.0)
    node.reconnecting, node.state_ends_at = True, 33.0
    health.refused(node, POLICY, 1.1)
    assert (node.state_ends_at, node.connect_failures, node.reconnecting) == (3.1, 2, False)


# H healthy, E ejected, P probing, D down


@pytest.mark.parametrize(
    ("fleet_now", "allowed"),
    [
        ("H", False),
        ("HH", True),
        ("HE", False),
        ("HD", False),
        ("HHH", True),
        ("HHE", False),
        ("HHD", True),
        ("HHHH", True),
        ("HHHE", True),
        ("HHEE", False),
        ("HHHP", True),
        ("HHPE", False),
        ("HHHDDD", True),
        ("HEDD", False),
    ],
)
def test_the_cap_is_counted_after_ejecting_and_the_last_healthy_one_stays(fleet_now: str, allowed: bool):
    healthy, out = fleet_now.count("H"), fleet_now.count("E") + fleet_now.count("P")
    assert outlier.ejection_allowed(healthy, out, POLICY) is allowed


@pytest.mark.parametrize(
    ("fleet_now", "panic"),
    [("H", False), ("E", True), ("HE", False), ("HEE", True), ("HDD", False), ("DDD", False), ("HEED", True)],
)
def test_panic_is_under_half_healthy_of_those_that_connect(fleet_now: str, panic: bool):
    assert outlier.panicking(fleet_now.count("H"), len(fleet_now) - fleet_now.count("D"), POLICY) is panic


def test_one_that_was_ejected_before_it_was_down_is_ejected_still_when_it_connects_again():
    (node,) = nodes(1)
    node.health, node.ejection_ends_at = Health.DOWN, 120.0
    assert not revived(node, 50.0)
    assert (node.health, node.state_ends_at) == (Health.EJECTED, 120.0)
    node.health = Health.DOWN
    assert revived(node, 120.0)
    assert node.health is Health.HEALTHY


def judged(outcomes: str, *, every: float = 0.1, start: float = 100.0, policy: OutlierPolicy = POLICY) -> str:
    """Feed successes (.) and failures (x) to one of three nodes; why it was ejected, or ""."""
    fleet = nodes(3)
    balancer = Balancer(BalancingPolicy(), policy, ZonePolicy(), highest)
    balancer.update(fleet, start)
    for step, kind in enumerate(outcomes):
        balancer.observe(fleet[0], Outcome.SUCCESS if kind == "." else Outcome.FAILURE, start + step * every, 0.01)
        if fleet[0].health is Health.EJECTED:
            return f"{step + 1}: {fleet[0].reason}"
    return ""


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        ("." * 97 + "xxx", ""),
        (".x" * 4 + ".", ""),  # nine requests are too few
        (".x" * 5, "10: 5 of the last 10 requests succeeded"),
        ("....x" * 1 + "....x....x....x", ""),  # 80 % is enough
        ("..." + "x..x" * 4, "11: 7 of the last 11 requests succeeded"),
        ("xxxxx", "5: 5 failures in a row"),
    ],
)
def test_under_80_percent_of_ten_requests_eject(outcomes: str, verdict: str):
    assert judged(outcomes) == verdict


def test_requests_of_more_than_thirty_seconds_ago_do_not_count():
    good_once = "." * 100 + ".xx" * 4
    assert judged(good_once, every=0.1) == ""
    assert judged(good_once, every=3.0).endswith("requests succeeded")


def test_a_success_rate_of_zero_switches_the_rule_off():
    assert judged(".xxx" * 20, policy=OutlierPolicy(success_rate=0)) == ""


def test_what_was_before_an_ejection_does_not_count_after_it():
    fleet = nodes(3)
    balancer = Balancer(BalancingPolicy(), POLICY, ZonePolicy(), highest)
    balancer.update(fleet, 0.0)
    for step in range(10):
        balancer.observe(fleet[0], Outcome.FAILURE if step % 2 else Outcome.SUCCESS, 1.0, 0.01)
    assert fleet[0].health is Health.EJECTED
    assert balancer.pick(7.0) is fleet[0]
    balancer.observe(fleet[0], Outcome.SUCCESS, 7.0, 0.01)
    balancer.observe(fleet[0], Outcome.FAILURE, 7.1, 0.01)
    assert fleet[0].health is Health.HEALTHY


def test_each_half_minute_of_health_takes_an_ejection_off():
    (node,) = nodes(1)
    node.health, node.ejections = Health.PROBING, 6
    assert revived(node, 1000.0)
    for _ in range(4):
        fail(node, 1095.0)
    assert fail(node, 1095.0)
    assert node.ejections == 3, "two that are left, and this one"
    assert node.state_ends_at == pytest.approx(1095.0 + 20)
