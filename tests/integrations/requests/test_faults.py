"""Tasks that refuse, reset, vanish or are replaced, and DNS in trouble."""

from __future__ import annotations

import io
import threading
import time
from collections import Counter

import pytest
import requests

from ecs_discovery import (
    CachePolicy,
    DiscoveryError,
    RequestError,
    TimeoutPolicy,
    options,
)
from ecs_discovery.testing.lab import Lab
from tests.integrations.requests.support import discovery_of, shares
from tests.support import FakeClock, eventually


def test_a_task_that_refuses_costs_no_request_and_is_set_aside(lab: Lab, wrap):
    service = lab.service("orders", tasks=3)
    session, url = wrap(), f"http://orders:{service.port}/"
    shares(session, url, 6)
    dead = service.tasks[0]
    dead.kill()
    counts = shares(session, url, 60)
    assert dead.id not in counts
    assert session.post(url, data=b"x", timeout=10).status_code == 200
    health = {n.endpoint: n.health for n in discovery_of(session).snapshot(f"orders:{service.port}").nodes}
    assert health[f"{dead.address}:{dead.port}"] == "down"


def test_a_connect_failure_forces_one_question_that_reaches_the_server(lab: Lab, wrap):
    service = lab.service("orders", tasks=3, ttl=60)
    session, url = wrap(), f"http://orders:{service.port}/"
    shares(session, url, 3)
    before = lab.dns.queries["orders.prod.local", "A"]
    service.kill(service.tasks[0])
    service.flush()
    shares(session, url, 30)
    eventually(lambda: lab.dns.queries["orders.prod.local", "A"] == before + 1)
    eventually(lambda: len(discovery_of(session).snapshot(f"orders:{service.port}").nodes) == 2)


def test_a_task_that_resets_idempotent_requests_costs_none_and_a_post_is_not_repeated(lab: Lab, wrap):
    service = lab.service("orders", tasks=3)
    session, url = wrap(), f"http://orders:{service.port}/"
    shares(session, url, 3)
    for task in service.tasks:
        task.reset()
    received = service.requests
    with pytest.raises(requests.ConnectionError) as caught:
        session.post(url, data=b"x", timeout=10)
    assert isinstance(caught.value, RequestError)
    assert "not idempotent" in str(caught.value)
    assert service.requests == received + 1
    service.tasks[1].heal()
    service.tasks[2].heal()
    assert session.get(url, timeout=10).status_code == 200
    with options(idempotent=True):
        assert session.post(url, data=b"x", timeout=10).status_code == 200
    assert session.post(url, data=b"x", headers={"Idempotency-Key": "1"}, timeout=10).status_code == 200


def test_a_body_that_cannot_be_sent_again_is_not_and_a_file_is_rewound(lab: Lab, wrap):
    service = lab.service("orders", tasks=2)
    session, url = wrap(), f"http://orders:{service.port}/echo"
    shares(session, url, 2)
    bad = service.tasks[0]
    bad.reset()
    outcomes = set()
    for _ in range(2):  # one of the two goes to the task that resets
        try:
            outcomes.add(session.put(url, data=(part for part in [b"a", b"b"]), timeout=10).content)
        except requests.ConnectionError as error:
            outcomes.add("cannot be sent again" in str(error))
    assert outcomes == {b"ab", True}
    for _ in range(2):
        assert session.put(url, data=io.BytesIO(b"the whole file"), timeout=10).content == b"the whole file"


