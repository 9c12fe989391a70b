"""Membership: who is believed to exist, and whose history survives."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from weakref import WeakSet

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecs_discovery.core.balancing.node import Health, Node
from ecs_discovery.core.resolution.membership import MembersChange, Membership
from ecs_discovery.models import Endpoint, Resolution
from tests.support import endpoints


def hosts(membership: Membership) -> list[str]:
    return [node.endpoint.host for node in membership.nodes]


def test_an_answer_replaces_the_endpoints_and_says_whether_that_changed_anything():
    membership = Membership()
    assert membership.replace(endpoints(3), 0.0)
    assert not membership.replace(tuple(reversed(endpoints(3))), 1.0)
    assert membership.replace(endpoints(2), 2.0)
    assert hosts(membership) == ["10.0.0.1", "10.0.0.2"]
    assert repr(membership) == "<Membership 2 endpoints>"


def test_an_endpoint_that_stays_keeps_its_node():
    membership = Membership()
    membership.replace(endpoints(2), 0.0)
    before = {node.endpoint.key: node for node in membership.nodes}
    membership.replace(endpoints(3), 1.0)
    after = {node.endpoint.key: node for node in membership.nodes}
    assert all(after[key] is node for key, node in before.items())


def test_a_node_takes_over_what_changed_about_its_endpoint():
    membership = Membership()
    membership.replace([Endpoint("10.0.0.1", 80, weight=1)], 0.0)
    membership.replace([Endpoint("10.0.0.1", 80, weight=5)], 1.0)
    assert membership.nodes[0].endpoint.weight == 5


def test_a_removed_endpoint_is_marked_and_finds_its_history_when_it_comes_back():
    membership = Membership()
    membership.replace(endpoints(2), 0.0)
    node = membership.nodes[1]
    node.ejections = 3
    membership.replace(endpoints(1), 10.0)
    assert node.removed
    membership.replace(endpoints(2), 200.0)
    assert membership.nodes[1] is node
    assert not node.removed


def test_history_older_than_five_minutes_is_forgotten():
    membership = Membership()
    membership.replace(endpoints(2), 0.0)
    node = membership.nodes[1]
    membership.replace(endpoints(1), 10.0)
    membership.replace(endpoints(2), 311.0)
    assert membership.nodes[1] is not node


def test_a_reused_address_with_another_instance_id_starts_without_history():
    membership = Membership()
    membership.replace([Endpoint("10.0.0.1", 80, instance_id="old")], 0.0)
    old = membership.nodes[0]
    membership.replace([Endpoint("10.0.0.1", 80, instance_id="new")], 1.0)
    assert membership.nodes[0] is not old


def test_history_is_bounded_in_number_and_age():
    membership = Membership()
    for step in range(5):
        membership.replace(endpoints(400, first=1 + 400 * step), float(step))
    assert len(membership._gone) <= 1000
    membership.replace(endpoints(1), 1000.0)
    membership.replace(endpoints(1, first=2), 1400.0)
    assert len(membership._gone) == 1


def test_one_empty_answer_changes_nothing():
    membership = Membership()
    membership.replace(endpoints(2), 0.0)
    assert not membership.empty(1.0)
    assert membership.doubted
    assert len(membership.nodes) == 2


def test_two_empty_answers_thirty_seconds_apart_drain_endpoints_that_no_longer_answer():
    membership = Membership()
    membership.replace(endpoints(2), 0.0)
    node = membership.nodes[0]
    assert not membership.empty(1.0)
    assert not membership.empty(30.9)
    assert membership.empty(31.0)
    assert membership.nodes == ()
    assert node.removed
    assert not membership.doubted
    assert not membership.empty(32.0)


def test_endpoints_that_still_answer_stay_for_five_minutes():
    membership = Membership()
    membership.replace(endpoints(2), 0.0)
    membership.empty(1.0)
    membership.nodes[0].answered_at = 20.0
    assert not membership.empty(31.0)
    assert not membership.empty(300.9)
    assert membership.empty(301.0)


def test_an_answer_in_between_starts_the_count_again():
    membership = Membership()
    membership.replace(endpoints(2), 0.0)
    membership.empty(1.0)
    membership.replace(endpoints(2), 20.0)
    assert not membership.doubted
    assert not membership.empty(40.0)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("answer"), st.sets(st.integers(1, 6), min_size=1), st.floats(0, 100)),
        st.tuples(st.just("empty"), st.just(set()), st.floats(0, 100)),
        st.tuples(st.just("success"), st.sets(st.integers(0, 5), min_size=1), st.floats(0, 100)),
    ),
    max_size=40,
)


@given(STEPS)
def test_members_are_the_last_answer_until_emptiness_has_stood_for_thirty_seconds(steps):
    """Never emptied by one answer, never anything but the last answer, one node per endpoint."""
    membership, now, last, empty_since = Membership(), 0.0, set(), None
    for kind, numbers, pause in steps:
        now += pause
        if kind == "answer":
            membership.replace([Endpoint(f"10.0.0.{n}", 80) for n in numbers], now)
            last, empty_since = {f"10.0.0.{n}" for n in numbers}, None
        elif kind == "success":
            for node in membership.nodes[: len(numbers)]:
                node.answered_at = now
        elif membership.empty(now):
            assert empty_since is not None
            assert now - empty_since >= 30
            last, empty_since = set(), None
        elif last and empty_since is None:
            empty_since = now
        assert set(hosts(membership)) == last
        assert len(membership.nodes) == len(last)
        assert not any(node.removed for node in membership.nodes)


def joined(*named: int, count: int = 10) -> Resolution:
    """An answer that names these of `count` endpoints, joined with earlier ones that named all."""
    hosts = frozenset(each.host for number in named for each in endpoints(1, first=number))
    return Resolution(endpoints(count), 10.0, "dns", partial=True, named=hosts)


def left_out(membership: Membership, resolution: Resolution) -> set[str]:
    kept = {each.host for each in membership.pruned(resolution).endpoints}
    return {each.host for each in resolution.endpoints} - kept


def test_an_endpoint_that_is_down_and_that_the_newest_answer_does_not_name_is_gone():
    membership = Membership()
    membership.replace(endpoints(10), 0.0)
    membership.nodes[0].health = membership.nodes[8].health = Health.DOWN
    assert left_out(membership, joined(*range(1, 9))) == {"10.0.0.9"}, "and not the one it does name"
    assert left_out(membership, joined(*range(2, 10))) == {"10.0.0.1"}


def test_it_stays_gone_in_later_answers_until_one_names_it():
    membership = Membership()
    membership.replace(endpoints(10), 0.0)
    node = membership.nodes[8]
    node.health = Health.DOWN
    membership.replace(membership.pruned(joined(1, 2)).endpoints, 1.0)
    assert node.removed
    assert left_out(membership, joined(3, 4)) == {"10.0.0.9"}
    membership.replace(membership.pruned(joined(9)).endpoints, 2.0)
    assert node in membership.nodes


@pytest.mark.parametrize("health", [Health.EJECTED, Health.PROBING, Health.HEALTHY])
def test_what_accepts_connections_is_not_taken_for_gone(health: Health):
    membership = Membership()
    membership.replace(endpoints(10), 0.0)
    membership.nodes[8].health = health
    assert left_out(membership, joined(1)) == set()


def test_of_endpoints_that_are_all_down_none_is_taken_for_gone():
    membership = Membership()
    membership.replace(endpoints(3), 0.0)
    for node in membership.nodes:
        node.health = Health.DOWN
    assert left_out(membership, joined(count=3)) == set()


def test_a_complete_answer_is_taken_as_it_is():
    membership = Membership()
    membership.replace(endpoints(3), 0.0)
    membership.nodes[0].health = Health.DOWN
    assert left_out(membership, Resolution(endpoints(3), 10.0, "dns")) == set()


def test_while_empty_answers_are_weighed_nobody_is_left_out_by_an_older_one():
    membership = Membership()
    membership.replace(endpoints(10), 0.0)
    membership.nodes[8].health = Health.DOWN
    membership.empty(1.0)
    assert left_out(membership, joined(1)) == set()


def test_a_node_that_goes_down_unnamed_is_dropped_alone_and_finds_its_history_later():
    membership = Membership()
    membership.replace(endpoints(3), 0.0)
    node, *others = membership.nodes
    assert membership.drop(node, 1.0) == MembersChange((), (node,), ())
    assert membership.nodes == tuple(others)
    assert node.removed
    assert membership.drop(node, 2.0) is None, "once"
    membership.replace(endpoints(3), 3.0)
    assert node in membership.nodes


def test_the_last_node_is_not_dropped_nor_any_while_empty_answers_are_weighed():
    alone, doubted = Membership(), Membership()
    alone.replace(endpoints(1), 0.0)
    assert alone.drop(alone.nodes[0], 1.0) is None
    doubted.replace(endpoints(3), 0.0)
    doubted.empty(1.0)
    assert doubted.drop(doubted.nodes[0], 2.0) is None
    assert doubted.doubted


def test_an_endpoint_named_twice_is_one_node_with_the_facts_of_the_last():
    members = Membership()
    first, other, last = Endpoint("10.0.0.1", 80), Endpoint("10.0.0.2", 80), Endpoint("10.0.0.1", 80, weight=5)
    for named in ([first, other, last], [first, other, last], [last, last, other], [first, first, other, last]):
        members.replace(named, 0.0)
        assert [node.endpoint for node in members.nodes] == [last, other]
    kept = members.nodes
    change = members.replace([other, first, other], 1.0)
    assert change is not None
    assert (change.came, change.left, change.altered) == ((), (), (kept[0],))
    assert kept[0].endpoint is first


def test_any_order_of_answers_adds_up_to_the_last():
    """Compared with a set, over many answers: what comes, leaves, stays, and is altered."""
    rng, members = Random(5), Membership()
    pool = [Endpoint(f"10.0.0.{number}", 80) for number in range(12)]
    before: dict[str, Node] = {}
    weights: dict[str, int] = {}
    for now in range(400):
        chosen = rng.sample(pool, rng.randint(1, 12))
        named = [replace(each, weight=rng.choice((1, 1, 2))) if rng.random() < 0.2 else each for each in chosen]
        change = members.replace(named, float(now))
        after = {node.endpoint.host: node for node in members.nodes}
        assert set(after) == {each.host for each in named}
        assert {host: node.endpoint.weight for host, node in after.items()} == {e.host: e.weight for e in named}
        came, left, altered = (change.came, change.left, change.altered) if change is not None else ((), (), ())
        assert {node.endpoint.host for node in came} == set(after) - set(before)
        assert {node.endpoint.host for node in left} == set(before) - set(after)
        stay = set(after) & set(before)
        assert all(after[host] is before[host] for host in stay)
        assert {node.endpoint.host for node in altered} == {
            host for host in stay if weights[host] != after[host].endpoint.weight
        }
        assert all(node.removed for node in left)
        if rng.random() < 0.3 and len(after) > 1:
            gone = rng.choice(members.nodes)
            assert members.drop(gone, float(now)) is not None
            assert members.drop(gone, float(now)) is None
            del after[gone.endpoint.host]
        before, weights = after, {host: node.endpoint.weight for host, node in after.items()}


def test_endpoints_that_left_are_forgotten_after_five_minutes():
    """Ten tasks, of which one is replaced each second. Then nothing changes any more, and lookups go on."""
    membership = Membership()
    known: WeakSet[Node] = WeakSet()
    for now in range(1000):
        membership.replace([Endpoint(f"10.{each // 250}.0.{each % 250}", 80) for each in range(now, now + 10)], now)
        known.update(membership.nodes)
        assert len(known) <= 10 + 301
    answer = Resolution(tuple(node.endpoint for node in membership.nodes), 10.0, "dns")
    membership.witness([answer], 1100.0)
    assert len(known) > 10
    membership.witness([answer], 1300.0)
    assert set(known) == set(membership.nodes)
    assert membership.gone() == ()


def test_sources_whose_name_changes_with_each_answer_are_not_all_remembered():
    members = Membership()
    task = (Endpoint("10.0.0.1", 80),)
    members.replace(task, 0.0)
    for number in range(100):
        members.witness([Resolution(task, 5.0, f"consul index={number}")], float(number))
    assert len(members._witnessed) <= 16
    members.seen()
    (node,) = members.nodes
    assert node.seen is not None
    assert len(node.seen) <= 16
    assert node.seen["consul index=99"] == 99.0


def test_no_more_than_a_thousand_endpoints_that_left_are_remembered():
    membership = Membership()
    known: WeakSet[Node] = WeakSet()
    for now in range(30):
        membership.replace([Endpoint(f"10.0.{now}.{each}", 80) for each in range(100)], 0.0)
        known.update(membership.nodes)
    assert len(known) == 1100
    assert len(membership.gone()) == 1000
