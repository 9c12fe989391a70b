"""Every client library under 200 requests per second, while tasks vanish and deployments go on."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from ecs_discovery import DnsPolicy
from ecs_discovery.testing.lab import Lab, LabService
from tests.integrations.clients import CLIENTS, ClientUnderTest
from tests.worlds import Worlds

pytestmark = pytest.mark.usefixtures("unmeasured")

RATE, CALLERS = 200, 24


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(namespace="prod.local", seed=5) as lab:
        yield lab


@dataclass
class Load:
    """What became of the requests."""

    sent: list[tuple[float, float]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    stall: float = 0.0
    """The longest that this machine kept a thread from running: bounds on time allow for a few of those."""

    @property
    def longest(self) -> float:
        return max(seconds for _, seconds in self.sent) - 3 * self.stall


def under_load(
    kind: type[ClientUnderTest], lab: Lab, service: LabService, method: str, meanwhile: Callable[[Load], None]
) -> Load:
    """Requests from 24 callers, until `meanwhile` is over."""
    load, over = Load(), threading.Event()

    def script() -> None:
        try:
            meanwhile(load)
        finally:
            over.set()

    def watch_the_machine() -> None:
        while not over.is_set():
            began = time.monotonic()
            time.sleep(0.005)
            late = time.monotonic() - began - 0.005
            load.stall = max(load.stall, late if late > 0.03 else 0.0)

    async def scenario(w: Any) -> None:
        client = kind(w.discovery)
        await client.send(method, service.url())
        slots, start = itertools.count(), time.monotonic()
        threads = [threading.Thread(target=each) for each in (script, watch_the_machine)]
        for thread in threads:
            thread.start()

        async def caller() -> None:
            while not over.is_set():
                wait = start + next(slots) / RATE - time.monotonic()
                if wait > 0:
                    await w.pause(wait)
                began = time.monotonic()
                try:
                    answer = await client.send(method, service.url(), body=None if method == "GET" else b"x")
                    if answer.status != 200:
                        load.failures.append(f"status {answer.status}")
                except Exception as error:  # noqa: BLE001  # whatever leaves a client fails a request
                    load.failures.append(repr(error))
                load.sent.append((began, time.monotonic() - began))

        found = await w.many(CALLERS, caller)
        assert found == [None] * CALLERS
        for thread in threads:
            thread.join()
        await client.close()

    asked = DnsPolicy(nameservers=(lab.nameserver,))
    Worlds(kind.world).run(scenario, namespace="prod.local", dnspolicy=asked)
    return load


@pytest.fixture(
    params=[each for each in CLIENTS if each.is_complete], ids=lambda kind: f"{kind.name}-{kind.world.name}"
)
def kind(request: pytest.FixtureRequest) -> type[ClientUnderTest]:
    return request.param  # type: ignore[no-any-return]


def enough(load: Load, count: int) -> None:
    until = time.monotonic() + 20
    while len(load.sent) < count:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_task_that_vanishes_costs_no_get_and_no_long_wait(lab: Lab, kind: type[ClientUnderTest]):
    if not lab.can_vanish:
        pytest.skip("no socket filter here")
    service = lab.service("orders", tasks=4)

    def vanish(load: Load) -> None:
        enough(load, 80)
        service.tasks[1].vanish()
        time.sleep(1.5)

    load = under_load(kind, lab, service, "GET", vanish)
    assert load.failures == []
    assert load.longest < 2  # about 0.5 s on a quiet machine; 10 s without a look at the silent connection


def test_all_tasks_replaced_one_after_another_by_vanishing_cost_no_get(lab: Lab, kind: type[ClientUnderTest]):
    """DNS shows each change a second late, and a second task is gone by then: some connects wait for it."""
    if not lab.can_vanish:
        pytest.skip("no socket filter here")
    service = lab.service("orders", tasks=4, ttl=1, deregistration_lag=1.0)

    def replace(load: Load) -> None:
        enough(load, 80)
        service.deploy(interval=0.6, stop="vanish")
        time.sleep(0.5)

    load = under_load(kind, lab, service, "GET", replace)
    assert load.failures == []
    assert load.longest < 4  # about 0.5 s on a quiet machine; the limit for connecting is 5 s


def test_a_deployment_that_ends_its_tasks_by_sigterm_costs_hardly_a_post(lab: Lab, kind: type[ClientUnderTest]):
    """A request that is on its way while the task closes that idle connection is reset, and a POST is not repeated.

    HTTP/1.1 has no cure for it. Here it happens more often than between two machines: the tasks share an interpreter
    with their callers.
    """
    service = lab.service("orders", tasks=4, ttl=1, deregistration_lag=1.0)

    def replace(load: Load) -> None:
        enough(load, 80)
        service.deploy(interval=0.6, stop="drain")
        time.sleep(0.5)

    load = under_load(kind, lab, service, "POST", replace)
    assert len(load.failures) <= len(load.sent) / 50, load.failures
    assert all("reset" in each or "disconnected" in each.lower() or "pipe" in each for each in load.failures)
