"""The world as a kit: services with handles, loads that begin at once, and reports."""

from __future__ import annotations

import asyncio

import pytest

from ecs_discovery import RetryPolicy
from ecs_discovery.testing.simulation import Port, Report, Request, World, steady


def test_the_same_seed_is_the_same_history():
    def played() -> list[Request]:
        world = World(3, ttl=10, lag=5)
        orders = world.service("orders", tasks=6)
        client = world.client()

        async def history() -> None:
            load = world.load(client, rate=50, seconds=60)
            await orders.deploy(batch=2)
            await load

        return world.run(history).requests

    assert played() == played()


def test_a_deployment_replaces_every_task():
    world = World(1)
    orders = world.service(tasks=5)
    old = orders.tasks

    async def history() -> None:
        await orders.deploy(batch=2, boot=1, every=1)

    world.run(history)
    assert len(orders.tasks) == 5
    assert not set(old) & set(orders.tasks)
    assert all(task.port is Port.CLOSED for task in old)
    assert world.now == 1006
    assert len(orders.all_tasks) == 10


@pytest.mark.parametrize("batch", [0, -1])
def test_a_batch_holds_a_task_at_least(batch):
    world = World(1)
    orders = world.service(tasks=1)
    with pytest.raises(ValueError, match="batch must be 1 or more"):
        world.run(lambda: orders.deploy(batch=batch))


def test_a_service_is_scaled_out_and_in():
    world = World(1)
    orders = world.service(tasks=2)

    async def history() -> None:
        await orders.scale(4, boot=1)
        assert [task.port for task in orders.tasks] == [Port.OPEN] * 4
        await orders.scale(1)

    world.run(history)
    assert orders.tasks == orders.all_tasks[3:]
    assert orders.answering


def test_services_are_told_apart_by_their_names():
    world = World(1)
    world.service("orders", tasks=1)
    world.service("billing", tasks=1, service_time=steady(0.1))
    callers = world.client("orders:8080"), world.client("cloudmap://prod/billing")

    async def history() -> None:
        for caller in callers:
            await caller.get()

    report = world.run(history)
    assert [request.hosts for request in report.requests] == [("10.0.0.1",), ("10.0.0.2",)]
    with pytest.raises(ValueError, match="'orders' already"):
        world.service("orders")


def test_a_service_that_is_not_there_is_not_found():
    world = World(1)
    client = world.client("billing:80")

    async def history() -> None:
        await client.get()

    report = world.run(history)
    assert report.lost == 1
    assert "TargetNotFound" in report.failed[0].error


def test_what_fails_in_a_history_or_beside_it_is_raised():
    world = World(1)

    async def breaks() -> None:
        await asyncio.sleep(1)
        raise ZeroDivisionError

    async def history() -> None:
        world.spawn(breaks())

    with pytest.raises(ZeroDivisionError):
        world.run(history)


def test_a_retry_policy_without_retries_loses_requests():
    """What the worked example finds out: the history can tell a good policy from a bad one."""

    def lost(retry: RetryPolicy) -> int:
        world = World(2, ttl=10, lag=5)
        orders = world.service(tasks=6, service_time=steady(0.05))
        client = world.client("orders:8080", retry=retry)

        async def history() -> None:
            load = world.load(client, rate=200, seconds=40)
            await orders.deploy(batch=2)
            await load

        return world.run(history).lost

    assert lost(RetryPolicy()) == 0
    assert lost(RetryPolicy(attempts=1)) > 0


def request(began: float, seconds: float = 0.01, status: int = 200, attempts: int = 1) -> Request:
    return Request(began, seconds, status, attempts, ("10.0.0.1",), "")


def test_a_report_adds_up():
    report = Report(
        [request(1002, 0.03), request(1000), request(1001, status=503)], [1000, 1001, 1001.5, 1002], [], 1000, 1003
    )
    assert [each.began for each in report.requests] == [1000, 1001, 1002]
    assert (report.lost, report.failed[0].status) == (1, 503)
    assert (report.p50, report.p99, report.longest) == (0.01, 0.03, 0.03)
    assert report.amplification == pytest.approx(4 / 3)
    assert "3 requests, 1 lost" in repr(report)


def test_a_part_of_a_report_is_a_report():
    part = Report([request(1000), request(1001)], [1000, 1001], [1001], 1000, 1002).between(1001, 1002)
    assert (len(part.requests), part.served, part.lookups) == (1, [1001], [1001])


def test_a_report_of_nothing_has_no_times():
    empty = Report([], [], [], 1000, 1001)
    assert (empty.lost, empty.p99, empty.longest, empty.amplification) == (0, 0, 0, 1)
    assert "<svg" in empty.svg()


def test_a_report_is_drawn(tmp_path):
    report = Report([request(1000), request(1001, status=500)], [1000, 1001], [], 1000, 1002)
    drawn = report.svg(tmp_path / "it.svg")
    assert (tmp_path / "it.svg").read_text() == drawn
    assert drawn.startswith("<svg")
    assert all(f">{name}</tspan>" in drawn for name in ("requests", "lost", "reached tasks"))
