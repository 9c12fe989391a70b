"""Equal tasks get equal shares."""

from __future__ import annotations

import pytest

from ecs_discovery.testing.simulation import World, lognormal, steady

NOISE = {
    "steady": steady(0.002),
    "lognormal": lognormal(0.002, 0.5),
    "pauses": lognormal(0.002, 0.5, pause=0.05, pauses=0.005),
}


@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("seed", range(5))
def test_three_equal_tasks_share_a_client_s_requests_evenly(noise, seed):
    """One request after another, 300 of them: 100 each, give or take 10."""
    world = World(seed)
    orders = world.service()

    async def scenario() -> None:
        orders.start(3, NOISE[noise])
        client = world.client()
        for _ in range(300):
            await client.get()

    world.run(scenario)
    assert not world.failed
    counts = [len(task.served) for task in world.network.values()]
    assert all(90 <= count <= 110 for count in counts), counts


@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize(("tasks", "bound"), [(3, 1.25), (10, 1.35)])
@pytest.mark.parametrize("seed", range(2))
def test_equal_tasks_share_concurrent_requests_evenly(noise, tasks, bound, seed):
    """10 clients, 1,000 requests a second for 8 s, of which several are in flight at any time: the busiest task gets at
    most `bound` times what the idlest gets."""
    world = World(seed)
    orders = world.service()

    async def scenario() -> None:
        orders.start(tasks, NOISE[noise])
        clients = [world.client("cloudmap://prod/orders") for _ in range(10)]
        await world.load(clients, 1000, 8)

    world.run(scenario)
    assert not world.failed
    counts = [len(task.served) for task in world.network.values()]
    assert max(counts) <= bound * min(counts), counts
