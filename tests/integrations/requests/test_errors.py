"""Errors: what a caller is told, and whose fault it was."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest
import requests

from ecs_discovery import (
    ConfigurationError,
    ConnectError,
    Discovery,
    DiscoveryError,
    TargetNotFound,
    wrap_session,
)
from ecs_discovery.testing.lab import Lab
from tests.integrations.requests.support import discovery_of, shares
from tests.support import raw

HEADS = {
    "status": b"HTTP/1.1 " + b"\x1b[2J" * 15_000 + b"\r\n\r\n",
    "line": b"\x1b]0;owned\x07" * 5000 + b"\r\n\r\n",
    "fields": b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 9000,
}


def test_when_nobody_answers_the_error_names_every_attempt(lab: Lab, wrap):
    service = lab.service("orders", tasks=3)
    session, url = wrap(), f"http://orders:{service.port}/"
    shares(session, url, 3)
    for task in service.tasks:
        task.kill()
    with pytest.raises(requests.ConnectionError) as caught:
        session.get(url, timeout=10)
    error = caught.value
    assert isinstance(error, ConnectError)
    assert len(error.attempts) >= 3
    assert {f"{task.address}:{task.port}" for task in service.all_tasks} == set(error.endpoints)
    assert error.request is not None
    twin = pickle.loads(pickle.dumps(error))
    assert isinstance(twin, requests.ConnectionError)
    assert twin.attempts == error.attempts


def test_an_unknown_service_is_a_connection_error_that_names_it(lab: Lab, wrap):
    with pytest.raises(requests.ConnectionError, match="nope") as caught:
        wrap().get("http://nope/", timeout=10)
    assert isinstance(caught.value, TargetNotFound)
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), TargetNotFound)


def test_a_closed_discovery_is_told_through_requests(lab: Lab, wrap):
    service = lab.service("orders", tasks=1)
    session, url = wrap(), f"http://orders:{service.port}/"
    session.get(url, timeout=10)
    discovery_of(session).close()
    for _ in range(2):
        with pytest.raises(requests.ConnectionError, match="closed"):
            session.get(url, timeout=10)


def test_a_wrong_header_is_the_callers_fault_not_the_tasks(lab: Lab, wrap):
    service = lab.service("orders", tasks=1)
    session, target = wrap(), f"orders:{service.port}"
    session.get(f"http://{target}/", timeout=10)
    with pytest.raises(requests.exceptions.InvalidHeader):
        session.get(f"http://{target}/", headers={"X": "a\nb"}, timeout=10)
    node = discovery_of(session).snapshot(target).nodes[0]
    assert (node.pending, node.failures) == (0, 0)


def test_a_host_that_is_no_name_is_an_invalid_url(lab: Lab, wrap):
    for url in ("http://orders-/", "http://or,ders/"):
        with pytest.raises(requests.exceptions.InvalidURL) as caught:
            wrap().get(url, timeout=3)
        assert isinstance(caught.value, ConfigurationError)
        assert isinstance(pickle.loads(pickle.dumps(caught.value)), requests.exceptions.InvalidURL)


@pytest.mark.parametrize("kind", HEADS)
def test_a_head_of_64_kilobytes_makes_a_short_and_printable_error(kind: str):
    with raw(HEADS[kind]) as (address, _), Discovery(services={"orders": f"static://{address}"}) as discovery:
        session = wrap_session(requests.Session(), discovery)
        with pytest.raises(DiscoveryError, match="orders") as caught:
            session.get("http://orders/", timeout=5)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 1500
        session.close()


def test_what_the_application_cannot_read_of_its_own_body_is_not_the_tasks_fault(lab: Lab, wrap):
    service = lab.service("orders", tasks=1)
    session = wrap()

    def body() -> Iterator[bytes]:
        yield b"x"
        raise RuntimeError("the application's own")

    for _ in range(6):
        with pytest.raises(RuntimeError, match="own"):
            session.post(service.url(), data=body(), timeout=10)
    (node,) = discovery_of(session).snapshot(f"orders:{service.port}").nodes
    assert (node.failures, node.health) == (0, "healthy")


def test_a_response_tells_of_every_attempt(lab: Lab, wrap):
    service = lab.service("orders", tasks=3)
    session, url = wrap(), f"http://orders:{service.port}/"
    response = session.get(url, timeout=10)
    assert [report.outcome for report in response.ecs_discovery.attempts] == ["ok"]
    assert "ok after" in repr(response.ecs_discovery)
    for task in service.tasks[:2]:
        task.errors(502)
    trails = [session.get(url, timeout=10).ecs_discovery.attempts for _ in range(6)]
    assert {report.outcome for trail in trails for report in trail} == {"ok", "status 502"}
    assert all(trail[-1].outcome == "ok" for trail in trails)
    service.tasks[2].errors(502)
    refused = session.get(url, timeout=10)
    assert refused.status_code == 502
    assert refused.ecs_discovery.attempts[-1].outcome == "status 502"
    assert pickle.loads(pickle.dumps(refused)).status_code == 502
