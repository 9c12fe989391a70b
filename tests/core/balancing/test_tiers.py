"""The fleet: nodes that change one by one are where they would be if all were sorted anew."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecs_discovery.config.policies import BalancingPolicy, OutlierPolicy, ZonePolicy
from ecs_discovery.core.balancing.balancer import Balancer
from ecs_discovery.core.balancing.node import Health, Node, Outcome
from ecs_discovery.core.balancing.tiers import Fleet
from ecs_discovery.core.resolution.membership import Membership
from ecs_discovery.models import Endpoint
from tests.support import nodes

PICKERS = ("peak_ewma", "least_pending", "round_robin", "random")
PREFER = ZonePolicy(prefer=True, own="a", min_endpoints=2)


def balancer_of(fleet: tuple[Node, ...], zone: ZonePolicy | None = None, **policy: object) -> Balancer:
    made = Balancer(BalancingPolicy(**policy), OutlierPolicy(), zone or ZonePolicy(), Random(3).random)  # type: ignore[arg-type]
    made.own_zone = (zone or ZonePolicy()).own or None
    made.update(fleet, 0.0)
    return made


def tiers(fleet: Fleet, panic: bool, own: str | None) -> list[list[tuple[float, frozenset[Node]]]]:
    return [
        [(round(tier.upto, 9), frozenset(tier.nodes)) for tier in found if tier.nodes]
        for found in fleet.tiers(panic, own)
    ]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 7), st.sampled_from(["add", "remove", *Health]), st.integers(0, 2), st.sampled_from("ab")
        ),
        max_size=40,
    ),
    st.booleans(),
)
def test_moved_one_by_one_they_are_where_they_would_be_sorted_anew(steps, panic):
    everybody = nodes(8)
    kept = Fleet(BalancingPolicy(), PREFER, lambda: 0.5)
    for number, what, priority, zone in steps:
        node = everybody[number]
        if what == "-" and node in kept:
            kept.remove(node)
        elif what == "+" and node not in kept:
            node.endpoint = Endpoint(f"10.0.0.{number}", 80, priority, 1 + number % 2, zone)
            kept.add(node)
        elif isinstance(what, Health) and node in kept:
            node.health = what
            kept.move(node)
    anew = Fleet(BalancingPolicy(), PREFER, lambda: 0.5)
    for node in kept:
        anew.add(node)
    for own in ("a", None):
        assert tiers(kept, panic, own) == tiers(anew, panic, own)
    healths = Counter(node.health for node in kept)
    assert (kept.healthy, kept.connecting) == (healths[Health.HEALTHY], len(kept) - healths[Health.DOWN])
    assert set(kept.down) == {node for node in kept if node.health is Health.DOWN}


@pytest.mark.parametrize("weights", [(1,), (1, 3)])
@pytest.mark.parametrize("picker", PICKERS)
@pytest.mark.parametrize("size", [3, 100])
def test_shares_are_right_whatever_came_and_left_before(picker, weights, size):
    """Weights of 1 and 3 in turn. A quarter goes down and comes back, some leave, and as many come. Each gets its share
    of 100 uses a weight unit, give or take 60."""
    named = [Endpoint(f"10.0.{n // 200}.{n % 200}", 80, 0, weights[n % len(weights)]) for n in range(size + 5)]
    membership = Membership()
    membership.replace(named[:size], 0.0)
    fleet = membership.nodes
    balancer = balancer_of(fleet, picker=picker, slow_start=0)
    first = balancer.pick(0.0)
    assert first is not None
    balancer.release(first)
    for node in fleet[: size // 4]:
        balancer.observe(node, Outcome.CONNECT, 1.0)
    for _ in range(50):
        node = balancer.pick(1.5)
        assert node is not None
        balancer.release(node)
        assert node not in fleet[: size // 4]
    for node in fleet[: size // 4]:
        balancer.observe(node, Outcome.SUCCESS, 2.0)
    change = membership.replace(named[5 if size > 5 else 1 : size + 5], 3.0)
    assert change is not None
    balancer.update(membership.nodes, 3.0, change)
    units = sum(node.endpoint.weight for node in membership.nodes)
    counts: Counter[Node] = Counter()
    for _ in range(100 * units):
        node = balancer.pick(4.0)
        assert node is not None
        balancer.release(node)
        counts[node] += 1
    assert set(counts) == set(membership.nodes)
    for node in membership.nodes:
        assert abs(counts[node] - 100 * node.endpoint.weight) <= 60 * node.endpoint.weight


def test_a_revival_makes_the_reconnects_of_all_others_due_once_most_are_down():
    fleet = nodes(5)
    balancer = balancer_of(fleet)
    for now in (0.0, 2.0, 5.0, 10.0, 19.0):
        for node in fleet:
            balancer.observe(node, Outcome.CONNECT, now)
    assert fleet[1].state_ends_at == 19.0 + 16
    balancer.observe(fleet[0], Outcome.SUCCESS, 25.0)
    assert set(balancer.pop_reconnects()) == set(fleet[1:])
    for node in fleet[1:]:
        balancer.observe(node, Outcome.CONNECT, 25.0)
    assert fleet[1].state_ends_at == 25.0 + 2
    balancer.observe(fleet[1], Outcome.SUCCESS, 25.5)
    assert balancer.pop_reconnects() == (), "once a second"


def test_a_revival_while_most_are_up_changes_nothing_for_the_others():
    fleet = nodes(5)
    balancer = balancer_of(fleet)
    for now in (0.0, 2.0, 5.0):
        for node in fleet[:2]:
            balancer.observe(node, Outcome.CONNECT, now)
    balancer.observe(fleet[0], Outcome.SUCCESS, 6.0)
    assert fleet[1].state_ends_at == 5.0 + 4
    assert balancer.pop_reconnects() == ()


def test_reconnects_are_handed_out_a_few_at_a_time():
    fleet = nodes(100)
    balancer = balancer_of(fleet)
    for node in fleet:
        balancer.observe(node, Outcome.CONNECT, 0.0)
    balancer.pick(1.0)
    first = balancer.pop_reconnects()
    assert len(first) == 32
    assert balancer.pop_reconnects() == ()
    assert not balancer.work.due
    for node in first[:10]:
        balancer.observe(node, Outcome.CONNECT, 1.1)
    assert balancer.work.due
    assert len(balancer.pop_reconnects()) == 10


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("picker", ["random", "round_robin"])
def test_a_spare_that_is_full_gives_way_to_one_that_is_not_and_then_to_the_next_priority(picker: str, seed: int):
    fleet = tuple(Node(Endpoint(f"10.0.0.{number}", 80, priority)) for number, priority in enumerate((0, 1, 1, 2)))
    balancing = BalancingPolicy(picker=picker, max_pending=1)
    balancer = Balancer(balancing, OutlierPolicy(), ZonePolicy(), Random(seed).random)
    balancer.update(fleet, 0.0)
    picked = [balancer.pick(0.0, exclude=fleet[:1]) for _ in range(4)]
    assert set(picked[:2]) == set(fleet[1:3])
    assert picked[2:] == [fleet[3], None]
