"""Trouble that all tasks share: a bad second, an overload. It passes; what the clients do must not make it last."""

from __future__ import annotations

import pytest

from ecs_discovery.testing.simulation import Task, World, lognormal

CAPACITY = 190  # requests a second of a task that works on two at once; eight may wait
SERVICE = lognormal(0.0095, 0.3)
SLOW = lognormal(0.0475, 0.3)  # a fifth of that


def good(world: World, start: float, end: float) -> float:
    """The share of the requests begun then that succeeded."""
    found = world.between(start, end)
    return sum(request.ok for request in found) / len(found)


def shares(world: World, start: float, end: float) -> list[float]:
    """What each task got then, with 1 as the mean."""
    counts = [sum(start <= moment < end for moment in task.served) for task in world.network.values()]
    return [count * len(counts) / sum(counts) for count in counts]


@pytest.mark.parametrize("clients", [1, 8])
@pytest.mark.parametrize(("tasks", "bad"), [(4, 1), (4, 10), (40, 1)])
@pytest.mark.parametrize("seed", range(2))
def test_a_bad_second_is_over_when_it_is_over(tasks, bad, clients, seed):
    """At 60 % of their capacity all tasks answer 503 for one second, or ten. Five seconds after that every request
    succeeds, and the load is even within a fifth."""
    world = World(seed)
    orders = world.service(workers=2, queue=8)
    many = tasks > 4

    async def scenario() -> None:
        started = orders.start(tasks, SLOW if many else SERVICE)
        callers = [world.client("cloudmap://prod/orders") for _ in range(clients)]
        rate = 0.6 * CAPACITY * tasks / (5 if many else 1)
        await world.load(callers, rate, 8)
        for task in started:
            task.status = 503
        await world.load(callers, rate, bad)
        for task in started:
            task.status = 200
        await world.load(callers, rate, 15 if many else 10)

    world.run(scenario)
    over, end = 1008 + bad, 1018 + bad + (5 if many else 0)
    assert good(world, over + 1, over + 5) >= 0.99
    assert good(world, over + 5, end) == 1
    assert all(0.8 <= share <= 1.2 for share in shares(world, over + 5, end)), shares(world, over + 5, end)


@pytest.mark.parametrize("clients", [1, 8])
@pytest.mark.parametrize("load", [0.9, 1.1, 1.5])
@pytest.mark.parametrize("tasks", [3, 4])
def test_an_overloaded_service_does_as_much_as_it_can(tasks, load, clients):
    """Whatever the load, at least 97 % of the lesser of it and the capacity is done, all tasks alike within a tenth."""
    world = World(tasks)
    orders = world.service(workers=2, queue=8)

    async def scenario() -> None:
        orders.start(tasks, SERVICE)
        callers = [world.client("cloudmap://prod/orders") for _ in range(clients)]
        await world.load(callers, load * CAPACITY * tasks, 12)

    world.run(scenario)
    done = sum(request.ok for request in world.between(1002, 1012)) / 10
    assert done >= 0.97 * min(1.0, load) * CAPACITY * tasks
    assert all(0.9 <= share <= 1.1 for share in shares(world, 1002, 1012)), shares(world, 1002, 1012)


@pytest.mark.parametrize("clients", [1, 8])
@pytest.mark.parametrize("seed", range(2))
def test_a_broken_task_is_left_although_the_others_were_in_trouble_with_it(clients, seed):
    """One of four stays at 503 after a bad second: ten seconds later it gets under a twentieth of the load."""
    world = World(seed)
    orders = world.service(workers=2, queue=8)

    async def scenario() -> None:
        started = orders.start(4, SERVICE)
        callers = [world.client("cloudmap://prod/orders") for _ in range(clients)]
        await world.load(callers, 300, 8)
        for task in started:
            task.status = 503
        await world.load(callers, 300, 1)
        for task in started[1:]:
            task.status = 200
        await world.load(callers, 300, 20)

    world.run(scenario)
    broken: Task = next(iter(world.network.values()))
    assert sum(moment >= 1019 for moment in broken.served) < 0.05 * len(world.between(1019, 1029))
    assert good(world, 1014, 1029) >= 0.999
