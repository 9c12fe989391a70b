"""A service under load while its tasks vanish: wrapped requests against real sockets, DNS lagging behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import requests

from ecs_discovery import Discovery, wrap_session
from ecs_discovery.testing.lab import Lab, LabService
from tests.support import eventually
from tests.traffic import traffic

pytestmark = pytest.mark.usefixtures("unmeasured")


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(namespace="prod.local", seed=5) as lab:
        if not lab.can_vanish:
            pytest.skip("no socket filter here")
        yield lab


@contextmanager
def slow_requests(service: LabService, discovery: Discovery, seconds: float) -> Iterator[list[tuple[float, str]]]:
    """Requests that take that long, one to each task, begun before the block and finished after it."""
    session = wrap_session(requests.Session(), discovery)
    found: list[tuple[float, str]] = []

    def call() -> None:
        began = time.monotonic()
        response = session.get(service.url(f"/slow/{seconds:g}"), timeout=20)
        found.append((time.monotonic() - began, response.headers["X-Task"]))

    callers = [threading.Thread(target=call) for _ in service.tasks]
    for caller in callers:
        caller.start()
    until = time.monotonic() + 5
    while sum(task.in_flight for task in service.tasks) < len(callers):
        assert time.monotonic() < until
        time.sleep(0.005)
    try:
        yield found
    finally:
        for caller in callers:
            caller.join()
        session.close()


def settings(lab: Lab):
    return {"namespace": "prod.local", "nameservers": [lab.nameserver]}


def test_a_task_that_vanishes_under_load_costs_no_request_and_no_long_wait(lab: Lab):
    """None fails, none takes 0.6 s, and from a second after it none takes 0.1 s: the bounds that are promised."""
    service = lab.service("orders", tasks=4)
    gone = service.tasks[1]
    with Discovery(**settings(lab)) as discovery:
        with slow_requests(service, discovery, 3.0) as slow, traffic(service.url(), discovery) as fast:
            eventually(lambda: len(fast.sent) >= 80)
            gone.vanish()
            vanished = time.monotonic()
            eventually(lambda: fast.sent[-1][0] >= vanished + 2, within=20)
        assert fast.failures == []
        assert fast.longest() < 0.6
        assert fast.longest(since=vanished + 1) < 0.1
    undisturbed = sorted(slow)[:3]
    assert {task for _, task in undisturbed} == {task.id for task in service.tasks} - {gone.id}
    assert undisturbed[-1][0] < 3.5
    assert slow[-1][0] < 5.0  # the one that was in hand is repeated from the start, half a second after it vanished


def test_all_tasks_replaced_one_after_another_by_vanishing_cost_no_request(lab: Lab):
    service = lab.service("orders", tasks=4, ttl=1, deregistration_lag=1.0)
    with Discovery(**settings(lab)) as discovery:
        with traffic(service.url(), discovery) as fast:
            time.sleep(0.3)
            service.deploy(interval=0.6, stop="vanish")
            time.sleep(0.5)
        assert fast.failures == []
        assert fast.longest() < 0.6


def test_a_draining_task_finishes_what_it_was_given(lab: Lab):
    """It refuses connections, which is no silence: requests that it works on are waited for."""
    service = lab.service("orders", tasks=2)
    with Discovery(**settings(lab)) as discovery:
        with slow_requests(service, discovery, 1.0) as slow, traffic(service.url(), discovery) as fast:
            service.tasks[0].drain()
            eventually(lambda: len(fast.sent) >= 100)
        assert fast.failures == []
        assert {task for _, task in slow} == {task.id for task in service.tasks}
        assert all(seconds < 1.9 for seconds, _ in slow)


def test_a_request_that_may_not_be_repeated_waits_on(lab: Lab):
    service = lab.service("orders", tasks=2)
    with Discovery(**settings(lab)) as discovery:
        session = wrap_session(requests.Session(), discovery)
        outcomes: list[object] = []

        def post() -> None:
            try:
                outcomes.append(session.post(service.url("/slow/0.2"), data=b"x", timeout=1.5))
            except requests.RequestException as error:
                outcomes.append(error)

        callers = [threading.Thread(target=post) for _ in range(2)]
        for caller in callers:
            caller.start()
        until = time.monotonic() + 5
        while sum(task.in_flight for task in service.tasks) < 2:
            assert time.monotonic() < until
            time.sleep(0.001)
        gone = service.tasks[0]
        gone.vanish()
        for _ in range(4):
            session.get(service.url(), timeout=10)
        for caller in callers:
            caller.join()
        session.close()
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["RequestError", "Response"]
    assert service.requests >= 2


def test_a_lone_request_in_the_hands_of_a_task_that_vanishes_is_repeated(lab: Lab):
    """Nobody else is there to meet silence: who waits has the endpoint looked at."""
    service = lab.service("orders", tasks=2)
    with Discovery(**settings(lab)) as discovery:
        session = wrap_session(requests.Session(), discovery)
        answers: list[requests.Response] = []
        caller = threading.Thread(target=lambda: answers.append(session.get(service.url("/slow/0.3"), timeout=20)))
        caller.start()
        eventually(lambda: any(task.in_flight for task in service.tasks))
        next(task for task in service.tasks if task.in_flight).vanish()
        caller.join(10)  # it was fifteen seconds without a look
        (answer,) = answers
        assert [report.outcome for report in answer.ecs_discovery.attempts] == ["silent", "ok"]
        session.close()


def test_a_lone_slow_request_is_waited_for(lab: Lab):
    service = lab.service("orders", tasks=2)
    with Discovery(**settings(lab)) as discovery:
        session = wrap_session(requests.Session(), discovery)
        answer = session.get(service.url("/slow/1.2"), timeout=20)
        assert [report.outcome for report in answer.ecs_discovery.attempts] == ["ok"]
        assert service.requests == 1
        session.close()
