"""Tasks that go: deployments, a lost zone, scaling in."""

from __future__ import annotations

import asyncio
from functools import cache

import pytest

from ecs_discovery.testing.simulation import World, percentile

BOTH = pytest.mark.parametrize("target", ["orders:8080", "cloudmap://prod/orders"])
BOOT = 3.0  # seconds after its registration that a new task begins to listen


@BOTH
@pytest.mark.parametrize(("tasks", "at_once"), [(3, 1), (10, 2), (30, 3)])
@pytest.mark.parametrize("seed", range(2))
def test_no_request_fails_while_every_task_is_replaced(target, tasks, at_once, seed):
    """DNS has a TTL of 10 s and learns of a change 5 s late; tasks are registered 3 s before they listen and killed
    with what they work on. No idempotent request fails, and none takes longer than 0.1 s."""
    world = World(seed, ttl=10, lag=5, caches=2)
    orders = world.service()

    async def scenario() -> None:
        orders.start(tasks)
        clients = [world.client(target) for _ in range(4)]
        await asyncio.sleep(6)  # until DNS names them
        deployment = world.spawn(orders.deploy(batch=at_once, boot=BOOT, every=5))
        await world.load(clients, 100, 8 * tasks / at_once + 20)
        assert deployment.done()

    world.run(scenario)
    assert not world.failed, world.failed[:3]
    assert max(request.seconds for request in world.requests) < 0.1


@pytest.mark.parametrize("seed", range(2))
def test_a_client_that_was_idle_through_a_deployment_loses_no_request(seed):
    """All it knows is gone; it waits for a fresh answer, and is not disappointed."""
    world = World(seed, ttl=10, lag=5)
    orders = world.service()

    async def scenario() -> None:
        orders.start(6)
        client = world.client()
        await asyncio.sleep(6)
        await world.load([client], 20, 20)
        await orders.deploy(batch=2, boot=BOOT, every=5)
        await asyncio.sleep(40)
        await world.load([client], 20, 20)

    world.run(scenario)
    assert not world.failed, world.failed[:3]


@cache  # one history, looked at by several tests
def lost(target: str, tasks: int, gone: int, seed: int) -> World:
    """10 clients, 200 requests a second. After 10 s some tasks vanish at once; they are named for 30 s more."""
    world = World(seed, ttl=10, lag=0, caches=3)
    orders = world.service()

    async def scenario() -> None:
        started = orders.start(tasks)
        clients = [world.client(target) for _ in range(10)]
        await world.load(clients, 200, 10)
        for task in started[:gone]:
            task.vanish()
        await world.load(clients, 200, 30)
        orders.deregister(*started[:gone])
        await world.load(clients, 200, 20)

    world.run(scenario)
    return world


@BOTH
@pytest.mark.parametrize(("tasks", "gone", "after"), [(4, 1, 1), (6, 2, 1), (30, 10, 2)])
@pytest.mark.parametrize("seed", range(2))
def test_soon_after_tasks_vanished_nobody_notices(target, tasks, gone, after, seed):
    """One of four, or a zone with a third of all: from a second after it (two where ten have to be found out) no
    idempotent request fails, and 99 % take under 0.1 s."""
    later = lost(target, tasks, gone, seed).between(1010 + after, 1060)
    assert all(request.ok for request in later), [request for request in later if not request.ok][:3]
    assert percentile([request.seconds for request in later], 0.99) < 0.1


@BOTH
@pytest.mark.parametrize(("tasks", "gone"), [(4, 1), (6, 2)])
@pytest.mark.parametrize("seed", range(2))
def test_no_request_fails_when_up_to_two_tasks_vanish(target, tasks, gone, seed):
    """Three attempts that go to different endpoints meet two of them at most."""
    failed = lost(target, tasks, gone, seed).failed
    assert not failed, failed[:3]


@BOTH
@pytest.mark.parametrize("seed", range(2))
def test_hardly_a_request_fails_when_ten_of_thirty_tasks_vanish(target, seed):
    """Three attempts on kept connections all meet the lost third with a chance of 3 % as long as nobody knows: of the
    requests of the first second under 4 % fail."""
    at_first = lost(target, 30, 10, seed).between(1010, 1011)
    assert sum(not request.ok for request in at_first) < 0.04 * len(at_first)


