"""Fleets of one to four tasks, in every state that they can be in."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, combinations, product

import pytest

from ecs_discovery.core.balancing.balancer import Balancer
from ecs_discovery.core.balancing.node import Health, Node, Outcome
from ecs_discovery.core.service import Service
from tests.support import endpoints, service_of

NOW = 1000.0
Mask = tuple[Health, ...]

# Every combination is tried, which takes twice as long when it is measured.
pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("unmeasured")]


def fleet(mask: Mask, pending: tuple[int, ...] = ()) -> Service:
    """A service whose nodes are in these states, each for another 100 s, with so many uses in flight."""
    service = service_of(static=endpoints(len(mask)), now=NOW)
    for node, health in zip(service.nodes, mask, strict=True):
        node.health = health
        node.state_ends_at = node.ejection_ends_at = NOW + 100
    for node, count in zip(service.nodes, pending, strict=False):
        node.pending = count
    for index, node in enumerate(service.nodes):
        node.picked = -index  # the later ones were picked longer ago
    balancer: Balancer = service._balancer
    balancer.update(service.nodes, NOW)
    return service


def masks(size: int) -> Iterator[Mask]:
    return product(Health, repeat=size)


def panicking(mask: Mask) -> bool:
    return 2 * mask.count(Health.HEALTHY) < sum(health is not Health.DOWN for health in mask)


def rank(node: Node, panic: bool) -> int:
    """How late it is chosen."""
    if node.health is Health.DOWN:
        return 2
    return 0 if panic or node.health is Health.HEALTHY else 1


@pytest.mark.parametrize("key", [None, "a caller"])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_whatever_the_health_of_a_small_fleet_the_best_of_what_is_left_is_picked(size, key):
    """For all states, loads and exclusions: None only if all are excluded; never an excluded one; healthy before
    ejected before down, in panic all that connect alike; one probe for each node whose ejection is over."""
    loads = list(product((0, 1), repeat=size)) if key is None else [(0,) * size, (1,) * size]
    for mask, pending in product(masks(size), loads):
        for excluded in combinations_of(size):
            service = fleet(mask, pending)
            nodes = service.nodes
            exclude = [nodes[index] for index in excluded]
            left = [node for node in nodes if node not in exclude]
            waiting = [
                node
                for node, health, count in zip(nodes, mask, pending, strict=True)
                if health is Health.PROBING and not count
            ]
            state = (mask, pending, excluded)
            picked = service.pick(NOW, exclude, key)
            if not left:
                assert picked is None, state
                continue
            assert picked in left, state
            panic = panicking(mask)
            best = min(rank(node, panic) for node in left)
            assert rank(picked, panic) == best or picked in waiting, state
            if key is None and waiting and not any(node in exclude for node in waiting):
                assert picked in waiting, state
            assert picked.pending == pending[nodes.index(picked)] + 1, state


def combinations_of(size: int) -> Iterator[tuple[int, ...]]:
    return chain.from_iterable(combinations(range(size), count) for count in range(size + 1))


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_whatever_the_health_of_a_small_fleet_no_second_probe_goes_to_a_node(size):
    """While one probe is in flight, the next request goes elsewhere if a healthy one is left."""
    for mask in masks(size):
        if Health.HEALTHY not in mask or panicking(mask):
            continue
        service = fleet(mask)
        probing = [node for node in service.nodes if node.health is Health.PROBING]
        picked = [service.pick(NOW) for _ in range(size + 3)]
        assert all(picked.count(node) == 1 for node in probing), mask


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_whatever_the_health_of_a_small_fleet_the_cap_counts_what_it_would_be_after_ejecting(size):
    """At most half of those that connect are ejected, the new one included, and never the last healthy one."""
    for mask in masks(size):
        for index, health in enumerate(mask):
            if health is not Health.HEALTHY:
                continue
            service = fleet(mask)
            node = service.nodes[index]
            for _ in range(5):
                service.observe(node, Outcome.FAILURE, NOW)
            out = sum(other in (Health.EJECTED, Health.PROBING) for other in mask)
            healthy = mask.count(Health.HEALTHY)
            allowed = healthy > 1 and 2 * (out + 1) <= healthy + out
            assert (node.health is Health.EJECTED) is allowed, (mask, index)
            assert any(other.health is Health.HEALTHY for other in service.nodes), (mask, index)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_whatever_the_health_of_a_small_fleet_it_is_healthy_again_when_requests_succeed(size):
    """Ejections and pauses end, whatever the fleet was: probes and reconnects bring every node back."""
    for mask in masks(size):
        service = fleet(mask)
        now = NOW + 200
        for _ in range(4 * size):
            node = service.pick(now)
            assert node is not None
            service.finish(node, Outcome.SUCCESS, now, 0.001)
            for down in service.pop_reconnects():
                service.observe(down, Outcome.SUCCESS, now)
            now += 1
        assert all(node.health is Health.HEALTHY for node in service.nodes), mask


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_panic_in_a_small_fleet_is_under_half_healthy_of_those_that_connect(size):
    for mask in masks(size):
        assert fleet(mask).facts()["panic"] is panicking(mask), mask
