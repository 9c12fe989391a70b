"""`DiscoveryPoolManager`: what it takes, and which pools it keeps."""

from __future__ import annotations

import json
import os
import time
from typing import Any

import pytest
import urllib3
from urllib3.exceptions import ClosedPoolError, HTTPError, LocationValueError, MaxRetryError

from ecs_discovery import AsyncDiscovery, ClosedError, ConfigurationError, Discovery, DnsPolicy, wrap_session
from ecs_discovery.integrations.urllib3 import DiscoveryPoolManager
from ecs_discovery.testing.lab import Lab
from tests.support import eventually

Make = Any


def test_it_is_a_pool_manager_with_its_options(manager_of: Make):
    manager = manager_of(num_pools=3, headers={"X-Mine": "1"}, maxsize=4)
    assert isinstance(manager, urllib3.PoolManager)
    assert (manager.headers, manager.connection_pool_kw) == ({"X-Mine": "1"}, {"maxsize": 4})


def test_num_pools_counts_services_and_not_tasks(lab: Lab, manager_of: Make):
    service = lab.service("orders", tasks=8)
    manager = manager_of(num_pools=1)
    for _ in range(80):
        assert manager.request("GET", service.url()).status == 200
    assert [task.connections for task in service.tasks] == [1] * 8
    assert len(manager.pools) == 1


def test_the_pool_of_a_service_used_longest_ago_is_let_go_with_its_connections(lab: Lab, manager_of: Make):
    orders, users = lab.service("orders", tasks=2), lab.service("users", tasks=2)
    manager = manager_of(num_pools=1)
    for service in (orders, users):
        for _ in range(2):
            assert manager.request("GET", service.url()).status == 200
    eventually(lambda: sum(task.open_connections for task in orders.tasks) == 0)
    assert sum(task.open_connections for task in users.tasks) == 2
    assert manager.request("GET", orders.url()).status == 200


def test_a_url_without_a_port_is_another_target_than_one_with_the_schemes_port(manager_of: Make):
    manager = manager_of()
    bare = manager.connection_from_url("http://orders/")
    named = manager.connection_from_url("http://orders:80/")
    assert (bare.route.target, named.route.target) == ("orders", "orders:80")
    assert manager.connection_from_url("http://ORDERS/v1") is bare
    assert (bare.host, bare.port, bare.scheme) == ("orders", None, "http")
    assert bare.is_same_host("http://orders:80/")


def test_the_port_of_srv_records_is_used_where_the_url_names_none(lab: Lab, manager_of: Make):
    service = lab.service("orders", tasks=2, records="SRV")
    seen = json.loads(manager_of().request("GET", "http://orders/v1?a=1").data)
    assert (seen["host"], seen["path"]) == ("orders", "/v1?a=1")
    assert sum(task.requests for task in service.tasks) == 1


@pytest.mark.parametrize("path", ["/a/../b", "/a b?c d", "/%7euser#there", "", "?a=1", "/.x", "/ä"])
def test_a_target_is_encoded_as_by_a_plain_manager(lab: Lab, manager_of: Make, path: str):
    service = lab.service("orders", tasks=1)
    task = service.tasks[0]
    with urllib3.PoolManager() as plain:
        theirs = json.loads(plain.request("GET", f"http://{task.address}:{task.port}{path}").data)["path"]
    manager = manager_of()
    for _ in range(2):
        found = manager.request("GET", f"http://orders:{task.port}{path}")
        assert json.loads(found.data)["path"] == theirs


def test_options_that_are_changed_later_hold_from_then_on(lab: Lab, manager_of: Make):
    service = lab.service("orders", tasks=1)
    manager = manager_of()
    assert manager.request("GET", service.url("/slow/0.3")).status == 200
    manager.connection_pool_kw["timeout"] = urllib3.Timeout(connect=5, read=0.05)
    with pytest.raises(MaxRetryError):
        manager.request("GET", service.url("/slow/0.3"))


def test_hosts_that_are_not_ours_have_urllib3s_own_pools(manager_of: Make):
    manager = manager_of(ca_certs="/nowhere")
    assert type(manager.connection_from_url("http://example.com/")) is urllib3.HTTPConnectionPool
    assert type(manager.connection_from_url("https://10.0.0.1/")) is urllib3.HTTPSConnectionPool
    assert manager.connection_from_url("https://example.com/").ca_certs == "/nowhere"
    assert manager.connection_from_url("http://example.com/").port == 80


def test_a_redirect_leads_to_hosts_that_are_not_ours_and_back(lab: Lab, manager_of: Make):
    service, other = lab.service("orders", tasks=1), lab.service("users", tasks=1)
    manager, foreign = manager_of(), other.tasks[0]
    there = f"http://{foreign.address}:{foreign.port}/redirect?to={service.url('/back')}"
    found = manager.request("GET", service.url("/redirect"), fields={"to": there}, retries=5)
    assert (found.status, found.geturl()) == (200, service.url("/back"))
    assert [each.status for each in found.retries.history] == [302, 302]


