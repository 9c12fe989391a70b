"""What a source says of endpoints that stay: their weight, priority and zone count from the next pick on."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any

from ecs_discovery.config.policies import ZonePolicy
from ecs_discovery.core.balancing.node import Outcome
from ecs_discovery.core.resolution.cache import Freshness, Look
from ecs_discovery.core.service import Service
from ecs_discovery.models import Endpoint, Resolution
from tests.support import endpoints, service_of, srv


def told(service: Service, serial: int, found: tuple[Endpoint, ...]) -> None:
    """A source gives this answer, its `serial`th."""
    look = Look(Freshness.FRESH, Resolution(found, 10.0, "dns"), None, False, 9999.0, serial)
    service.judge({question: look for question in service.wanted() if question == srv()}, 1000.0)


def service_with(found: tuple[Endpoint, ...], **policies: Any) -> Service:
    service = service_of("srv://orders", rng=Random(5).random, **policies)
    told(service, 1, found)
    return service


def uses(service: Service, count: int) -> Counter[str]:
    """Where that many sequential uses go."""
    counts: Counter[str] = Counter()
    for _ in range(count):
        node = service.pick(1000.0)
        assert node is not None
        service.finish(node, Outcome.SUCCESS, 1000.0, 0.001)
        counts[node.endpoint.host] += 1
    return counts


def test_changed_weights_count_from_the_next_pick():
    """The light one of 1:9 gets 100 of 1,000 uses, give or take 10: six times that is far."""
    light, heavy = endpoints(2)
    service = service_with((light, heavy))
    assert uses(service, 400)[light.host] == 200
    told(service, 2, (light, replace(heavy, weight=9)))
    assert 40 <= uses(service, 1000)[light.host] <= 160
    told(service, 3, (light, heavy))
    assert uses(service, 400)[light.host] == 200


def test_a_changed_priority_counts_from_the_next_pick():
    first, second = endpoints(2)
    service = service_with((first, second))
    told(service, 2, (first, replace(second, priority=1)))
    assert uses(service, 100) == {first.host: 100}


def test_a_changed_zone_counts_from_the_next_pick():
    found = tuple(replace(each, zone="a" if number < 3 else "b") for number, each in enumerate(endpoints(6)))
    service = service_with(found, zone=ZonePolicy(prefer=True, own="a"))
    assert set(uses(service, 300)) == {each.host for each in found[:3]}
    moved = (*found[:2], replace(found[2], zone="b"), replace(found[3], zone="a"), *found[4:])
    told(service, 2, moved)
    assert set(uses(service, 300)) == {found[0].host, found[1].host, found[3].host}


def test_a_fact_that_nothing_is_chosen_by_changes_no_pick_and_is_known():
    found = endpoints(2)
    service = service_with(found)
    generation, facts = service.generation, (("HEALTH", "UNHEALTHY"),)
    service.pop_events()
    told(service, 2, (replace(found[0], attributes=facts), found[1]))
    assert service.nodes[0].endpoint.attributes == facts
    assert (service.generation, service.pop_events()) == (generation, ())
