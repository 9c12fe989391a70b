"""Pickers: fairness, exclusions, small sets."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from ecs_discovery.core.pickers import LeastPending, by_key
from tests.support import nodes

PICKER = LeastPending(full_scan=4)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_idle_nodes_of_a_small_set_are_taken_in_turn(count: int):
    fleet = nodes(count)
    picks = []
    for tick in range(1, 3 * count + 1):
        node = PICKER.pick(fleet, Random(1).random, ())
        assert node is not None
        node.picked = tick
        picks.append(node)
    assert picks == list(fleet) * 3


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("count", [2, 3, 4, 5, 8])
def test_the_busiest_node_is_never_picked(count: int, seed: int):
    """It is always compared with another one: two distinct draws."""
    fleet, dice = nodes(count), Random(seed)
    fleet[dice.randrange(count)].pending = 1
    for _ in range(100):
        picked = PICKER.pick(fleet, dice.random, ())
        assert picked is not None
        assert picked.pending == 0


@pytest.mark.parametrize("seed", range(3))
def test_sequential_picks_of_a_large_set_are_even(seed: int):
    """Two draws with the older one winning: 20,000 picks over 100 nodes stay within a quarter of 200 each."""
    fleet, dice, counts = nodes(100), Random(seed), Counter()
    for tick in range(1, 20_001):
        node = PICKER.pick(fleet, dice.random, ())
        assert node is not None
        node.picked = tick
        counts[node] += 1
    assert min(counts.values()) > 150
    assert max(counts.values()) < 250


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 10])
def test_excluded_nodes_are_never_picked_and_the_others_always_can_be(count: int):
    fleet, dice = nodes(count), Random(5)
    for keep in range(count):
        exclude = [node for node in fleet if node is not fleet[keep]]
        assert PICKER.pick(fleet, dice.random, exclude) is fleet[keep]
    assert PICKER.pick(fleet, dice.random, list(fleet)) is None
    assert PICKER.pick((), dice.random, ()) is None


def test_with_one_of_two_drawn_excluded_the_other_is_taken():
    fleet = nodes(5)
    first_two = iter([0.0, 0.0])  # draws nodes 0 and 1
    assert PICKER.pick(fleet, lambda: next(first_two), [fleet[1]]) is fleet[0]
    first_two = iter([0.0, 0.0])
    assert PICKER.pick(fleet, lambda: next(first_two), [fleet[0]]) is fleet[1]


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
