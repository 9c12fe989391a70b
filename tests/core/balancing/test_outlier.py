"""Outlier rules on single nodes and small fleets."""

from __future__ import annotations

import pytest

from ecs_discovery.config.policies import BalancingPolicy, OutlierPolicy, ZonePolicy
from ecs_discovery.core.balancing import outlier
from ecs_discovery.core.balancing.balancer import Balancer
from ecs_discovery.core.balancing.node import Health, Outcome
from tests.support import nodes

POLICY = OutlierPolicy()


def highest() -> float:
    return 1.0 - 2**-53


def test_the_fifth_failure_in_a_row_asks_for_an_ejection():
    (node,) = nodes(1)
    assert [outlier.on_failure(node, POLICY, 0.0, highest) for _ in range(5)] == [""] * 4 + ["5 failures in a row"]


def test_a_success_in_between_starts_the_count_again():
    (node,) = nodes(1)
    for _ in range(4):
        outlier.on_failure(node, POLICY, 0.0, highest)
    assert not outlier.on_success(node, 50.0)
    assert not outlier.on_failure(node, POLICY, 0.0, highest)


def test_ejections_double_from_five_seconds_to_three_hundred():
    (node,) = nodes(1)
    node.health = Health.PROBING
    spans = []
    for _ in range(9):
        assert outlier.on_failure(node, POLICY, 0.0, highest)
        spans.append(round(node.until, 6))
        node.ejections += 1
    assert spans == [5, 10, 20, 40, 80, 160, 300, 300, 300]


def test_jitter_shortens_an_ejection_by_half_at_most():
    (node,) = nodes(1)
    node.health = Health.PROBING
    outlier.on_failure(node, POLICY, 100.0, lambda: 0.0)
    assert node.until == 102.5


def test_an_ejected_node_is_not_revived_by_a_request_from_before():
    (node,) = nodes(1)
    node.health = Health.EJECTED
    assert not outlier.on_success(node, 50.0)
    assert node.health is Health.EJECTED


def test_failures_of_an_ejected_node_do_not_eject_it_again():
    (node,) = nodes(1)
    node.health = Health.EJECTED
    node.consecutive = 10
    assert not outlier.on_failure(node, POLICY, 0.0, highest)


@pytest.mark.parametrize("health", [Health.PROBING, Health.DOWN])
def test_a_success_brings_a_probed_or_down_node_back_and_takes_an_ejection_off(health: Health):
    (node,) = nodes(1)
    node.health, node.ejections, node.reason = health, 2, "5 failures in a row"
    assert outlier.on_success(node, 50.0)
    assert (node.health, node.ejections, node.reason) == (Health.HEALTHY, 1, "")
    node.health, node.ejections = health, 0
    assert outlier.on_success(node, 50.0)
    assert node.ejections == 0


def test_failed_connects_set_aside_for_one_second_doubling_to_thirty_two():
    (node,) = nodes(1)
    now, spans = 0.0, []
    for _ in range(8):
        outlier.on_connect_failure(node, POLICY, now)
        spans.append(node.until - now)
        now = node.until
    assert spans == [1, 2, 4, 8, 16, 32, 32, 32]
    assert node.health is Health.DOWN


def test_connects_that_failed_together_count_once():
    (node,) = nodes(1)
    assert outlier.on_connect_failure(node, POLICY, 0.0)
    assert not outlier.on_connect_failure(node, POLICY, 0.1)
    assert (node.until, node.connect_failures) == (1.0, 1)


def test_a_failed_reconnect_counts_although_its_pause_was_moved():
    (node,) = nodes(1)
    outlier.on_connect_failure(node, POLICY, 0.0)
    node.reconnecting, node.until = True, 33.0
    outlier.on_connect_failure(node, POLICY, 1.1)
    assert (node.until, node.connect_failures, node.reconnecting) == (3.1, 2, False)


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
    node.health, node.ejected_until = Health.DOWN, 120.0
    assert not outlier.on_success(node, 50.0)
    assert (node.health, node.until) == (Health.EJECTED, 120.0)
    node.health = Health.DOWN
    assert outlier.on_success(node, 120.0)
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
    assert outlier.on_success(node, 1000.0)
    for _ in range(4):
        outlier.on_failure(node, POLICY, 1095.0, highest)
    assert outlier.on_failure(node, POLICY, 1095.0, highest)
    assert node.ejections == 2
    assert node.until == pytest.approx(1095.0 + 20)
