"""Wrapped requests that need a connection: races, and which pool the winner's ends up in."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest
import requests
import trustme
from urllib3.connection import HTTPConnection

from ecs_discovery import ConnectError, ConnectTimeout, Discovery, OutlierPolicy, wrap_session
from ecs_discovery.core.balancing.node import Health
from ecs_discovery.testing.lab import Lab
from tests.support import eventually

CALM = OutlierPolicy(connect_min=30)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(namespace="prod.local", seed=3) as lab:
        if not lab.can_vanish:
            pytest.skip("no socket filter here")
        yield lab


@pytest.fixture
def discovery(lab: Lab) -> Iterator[Discovery]:
    with Discovery(namespace="prod.local", nameservers=[lab.nameserver], outlier=CALM) as discovery:
        yield discovery


@pytest.fixture
def session(discovery: Discovery) -> Iterator[requests.Session]:
    with wrap_session(requests.Session(), discovery) as session:
        yield session


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_silent_endpoint_costs_its_head_start(lab: Lab, session: requests.Session, method: str):
    service = lab.service("orders", tasks=3)
    for task in service.tasks[:2]:
        task.vanish()
    took = []
    for _ in range(3):
        began = time.monotonic()
        response = session.request(method, service.url())
        took.append(time.monotonic() - began)
        assert response.headers["X-Task"] == service.tasks[2].id
    assert max(took) < 1.2
    assert service.requests == 3


def test_the_winners_connection_is_kept_in_its_own_pool(lab: Lab, session: requests.Session, discovery: Discovery):
    service = lab.service("orders", tasks=2)
    service.tasks[0].vanish()
    for _ in range(4):
        session.get(service.url())
    assert service.tasks[1].requests == 4
    eventually(lambda: service.tasks[1].open_connections == 1)  # what further races won was not needed
    nodes = discovery._driver.engine.service(f"orders:{service.port}").nodes
    assert [node.pending for node in nodes] == [0, 0]


def test_connections_spread_when_all_connect(lab: Lab, session: requests.Session):
    service = lab.service("orders", tasks=3)
    seen = Counter(session.get(service.url()).headers["X-Task"] for _ in range(9))
    assert sorted(seen.values()) == [3, 3, 3]
    assert [task.connections for task in service.tasks] == [1, 1, 1]


def test_an_error_names_every_endpoint_that_refused(lab: Lab, session: requests.Session):
    service = lab.service("orders", tasks=4)
    for task in service.tasks:
        task.refuse()
    with pytest.raises(ConnectError) as caught:
        session.get(service.url())
    assert isinstance(caught.value, requests.ConnectionError)
    assert {f"{task.address}:{task.port}" for task in service.tasks} <= set(caught.value.endpoints)


def test_four_unreachable_endpoints_are_an_error_within_a_fifth_over_the_limit(lab: Lab, session: requests.Session):
    service = lab.service("orders", tasks=4)
    for task in service.tasks:
        task.vanish()
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(ConnectTimeout) as caught:
            session.get(service.url(), timeout=(1, 5))
        assert time.monotonic() - began < 1.2
        assert isinstance(caught.value, requests.ConnectTimeout)
        assert len(set(caught.value.endpoints)) == 4


def test_idle_connections_to_an_endpoint_that_went_down_are_closed(
    lab: Lab, session: requests.Session, discovery: Discovery
):
    service = lab.service("orders", tasks=2)
    barrier = threading.Barrier(4)

    def get() -> None:
        barrier.wait()
        session.get(service.url("/slow/0.1"))

    callers = [threading.Thread(target=get) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    down = service.tasks[0]
    assert down.open_connections == 2
    down.refuse()
    node = next(
        n for n in discovery._driver.engine.service(f"orders:{service.port}").nodes if n.endpoint.host == down.address
    )
    discovery._driver.background.suspect(discovery._driver.engine.service(f"orders:{service.port}"), node)
    eventually(lambda: node.health is Health.DOWN)
    assert session.get(service.url()).headers["X-Task"] == service.tasks[1].id
    eventually(lambda: down.open_connections == 0)


def test_the_handshake_comes_after_the_race(lab: Lab, session: requests.Session, tmp_path):
    import ssl

    authority = trustme.CA()
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("orders.prod.local").configure_cert(server_side)
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    service = lab.service("orders", tasks=2, ssl_context=server_side)
    service.tasks[0].vanish()
    for _ in range(3):
        response = session.get(service.url(scheme="https"), verify=str(bundle))
        assert response.headers["X-Task"] == service.tasks[1].id


def test_a_tool_that_answers_in_place_of_the_connection_class_sees_no_race(
    lab: Lab, session: requests.Session, monkeypatch: pytest.MonkeyPatch
):
    service = lab.service("orders", tasks=3)

    def answer(*args, **kwargs):
        response = requests.Response()
        response.status_code = 418
        response.raw = None
        response._content = b""
        return response

    monkeypatch.setattr("requests.adapters.HTTPAdapter.send", answer)
    assert session.get(service.url()).status_code == 418
    assert [task.connections for task in service.tasks] == [0, 0, 0]


def test_a_tool_that_wraps_the_connection_class_sees_the_request_once(
    lab: Lab, session: requests.Session, monkeypatch: pytest.MonkeyPatch
):
    service = lab.service("orders", tasks=2)
    service.tasks[0].vanish()
    seen: list[str] = []

    class Recorder(HTTPConnection):
        def request(self, method, url, *args, **kwargs):
            seen.append(url)
            super().request(method, url, *args, **kwargs)

    monkeypatch.setattr("ecs_discovery.integrations._urllib3_pool.HttpEndpointPool.ConnectionCls", Recorder)
    for number in range(3):
        assert session.get(service.url(f"/{number}")).status_code == 200
    assert seen == ["/0", "/1", "/2"]
