"""Overload: nodes that say so, and failures that all share."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest

from ecs_discovery.config.policies import BalancingPolicy, OutlierPolicy, ZonePolicy
from ecs_discovery.core.balancing.balancer import Balancer
from ecs_discovery.core.balancing.node import Health, Node, Outcome
from tests.support import nodes


def balancer_of(fleet: tuple[Node, ...], **policy: Any) -> Balancer:
    made = Balancer(BalancingPolicy(**policy), OutlierPolicy(), ZonePolicy(), Random(3).random)
    made.update(fleet, 0.0)
    return made


def use(balancer: Balancer, bad: Any, now: float) -> Node:
    """One use; `bad(node)` is whether it fails."""
    node = balancer.pick(now)
    assert node is not None
    balancer.observe(node, Outcome.FAILURE if bad(node) else Outcome.SUCCESS, now, 0.001)
    balancer.release(node)
    return node


def out(fleet: tuple[Node, ...]) -> list[bool]:
    return [node.health is not Health.HEALTHY for node in fleet]


def test_a_success_of_a_use_that_began_after_the_pushback_ends_it():
    fleet = nodes(2)
    balancer = balancer_of(fleet)
    balancer.push_back(fleet[0], 10.0, 40.0)
    balancer.observe(fleet[0], Outcome.SUCCESS, 10.5, 1.0)  # begun before
    assert {balancer.pick(11.0) for _ in range(4)} == {fleet[1]}
    balancer.observe(fleet[0], Outcome.SUCCESS, 12.0, 1.5)
    assert fleet[0] in {balancer.pick(12.0) for _ in range(4)}


def test_a_pushback_that_was_ended_and_begins_again_counts_for_its_new_time():
    fleet = nodes(2)
    balancer = balancer_of(fleet)
    balancer.push_back(fleet[0], 10.0, 20.0)
    balancer.observe(fleet[0], Outcome.SUCCESS, 12.0, 1.0)
    balancer.push_back(fleet[0], 13.0, 30.0)
    assert {balancer.pick(25.0) for _ in range(4)} == {fleet[1]}
    balancer.push_back(fleet[0], 26.0, 40.0)  # and again, for longer
    assert {balancer.pick(35.0) for _ in range(4)} == {fleet[1]}
    assert fleet[0] in {balancer.pick(40.0) for _ in range(9)}


def test_the_time_of_a_pushback_that_was_ended_means_nothing_any_more():
    fleet = nodes(3)
    balancer = balancer_of(fleet)
    balancer.push_back(fleet[0], 10.0, 20.0)
    balancer.observe(fleet[0], Outcome.SUCCESS, 12.0, 0.001)
    for node in fleet[1:]:
        balancer.push_back(node, 21.0, 30.0)
    assert {balancer.pick(22.0) for _ in range(30)} == set(fleet), "most are pushed back"


@pytest.mark.parametrize(("pushed", "spared"), [(1, True), (2, True), (3, False), (4, False)])
def test_a_pushback_is_heeded_unless_most_say_so(pushed: int, spared: bool):
    """Of four; the first whose time is up would get all there is otherwise."""
    fleet = nodes(4)
    balancer = balancer_of(fleet)
    for node in fleet[:pushed]:
        balancer.push_back(node, 0.0, 5.0)
    counts = Counter(balancer.pick(1.0) for _ in range(400))
    assert [counts[node] == 0 for node in fleet[:pushed]] == [spared] * pushed
    if not spared:
        assert set(counts.values()) == {100}


def test_a_pushback_whose_time_is_up_counts_no_longer_among_most():
    fleet = nodes(3)
    balancer = balancer_of(fleet)
    balancer.push_back(fleet[0], 0.0, 5.0)
    balancer.push_back(fleet[1], 0.0, 30.0)
    assert Counter(balancer.pick(1.0) for _ in range(300)) == dict.fromkeys(fleet, 100)
    assert fleet[1] not in {balancer.pick(6.0) for _ in range(100)}


def test_one_that_is_warming_up_comes_before_those_pushed_back():
    fleet = nodes(4)
    balancer = balancer_of(fleet[:3])
    balancer.update(fleet, 1.0)
    for node in fleet[:2]:
        balancer.push_back(node, 1.0, 5.0)
    assert {balancer.pick(1.0, exclude=[fleet[2]]) for _ in range(5)} == {fleet[3]}


@pytest.mark.parametrize("count", [2, 3, 4, 40])
@pytest.mark.parametrize("share", [1.0, 0.3])
def test_trouble_that_all_share_ejects_nobody(count: int, share: float):
    fleet = nodes(count)
    balancer, rng = balancer_of(fleet), Random(9)
    for step in range(500):
        use(balancer, lambda _: False, step * 0.01)
    for step in range(5000):
        use(balancer, lambda _: rng.random() < share, 5.0 + step * 0.01)
        assert not any(out(fleet)), step


@pytest.mark.parametrize("count", [2, 3, 4, 40])
@pytest.mark.parametrize("calm", [0, 2000])
def test_one_that_fails_on_after_trouble_that_all_shared_is_ejected(count: int, calm: int):
    fleet = nodes(count)
    balancer = balancer_of(fleet, picker="round_robin")
    for step in range(calm):
        use(balancer, lambda _: False, step * 0.01)
    for step in range(100):
        use(balancer, lambda _: True, 20.0 + step * 0.01)
    for step in range(5000):
        use(balancer, lambda node: node is fleet[0], 21.0 + step * 0.01)
        if fleet[0].health is Health.EJECTED:
            break
    assert out(fleet) == [True] + [False] * (count - 1)


@pytest.mark.parametrize("others", [0.0, 0.02, 0.1])
def test_one_of_four_that_fails_always_is_ejected_although_others_fail_at_times(others: float):
    """In turn: chosen by load, it would get next to nothing before that."""
    fleet = nodes(4)
    balancer, rng = balancer_of(fleet, picker="round_robin"), Random(9)
    for step in range(2000):
        use(balancer, lambda node: node is fleet[0] or rng.random() < others, step * 0.01)
        if fleet[0].health is Health.EJECTED:
            break
    assert out(fleet) == [True, False, False, False]


def test_one_that_fails_at_every_other_use_is_ejected_although_others_fail_at_times():
    """With picks at random, so that it gets its share all the same. Its streaks are too short to tell."""
    fleet = nodes(4)
    balancer, rng = balancer_of(fleet, picker="random"), Random(9)
    for step in range(2000):
        use(balancer, lambda node: rng.random() < (0.5 if node is fleet[0] else 0.05), step * 0.01)
        if fleet[0].health is Health.EJECTED:
            break
    assert "of the last" in fleet[0].reason
    assert out(fleet) == [True, False, False, False]


def test_a_probe_that_fails_while_all_do_doubles_no_ejection():
    fleet = nodes(4)
    balancer = balancer_of(fleet)
    for _ in range(5):
        balancer.observe(fleet[0], Outcome.FAILURE, 0.0)
    assert fleet[0].health is Health.EJECTED
    for step in range(400):
        use(balancer, lambda _: True, 1.0 + step * 0.001)
    probe = balancer.pick(6.0)
    assert probe is fleet[0]
    balancer.observe(probe, Outcome.FAILURE, 6.0, 0.001)
    assert (fleet[0].health, fleet[0].ejections) == (Health.EJECTED, 1)
    assert fleet[0].state_ends_at <= 6.0 + 5.0