def test_a_cleared_manager_works_on_and_the_discovery_stays_open(lab: Lab, manager_of: Make, discovery: Discovery):
    service = lab.service("orders", tasks=2)
    with manager_of() as manager:
        for _ in range(4):
            assert manager.request("GET", service.url()).status == 200
        held = manager.connection_from_url(service.url())
    eventually(lambda: sum(task.open_connections for task in service.tasks) == 0)
    assert manager.request("GET", service.url()).status == 200
    assert held.request("GET", "/").status == 200
    assert len(discovery.resolve(f"orders:{service.port}").endpoints) == 2


def test_a_pool_of_a_service_serves_without_its_manager(lab: Lab, manager_of: Make):
    service = lab.service("orders", tasks=2)
    pool = manager_of().connection_from_host("orders", service.port)
    assert {pool.request("GET", "/").headers["X-Task"] for _ in range(2)} == {task.id for task in service.tasks}
    found = pool.request("GET", "/redirect?to=/there")
    assert json.loads(found.data)["path"] == "/there"
    with pytest.raises(urllib3.exceptions.HostChangedError):
        pool.request("GET", "http://elsewhere.example/")
    with pytest.raises(urllib3.exceptions.HostChangedError):
        pool.request("GET", "/redirect?to=http://elsewhere.example/")
    with pytest.raises(MaxRetryError, match="too many redirects"):
        pool.request("GET", "/redirect?to=/there", retries=0)
    assert pool.request("GET", "/redirect?to=/there", retries=False).status == 302
    pool.close()
    with pytest.raises(ClosedPoolError):
        pool.request("GET", "/")


def test_redirects_of_a_pool_use_up_none_of_its_connections(lab: Lab, manager_of: Make):
    service = lab.service("orders", tasks=1)
    pool = manager_of(maxsize=1, block=True).connection_from_host("orders", service.port)
    for _ in range(3):
        found = pool.request("GET", "/redirect?to=/there", release_conn=False, pool_timeout=2)
        assert json.loads(found.data)["path"] == "/there"
        found.release_conn()
    assert service.tasks[0].connections == pool.num_connections == 1
    assert pool.num_requests == 6


def test_without_a_discovery_equal_settings_share_one(lab: Lab):
    service = lab.service("orders", tasks=1)
    requests: Any = pytest.importorskip("requests")
    settings: Any = {"namespace": "prod.local", "nameservers": [lab.nameserver]}
    for _ in range(2):
        with DiscoveryPoolManager(**settings) as manager:
            assert manager.request("GET", service.url()).status == 200
    dns = DnsPolicy(nameservers=(lab.nameserver,))
    with wrap_session(requests.Session(), namespace="prod.local", dns=dns) as session:
        assert session.get(service.url(), timeout=10).status_code == 200
    assert lab.dns.total == 3  # A, AAAA and SRV, once


def test_what_cannot_be_used_is_refused_at_construction(discovery: Discovery):
    with pytest.raises(ConfigurationError, match="either discovery= or settings"):
        DiscoveryPoolManager(discovery, namespace="prod.local")
    with pytest.raises(ConfigurationError, match="a Discovery"):
        DiscoveryPoolManager(AsyncDiscovery(namespace="prod.local"))  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="namespace"):
        DiscoveryPoolManager()


def test_the_package_that_takes_the_place_of_urllib3_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(urllib3, "AsyncPoolManager", object, raising=False)
    with pytest.raises(ConfigurationError, match="uninstall urllib3-future"):
        DiscoveryPoolManager(namespace="prod.local")


def test_an_option_that_does_not_exist_is_told_when_the_manager_is_made(manager_of: Make):
    with pytest.raises(ConfigurationError, match="did you mean 'maxsize'"):
        manager_of(max_size=4)


def test_a_target_that_is_none_and_a_closed_discovery_are_errors_of_both(discovery: Discovery):
    manager = DiscoveryPoolManager(discovery)
    manager.connection_from_url("http://orders:8080/")
    discovery.close()
    for url in ("http://orders:8080/", "http://users:8080/"):
        with pytest.raises(ClosedError) as caught:
            manager.request("GET", url)
        assert isinstance(caught.value, HTTPError)
    with pytest.raises(LocationValueError):
        manager.request("GET", "http:///path")


def test_switched_off_it_is_a_plain_manager(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ECS_DISCOVERY_DISABLED", "1")
    with DiscoveryPoolManager(namespace="prod.local") as manager:
        assert type(manager.connection_from_url("http://orders/")) is urllib3.HTTPConnectionPool
        assert manager.discovery is None


def test_four_dead_addresses_cost_the_connect_timeout_once(lab: Lab, manager_of: Make):
    service = lab.service("orders", tasks=4)
    for task in service.tasks:
        task.vanish()
    began = time.monotonic()
    with pytest.raises(urllib3.exceptions.ConnectTimeoutError):
        manager_of().request("GET", service.url(), timeout=urllib3.Timeout(connect=1.0, read=5))
    assert time.monotonic() - began < 3  # a timeout for each address would be 4 s


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_of_a_fork_opens_connections_of_its_own(lab: Lab, manager_of: Make):
    service = lab.service("orders", tasks=1)
    manager = manager_of()
    assert manager.request("GET", service.url()).status == 200
    held = manager.connection_from_url(service.url())
    child = os.fork()
    if not child:
        try:
            good = manager.request("GET", service.url()).status == held.request("GET", "/").status == 200
            os._exit(0 if good else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert manager.request("GET", service.url()).status == 200
    assert service.tasks[0].connections == 3  # the parent's, and the child's two
