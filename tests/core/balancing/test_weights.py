"""SRV priorities and weights."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from ecs_discovery.config.policies import BalancingPolicy, OutlierPolicy, ZonePolicy
from ecs_discovery.core.balancing.balancer import Balancer
from ecs_discovery.core.balancing.node import Health, Node, Outcome
from ecs_discovery.core.balancing.pickers import ByWeight
from ecs_discovery.core.balancing.weights import Draw, shares
from ecs_discovery.models import Endpoint


def fleet(*specs: tuple[int, int]) -> tuple[Node, ...]:
    """Nodes from (priority, weight) pairs."""
    return tuple(
        Node(Endpoint(f"10.0.0.{number}", 80, priority, weight)) for number, (priority, weight) in enumerate(specs, 1)
    )


def balancer_of(nodes: tuple[Node, ...], seed: int = 1) -> Balancer:
    made = Balancer(BalancingPolicy(), OutlierPolicy(), ZonePolicy(), Random(seed).random)
    made.update(nodes, 0.0)
    return made


def counts(balancer: Balancer, uses: int = 10_000, **options) -> Counter[Node]:
    found: Counter[Node] = Counter()
    for _ in range(uses):
        node = balancer.pick(0.0, **options)
        assert node is not None
        balancer.release(node)
        found[node] += 1
    return found


@pytest.mark.parametrize("weights", [(1, 3), (10, 20, 30, 40), (0, 0), (0, 5), (1,) * 10, (100, 1, 1, 1, 1, 1)])
def test_draws_follow_the_weights_within_four_sigma(weights: tuple[int, ...]):
    draw, rng, uses = Draw(weights), Random(2), 20_000
    found = Counter(draw(rng.random) for _ in range(uses))
    usable = [weight or 0.01 for weight in weights]
    for index, weight in enumerate(usable):
        chance = weight / sum(usable)
        assert abs(found[index] - uses * chance) <= 4 * (uses * chance * (1 - chance)) ** 0.5 + 1


@pytest.mark.parametrize("weights", [(1, 3), (1, 2, 3, 4, 10)])
def test_idle_endpoints_are_picked_in_proportion_to_their_weights(weights: tuple[int, ...]):
    nodes = fleet(*((1, weight) for weight in weights))
    found = counts(balancer_of(nodes), 20_000)
    for node in nodes:
        chance = node.endpoint.weight / sum(weights)
        assert abs(found[node] - 20_000 * chance) <= 4 * (20_000 * chance * (1 - chance)) ** 0.5


def test_a_busy_endpoint_gives_way_in_proportion_to_its_weight():
    light, heavy = nodes = fleet((1, 1), (1, 4))
    light.pending = 1
    draw, picker = Draw([1, 4]), ByWeight(nodes, 0.0)
    assert all(picker.pick(Random(seed).random, ()) is heavy for seed in range(30) if _both(draw, seed))
    light.pending, heavy.pending = 1, 3  # 3 of 4 is less than 1 of 1
    assert all(picker.pick(Random(seed).random, ()) is heavy for seed in range(30) if _both(draw, seed))


def _both(draw: Draw, seed: int) -> bool:
    rng = Random(seed).random
    return {draw(rng), draw(rng)} == {0, 1}


def test_excluded_endpoints_are_not_picked_by_weight():
    nodes = fleet((1, 1), (1, 1000), (1, 2))
    balancer = balancer_of(nodes)
    assert nodes[1] not in counts(balancer, 300, exclude=[nodes[1]])
    assert set(counts(balancer, 50, exclude=nodes[1:])) == {nodes[0]}
    assert balancer.pick(0.0, exclude=nodes) is None


@pytest.mark.parametrize(
    ("healthy", "share"),
    [(5, 1.0), (4, 1.0), (3, 0.84), (2, 0.56), (1, 0.28), (0, 0.0)],
)
def test_the_next_tier_takes_over_what_the_first_cannot_carry(healthy: int, share: float):
    first, second = shares([(healthy, 5), (5, 5)])
    assert first == pytest.approx(share)
    assert first + second == pytest.approx(1.0)


def test_tiers_that_together_cannot_carry_everything_share_it_in_proportion():
    assert shares([(1, 4), (1, 4)]) == pytest.approx([0.5, 0.5])
    assert shares([(0, 4), (0, 4)]) == [0, 0]
    assert shares([]) == []


def test_a_lower_tier_gets_its_share_of_uses_and_gives_it_back():
    nodes = fleet(*[(1, 1)] * 5, *[(2, 1)] * 5)
    balancer = balancer_of(nodes)
    assert set(counts(balancer, 100)) == set(nodes[:5])
    for node in nodes[:3]:
        balancer.observe(node, Outcome.CONNECT, 0.0)
    found = counts(balancer)
    assert sum(found[node] for node in nodes[3:5]) == pytest.approx(5600, rel=0.05)
    for node in nodes[:3]:
        balancer.observe(node, Outcome.SUCCESS, 0.0)
    assert set(counts(balancer, 100)) == set(nodes[:5])


def test_a_key_stays_in_its_tier_while_that_carries_everything():
    nodes = fleet((1, 1), (1, 5), (2, 1))
    assert len(counts(balancer_of(nodes), 20, key="ann")) == 1
    assert set(counts(balancer_of(nodes), 20, key="ann", exclude=nodes[:2])) == {nodes[2]}


def test_in_panic_priorities_still_count():
    nodes = fleet((1, 1), (1, 1), (2, 1), (2, 1))
    for node in nodes[:3]:
        node.health, node.state_ends_at = Health.EJECTED, 100.0
    balancer = balancer_of(nodes)
    assert balancer.panic
    assert set(counts(balancer, 50)) == set(nodes[:2])
