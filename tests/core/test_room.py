"""Room at endpoints that are all full, as the service and its balancer see it."""

from __future__ import annotations

from ecs_discovery.core.node import Outcome
from ecs_discovery.core.room import Room
from ecs_discovery.models import Endpoint
from ecs_discovery.policies import BalancingPolicy, ZonePolicy
from tests.support import endpoints, service_of

ONE = BalancingPolicy(max_pending=1)


def test_waking_when_nobody_waits_does_nothing():
    Room().wake()


def test_the_end_of_a_use_wakes_the_first_who_waits_and_one_only():
    service, woken = service_of(static=endpoints(1), balancing=ONE), []
    for name in ("first", "second", "third"):
        service.room.queue(lambda name=name: woken.append(name))
    node = service.pick(1000.0)
    service.release(node)
    assert woken == ["first"]
    service.pick(1000.0)
    service.finish(node, Outcome.SUCCESS, 1000.0, 0.01)
    assert woken == ["first", "second"]


def test_full_endpoints_of_a_tier_make_way_for_the_next_tier():
    tiers = [Endpoint(f"10.0.0.{n}", 80, priority) for n, priority in ((1, 1), (2, 1), (3, 1), (4, 2), (5, 2))]
    service = service_of(static=tiers, balancing=ONE)
    for node in service.nodes[:2]:
        service.observe(node, Outcome.CONNECT, 1000.0)
    picked = [service.pick(1000.1) for _ in range(3)]
    assert set(picked) == set(service.nodes[2:])
    assert service.pick(1000.1) is None  # those that are down are no room


def test_a_key_whose_endpoints_are_full_does_not_go_to_one_that_is_down():
    service = service_of(static=endpoints(3), balancing=ONE)
    service.observe(service.nodes[0], Outcome.CONNECT, 1000.0)
    assert {service.pick(1000.1, key="ann"), service.pick(1000.1, key="ann")} == set(service.nodes[1:])
    assert service.pick(1000.1, key="ann") is None


def test_a_full_zone_makes_way_for_another():
    fleet = [Endpoint(f"10.0.0.{n}", 80, zone="a" if n < 4 else "b") for n in range(1, 7)]
    service = service_of(static=fleet, balancing=ONE, zone=ZonePolicy(prefer=True, own="a"))
    picked = [service.pick(1000.0) for _ in range(6)]
    assert set(picked[:3]) == set(service.nodes[:3])
    assert set(picked) == set(service.nodes)
