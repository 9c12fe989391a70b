"""Endpoints that a pick looks at twice: new ones, those that pushed back, full ones."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from ecs_discovery.config.policies import BalancingPolicy, OutlierPolicy, ZonePolicy
from ecs_discovery.core.balancing.balancer import Balancer
from ecs_discovery.core.balancing.node import Health, Node, Outcome
from ecs_discovery.models import Endpoint
from tests.support import nodes

PICKERS = ["peak_ewma", "least_pending", "round_robin", "random"]


def balancer_of(fleet: tuple[Node, ...], seed: int = 1, now: float = 0.0, **policy: object) -> Balancer:
    made = Balancer(BalancingPolicy(**policy), OutlierPolicy(), ZonePolicy(), Random(seed).random)  # type: ignore[arg-type]
    made.update(fleet, now)
    return made


def uses(balancer: Balancer, count: int, start: float, rate: float = 100.0, seconds: float = 0.002) -> Counter[Node]:
    found: Counter[Node] = Counter()
    for step in range(count):
        now = start + step / rate
        node = balancer.pick(now)
        assert node is not None
        balancer.observe(node, Outcome.SUCCESS, now, seconds)
        balancer.release(node)
        found[node] += 1
    return found


@pytest.mark.parametrize("picker", PICKERS)
@pytest.mark.parametrize("count", [3, 4, 10])
def test_a_new_endpoints_share_grows_from_a_tenth_to_its_full_size_in_twenty_seconds(count: int, picker: str):
    fleet = nodes(count)
    balancer = balancer_of(fleet[:-1], picker=picker)
    uses(balancer, 1000, 0.0)
    balancer.update(fleet, 10.0)
    fair = 1000 / count
    shares = [uses(balancer, 1000, at, rate=1000)[fleet[-1]] / fair for at in (10.0, 15.0, 20.0, 25.0, 31.0)]
    assert shares == pytest.approx([0.12, 0.28, 0.53, 0.78, 1.0], abs=0.2)
    assert shares[0] < 0.3


@pytest.mark.parametrize("newcomers", [1, 2, 5])
def test_when_most_are_new_all_take_their_full_share_at_once(newcomers: int):
    fleet = nodes(newcomers + 1)
    balancer = balancer_of(fleet[:1])
    balancer.update(fleet, 100.0)
    if newcomers == 1:
        balancer.update(fleet[1:], 101.0)  # the old one has left
        assert set(uses(balancer, 10, 101.0)) == {fleet[1]}
        balancer.update((*fleet[1:], *nodes(4)[3:]), 102.0)
    found = uses(balancer, 600, 102.0)
    assert max(found.values()) - min(found.values()) <= 120


def test_two_of_three_replaced_within_the_time_end_the_warming_up():
    fleet = nodes(5)
    balancer = balancer_of(fleet[:3])
    balancer.update((fleet[0], fleet[1], fleet[3]), 100.0)
    assert fleet[3].full_priority_at == 120.0
    balancer.update((fleet[0], fleet[3], fleet[4]), 105.0)
    assert uses(balancer, 300, 106.0)[fleet[4]] == 100


def test_without_slow_start_a_new_endpoint_takes_its_full_share_at_once():
    fleet = nodes(4)
    balancer = balancer_of(fleet[:3], slow_start=0)
    balancer.update(fleet, 100.0)
    assert uses(balancer, 400, 100.0)[fleet[3]] == 100


def test_an_endpoint_that_comes_back_within_minutes_is_not_new():
    fleet = nodes(4)
    balancer = balancer_of(fleet)
    balancer.update(fleet[:3], 100.0)
    balancer.update(fleet, 130.0)
    assert uses(balancer, 400, 130.0)[fleet[3]] == 100


@pytest.mark.parametrize("seconds", [0.002, 0.3])
def test_a_new_endpoint_begins_at_the_median_cost(seconds: float):
    fleet = nodes(4)
    balancer = balancer_of(fleet[:3])
    uses(balancer, 300, 0.0, seconds=seconds)
    balancer.update(fleet, 3600.0)
    assert fleet[3].score == sorted(node.score for node in fleet[:3])[1]
    assert fleet[3].cost >= 0.005
    assert uses(balancer, 100, 3621.0, seconds=seconds)[fleet[3]] in (24, 25, 26)


@pytest.mark.parametrize("picker", PICKERS)
@pytest.mark.parametrize("count", [2, 4, 6, 20])
def test_one_that_pushed_back_is_chosen_after_all_others_until_its_time_is_up(count: int, picker: str):
    fleet = nodes(count)
    balancer = balancer_of(fleet, picker=picker)
    balancer.push_back(fleet[0], 0.0, 5.0)
    balancer.push_back(fleet[0], 0.0, 3.0)  # an earlier end does not shorten it
    assert fleet[0] not in uses(balancer, 400, 0.0)
    assert uses(balancer, 20 * count, 5.0)[fleet[0]] > 0
    assert balancer.pick(1.0, exclude=fleet[1:]) is fleet[0]


@pytest.mark.parametrize("count", [1, 2, 4, 6, 20])
def test_when_all_pushed_back_they_are_used_all_the_same_and_evenly(count: int):
    fleet = nodes(count)
    balancer = balancer_of(fleet)
    for number, node in enumerate(fleet):
        balancer.push_back(node, 0.0, 1000.0 + number)
    found = [balancer.pick(0.0) for _ in range(100 * count)]
    assert min(Counter(found).values()) >= 50


@pytest.mark.parametrize("picker", PICKERS)
@pytest.mark.parametrize("weights", [(1,), (1, 1), (1,) * 4, (1,) * 6, (1,) * 20, (1, 2, 3)])
def test_no_endpoint_has_more_uses_than_its_limit_and_then_none_is_picked(weights: tuple[int, ...], picker: str):
    fleet = tuple(Node(Endpoint(f"10.0.0.{n}", 80, 1, weight)) for n, weight in enumerate(weights, 1))
    balancer = balancer_of(fleet, max_pending=3, picker=picker)
    picked = [balancer.pick(0.0) for _ in range(3 * len(fleet))]
    assert Counter(picked) == dict.fromkeys(fleet, 3)
    assert balancer.pick(0.0) is None
    assert balancer.pick(0.0, key="ann") is None
    balancer.release(fleet[-1])
    assert balancer.pick(0.0) is fleet[-1]
    assert balancer.pick(0.0) is None


def test_endpoints_that_are_out_of_choice_do_not_make_room():
    fleet = nodes(3)
    balancer = balancer_of(fleet, max_pending=1)
    balancer.observe(fleet[0], Outcome.CONNECT, 0.0)
    assert {balancer.pick(0.1), balancer.pick(0.1)} == set(fleet[1:])
    assert balancer.pick(0.1) is None
    assert balancer.pick(0.1, exclude=fleet[1:]) is fleet[0]
    assert fleet[0].health is Health.DOWN


def test_a_child_of_a_fork_has_room():
    fleet = nodes(2)
    balancer = balancer_of(fleet, max_pending=1)
    assert {balancer.pick(0.0), balancer.pick(0.0)} == set(fleet)
    balancer.after_fork()
    assert {balancer.pick(0.0), balancer.pick(0.0)} == set(fleet)


def test_the_last_picks_tell_why_each_was_chosen():
    fleet = nodes(3)
    balancer = balancer_of(fleet, explain=3)
    uses(balancer, 33, 0.0)
    kept = balancer.picks()
    assert len(kept) == 3
    assert [pick.why for pick in kept] == ["peak_ewma"] * 3
    assert kept[0].candidates[0].endpoint == kept[0].endpoint
    assert {candidate.endpoint for candidate in kept[0].candidates} == {str(node.endpoint) for node in fleet}
    assert kept[0].candidates[0].load <= max(candidate.load for candidate in kept[0].candidates)
    for _ in range(5):
        balancer.observe(fleet[0], Outcome.FAILURE, 1.0)
    assert balancer.pick(10.0) is fleet[0]
    assert balancer.picks()[-1].why == "probe after an ejection"
    balancer.pick(10.0, exclude=fleet[1:])
    assert (balancer.picks()[-1].why, balancer.picks()[-1].excluded) == ("last resort", 2)


def test_no_picks_are_kept_where_nobody_wants_them():
    balancer = balancer_of(nodes(3), explain=0)
    uses(balancer, 40, 0.0)
    assert balancer.picks() == ()
