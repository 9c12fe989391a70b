"""Names, spread and keys: which task a request goes to."""

from __future__ import annotations

import pytest
import requests

from ecs_discovery import (
    options,
    wrap_session,
)
from ecs_discovery.testing.lab import Lab
from tests.integrations.requests.support import shares


@pytest.mark.parametrize("records", ["A", "SRV", "A+SRV"])
def test_keep_alive_requests_spread_evenly_over_the_tasks(lab: Lab, wrap, records: str):
    service = lab.service("orders", tasks=3, records=records, dynamic_ports=records == "SRV")
    url = "http://orders/v1/42" if "SRV" in records else f"http://orders:{service.port}/v1/42"
    session = wrap()
    counts = shares(session, url, 300)
    assert all(85 <= count <= 115 for count in counts.values())
    assert sum(task.connections for task in service.tasks) == 3


def test_a_plain_session_would_have_stayed_with_one_task(lab: Lab):
    service = lab.service("orders", tasks=3)
    task = service.tasks[0]
    with requests.Session() as plain:
        counts = shares(plain, f"http://{task.address}:{task.port}/", 30)
    assert len(counts) == 1


def test_bridge_mode_tasks_are_reached_on_their_own_ports_although_the_url_has_another(lab: Lab, wrap):
    service = lab.service("orders", tasks=3, records="SRV", dynamic_ports=True)
    counts = shares(wrap(), "http://orders:8080/", 30)
    assert set(counts) == {task.id for task in service.tasks}


def test_fully_qualified_and_short_names_reach_the_same_service(lab: Lab, wrap):
    service = lab.service("orders", tasks=2)
    session = wrap()
    shares(session, f"http://orders:{service.port}/", 4)
    shares(session, f"http://orders.prod.local:{service.port}/", 4)
    shares(session, f"http://ORDERS.PROD.LOCAL.:{service.port}/", 4)
    assert lab.dns.queries["orders.prod.local", "A"] == 1


def test_a_thousand_sessions_ask_once_per_ttl(lab: Lab):
    service = lab.service("orders", tasks=3, ttl=60)
    for _ in range(1000):
        session = wrap_session(requests.Session(), namespace="prod.local", nameservers=[lab.nameserver])
        with session.get(f"http://orders:{service.port}/", timeout=10) as response:
            assert response.status_code == 200
        session.close()
    assert lab.dns.queries["orders.prod.local", "A"] == 1
    assert lab.dns.total <= 3


def test_a_key_sends_requests_to_one_task(lab: Lab, wrap):
    service = lab.service("orders", tasks=4)
    session, url = wrap(), f"http://orders:{service.port}/"
    with options(key="customer-7"):
        assert len(shares(session, url, 12)) == 1
