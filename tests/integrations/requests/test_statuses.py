"""Statuses that ask to try again, Retry-After, and answers that are not wanted."""

from __future__ import annotations

import pytest
import requests

from ecs_discovery import (
    BalancingPolicy,
    Discovery,
    DiscoveryError,
    RetryPolicy,
    wrap_session,
)
from ecs_discovery.events import PushedBack
from ecs_discovery.testing.lab import Lab
from tests.integrations.requests.support import discovery_of, shares
from tests.support import raw


def test_errors_that_ask_to_try_again_are_retried_elsewhere_and_the_last_is_returned(lab: Lab, wrap):
    service = lab.service("orders", tasks=3)
    session, url = wrap(), f"http://orders:{service.port}/"
    service.tasks[0].errors(503)
    counts = shares(session, url, 60)
    assert service.tasks[0].id not in counts
    for task in service.tasks:
        task.errors(503)
    assert session.get(url, timeout=10).status_code == 503
    received = service.requests
    assert session.post(url, timeout=10).status_code == 503
    assert service.requests == received + 1


def test_retry_after_beyond_the_deadline_is_not_waited_for(lab: Lab, wrap):
    service = lab.service("orders", tasks=1)
    service.tasks[0].errors(503, retry_after=60)
    session, url = wrap(), f"http://orders:{service.port}/"
    assert session.get(url, timeout=10).status_code == 503
    assert service.requests == 1


def test_a_task_that_fails_fast_attracts_no_requests(lab: Lab, wrap):
    service = lab.service("orders", tasks=3)
    session, url = wrap(retry=RetryPolicy(attempts=1)), f"http://orders:{service.port}/"
    service.tasks[0].errors(500)
    codes = [session.get(url, timeout=10).status_code for _ in range(60)]
    assert codes.count(500) == 3  # then it costs too much to be chosen, before five in a row eject it


def test_a_task_that_answers_503_is_spared_and_that_is_told_once(lab: Lab, wrap):
    service = lab.service("orders", tasks=3)
    told = []
    session, url = wrap(retry=RetryPolicy(attempts=2), on_event=told.append), f"http://orders:{service.port}/"
    bad = service.tasks[0]
    bad.errors(503, retry_after=60)
    codes = [session.get(url, timeout=10).status_code for _ in range(60)]
    assert codes == [200] * 60  # it speaks for itself: the others need not be waited for
    (event,) = [event for event in told if isinstance(event, PushedBack)]
    assert (bad.address in str(event.endpoint), event.seconds) == (True, 60.0)
    nodes = discovery_of(session).snapshot(f"orders:{service.port}").nodes
    assert sum(node.spared_for > 50 for node in nodes) == 1


def test_an_ejected_task_gets_no_requests(lab: Lab, wrap):
    service = lab.service("orders", tasks=3)
    balancing = BalancingPolicy(picker="least_pending")
    session = wrap(retry=RetryPolicy(attempts=1), balancing=balancing)
    url = f"http://orders:{service.port}/"
    bad = service.tasks[0]
    bad.errors(500)
    codes = [session.get(url, timeout=10).status_code for _ in range(60)]
    assert codes.count(500) == 5
    node = next(n for n in discovery_of(session).snapshot(f"orders:{service.port}").nodes if bad.address in n.endpoint)
    assert node.health == "ejected"
    assert "5 failures in a row" in node.reason


def test_a_short_unwanted_answer_is_read_so_that_its_connection_is_used_again(lab: Lab, wrap):
    service = lab.service("orders", tasks=1)
    session, url = wrap(), f"http://orders:{service.port}/"
    task = service.tasks[0]
    task.errors(503)
    session.get(url, timeout=10)
    task.heal()
    assert session.get(url, timeout=10).status_code == 200
    assert task.connections == 1
    assert task.requests == 4


def test_retry_after_longer_than_the_read_timeout_is_not_waited_for(lab: Lab, wrap):
    service = lab.service("orders", tasks=2)
    for task in service.tasks:
        task.errors(503, retry_after=3)
    session = wrap()
    assert session.get(f"http://orders:{service.port}/", timeout=1).status_code == 503
    assert [task.requests for task in service.tasks] == [1, 1]
    for task in service.tasks:
        task.errors(429, retry_after=3)
    assert session.get(f"http://orders:{service.port}/", timeout=1).status_code == 429
    assert service.requests == 4


def test_an_unwanted_answer_whose_body_never_comes_does_not_hold_up_the_next_attempt():
    stalled = b"HTTP/1.1 503 No\r\nContent-Length: 10\r\n\r\n"
    good = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
    with raw(stalled) as (first, _), raw(stalled) as (second, _), raw(good) as (third, _):
        discovery = Discovery(services={"orders": f"static://{first},{second},{third}"})
        session = wrap_session(requests.Session(), discovery)
        for _ in range(3):  # whoever is chosen first
            assert session.get("http://orders/", stream=True, timeout=20).text == "ok"
        session.close()
        discovery.close()


def test_an_answer_that_cannot_be_understood_counts_against_its_task_and_is_told_with_its_target():
    doubled = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok"
    with raw(doubled) as (address, _), Discovery(services={"orders": f"static://{address}"}) as discovery:
        session = wrap_session(requests.Session(), discovery)
        with pytest.raises(DiscoveryError, match="orders") as caught:
            session.get("http://orders/", timeout=10)
        assert caught.value.endpoints == (address,)
        assert discovery.snapshot("orders").nodes[0].failures == 1
        session.close()
