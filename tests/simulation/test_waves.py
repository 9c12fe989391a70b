"""Hundreds of clients do not act in step."""

from __future__ import annotations

import asyncio

import pytest

from ecs_discovery.config.policies import BalancingPolicy
from ecs_discovery.testing.simulation import Client, World, buckets


async def every(world: World, client: Client, period: float, until: float) -> None:
    """A request each `period` seconds."""
    await asyncio.sleep(world.rng.random() * period)
    while world.now < until:
        await client.get()
        await asyncio.sleep(period)


@pytest.mark.parametrize("target", ["orders:8080", "cloudmap://prod/orders"])
@pytest.mark.parametrize("seed", range(2))
def test_clients_that_start_together_do_not_refresh_together_for_long(target, seed):
    """100 clients learn the service in one tenth of a second, and refresh every 5 or 10 s. TTLs have jitter, so that
    from 60 s on at most a fifth of them ask in any tenth of a second."""
    world = World(seed, ttl=10, caches=100)
    orders = world.service()

    async def scenario() -> None:
        orders.start(6)
        clients = [world.client(target) for _ in range(100)]
        await asyncio.gather(*(client.get() for client in clients))
        await asyncio.gather(*(every(world, client, 0.5, 1100) for client in clients))

    world.run(scenario)
    asked = sorted(moment for source in (*world.dns, world.cloud_map) for moment in source.asked)
    assert max(buckets(asked, 1000, 1001, 0.1)) >= 100
    counts = buckets(asked, 1060, 1100, 0.1)
    assert sum(counts) > 100 * 3, sum(counts)
    assert max(counts) <= 0.2 * 100, max(counts)


@pytest.mark.parametrize("seed", range(2))
def test_a_task_ejected_by_hundreds_of_clients_is_not_probed_by_all_at_once(seed):
    """A task of three begins to answer 500 to 100 clients that call ten times a second in turn, so that all eject it
    within a second. Ejections are drawn between half and the whole of their time: in no tenth of a second more than an
    eighth of the clients probe."""
    world = World(seed)
    orders = world.service()

    async def scenario() -> None:
        started = orders.start(3)
        turns = BalancingPolicy(picker="round_robin")
        clients = [world.client("cloudmap://prod/orders", balancing=turns) for _ in range(100)]
        callers = asyncio.gather(*(every(world, client, 0.1, 1022) for client in clients))
        await asyncio.sleep(6)
        started[0].status = 500
        await callers

    world.run(scenario)
    counts = buckets([moment for moment, _ in world.probes], 1006, 1022, 0.1)
    assert sum(counts) >= 100, sum(counts)
    assert max(counts) <= 100 / 8, max(counts)


@pytest.mark.parametrize("seed", range(2))
def test_a_task_that_refused_hundreds_of_clients_is_not_flooded_when_it_comes_back(seed):
    """It refuses for 30 s, and then listens: in no second does it get more than twice its fair share."""
    world = World(seed)
    orders = world.service()

    async def scenario() -> None:
        started = orders.start(5)
        clients = [world.client("cloudmap://prod/orders") for _ in range(100)]
        callers = asyncio.gather(*(every(world, client, 0.2, 1080) for client in clients))
        await asyncio.sleep(10)
        started[0].stop()
        await asyncio.sleep(30)
        started[0].listen()
        await callers

    world.run(scenario)
    assert not world.failed
    fair = 100 / 0.2 / 5
    assert max(buckets(world.network["10.0.0.1"].served, 1040, 1080, 1.0)) <= 2 * fair


@pytest.mark.parametrize(("clients", "tasks"), [(200, 50), (20, 2000)])
@pytest.mark.parametrize("seed", range(2))
def test_many_clients_share_many_tasks(clients, tasks, seed):
    """No task gets more than three times the mean and ten requests besides, and none fails."""
    world = World(seed)
    orders = world.service()

    async def scenario() -> None:
        orders.start(tasks)
        callers = [world.client("cloudmap://prod/orders") for _ in range(clients)]
        await world.load(callers, 2000, 4)

    world.run(scenario)
    assert not world.failed
    counts = [len(task.served) for task in world.network.values()]
    mean = sum(counts) / len(counts)
    assert max(counts) <= 3 * mean + 10, (max(counts), mean)
