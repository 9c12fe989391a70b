"""Possibly partial answers, joined: estimate, hold, coverage, in simulated hours."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecs_discovery.core.resolution.partial import PartialAnswers
from ecs_discovery.models import MAX_ENDPOINTS, Endpoint, Resolution, replace
from tests.support import answer


def numbered(*numbers: int, ttl: float = 10.0) -> Resolution:
    return answer(*(f"10.0.0.{number}" for number in numbers), ttl=ttl)


def hosts(resolution: Resolution) -> set[str]:
    return {endpoint.host for endpoint in resolution.endpoints}


def test_an_answer_of_fewer_than_eight_is_complete_and_stands_alone():
    union = PartialAnswers()
    union.add(numbered(1, 2, 3), 0.0)
    found = union.add(numbered(3, 4), 10.0)
    assert hosts(found) == {"10.0.0.3", "10.0.0.4"}
    assert (found.partial, found.estimate, union.growing) == (False, None, False)


def test_an_answer_of_more_than_eight_is_complete_too():
    union = PartialAnswers()
    assert not union.add(numbered(*range(1, 13)), 0.0).partial


def test_answers_of_eight_are_joined():
    union = PartialAnswers()
    union.add(numbered(*range(1, 9)), 0.0)
    found = union.add(numbered(*range(5, 13)), 10.0)
    assert len(found.endpoints) == 12
    assert found.partial
    assert union.growing


def test_an_endpoint_whose_weight_changes_has_the_new_weight_among_the_joined():
    union = PartialAnswers()
    union.add(numbered(*range(1, 9)), 0.0)
    heavy = Endpoint("10.0.0.8", 80, weight=5)
    found = union.add(Resolution((*numbered(*range(9, 16)).endpoints, replace(heavy, port=0)), 10.0, "dns"), 10.0)
    assert {endpoint.host: endpoint.weight for endpoint in found.endpoints}["10.0.0.8"] == 5
    assert len(found.endpoints) == 15


def test_two_instances_at_one_address_are_told_apart():
    def said(weight: int) -> Resolution:
        tasks = [Endpoint("10.0.0.1", 80, instance_id=f"task-{number}") for number in range(8)]
        return Resolution((*tasks[:3], replace(tasks[3], weight=weight), *tasks[4:]), 10.0, "dns")

    union = PartialAnswers()
    union.add(said(1), 0.0)
    found = union.add(said(5), 10.0)
    assert [endpoint.weight for endpoint in found.endpoints] == [1, 1, 1, 5, 1, 1, 1, 1]


def test_a_cached_answer_that_comes_again_counts_once():
    union = PartialAnswers()
    union.add(numbered(*range(1, 9)), 0.0)
    for second in range(1, 10):  # its TTL counts down in somebody's cache
        union.add(numbered(*range(1, 9), ttl=10.0 - second), float(second))
    assert union.growing
    found = union.add(numbered(*range(5, 13)), 10.0)
    assert len(found.endpoints) == 12


def test_a_service_that_shrinks_under_eight_is_believed_at_once():
    union = PartialAnswers()
    union.add(numbered(*range(1, 9)), 0.0)
    union.add(numbered(*range(5, 13)), 10.0)
    found = union.add(numbered(1, 2, 3), 20.0)
    assert (len(found.endpoints), found.partial) == (3, False)
    assert len(union.add(numbered(*range(1, 9)), 30.0).endpoints) == 8


def test_the_same_eight_for_ever_tell_nothing():
    union = PartialAnswers()
    for step in range(10):
        found = union.add(numbered(*range(1, 9)), step * 11.0)
    assert found.partial
    assert found.estimate is None
    assert not union.growing


def test_a_replaced_task_among_eight_is_dropped_within_a_few_answers():
    union = PartialAnswers()
    for step in range(10):
        union.add(numbered(*range(1, 9)), step * 11.0)
    gone = 0
    while "10.0.0.1" in hosts(union.add(numbered(*range(2, 10)), 200.0 + gone * 11.0)):
        gone += 1
    assert gone <= 5


def test_a_weighted_service_is_recognised_by_a_record_that_comes_back():
    union = PartialAnswers()
    assert not union.add(numbered(1), 0.0).partial
    assert hosts(union.add(numbered(2), 10.0)) == {"10.0.0.2"}  # as far as one can tell, a deployment
    found = union.add(numbered(1), 20.0)
    assert found.partial
    for step, number in enumerate([2, 3, 2, 1, 3], 3):
        found = union.add(numbered(number), step * 10.0)
    assert hosts(found) == {"10.0.0.1", "10.0.0.2", "10.0.0.3"}
    assert not union.add(numbered(1, 2), 100.0).partial


def test_a_single_task_that_is_replaced_again_and_again_is_not_taken_for_several():
    union = PartialAnswers()
    for number in range(1, 40):
        found = union.add(numbered(number), number * 10.0)
        assert (len(found.endpoints), found.partial) == (1, False)


def test_srv_targets_with_two_addresses_count_as_one_task():
    union = PartialAnswers()
    both = tuple(
        Endpoint(host, 80, instance_id=f"task-{number}")
        for number in range(5)
        for host in (f"10.0.0.{number}", f"fd00::{number}")
    )
    assert not union.add(Resolution(both, 10.0, "dns"), 0.0).partial


def simulate(count: int, seed: int, *, hours: float, ttl: float = 10.0, each: float = 600.0, size: int = 8):
    """Random answers of `size`; one task is replaced every `each` seconds. Live tasks dropped an hour, coverage."""
    rng, union, now, number = Random(seed), PartialAnswers(), 0.0, count
    tasks = [f"10.0.0.{index}" for index in range(count)]
    dropped, covered, answers, before = 0, 0.0, 0, set()
    while now < hours * 3600:
        if now and now % each == 0:
            tasks[rng.randrange(count)] = f"10.1.{number // 250}.{number % 250}"
            number += 1
        found = hosts(union.add(answer(*rng.sample(tasks, min(size, count)), ttl=ttl), now))
        dropped += len((before - found) & set(tasks))
        if now > 600:
            covered += len(found & set(tasks)) / count
            answers += 1
        before, now = found, now + ttl
    return dropped / hours, covered / answers, union.estimate


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("count", [9, 10, 12, 16, 20, 30, 50])
def test_six_hours_of_random_answers_drop_fewer_than_one_live_task_an_hour(count: int, seed: int):
    """Answers taken one by one would drop 1,720 an hour of 20 tasks, 2,416 of 50."""
    dropped, coverage, estimate = simulate(count, seed, hours=6)
    assert dropped < 1
    assert coverage >= 0.99
    assert estimate is not None
    assert abs(estimate - count) <= max(1, count // 10)


@pytest.mark.parametrize("seed", range(5))
def test_fifty_tasks_are_nearly_all_known_after_twenty_answers(seed: int):
    rng, union = Random(seed), PartialAnswers()
    tasks = [f"10.0.0.{number}" for number in range(50)]
    for step in range(20):
        found = union.add(answer(*rng.sample(tasks, 8), ttl=1.0), float(step))
    assert len(found.endpoints) >= 45


@given(
    st.lists(
        st.tuples(st.sets(st.integers(1, 30), min_size=1, max_size=12), st.floats(0, 100), st.floats(0, 60)),
        max_size=60,
    )
)
def test_whatever_comes_the_newest_answer_is_in_and_nothing_that_was_never_named(steps):
    union, now, named = PartialAnswers(), 0.0, set()
    for numbers, pause, ttl in steps:
        now += pause
        came = numbered(*sorted(numbers), ttl=ttl)
        named |= hosts(came)
        found = union.add(came, now)
        assert hosts(came) <= hosts(found) <= named
        assert len(found.endpoints) == len(hosts(found))
        assert found.partial or hosts(found) == hosts(came)
        assert found.estimate is None or found.estimate >= len(found.endpoints)


def test_what_is_joined_is_bounded_and_the_longest_unseen_goes_first():
    union = PartialAnswers()
    for number in range(600):  # eight new ones each time
        named = [f"10.{number}.0.{each}" for each in range(8)]
        found = union.add(answer("10.9.9.9", *named[1:], ttl=1.0), float(number * 2))
    assert len(found.endpoints) == MAX_ENDPOINTS
    assert {"10.9.9.9", "10.599.0.7", "10.400.0.1"} <= hosts(found)
    assert "10.1.0.1" not in hosts(found)
