"""Costs: latency and errors as load, as the balancer sees them."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from ecs_discovery.config.policies import BalancingPolicy, OutlierPolicy, ZonePolicy
from ecs_discovery.core.balancing import cost
from ecs_discovery.core.balancing.balancer import Balancer
from ecs_discovery.core.balancing.cost import CROWD, EQUAL, MOST
from ecs_discovery.core.balancing.node import Node, Outcome
from ecs_discovery.core.lease import Lease
from tests.support import endpoints, nodes, service_of

POLICY = BalancingPolicy()


def measured(*spans: float, every: float = 0.1, failed: bool = False) -> Node:
    (node,) = nodes(1)
    cost.seed([node], (), POLICY, 100.0)
    for step, seconds in enumerate(spans):
        cost.observe(node, seconds, failed, POLICY, 100.0 + step * every)
    return node


def balancer_of(fleet: tuple[Node, ...], seed: int = 1, **policy: object) -> Balancer:
    made = Balancer(BalancingPolicy(**policy), OutlierPolicy(), ZonePolicy(), Random(seed).random)  # type: ignore[arg-type]
    made.update(fleet, 100.0)
    return made


def traffic(balancer: Balancer, seconds: dict[Node, float], uses: int, *, start: float = 100.0, rate: float = 100.0):
    """Sequential uses, each as long as its node takes; those that take None fail at once."""
    found: Counter[Node] = Counter()
    for step in range(uses):
        now = start + step / rate
        node = balancer.pick(now)
        assert node is not None
        spent = seconds[node]
        balancer.observe(node, Outcome.SUCCESS if spent else Outcome.FAILURE, now, spent or 0.0005)
        balancer.release(node)
        found[node] += 1
    return found


def test_latencies_below_the_least_count_as_that():
    assert measured(*[0.0001, 0.004, 0.002] * 2).cost == 0.005


def test_one_or_two_slow_uses_cost_nothing_and_a_third_counts_fully():
    assert measured(0.005, 0.2, 0.2).cost == 0.005
    assert measured(0.005, 0.2, 0.3, 0.25).cost == 0.2
    assert measured(0.2, 0.2, 0.005, 0.2, 0.2, 0.005).cost == pytest.approx(0.005, rel=0.1)


def test_the_cost_sinks_to_37_percent_of_the_difference_in_ten_seconds():
    assert measured(0.2, 0.2, 0.2, 0.01, every=10.0).cost == pytest.approx(0.01 + 0.19 / 2.718281828)


def test_a_clock_that_goes_back_between_threads_changes_nothing():
    (node,) = nodes(1)
    cost.seed([node], (), POLICY, 1e6)
    for _ in range(3):
        cost.observe(node, 0.2, False, POLICY, 1e6)
    cost.observe(node, 0.1, False, POLICY, 0.0)
    assert node.cost == pytest.approx(0.2)


def test_a_failed_use_counts_ten_times_and_five_seconds_at_most():
    assert measured(*[0.02] * 3, failed=True).cost == pytest.approx(0.2)
    assert measured(0.02, *[0.0005] * 20, failed=True).cost == 5.0
    assert measured(*[20.0] * 3, failed=True).cost == 20.0


def test_no_use_costs_more_than_a_minute():
    assert measured(*[1e9] * 3).cost == 60.0


def test_uses_under_way_count_like_that_many_times_the_cost_up_to_a_limit():
    assert CROWD[0] == 0
    assert CROWD[3] == pytest.approx(2 * CROWD[1])
    assert CROWD[1] > EQUAL
    fleet = nodes(1)
    balancer = balancer_of(fleet)
    for _ in range(MOST + 10):
        balancer.pick(100.0)
    assert fleet[0].pending == MOST + 10
    assert fleet[0].load == pytest.approx(fleet[0].score + CROWD[MOST])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("count", "most"), [(2, 60), (3, 60), (10, 15)])
def test_a_slow_endpoint_gets_a_trickle(count: int, most: int, seed: int):
    """200 ms against 2 ms at 100 uses a second for 60 s: the 37th part of its fair share, or less."""
    fleet = nodes(count)
    found = traffic(balancer_of(fleet, seed), dict.fromkeys(fleet, 0.002) | {fleet[0]: 0.2}, 6000)
    assert 1 <= found[fleet[0]] <= most


@pytest.mark.parametrize("count", [2, 3, 4, 10])
def test_an_endpoint_that_fails_fast_attracts_nothing(count: int):
    fleet = nodes(count)
    balancer = balancer_of(fleet)
    found = traffic(balancer, dict.fromkeys(fleet, 0.1) | {fleet[0]: 0.0}, 500)
    assert found[fleet[0]] <= 10


@pytest.mark.parametrize("seed", range(3))
def test_an_endpoint_that_was_slow_comes_back_to_its_share(seed: int):
    fleet = nodes(3)
    balancer = balancer_of(fleet, seed)
    traffic(balancer, dict.fromkeys(fleet, 0.002) | {fleet[0]: 0.2}, 1000)
    traffic(balancer, dict.fromkeys(fleet, 0.002), 4500, start=110.0)
    found = traffic(balancer, dict.fromkeys(fleet, 0.002), 300, start=155.0)
    assert [found[node] for node in fleet] == [100, 100, 100]


@pytest.mark.parametrize("seed", range(5))
def test_pauses_of_equal_endpoints_do_not_unsettle_an_even_share(seed: int):
    """One use in 50 takes 50 ms instead of 2: 3,000 uses of three endpoints stay within a tenth of 1,000 each."""
    rng = Random(seed)
    fleet = nodes(3)
    balancer = balancer_of(fleet, seed)
    found: Counter[Node] = Counter()
    for step in range(3000):
        now = 100.0 + step / 100
        node = balancer.pick(now)
        assert node is not None
        balancer.observe(node, Outcome.SUCCESS, now, 0.05 if rng.random() < 0.02 else 0.002)
        balancer.release(node)
        found[node] += 1
    assert all(900 <= found[node] <= 1100 for node in fleet)


def test_after_an_hour_without_use_endpoints_are_still_told_apart():
    fleet = nodes(2)
    balancer = balancer_of(fleet)
    traffic(balancer, {fleet[0]: 0.002, fleet[1]: 0.2}, 100)
    found = traffic(balancer, {fleet[0]: 0.002, fleet[1]: 0.2}, 100, start=3700.0)
    assert found[fleet[1]] <= 3


def test_other_rules_do_not_look_at_latency():
    fleet = nodes(2)
    found = traffic(balancer_of(fleet, picker="least_pending"), {fleet[0]: 0.002, fleet[1]: 0.2}, 100)
    assert found[fleet[0]] == found[fleet[1]] == 50
    assert fleet[1].score == fleet[0].score


def test_connecting_is_not_what_a_use_costs():
    service = service_of(static=endpoints(1))
    for step in range(5):
        lease = Lease(service, 1000.0 + step)
        lease.pick()
        lease.sent_at = lease.started_at + 0.8
        other = lease.hand_over()
        lease.adopt(other)
        lease.finish(Outcome.SUCCESS, lease.started_at + 0.81)
    assert service.nodes[0].cost == pytest.approx(0.01)


def test_a_cost_that_has_all_but_sunk_to_the_least_is_the_least():
    assert measured(0.2, 0.2, 0.2, 0.001, every=100.0).cost == 0.005
