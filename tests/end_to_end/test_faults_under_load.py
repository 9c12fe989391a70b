"""A service under load while something is wrong with its tasks: wrapped requests against real sockets."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from ecs_discovery import Discovery
from ecs_discovery.testing.lab import Lab, LabTask
from tests.support import eventually
from tests.traffic import Traffic, traffic

pytestmark = pytest.mark.usefixtures("unmeasured")


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(namespace="prod.local", seed=5) as lab:
        yield lab


@pytest.fixture
def discovery(lab: Lab) -> Iterator[Discovery]:
    with Discovery(namespace="prod.local", nameservers=[lab.nameserver]) as discovery:
        yield discovery


def wait_for(load: Traffic, count: int) -> None:
    """Until that many more requests were made."""
    target = len(load.sent) + count
    eventually(lambda: len(load.sent) >= target, within=30)


def used(load: Traffic, since: float) -> Counter[str]:
    return Counter(task for began, task in load.tasks if began >= since)


FAULTS: dict[str, Callable[[LabTask], None]] = {
    "refuses": lambda task: task.refuse(cut=True),
    "resets before a byte": lambda task: task.reset(),
    "resets amid the answer": lambda task: task.reset(after_bytes=40),
    "answers 503": lambda task: task.errors(503),
    "answers 502 half of the time": lambda task: task.errors(502, probability=0.5),
    "drains": lambda task: task.drain(),
    "drains and closes": lambda task: task.drain(close_idle=True),
    "slows down": lambda task: task.slow(0.1),
    "is killed": lambda task: task.kill(),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_one_of_four_fails_and_no_get_does(lab: Lab, discovery: Discovery, fault: Callable[[LabTask], None]):
    service = lab.service("orders", tasks=4)
    with traffic(service.url(), discovery) as load:
        wait_for(load, 60)
        fault(service.tasks[1])
        wait_for(load, 300)
    assert load.failures == []


@pytest.mark.parametrize("fault", [FAULTS["refuses"], FAULTS["resets before a byte"]], ids=["refuses", "resets"])
def test_tasks_that_come_and_go_cost_no_get(lab: Lab, discovery: Discovery, fault: Callable[[LabTask], None]):
    """Each of the four in turn fails for fifty requests and is well for fifty."""
    service = lab.service("orders", tasks=4)
    with traffic(service.url(), discovery) as load:
        for task in (*service.tasks, *service.tasks):
            wait_for(load, 50)
            fault(task)
            wait_for(load, 50)
            task.heal()
    assert load.failures == []


def test_a_task_that_hangs_costs_a_few_requests_and_is_left_alone_then(lab: Lab, discovery: Discovery):
    """A read timeout is not repeated: the task may be at work. Requests in flight count as load, failures as more."""
    service = lab.service("orders", tasks=4)
    with traffic(service.url(), discovery, timeout=0.5) as load:
        wait_for(load, 60)
        service.tasks[2].hang()
        wait_for(load, 300)
        known = time.monotonic()
        wait_for(load, 300)
    assert all("timed out" in failure for failure in load.failures)
    assert len(load.failures) <= 12
    assert sum(seconds >= 0.5 for began, seconds in load.sent if began > known) <= 1, "a probe at most"


def test_with_sixteen_of_twenty_refusing_no_get_fails(lab: Lab, discovery: Discovery):
    service = lab.service("orders", tasks=20)
    with traffic(service.url(), discovery) as load:
        wait_for(load, 100)
        for task in service.tasks[:16]:
            task.refuse(cut=True)
        wait_for(load, 400)
    assert load.failures == []


def test_one_slow_task_of_ten_is_seen_by_under_one_in_a_hundred_requests(lab: Lab):
    service = lab.service("orders", tasks=10, records="SRV")
    slow = service.tasks[3]
    target = "static://" + ",".join(f"{task.address}:{task.port}" for task in service.tasks)
    with Discovery(services={"orders": target}) as discovery, traffic("http://orders/", discovery) as load:
        wait_for(load, 100)
        slow.slow(0.2)
        began = time.monotonic()
        eventually(lambda: load.sent[-1][0] > began + 6, within=30)
    assert load.failures == []
    late = used(load, began + 2)
    assert late.total() > 400
    assert late[slow.id] < 0.01 * late.total()


def test_an_outage_of_503_is_not_multiplied(lab: Lab, discovery: Discovery):
    """What reaches the tasks stays within 1.25 requests for each of the callers'."""
    service = lab.service("orders", tasks=4)
    with traffic(service.url(), discovery, rate=100) as load:
        wait_for(load, 50)
        for task in service.tasks:
            task.errors(503)
        before = sum(task.requests for task in service.tasks)
        made = len(load.sent)
        wait_for(load, 400)
        attempts = sum(task.requests for task in service.tasks) - before
        made = len(load.sent) - made
    assert attempts <= 1.25 * made
    assert len(load.failures) >= 350
