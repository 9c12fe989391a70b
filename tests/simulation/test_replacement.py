"""Tasks that go: deployments, a lost zone, scaling in."""

from __future__ import annotations

import asyncio

import pytest

from tests.simulation.tasks import Port
from tests.simulation.world import World, percentile

BOOT = 3.0  # seconds after its registration that a new task begins to listen


async def replace_all(world: World, at_once: int, pause: float) -> None:
    """What ECS does in a rolling deployment: new ones first, and old ones stop as they are deregistered."""
    old = list(world.network.values())
    while old:
        batch, old = old[:at_once], old[at_once:]
        new = world.start(len(batch), port=Port.CLOSED)
        await asyncio.sleep(BOOT)
        for task in new:
            task.listen()
        await asyncio.sleep(pause)
        world.stop(*batch)


@pytest.mark.parametrize("target", ["orders:8080", "cloudmap://prod/orders"])
@pytest.mark.parametrize(("tasks", "at_once"), [(3, 1), (10, 2), (30, 5)])
@pytest.mark.parametrize("seed", range(3))
def test_no_request_fails_while_every_task_is_replaced(target, tasks, at_once, seed):
    """DNS has a TTL of 10 s and learns of a change 5 s late; tasks are registered 3 s before they listen and killed
    with what they work on. No idempotent request fails, and none takes longer than 0.1 s."""
    world = World(seed, ttl=10, lag=5, caches=2)

    async def scenario(world: World) -> None:
        world.start(tasks)
        clients = [world.client(target) for _ in range(4)]
        await asyncio.sleep(6)  # until DNS names them
        deployment = world.spawn(replace_all(world, at_once, pause=5))
        await world.load(clients, 100, 8 * tasks / at_once + 20)
        assert deployment.done()

    world.run(scenario)
    assert not world.failed, world.failed[:3]
    assert max(request.seconds for request in world.requests) < 0.1


@pytest.mark.parametrize("seed", range(3))
def test_a_client_that_was_idle_through_a_deployment_loses_no_request(seed):
    """All it knows is gone; it waits for a fresh answer, and is not disappointed."""
    world = World(seed, ttl=10, lag=5)

    async def scenario(world: World) -> None:
        world.start(6)
        client = world.client()
        await asyncio.sleep(6)
        await world.load([client], 20, 20)
        await replace_all(world, 2, pause=5)
        await asyncio.sleep(40)
        await world.load([client], 20, 20)

    world.run(scenario)
    assert not world.failed, world.failed[:3]


@pytest.mark.parametrize("target", ["orders:8080", "cloudmap://prod/orders"])
@pytest.mark.parametrize("tasks", [6, 30])
@pytest.mark.parametrize("seed", range(3))
def test_a_lost_zone_costs_no_request_and_one_stall(target, tasks, seed):
    """A third of the tasks vanish at once: packets to them go unanswered, DNS names them for 30 s more.

    No idempotent request fails. Those whose request was acknowledged just before wait for keep-alive; of the
    others, 98 % of those in the first second take under 0.6 s, and 99 % from then on under 0.1 s.
    """
    world = World(seed, ttl=10, lag=0, caches=3)

    async def scenario(world: World) -> None:
        started = world.start(tasks)
        clients = [world.client(target) for _ in range(10)]
        await world.load(clients, 200, 10)
        lost = started[: tasks // 3]
        for task in lost:
            task.vanish()
        await world.load(clients, 200, 30)
        world.deregister(*lost)
        await world.load(clients, 200, 20)

    world.run(scenario)
    assert not world.failed, world.failed[:3]
    at_first = [request.seconds for request in world.between(1010, 1011)]
    later = [request.seconds for request in world.between(1011, 1060)]
    assert percentile(at_first, 0.98) < 0.6, percentile(at_first, 0.98)
    assert percentile(later, 0.99) < 0.1, percentile(later, 0.99)


@pytest.mark.parametrize("target", ["orders:8080", "cloudmap://prod/orders"])
@pytest.mark.parametrize("seed", range(3))
def test_scaling_in_costs_no_request(target, seed):
    """Of eight tasks four stop as they are deregistered; DNS learns of it 5 s late."""
    world = World(seed, ttl=10, lag=5)

    async def scenario(world: World) -> None:
        started = world.start(8)
        clients = [world.client(target) for _ in range(4)]
        await asyncio.sleep(6)
        await world.load(clients, 100, 20)
        world.stop(*started[:4])
        await world.load(clients, 100, 40)

    world.run(scenario)
    assert not world.failed, world.failed[:3]
    assert all(not task.served or task.served[-1] < 1026 for task in list(world.network.values())[:4])
