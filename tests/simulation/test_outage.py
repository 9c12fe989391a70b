"""When all or most tasks fail."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from ecs_discovery.testing.simulation import Port, Task, World


def answers_503(task: Task) -> None:
    task.status = 503


def refuses(task: Task) -> None:
    task.stop()


def recovers(task: Task) -> None:
    task.status = 200
    task.listen()


@pytest.mark.parametrize("tasks", [1, 3, 20])
@pytest.mark.parametrize("clients", [1, 5])
@pytest.mark.parametrize("seed", range(2))
def test_an_outage_of_503_is_not_multiplied(tasks, clients, seed):
    """All tasks answer 503 for 30 s, at 100 requests a second: what reaches them is at most 1.2 times the requests,
    and one a second from each client besides. (What was saved up before, 10 a client, is used once.)

    Two seconds after they answer well again, every request succeeds.
    """
    world = World(seed)
    orders = world.service()

    async def scenario() -> None:
        started = orders.start(tasks)
        callers = [world.client("cloudmap://prod/orders") for _ in range(clients)]
        await world.load(callers, 100, 10)
        for task in started:
            answers_503(task)
        await world.load(callers, 100, 30)
        for task in started:
            recovers(task)
        await world.load(callers, 100, 10)

    world.run(scenario)
    during = world.between(1010, 1040)
    reached = sum(1010 <= moment < 1040 for task in world.network.values() for moment in task.served)
    assert reached <= 1.2 * len(during) + (30 + 10) * clients, (reached, len(during))
    late = [request for request in during if request.began >= 1025]
    assert sum(request.attempts for request in late) <= 1.2 * len(late) + 15 * clients
    assert all(request.ok for request in world.between(1042, 1050))


@pytest.mark.parametrize("tasks", [1, 4, 8])
@pytest.mark.parametrize("seed", range(2))
def test_an_outage_of_refused_connections_is_not_multiplied_and_ends_when_they_listen_again(tasks, seed):
    """All refuse for 30 s, at 100 requests a second: attempts are at most 2.2 times the requests (what was never
    sent is replayed once for free) and one a second besides. One attempt races over all endpoints there are, up to 16.

    Endpoints that do not connect are tried again after 32 s at most; two seconds after the tasks listen every
    request succeeds all the same, because requests try them when there is nothing else.
    """
    world = World(seed)
    orders = world.service()

    async def scenario() -> None:
        started = orders.start(tasks)
        callers = [world.client("cloudmap://prod/orders") for _ in range(2)]
        await world.load(callers, 100, 10)
        for task in started:
            refuses(task)
        await world.load(callers, 100, 30)
        for task in started:
            recovers(task)
        await world.load(callers, 100, 10)

    world.run(scenario)
    during = world.between(1010, 1040)
    attempts = sum(request.attempts for request in during)
    assert attempts <= 2.2 * len(during) + (30 + 10) * 2, (attempts, len(during))
    assert max(len(request.hosts) for request in during) <= tasks + 3  # one race over all, then one at a time
    assert max(request.seconds for request in during) < 2.1
    assert all(request.ok for request in world.between(1042, 1050))


@pytest.mark.parametrize("target", ["orders:8080", "cloudmap://prod/orders"])
@pytest.mark.parametrize("seed", range(2))
def test_sixteen_of_twenty_tasks_refuse_and_no_get_fails_once_that_is_known(target, seed):
    """They are named for as long as they refuse. From 10 s on, no GET fails: they are chosen last, however few of
    all are left."""
    world = sixteen_of_twenty(target, seed)
    assert not [request for request in world.failed if request.began >= 1040]


@pytest.mark.parametrize("target", ["orders:8080", "cloudmap://prod/orders"])
@pytest.mark.parametrize("seed", range(2))
def test_sixteen_of_twenty_tasks_refuse_and_no_get_fails_even_when_nobody_knows_yet(target, seed):
    world = sixteen_of_twenty(target, seed)
    assert not world.failed, (len(world.failed), world.failed[:3])


@cache  # one history, looked at by two tests
def sixteen_of_twenty(target: str, seed: int) -> World:
    """At the same moment, after 30 s."""
    world = World(seed)
    orders = world.service()

    async def scenario() -> None:
        started = orders.start(20)
        clients = [world.client(target) for _ in range(5)]
        await world.load(clients, 100, 30)
        for task in started[:16]:
            task.stop()
        await world.load(clients, 100, 40)

    world.run(scenario)
    return world


@pytest.mark.parametrize(("broken", "mends"), [(answers_503, True), (refuses, True), (refuses, False)])
@pytest.mark.parametrize("seed", range(2))
def test_half_of_the_tasks_fail_and_no_get_does(broken: Callable[[Task], None], mends: bool, seed):
    """Two of four, at 100 requests a second; they mend after 30 s or vanish from the registry."""
    world = World(seed)
    orders = world.service()

    async def scenario() -> None:
        started = orders.start(4)
        clients = [world.client("cloudmap://prod/orders") for _ in range(4)]
        await world.load(clients, 100, 20)
        for task in started[:2]:
            broken(task)
        await world.load(clients, 100, 30)
        if mends:
            for task in started[:2]:
                recovers(task)
        else:
            orders.deregister(*started[:2])
        await world.load(clients, 100, 30)

    world.run(scenario)
    assert not world.failed, (len(world.failed), world.failed[:3])


@pytest.mark.parametrize("seed", range(2))
def test_tasks_that_all_vanish_and_come_back_are_used_within_seconds(seed):
    """The network is cut for 40 s. Requests end within their connect time (2 s), and five seconds after the cut all
    succeed."""
    world = World(seed)
    orders = world.service()

    async def scenario() -> None:
        started = orders.start(4)
        clients = [world.client("cloudmap://prod/orders") for _ in range(2)]
        await world.load(clients, 50, 10)
        for task in started:
            task.vanish()
        await world.load(clients, 50, 40)
        for task in started:
            task.port = Port.OPEN
        await world.load(clients, 50, 15)

    world.run(scenario)
    assert max(request.seconds for request in world.between(1011, 1050)) < 3
    late = world.between(1055, 1065)
    assert all(request.ok for request in late), [request for request in late if not request.ok][:3]


@pytest.mark.parametrize(("tasks", "clients"), [(4, 1), (4, 8), (40, 1), (40, 4)])
@pytest.mark.parametrize("seconds", [60, 120])
def test_after_a_long_outage_the_load_is_shared_as_soon_as_all_are_back(tasks, clients, seconds):
    """All refuse for a minute or two. Two seconds after they listen again no task carries more than twice its share,
    and none less than half of it: one that is back has all others looked at."""
    world = World(tasks + clients)
    orders = world.service()

    async def scenario() -> None:
        started = orders.start(tasks)
        callers = [world.client("cloudmap://prod/orders") for _ in range(clients)]
        await world.load(callers, 20 * tasks, 5)
        for task in started:
            refuses(task)
        await world.load(callers, 5, seconds)
        for task in started:
            recovers(task)
        await world.load(callers, 20 * tasks, 12)

    world.run(scenario)
    back = 1005 + seconds
    counts = [sum(back + 2 <= at < back + 12 for at in task.served) for task in world.network.values()]
    mean = sum(counts) / len(counts)
    assert max(counts) <= 2 * mean, counts
    assert min(counts) >= mean / 2, counts
    assert all(request.ok for request in world.between(back + 0.5, back + 12))
