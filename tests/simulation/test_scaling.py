"""New tasks: they are not flooded, and soon carry their share."""

from __future__ import annotations

from functools import cache

import pytest

from ecs_discovery.testing.simulation import World, buckets, lognormal

RATE = 200


@cache  # one history, looked at by several tests
def grown(seed: int, before: int, after: int, target: str) -> World:
    """4 clients, 200 requests a second: for 10 s on `before` tasks, then for 50 s on `after`."""
    world = World(seed, ttl=5)
    orders = world.service()

    async def scenario() -> None:
        orders.start(before, lognormal(0.003, 0.3))
        callers = [world.client(target) for _ in range(4)]
        await world.load(callers, RATE, 10)
        orders.start(after - before, lognormal(0.003, 0.3))
        await world.load(callers, RATE, 50)

    world.run(scenario)
    assert not world.failed
    return world


@pytest.mark.parametrize("target", ["orders:8080", "cloudmap://prod/orders"])
@pytest.mark.parametrize(("before", "after"), [(3, 4), (4, 5), (4, 8)])
@pytest.mark.parametrize("seed", range(2))
def test_new_tasks_carry_their_share_after_the_ramp(target, before, after, seed):
    """Each carries within a quarter of the fair share from 35 s after its registration: up to 6 s until every client
    has heard of it, the ramp of 20 s, and some to spare."""
    world = grown(seed, before, after, target)
    fair = RATE * 15 / after
    for task in world.services["orders"].all_tasks[before:]:
        carried = sum(1045 <= moment < 1060 for moment in task.served)
        assert 0.75 * fair <= carried <= 1.25 * fair, (carried, fair)


@pytest.mark.parametrize(("before", "after"), [(3, 4), (4, 5), (10, 12), (4, 8)])
@pytest.mark.parametrize("seed", range(2))
def test_a_new_task_is_never_flooded(before, after, seed):
    """In no second of its first 30 does it get more than 1.5 times the fair share (and what chance adds to so few)."""
    world = grown(seed, before, after, "cloudmap://prod/orders")
    fair = RATE / after
    for task in world.services["orders"].all_tasks[before:]:
        most = max(buckets(task.served, 1010, 1040, 1.0))
        assert most <= 1.5 * fair + 3, (most, fair)


@pytest.mark.parametrize(("before", "after"), [(3, 4), (10, 12)])
@pytest.mark.parametrize("seed", range(2))
def test_a_new_task_is_given_time_to_warm_up(before, after, seed):
    """In the first five seconds after the first request it gets at most 0.6 of its fair share: its share grows from a
    tenth to the whole in 20 s, at each client from when that heard of it."""
    world = grown(seed, before, after, "cloudmap://prod/orders")
    fair = RATE * 5 / after
    for task in world.services["orders"].all_tasks[before:]:
        first = task.served[0]
        early = sum(moment < first + 5 for moment in task.served)
        assert 0 < early <= 0.6 * fair, (early, fair)


@pytest.mark.parametrize("seed", range(2))
def test_a_fleet_that_is_new_as_a_whole_is_used_at_once(seed):
    """With nobody to compare with there is nobody to spare: shares are even from the first seconds."""
    world = World(seed)
    orders = world.service()

    async def scenario() -> None:
        orders.start(4, lognormal(0.003, 0.3))
        callers = [world.client("cloudmap://prod/orders") for _ in range(4)]
        await world.load(callers, 300, 5)

    world.run(scenario)
    counts = [len(task.served) for task in world.network.values()]
    assert max(counts) < 1.5 * min(counts), counts
