"""Lots: draws by weight while nodes come and leave."""

from __future__ import annotations

from collections import Counter
from random import Random

from ecs_discovery.core.balancing.lottery import Lottery
from ecs_discovery.core.balancing.node import Node
from ecs_discovery.models import Endpoint


def fleet(count: int) -> list[Node]:
    return [Node(Endpoint(f"10.0.0.{number}", 80, 0, 1 + 2 * (number % 2))) for number in range(count)]


def test_shares_follow_the_weights_while_few_have_come_and_left():
    """Of 100 nodes one of each weight leaves, one comes back, two come. 100 draws a share, give or take 60."""
    everybody = fleet(102)
    nodes = everybody[:100]
    lots, rng = Lottery(nodes), Random(5).random
    for node in everybody[:2]:
        nodes.remove(node)
        lots.discard(node)
    for node in (everybody[0], *everybody[100:]):
        nodes.append(node)
        lots.add(node)
    lots.discard(everybody[100])
    lots.add(everybody[100])
    counts = Counter(lots(rng) for _ in range(100 * sum(node.endpoint.weight for node in nodes)))
    assert set(counts) == set(nodes)
    assert all(abs(counts[node] - 100 * node.endpoint.weight) <= 60 * node.endpoint.weight for node in nodes)


def test_dice_that_fall_on_one_that_left_again_and_again_draw_another():
    nodes = fleet(100)
    lots = Lottery(nodes)
    gone = lots(lambda: 0.0)
    nodes.remove(gone)
    lots.discard(gone)
    assert lots(lambda: 0.0) in nodes