def test_a_vanished_task_is_noticed_while_a_slow_one_is_left_alone(lab: Lab, wrap):
    service = lab.service("orders", tasks=3)
    session, url = wrap(), f"http://orders:{service.port}"
    shares(session, f"{url}/", 6)
    slow: list[int] = []
    waiter = threading.Thread(target=lambda: slow.append(session.get(f"{url}/slow/1.2", timeout=10).status_code))
    busy = next(iter(service.tasks))
    waiter.start()
    eventually(lambda: any(task.in_flight for task in service.tasks))
    busy = next(task for task in service.tasks if task.in_flight)
    gone = next(task for task in service.tasks if task is not busy)
    gone.vanish()
    began = time.monotonic()
    counts = shares(session, f"{url}/", 20)
    assert gone.id not in counts
    assert time.monotonic() - began < 5  # not the read timeout of 10 s
    node = next(n for n in discovery_of(session).snapshot(f"orders:{service.port}").nodes if gone.address in n.endpoint)
    assert node.health == "down"
    waiter.join()
    assert slow == [200]


def test_a_post_to_a_vanished_task_goes_on_waiting(lab: Lab, wrap):
    service = lab.service("orders", tasks=1)
    session, url = wrap(), f"http://orders:{service.port}/"
    session.get(url, timeout=10)
    service.tasks[0].vanish()
    with pytest.raises(requests.ReadTimeout) as caught:
        session.post(url, data=b"x", timeout=(1, 0.6))
    assert isinstance(caught.value, DiscoveryError)


def test_a_new_connection_to_a_vanished_task_is_given_up_for_another(lab: Lab, wrap):
    service = lab.service("orders", tasks=2)
    service.tasks[0].vanish()
    session, url = wrap(timeout=TimeoutPolicy(connect=0.6)), f"http://orders:{service.port}/"
    assert len(shares(session, url, 4)) == 1


@pytest.mark.parametrize("fault", ["servfail", "silence", "garbage"])
def test_dns_trouble_after_the_first_answer_changes_nothing(lab: Lab, wrap, fault: str):
    service = lab.service("orders", tasks=2, ttl=1)
    session = wrap(cache=CachePolicy(min_ttl=0.05, max_ttl=1))
    url = f"http://orders:{service.port}/"
    shares(session, url, 2)
    lab.dns.fault = fault
    total = lab.dns.total
    eventually(lambda: session.get(url, timeout=10).ok and lab.dns.total > total)
    assert len(shares(session, url, 20)) == 2


def test_every_task_replaced_under_load_with_dns_behind_costs_no_request(lab: Lab, wrap):
    service = lab.service("orders", tasks=3, ttl=1, registration_lag=0.1, deregistration_lag=0.6)
    session = wrap(cache=CachePolicy(min_ttl=0.3))
    url = f"http://orders:{service.port}/"
    old = {task.id for task in service.tasks}
    shares(session, url, 6)
    deployment = service.deploy(interval=0.3, background=True)
    statuses: Counter[int] = Counter()
    while not deployment.done:
        statuses[session.get(url, timeout=10).status_code] += 1
    assert set(statuses) == {200}
    eventually(lambda: not (set(shares(session, url, 9)) & old))


def test_a_task_that_comes_back_is_used_again(lab: Lab, wrap):
    service = lab.service("orders", tasks=2)
    clock = FakeClock()
    session, url = wrap(clock=clock), f"http://orders:{service.port}/"
    shares(session, url, 4)
    bad = service.tasks[0]
    bad.refuse(cut=True)
    assert len(shares(session, url, 10)) == 1
    bad.heal()
    clock.advance(1.5)
    eventually(lambda: bad.id in shares(session, url, 2))


def test_a_body_cut_short_is_repeated_elsewhere_and_counts_against_the_task(lab: Lab, wrap):
    service = lab.service("orders", tasks=2)
    session, target = wrap(), f"orders:{service.port}"
    shares(session, f"http://{target}/", 2)
    bad = service.tasks[0]
    bad.reset(after_bytes=200)
    for _ in range(12):
        assert len(session.get(f"http://{target}/bytes/50000", timeout=10).content) == 50_000
    node = next(n for n in discovery_of(session).snapshot(target).nodes if bad.address in n.endpoint)
    assert node.failures >= 5
    assert node.health == "ejected"
