"""Pickers: fairness, exclusions, small sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecs_discovery.config.policies import BalancingPolicy
from ecs_discovery.core.balancing.cost import EQUAL
from ecs_discovery.core.balancing.node import Node
from ecs_discovery.core.balancing.pickers import LeastLoad, by_key, make, share_of
from ecs_discovery.models import Endpoint
from tests.support import nodes

PICKERS = ["peak_ewma", "least_pending", "round_robin", "random"]


def picker_of(fleet: Sequence[Node], kind: str = "peak_ewma", seed: int = 1):
    weighted = len({node.endpoint.weight for node in fleet}) > 1
    return make(fleet, BalancingPolicy(picker=kind), Random(seed).random, weighted=weighted)


def weighted(*weights: int) -> tuple[Node, ...]:
    return tuple(Node(Endpoint(f"10.0.0.{number}", 80, 1, weight)) for number, weight in enumerate(weights, 1))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_idle_nodes_of_a_small_set_are_taken_in_turn(count: int):
    fleet = nodes(count)
    picker = picker_of(fleet)
    picks = []
    for tick in range(1, 3 * count + 1):
        node = picker.pick(Random(1).random, ())
        assert node is not None
        node.picked = tick
        picks.append(node)
    assert picks == list(fleet) * 3


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("count", [2, 3, 4, 5, 8])
def test_the_busiest_node_is_never_picked(count: int, seed: int):
    """It is always compared with another one: two distinct draws."""
    fleet, rng = nodes(count), Random(seed)
    fleet[rng.randrange(count)].load = 0.7
    picker = picker_of(fleet)
    for _ in range(100):
        picked = picker.pick(rng.random, ())
        assert picked is not None
        assert picked.load == 0


@pytest.mark.parametrize("seed", range(3))
def test_sequential_picks_of_a_large_set_are_even(seed: int):
    """Two draws with the older one winning: 20,000 picks over 100 nodes stay within a quarter of 200 each."""
    fleet, rng, counts = nodes(100), Random(seed), Counter()
    picker = picker_of(fleet)
    for tick in range(1, 20_001):
        node = picker.pick(rng.random, ())
        assert node is not None
        node.picked = tick
        counts[node] += 1
    assert min(counts.values()) > 150
    assert max(counts.values()) < 250


@pytest.mark.parametrize("kind", PICKERS)
@pytest.mark.parametrize(
    "weights", [(1,), (1, 1), (1, 1, 1), (1,) * 4, (1,) * 6, (1,) * 10, (1, 2), (1, 0, 5), (3,) * 9 + (1,)]
)
def test_excluded_nodes_are_never_picked_and_the_others_always_can_be(kind: str, weights: tuple[int, ...]):
    fleet, rng = weighted(*weights), Random(5)
    picker = picker_of(fleet, kind)
    for keep in fleet:
        exclude = [node for node in fleet if node is not keep]
        assert picker.pick(rng.random, exclude) is keep
    assert picker.pick(rng.random, list(fleet)) is None
    assert all(node in fleet for node in picker.compared())


@pytest.mark.parametrize("kind", PICKERS)
def test_of_no_nodes_none_is_picked(kind: str):
    assert picker_of((), kind).pick(Random(5).random, ()) is None


def test_with_one_of_two_drawn_excluded_the_other_is_taken():
    fleet = nodes(5)
    picker = picker_of(fleet)
    assert picker.pick(lambda: 0.05, [fleet[1]]) is fleet[0]  # draws nodes 1 and 0
    assert picker.pick(lambda: 0.05, [fleet[0]]) is fleet[1]


@pytest.mark.parametrize("count", [5, 6, 10])
def test_every_pair_is_drawn_equally_often_and_never_a_node_with_itself(count: int):
    fleet = nodes(count)
    picker = picker_of(fleet)
    pairs = count * (count - 1)
    drawn = Counter()
    for number in range(pairs):
        picker.pick(lambda at=(number + 0.5) / pairs: at, ())
        drawn[frozenset(picker.compared())] += 1
    assert len(drawn) == pairs / 2
    assert set(drawn.values()) == {2}


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("seed", range(5))
def test_loads_that_differ_by_less_than_the_band_take_turns(count: int, seed: int):
    fleet, rng, found = nodes(count), Random(seed), Counter()
    for node in fleet:
        node.load = EQUAL * rng.random()
    picker = picker_of(fleet)
    for tick in range(1, 100 * count + 1):
        node = picker.pick(rng.random, ())
        node.picked = tick
        found[node] += 1
    assert max(found.values()) - min(found.values()) <= (1 if count <= 4 else 40)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_of_a_small_set_the_least_loaded_is_picked_whoevers_turn_it_is(count: int):
    fleet = nodes(count)
    for number, node in enumerate(fleet):
        node.load, node.picked = float(number), -number
    assert picker_of(fleet).pick(Random(1).random, ()) is fleet[0]


def test_of_those_within_the_band_the_least_recently_picked_is_chosen():
    fleet = nodes(4)
    for node, load, picked in zip(fleet, (0.0, 0.4, 0.45, 3.0), (9, 7, 8, 1), strict=True):
        node.load, node.picked = load, picked
    assert picker_of(fleet).pick(Random(1).random, ()) is fleet[1]


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.3, 0.6, 2.0]), st.integers(0, 5)), min_size=1, max_size=4))
def test_of_a_small_set_the_choice_is_the_oldest_of_those_within_the_band(facts: list[tuple[float, int]]):
    fleet = nodes(len(facts))
    for node, (load, picked) in zip(fleet, facts, strict=True):
        node.load, node.picked = load, picked
    least = min(load for load, _ in facts)
    chosen = picker_of(fleet).pick(Random(1).random, ())
    assert chosen is min((node for node in fleet if node.load <= least + EQUAL), key=lambda node: node.picked)


def test_least_pending_knows_no_band():
    fleet = nodes(4)
    fleet[0].load, fleet[1].load, fleet[2].load, fleet[3].load = 0.4, 0.3, 0.2, 0.5
    assert picker_of(fleet, "least_pending").pick(Random(1).random, ()) is fleet[2]
    assert isinstance(picker_of(fleet, "least_pending"), LeastLoad)


@pytest.mark.parametrize("weights", [(1, 1, 1), (1, 2), (5, 1, 1), (10, 20, 30), (1, 0)])
def test_round_robin_follows_the_weights_exactly_and_spreads_them(weights: tuple[int, ...]):
    fleet = weighted(*weights)
    picker = picker_of(fleet, "round_robin")
    unit = min(weight or 0.01 for weight in weights)
    turns = round(sum((weight or 0.01) / unit for weight in weights))
    picks = [picker.pick(Random(1).random, ()) for _ in range(2 * turns)]
    found = Counter(picks)
    assert [found[node] for node in fleet] == [2 * round((weight or 0.01) / unit) for weight in weights]
    heavy = max(fleet, key=lambda node: node.endpoint.weight)
    light = min(fleet, key=lambda node: node.endpoint.weight)
    if len(set(weights)) > 1:  # never two turns of a lighter one between two of the heaviest
        doubled = "".join("h" if node is heavy else "l" if node is light else "-" for node in picks)
        assert "ll" not in doubled.replace("-", "")


def test_round_robin_of_extreme_weights_keeps_a_bounded_schedule():
    fleet = weighted(65535, 1, 1)
    picker = picker_of(fleet, "round_robin")
    found = Counter(picker.pick(Random(1).random, ()) for _ in range(10_000))
    assert all(found[node] for node in fleet)


def test_round_robins_of_many_clients_start_apart():
    fleet = nodes(10)
    first = {picker_of(fleet, "round_robin", seed).pick(Random(1).random, ()) for seed in range(50)}
    assert len(first) == 10


@pytest.mark.parametrize("weights", [(1, 1, 1), (1, 2, 5)])
def test_random_picks_follow_the_weights_within_four_sigma(weights: tuple[int, ...]):
    fleet, rng, uses = weighted(*weights), Random(3), 20_000
    picker = picker_of(fleet, "random")
    found = Counter(picker.pick(rng.random, ()) for _ in range(uses))
    for node in fleet:
        chance = node.endpoint.weight / sum(weights)
        assert abs(found[node] - uses * chance) <= 4 * (uses * chance * (1 - chance)) ** 0.5


def test_a_key_goes_to_one_node_in_every_process():
    fleet = nodes(5)
    chosen = {key: by_key(fleet, key, ()) for key in ("ann", "bob", b"carl", "dora")}
    for _ in range(3):
        assert {key: by_key(fleet, key, ()) for key in chosen} == chosen
    assert str(chosen["ann"].endpoint) == "10.0.0.4:80"  # type: ignore[union-attr]


def test_when_a_node_leaves_only_its_own_keys_move():
    fleet = nodes(5)
    keys = [str(number) for number in range(500)]
    before = {key: by_key(fleet, key, ()) for key in keys}
    after = {key: by_key(fleet, key, [fleet[2]]) for key in keys}
    assert all(after[key] is node for key, node in before.items() if node is not fleet[2])
    assert all(after[key] is not fleet[2] for key in keys)
    assert min(Counter(before.values()).values()) > 60
    assert by_key((), "ann", ()) is None


def test_keys_follow_the_weights():
    fleet = weighted(1, 3)
    found = Counter(by_key(fleet, str(number), ()) for number in range(2000))
    assert 1400 < found[fleet[1]] < 1600


def test_a_node_with_far_more_uses_than_the_average_passes_its_keys_on():
    fleet = nodes(5)
    owner = by_key(fleet, "ann", ())
    assert owner is not None
    owner.pending = 7
    assert by_key(fleet, "ann", ()) is owner  # a few uses of a quiet fleet are no overload
    owner.pending = 40
    second = by_key(fleet, "ann", ())
    assert second is by_key(fleet, "ann", [owner]) is not owner
    for node in fleet:
        node.pending = 40
    assert by_key(fleet, "ann", ()) is owner


def test_keys_of_full_nodes_go_to_the_least_busy_one_when_all_are_full():
    fleet = nodes(3)
    for number, node in enumerate(fleet):
        node.full, node.pending = True, 3 - number
    assert by_key(fleet, "ann", ()) is fleet[2]


def test_shares_of_keys_are_spread_evenly():
    found = [share_of(str(number)) for number in range(1000)]
    assert all(0 <= share < 1 for share in found)
    assert 400 < sum(share < 0.5 for share in found) < 600
    assert share_of("ann") == share_of(b"ann")


def test_a_node_that_comes_back_to_a_round_takes_its_turns_again():
    from ecs_discovery.core.balancing.pickers import InTurn

    fleet = list(nodes(2))
    picker = InTurn(fleet, lambda: 0.0)
    picker.discard(fleet[1])
    picker.add(fleet[1])
    assert {picker.pick(lambda: 0.0, ()) for _ in range(8)} == set(fleet)


def test_a_draw_by_weight_among_nobody_gives_nobody():
    from ecs_discovery.core.balancing.pickers import ByWeight

    assert ByWeight([], 0.5).pick(lambda: 0.0, ()) is None


def test_a_node_that_comes_back_among_many_takes_its_turns_again():
    from ecs_discovery.core.balancing.pickers import InTurn

    fleet = list(nodes(64))
    picker = InTurn(fleet, lambda: 0.0)
    picker.discard(fleet[1])
    assert fleet[1] not in {picker.pick(lambda: 0.0, ()) for _ in range(64)}
    picker.add(fleet[1])
    assert {picker.pick(lambda: 0.0, ()) for _ in range(64)} == set(fleet)


def test_a_node_that_comes_back_with_another_weight_takes_as_many_turns_as_that_says():
    from ecs_discovery.core.balancing.pickers import InTurn

    fleet = list(nodes(64))
    picker = InTurn(fleet, lambda: 0.0)
    picker.discard(fleet[1])
    fleet[1].endpoint = replace(fleet[1].endpoint, weight=3 * fleet[1].endpoint.weight)
    picker.add(fleet[1])
    turns = Counter(picker.pick(lambda: 0.0, ()) for _ in range(66))
    assert (turns[fleet[1]], turns[fleet[2]]) == (3, 1)
