"""Preference for the own zone, and subsets of many endpoints."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from ecs_discovery.config.policies import BalancingPolicy, OutlierPolicy, ZonePolicy
from ecs_discovery.core.balancing.balancer import Balancer
from ecs_discovery.core.balancing.locality import by_zone
from ecs_discovery.core.balancing.node import Health, Node, Outcome
from ecs_discovery.core.balancing.subset import subset
from ecs_discovery.models import Endpoint
from tests.support import nodes, service_of

PREFER = ZonePolicy(prefer=True)


def zoned(**counts: int) -> tuple[Node, ...]:
    """Nodes by zone; those of zone z have none."""
    return tuple(
        Node(Endpoint(f"10.0.{ord(zone) - 96}.{number}", 80, zone=zone if zone != "z" else None))
        for zone, count in counts.items()
        for number in range(1, count + 1)
    )


def shares(counts: dict[str, int], own: str, policy: ZonePolicy = PREFER) -> dict[str | None, float]:
    found = by_zone({zone if zone != "z" else None: count for zone, count in counts.items()}, own, policy)
    return {"all": 1.0} if found is None else {zone: round(share, 3) for share, zone in found}


def balancer_of(fleet: tuple[Node, ...], own: str | None = "a", zone: ZonePolicy = PREFER, **policy: int) -> Balancer:
    made = Balancer(BalancingPolicy(**policy), OutlierPolicy(), zone, Random(1).random)  # type: ignore[arg-type]
    made.own_zone = own
    made.update(fleet, 0.0)
    return made


def uses(balancer: Balancer, count: int = 3000, **options: object) -> Counter[str | None]:
    found: Counter[str | None] = Counter()
    for _ in range(count):
        node = balancer.pick(1.0, **options)  # type: ignore[arg-type]
        assert node is not None
        balancer.release(node)
        found[node.endpoint.zone] += 1
    return found


@pytest.mark.parametrize(
    ("counts", "own", "expected"),
    [
        ({"a": 3, "b": 3}, "a", {"a": 1.0}),
        ({"a": 4, "b": 2}, "a", {"a": 1.0}),
        ({"a": 2, "b": 4}, "a", {"a": 0.667, "b": 0.333}),
        ({"a": 1, "b": 3, "c": 2}, "a", {"a": 0.5, "b": 0.5}),  # c has no more than its own callers need
        ({"a": 2, "b": 5, "c": 5}, "a", {"a": 0.5, "b": 0.25, "c": 0.25}),
        ({"a": 2, "b": 3}, "a", {"all": 1.0}),  # too few to care
        ({"a": 3, "b": 3}, "x", {"all": 1.0}),
        ({"a": 6}, "a", {"all": 1.0}),
        ({"a": 3, "z": 3}, "a", {"a": 1.0}),
    ],
)
def test_a_zone_carries_of_its_own_callers_what_the_others_carry_of_theirs(counts, own, expected):
    assert shares(counts, own) == expected


def test_a_zone_with_more_callers_than_others_sends_more_away():
    fleet = {"a": 3, "b": 3}
    assert shares(fleet, "a", ZonePolicy(prefer=True, callers=0.75)) == {"a": 0.667, "b": 0.333}
    assert shares(fleet, "b", ZonePolicy(prefer=True, callers=0.25)) == {"b": 1.0}


@pytest.mark.parametrize("counts", [(2, 4), (1, 5), (3, 3), (2, 3, 7), (1, 1, 4), (10, 20, 30), (1, 7, 2, 9)])
def test_together_the_clients_of_all_zones_load_every_endpoint_alike(counts: tuple[int, ...]):
    fleet: dict[str | None, int] = dict(zip("abcd", counts, strict=False))
    load: Counter[str | None] = Counter()
    for own in "abcd"[: len(counts)]:
        for share, zone in by_zone(fleet, own, PREFER) or ():
            load[zone] += share / len(counts)
    per_node = [load[zone] / count for zone, count in zip("abcd", counts, strict=False)]
    assert per_node == pytest.approx([1 / sum(counts)] * len(counts))


def test_uses_follow_the_shares_of_zones_and_retries_leave_the_own_one():
    fleet = zoned(a=2, b=4)
    balancer = balancer_of(fleet)
    assert 1900 < uses(balancer)["a"] < 2100
    assert set(uses(balancer, 50, exclude=fleet[:2])) == {"b"}
    assert set(uses(balancer_of(zoned(a=3, b=3)), 50)) == {"a"}


def test_without_the_preference_or_the_own_zone_all_are_alike():
    assert 900 < uses(balancer_of(zoned(a=2, b=4), zone=ZonePolicy()))["a"] < 1100
    assert 900 < uses(balancer_of(zoned(a=2, b=4), own=None))["a"] < 1100


def test_a_key_goes_to_the_same_endpoint_from_every_zone():
    found = {next(iter(uses(balancer_of(zoned(a=3, b=3, c=3), own=own), 1, key="ann"))) for own in "abc"}
    assert len(found) == 1


def test_as_endpoints_of_the_own_zone_fail_its_share_shrinks_and_panic_ends_the_preference():
    fleet = zoned(a=4, b=4)
    balancer = balancer_of(fleet)
    for node in fleet[:2]:
        balancer.observe(node, Outcome.CONNECT, 0.5)
    assert 1900 < uses(balancer)["a"] < 2100
    for node in fleet[2:7]:
        node.health, node.state_ends_at = Health.EJECTED, 100.0
    balancer.update(fleet, 1.0)
    assert balancer.panic
    assert 900 < uses(balancer)["a"] < 1100


def test_when_the_own_zone_was_tried_a_healthy_endpoint_elsewhere_comes_before_one_that_is_down():
    fleet = zoned(a=6, b=3)
    balancer = balancer_of(fleet)
    balancer.observe(fleet[0], Outcome.CONNECT, 0.5)
    node = balancer.pick(0.6, exclude=fleet[1:6])
    assert node is not None
    assert node.endpoint.zone == "b"


def test_a_service_learns_its_zone_late_and_only_if_it_was_not_told():
    fleet = [node.endpoint for node in zoned(a=3, b=3)]
    service = service_of(static=fleet, zone=PREFER)
    assert service.wants_zone
    service.locate("a", 1000.0)
    service.locate("a", 1000.0)
    assert {service.pick(1000.0).endpoint.zone for _ in range(6)} == {"a"}
    told = service_of(static=fleet, zone=ZonePolicy(prefer=True, own="b"))
    assert not told.wants_zone
    told.locate("a", 1000.0)
    assert {told.pick(1000.0).endpoint.zone for _ in range(6)} == {"b"}


def test_up_to_a_hundred_endpoints_all_are_used():
    fleet = nodes(100)
    assert subset(fleet, 0.5, BalancingPolicy(subset=12)) == (fleet, ())
    assert subset(nodes(200), 0.5, BalancingPolicy())[1] == ()


@pytest.mark.parametrize("seed", range(3))
def test_a_subset_changes_by_one_place_when_one_endpoint_leaves(seed: int):
    fleet, client, policy = nodes(200), Random(seed).random(), BalancingPolicy(subset=20)
    chosen, others = subset(fleet, client, policy)
    assert (len(chosen), len(others)) == (20, 180)
    left = tuple(node for node in fleet if node is not chosen[7])
    assert len(set(subset(left, client, policy)[0]) - set(chosen)) == 1
    left = tuple(node for node in fleet if node is not others[7])
    assert subset(left, client, policy)[0] == chosen


def test_over_many_clients_every_endpoint_is_in_about_as_many_subsets():
    fleet, policy, rng = nodes(200), BalancingPolicy(subset=20), Random(4)
    found = Counter(node for _ in range(1000) for node in subset(fleet, rng.random(), policy)[0])
    assert 60 < min(found.values()) <= max(found.values()) < 145  # 100 each, within five sigma


def test_when_a_whole_subset_is_down_the_reserve_is_used_and_a_fork_draws_another():
    fleet = nodes(200)
    balancer = balancer_of(fleet, subset=12)
    used = {balancer.pick(1.0) for _ in range(500)}
    assert len(used) == 12
    for node in used:
        assert node is not None
        balancer.observe(node, Outcome.CONNECT, 1.0)
    assert balancer.pick(1.1) not in used
    balancer.after_fork()
    assert {balancer.pick(1.2) for _ in range(500)} != used


@pytest.mark.parametrize("size", [1, 11, -1, True, "12", 100_001])
def test_a_subset_too_small_to_survive_a_few_deaths_is_refused(size: object):
    with pytest.raises(ValueError, match="0 or a whole number from 12"):
        BalancingPolicy(subset=size)  # type: ignore[arg-type]
