"""The URL stays logical: Host, cookies, redirects, and hosts that are not ours."""

from __future__ import annotations

import pytest
import requests
from requests.adapters import HTTPAdapter

from ecs_discovery.testing.lab import Lab


def test_host_url_cookies_and_redirects_show_the_logical_name(lab: Lab, wrap):
    service = lab.service("orders", tasks=3)
    session, base = wrap(), f"http://orders.prod.local:{service.port}"
    response = session.get(f"{base}/v1/42?a=1", timeout=10)
    assert response.url == f"{base}/v1/42?a=1"
    assert response.json()["host"] == f"orders.prod.local:{service.port}"
    session.get(f"{base}/cookie/flavour/mint", timeout=10)
    assert [(c.name, c.domain) for c in session.cookies] == [("flavour", "orders.prod.local")]
    assert session.get(base, timeout=10).json()["headers"]["cookie"] == "flavour=mint"
    response = session.get(f"{base}/redirect?to=%2Fthere", timeout=10)
    assert response.url == f"{base}/there"
    assert response.history[0].status_code == 302


def test_a_redirect_to_another_host_carries_neither_our_host_header_nor_our_cookie(lab: Lab, wrap):
    service, other = lab.service("orders", tasks=1), lab.service("other", tasks=1)
    foreign = other.tasks[0]
    session, base = wrap(), f"http://orders.prod.local:{service.port}"
    session.get(f"{base}/cookie/secret/1", timeout=10)
    response = session.get(f"{base}/redirect?to=http%3A%2F%2F{foreign.address}%3A{foreign.port}%2F", timeout=10)
    seen = response.json()
    assert seen["host"] == f"{foreign.address}:{foreign.port}"
    assert "cookie" not in seen["headers"]


def test_a_host_header_of_ones_own_is_sent_as_it_is(lab: Lab, wrap):
    service = lab.service("orders", tasks=1)
    response = wrap().get(f"http://orders:{service.port}/", headers={"Host": "mine.example"}, timeout=10)
    assert response.json()["host"] == "mine.example"


def test_hosts_that_are_not_ours_go_their_own_way(lab: Lab, wrap):
    service = lab.service("orders", tasks=1)
    task, session = service.tasks[0], wrap()
    assert session.get(f"http://{task.address}:{task.port}/", timeout=10).status_code == 200
    assert lab.dns.total == 0
    sent = []

    class Elsewhere(HTTPAdapter):
        def send(self, request, **kwargs):
            sent.append((request.url, kwargs.get("timeout")))
            raise requests.ConnectionError("not here")

    session.mount("http://", Elsewhere())
    for host in ("example.com", "orders.prod.local.evil.example", "localhost", "prod.local.example"):
        with pytest.raises(requests.ConnectionError, match="not here"):
            session.get(f"http://{host}/", timeout=3)
    assert len(sent) == 4


def test_a_proxy_in_the_environment_is_not_used_for_our_hosts(lab: Lab, wrap, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    service = lab.service("orders", tasks=1)
    assert wrap().get(f"http://orders:{service.port}/", timeout=10).status_code == 200
