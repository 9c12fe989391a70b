"""Tasks that are slow, or fail fast: who gets the traffic."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from ecs_discovery.config.policies import OutlierPolicy
from ecs_discovery.testing.simulation import ServiceTime, World, lognormal, percentile, steady

FAST, SLOW = 0.002, 0.2


def share(world: World, hosts: set[str], start: float, end: float) -> float:
    """Which part of the requests of these seconds met one of `hosts`?"""
    chosen = world.between(start, end)
    return sum(bool(hosts.intersection(request.hosts)) for request in chosen) / len(chosen)


@cache  # one history, looked at by several tests
def slowed(
    seed: int, tasks: int, slow: int, rate: float, clients: int, seconds: float = 22.0
) -> tuple[World, set[str]]:
    """After 10 s `slow` of the tasks take 200 ms instead of 2."""
    world = World(seed)
    orders = world.service()
    hosts: set[str] = set()

    async def scenario() -> None:
        started = orders.start(tasks, lognormal(FAST, 0.3))
        callers = [world.client("cloudmap://prod/orders") for _ in range(clients)]
        await world.load(callers, rate, 10)
        for task in started[:slow]:
            task.service_time = steady(SLOW)
            hosts.add(task.host)
        await world.load(callers, rate, 12)

    world.run(scenario)
    assert not world.failed
    return world, hosts


@pytest.mark.parametrize(
    ("tasks", "bound"),
    [
        (3, 0.05),
        (10, 0.01),
        (100, 0.005),
    ],
)
@pytest.mark.parametrize("seed", range(2))
def test_one_slow_task_gets_a_trickle(tasks, bound, seed):
    """200 ms against 2: from 2 s after it became slow, under 1 % of requests meet it in a pool of ten, and
    under half a per cent, half of the fair share, in one of a hundred.

    Of three it is under 5 %: a trickle has to go there, or nobody would learn that it is well again.
    """
    world, hosts = slowed(seed, tasks, 1, rate=400, clients=2)
    met = share(world, hosts, 1012, 1022)
    assert met < bound, met


@pytest.mark.parametrize("seed", range(2))
def test_one_slow_task_of_ten_leaves_p99_as_it_is(seed):
    """From 2 s on p99 is within 1.5 times that of the pool before it became slow."""
    world, _ = slowed(seed, 10, 1, rate=400, clients=2)
    before = percentile([request.seconds for request in world.between(1002, 1010)], 0.99)
    after = percentile([request.seconds for request in world.between(1012, 1022)], 0.99)
    assert after < 1.5 * before, (before, after)


@pytest.mark.parametrize("seed", range(2))
def test_two_slow_tasks_of_four_get_a_trickle(seed):
    """Under 5 % of requests, though half of the tasks are slow."""
    world, hosts = slowed(seed, 4, 2, rate=400, clients=2)
    met = share(world, hosts, 1012, 1022)
    assert met < 0.05, met


@pytest.mark.parametrize("seed", range(2))
def test_a_task_that_was_slow_is_used_again(seed):
    """A cost sinks by half in seven seconds while nobody asks: 200 ms are as good as 5 ms after 37 s. Then one request
    finds out, and from 40 s after it became well it carries at least half of its fair share."""
    world = World(seed)
    orders = world.service()

    async def scenario() -> None:
        started = orders.start(4, lognormal(FAST, 0.3))
        callers = [world.client("cloudmap://prod/orders") for _ in range(2)]
        await world.load(callers, 200, 5)
        started[0].service_time = steady(SLOW)
        await world.load(callers, 200, 10)
        started[0].service_time = lognormal(FAST, 0.3)
        await world.load(callers, 200, 50)

    world.run(scenario)
    assert share(world, {"10.0.0.1"}, 1055, 1065) > 0.5 / 4


EJECTS = {"ejected": OutlierPolicy(), "never ejected": OutlierPolicy(consecutive_failures=1000, success_rate=0)}


@pytest.mark.parametrize("ejects", EJECTS)
@pytest.mark.parametrize("tasks", [3, 10])
@pytest.mark.parametrize("status", [500, 503])
@pytest.mark.parametrize("seed", range(2))
def test_fast_errors_attract_no_traffic(ejects, tasks, status, seed):
    """One task answers an error in 0.5 ms while the others take 20 ms for a good answer: by latency and uses in flight
    it would be the best of all. From 2 s on it gets less than a tenth of its fair share, ejected or not."""
    world = World(seed)
    orders = world.service()

    async def scenario() -> None:
        started = orders.start(tasks, lognormal(0.02, 0.3))
        callers = [world.client("cloudmap://prod/orders", outlier=EJECTS[ejects]) for _ in range(4)]
        await world.load(callers, 200, 5)
        started[0].status, started[0].service_time = status, steady(0.0005)
        await world.load(callers, 200, 20)

    world.run(scenario)
    met = share(world, {"10.0.0.1"}, 1007, 1025)
    assert met < 0.1 / tasks, met


@pytest.mark.parametrize("seed", range(2))
def test_errors_now_and_then_eject_nobody_and_cost_their_share_only(seed):
    """A task of four that fails one request in a hundred goes on carrying at least a third of its fair share."""
    world = World(seed)
    orders = world.service()

    def sometimes(task_time: ServiceTime, set_status: Callable[[int], None]) -> ServiceTime:
        def draw(rng):
            set_status(500 if rng.random() < 0.01 else 200)
            return task_time(rng)

        return draw

    async def scenario() -> None:
        started = orders.start(4, lognormal(0.01, 0.3))
        task = started[0]
        task.service_time = sometimes(task.service_time, lambda status: setattr(task, "status", status))
        callers = [world.client("cloudmap://prod/orders") for _ in range(2)]
        await world.load(callers, 200, 30)

    world.run(scenario)
    assert share(world, {"10.0.0.1"}, 1005, 1030) > 1 / 12