@BOTH
@pytest.mark.parametrize(("tasks", "gone", "bound"), [(4, 1, 0.6), (6, 2, 0.6), (30, 10, 0.8)])
@pytest.mark.parametrize("seed", range(2))
def test_the_stall_when_tasks_vanish_is_short(target, tasks, gone, bound, seed):
    """Under 0.6 s for one task or two. Where many go at once each of the three attempts may meet one of them, for a
    quarter second on a connection that is open."""
    at_first = lost(target, tasks, gone, seed).between(1010, 1011)
    longest = max(request.seconds for request in at_first if request.ok)
    assert longest < bound, longest


@BOTH
@pytest.mark.parametrize("seed", range(2))
def test_scaling_in_costs_no_request(target, seed):
    """Of eight tasks three stop as they are deregistered; DNS learns of it 5 s late. (More than three at once could be
    met one after another by the four attempts of a request.)"""
    world = World(seed, ttl=10, lag=5)
    orders = world.service()

    async def scenario() -> None:
        started = orders.start(8)
        clients = [world.client(target) for _ in range(4)]
        await asyncio.sleep(6)
        await world.load(clients, 100, 20)
        orders.stop(*started[:3])
        await world.load(clients, 100, 40)

    world.run(scenario)
    assert not world.failed, world.failed[:3]
    assert all(not task.served or task.served[-1] < 1026 for task in orders.all_tasks[:3])


@BOTH
@pytest.mark.parametrize("seed", range(2))
def test_a_service_that_was_scaled_to_nothing_is_found_again_within_seconds(target, seed):
    """Three minutes without a task, then three: no request fails from 12 s after they were registered (5 s until DNS
    learns of it, and 5 s for which "there is none" is believed at most)."""
    world = World(seed, ttl=5, lag=5)
    orders = world.service()

    async def scenario() -> None:
        started = orders.start(3)
        client = world.client(target)
        await asyncio.sleep(6)
        await world.load([client], 20, 14)
        orders.stop(*started)
        await world.load([client], 5, 180)
        orders.start(3)
        await world.load([client], 20, 30)

    world.run(scenario)
    assert not [request for request in world.failed if not 1020 <= request.began < 1212]


@pytest.mark.parametrize("seed", range(2))
def test_no_request_fails_when_five_new_tasks_of_thirty_do_not_listen_yet(seed):
    """Cloud Map names a task before it listens. A request should not go from one such task to the next."""
    world = World(seed, ttl=10, lag=5, caches=2)
    orders = world.service()

    async def scenario() -> None:
        orders.start(30)
        clients = [world.client("cloudmap://prod/orders") for _ in range(4)]
        await asyncio.sleep(6)
        world.spawn(orders.deploy(batch=5, boot=BOOT, every=5))
        await world.load(clients, 100, 68)

    world.run(scenario)
    assert not world.failed, world.failed[:3]


@pytest.mark.parametrize("seed", range(3))
def test_clients_that_send_little_come_through_the_loss_of_half_the_tasks(seed):
    """200 clients, a request in 5 s each, know little of 60 tasks by themselves. Half of the tasks vanish, and are
    named for 30 s more. A connect finds one of the others within 1.2 s. What is lost met four kept connections to
    vanished tasks in turn: one request in a thousand at most."""
    world = World(seed, ttl=10, lag=5, caches=3)
    orders = world.service("orders", 60)
    clients = [world.client() for _ in range(200)]

    async def scenario() -> None:
        load = world.load(clients, 40, 100)
        await asyncio.sleep(60)
        gone = orders.tasks[::2]
        for task in gone:
            task.vanish()
        await asyncio.sleep(30)
        orders.deregister(*gone)
        await load

    report = world.run(scenario).between(1060, 1100)
    assert all("nothing acknowledged" in each.error for each in report.failed)
    assert report.lost <= report.began / 1000
    assert report.longest < 1.2
    assert report.p99 < 0.5


@pytest.mark.parametrize(("idle", "connects"), [(50.0, 1), (70.0, 2)])
def test_a_simulated_connection_idle_for_longer_than_a_client_keeps_it_is_not_used_again(idle, connects):
    world = World(1)
    world.service("orders", 1)

    async def scenario() -> None:
        client = world.client()
        await client.get()
        await asyncio.sleep(idle)
        await client.get()

    assert world.run(scenario).lost == 0
    assert len(world.connects) == connects
