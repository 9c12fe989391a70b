"""Connections: which are kept, replaced and closed, and that nothing is left over."""

from __future__ import annotations

import gc

import pytest
import requests

from ecs_discovery import (
    CachePolicy,
    ConnectionPolicy,
    HedgePolicy,
    RetryPolicy,
    wrap_session,
)
from ecs_discovery.integrations._requests_exchange import RequestsExchange
from ecs_discovery.testing.lab import Lab, LabTask
from tests.integrations.requests.support import discovery_of, shares
from tests.support import FakeClock, eventually


def test_more_endpoints_than_urllib3_keeps_pools_are_all_kept_connected(lab: Lab, wrap):
    service = lab.service("orders", tasks=15, records="SRV")
    lab.dns.additional = True
    session = wrap(services={"orders": "static://" + ",".join(f"{t.address}:{t.port}" for t in service.tasks)})
    shares(session, "http://orders/", 300)
    assert sum(task.connections for task in service.tasks) == 15


def test_connections_of_an_endpoint_that_left_are_closed(lab: Lab, wrap):
    service = lab.service("orders", tasks=2, ttl=1)
    session = wrap(cache=CachePolicy(min_ttl=0.05, max_ttl=0.05 + 0.95))
    url = f"http://orders:{service.port}/"
    shares(session, url, 4)
    left = service.tasks[0]
    service.deregister(left)
    service.flush()
    eventually(lambda: session.get(url, timeout=10).ok and left.open_connections == 0)


def test_worn_connections_are_replaced(lab: Lab, wrap):
    service = lab.service("orders", tasks=1)
    task, url = service.tasks[0], f"http://orders:{service.port}/"
    session = wrap(connection=ConnectionPolicy(unsafe_idle_timeout=0))
    session.get(url, timeout=10)
    session.get(url, timeout=10)
    assert task.connections == 1
    session.post(url, timeout=10)  # may not be replayed: takes no connection that was idle
    assert task.connections == 2
    clock = FakeClock()
    session = wrap(clock=clock)
    for pause in (0, 50, 61):  # idle_timeout is 60
        clock.advance(pause)
        session.get(url, timeout=10)
    assert task.connections == 4
    for _ in range(20):  # max_age is 600, give or take a fifth
        clock.advance(40)
        session.get(url, timeout=10)
    assert task.connections in (5, 6)


def test_a_connection_is_not_used_longer_than_its_server_says(lab: Lab, wrap):
    """A task that closes idle connections after 5 s may be doing so while the next request is on its way."""
    service = lab.service("orders", tasks=1)
    task, url = service.tasks[0], f"http://orders:{service.port}/keep-alive/5"
    clock = FakeClock()
    session = wrap(clock=clock)
    for pause, connections in ((0, 1), (3.9, 1), (4, 2), (3, 2), (30, 3)):
        clock.advance(pause)
        session.get(url, timeout=10)
        assert task.connections == connections


@pytest.mark.parametrize(("method", "path"), [("HEAD", "/"), ("GET", "/status/204"), ("GET", "/status/304")])
def test_answers_without_a_body_end_their_use_and_keep_their_connection(lab: Lab, wrap, method: str, path: str):
    service = lab.service("orders", tasks=1)
    session, target = wrap(), f"orders:{service.port}"
    for _ in range(5):
        session.request(method, f"http://{target}{path}", timeout=10)
        assert discovery_of(session).snapshot(target).nodes[0].pending == 0
    assert service.tasks[0].connections == 1


def test_the_routes_a_session_remembers_are_bounded(lab: Lab, wrap):
    service = lab.service("orders", tasks=1)
    session = wrap()
    session.get_adapter("http://")._link.origins.limit = 3  # type: ignore[attr-defined]
    for name in ("orders", "ORDERS", "orders.prod.local", "Orders", "oRders", "orderS"):
        assert session.get(f"http://{name}:{service.port}/", timeout=10).status_code == 200
    assert len(session.get_adapter("http://")._link.origins._routes) <= 3  # type: ignore[attr-defined]


def test_an_interrupted_request_leaves_no_use_behind(lab: Lab, wrap, monkeypatch: pytest.MonkeyPatch):
    service = lab.service("orders", tasks=1)
    session, target = wrap(), f"orders:{service.port}"
    session.get(f"http://{target}/", timeout=10)

    def interrupt(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("ecs_discovery.runtime.tcp_info.first_look", interrupt)
    with pytest.raises(KeyboardInterrupt):
        session.get(f"http://{target}/", timeout=10)
    assert discovery_of(session).snapshot(target).nodes[0].pending == 0


def test_a_session_that_is_dropped_unclosed_leaves_no_connection_behind(lab: Lab, wrap):
    import gc
    import warnings

    service = lab.service("orders", tasks=1)
    discovery = discovery_of(wrap())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        for _ in range(10):
            wrap_session(requests.Session(), discovery).get(f"http://orders:{service.port}/", timeout=10)
        gc.collect()
        eventually(lambda: service.tasks[0].open_connections == 0)


@pytest.mark.parametrize("fault", [None, LabTask.reset, LabTask.errors], ids=["well", "resets", "503"])
@pytest.mark.parametrize("hedge", [False, True], ids=["plain", "hedged"])
def test_a_request_leaves_nothing_for_the_garbage_collector(lab: Lab, wrap, hedge: bool, fault):
    """Nor does one that was repeated: an exception keeps the frames that it came through."""
    service = lab.service("orders", tasks=2)
    retry = RetryPolicy(budget_floor=100)
    session, url = wrap(hedge=HedgePolicy(enabled=hedge), retry=retry), f"http://orders:{service.port}/"
    for _ in range(40):
        session.get(url, timeout=10)
    if fault is not None:
        fault(service.tasks[0])
    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            assert session.get(url, timeout=10).ok
        eventually(
            lambda: not any(isinstance(thing, RequestsExchange) for thing in gc.get_objects())
        )  # losers have to end
    finally:
        gc.enable()
