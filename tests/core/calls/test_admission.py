"""Room at endpoints that are all full, as the service and its balancer see it."""

from __future__ import annotations

import pytest

from ecs_discovery.config.policies import BalancingPolicy, ZonePolicy
from ecs_discovery.core.balancing.node import Health, Outcome, Use
from ecs_discovery.core.calls.admission import AdmissionQueue, Place
from ecs_discovery.core.resolution.cache import Freshness, Look
from ecs_discovery.models import Endpoint, Resolution
from tests.support import endpoints, service_of, srv

ONE = BalancingPolicy(max_pending=1)


def test_waking_when_nobody_waits_does_nothing():
    AdmissionQueue().wake()


def test_the_end_of_a_use_calls_the_first_who_was_not_called_yet_and_one_only():
    service, called = service_of(static=endpoints(1), balancing=ONE), []
    for name in ("first", "second", "third"):
        service.admission.queue(Place(lambda name=name: called.append(name)))
    node = service.pick(1000.0)
    service.release(node)
    assert called == ["first"]
    service.pick(1000.0)
    service.finish(node, Outcome.SUCCESS, 1000.0, 0.01)
    assert called == ["first", "second"]


def waiting(room: AdmissionQueue, *names: str) -> tuple[list[str], list[Place]]:
    """Who was called, and the places of these."""
    called: list[str] = []
    return called, [room.queue(Place(lambda name=name: called.append(name))) for name in names]


def test_only_the_first_and_those_who_were_called_may_look():
    room = AdmissionQueue()
    _, (first, second, third) = waiting(room, "first", "second", "third")
    assert [room.turn(place) for place in (first, second, third)] == [True, False, False]
    room.wake()
    room.wake()
    assert [room.turn(place) for place in (first, second, third)] == [True, True, False]
    assert not room.turn(second), "one look per call"
    assert room.crowded
    for place in (first, second, third):
        room.leave(place)
    assert not room.crowded


@pytest.mark.parametrize("looked", [False, True])
def test_a_call_that_its_receiver_has_no_use_for_goes_to_the_next(looked: bool):
    """It gave up meanwhile, or had found room by itself just before."""
    room = AdmissionQueue()
    called, (first, _) = waiting(room, "first", "second")
    if looked:
        assert room.turn(first)
    room.wake()
    room.leave(first)
    assert called == ["first", "second"]


def test_a_call_that_was_used_is_not_passed_on():
    room = AdmissionQueue()
    called, (first, _) = waiting(room, "first", "second")
    room.wake()
    assert room.turn(first)
    room.leave(first)
    assert called == ["first"]


def test_calls_that_nobody_could_take_are_for_those_who_come_then():
    room = AdmissionQueue()
    called, (first,) = waiting(room, "first")
    for _ in range(3):
        room.wake()
    later, _ = waiting(room, "second", "third")
    assert room.turn(first)
    room.leave(first)
    assert (called, later) == (["first"], ["second"])


def test_somebody_who_is_gone_is_passed_over():
    room = AdmissionQueue()
    gone = room.queue(Place(lambda: False))
    called, (first,) = waiting(room, "first")
    room.wake()
    assert called == ["first"]
    assert len(room) == 1
    room.leave(gone)
    room.leave(first)
    assert (len(room), room.crowded) == (0, False)


def test_a_lease_that_was_forgotten_makes_room():
    service = service_of(static=endpoints(1), balancing=ONE)
    use = Use()
    node = service.pick(1000.0, use=use)
    called, (first,) = waiting(service.admission, "first")
    service.abandon(use)
    assert called == ["first"]
    assert service.admission.turn(first)
    assert service.pick(1000.0) is node


def test_an_endpoint_that_comes_or_comes_back_makes_room_for_many():
    service = service_of("srv://orders", balancing=ONE)

    def told(serial: int, count: int) -> None:
        answer = Resolution(endpoints(count), 10.0, "dns")
        service.judge({srv(): Look(Freshness.FRESH, answer, None, False, 9999.0, serial)}, 1000.0)

    told(1, 1)
    called, places = waiting(service.admission, "first", "second", "third")
    told(2, 2)
    assert called == ["first", "second", "third"]
    assert [service.admission.turn(place) for place in places] == [True, True, True]
    service.observe(service.nodes[0], Outcome.CONNECT, 1000.0)
    for place in places:
        service.admission.turn(place)
    called.clear()
    service.observe(service.nodes[0], Outcome.SUCCESS, 1000.0)
    assert called == ["first", "second", "third"]


def test_a_probe_is_not_one_use_more_than_an_endpoint_may_have():
    service = service_of(static=endpoints(2), balancing=ONE, rng=lambda: 0.0)
    busy = service.pick(1000.0)
    for _ in range(5):
        service.observe(busy, Outcome.FAILURE, 1000.0)
    assert busy.health is Health.EJECTED
    other = service.pick(1003.0)
    assert other is not busy
    assert busy.health is Health.PROBING
    assert service.pick(1003.0) is None
    assert service.pick(1003.0, key="ann") is None
    assert busy.pending == 1
    service.release(busy)
    assert service.pick(1003.0) is busy


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
