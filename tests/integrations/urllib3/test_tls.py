"""TLS: one manager's options hold for its connections, and what is verified is the service's name."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
import urllib3
from urllib3.exceptions import MaxRetryError, SSLError

from ecs_discovery import Discovery, DiscoveryError, ServiceConfig
from ecs_discovery.integrations.urllib3 import DiscoveryPoolManager
from ecs_discovery.testing.lab import Lab, LabService
from tests.support import eventually

Make = Any


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture
def serve(lab: Lab, authority: trustme.CA) -> Callable[..., tuple[LabService, list[str | None]]]:
    """A service with a certificate for `name`, and the server names that its clients sent."""

    def start(name: str, tasks: int = 2) -> tuple[LabService, list[str | None]]:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert(name).configure_cert(context)
        names: list[str | None] = []
        context.sni_callback = lambda sock, sent, of: names.append(sent)
        return lab.service("orders", tasks=tasks, ssl_context=context), names

    return start


def test_the_short_name_is_verified_as_the_full_one(serve: Any, trusted: str, manager_of: Make):
    service, names = serve("orders.prod.local")
    manager = manager_of(ca_certs=trusted)
    for _ in range(4):
        assert manager.request("GET", f"https://orders:{service.port}/").status == 200
    assert names == ["orders.prod.local"] * 2
    assert [task.connections for task in service.tasks] == [1, 1]


def test_the_tls_name_of_a_service_is_verified(lab: Lab, serve: Any, trusted: str):
    service, names = serve("users.example", tasks=1)
    config = ServiceConfig("orders.prod.local", tls_name="users.example")
    with Discovery(services={"orders": config}, nameservers=[lab.nameserver]) as discovery:
        manager = DiscoveryPoolManager(discovery, ca_certs=trusted)
        assert manager.request("GET", f"https://orders:{service.port}/").status == 200
        manager.clear()
    assert names == ["users.example"]


def test_a_server_hostname_of_the_application_takes_its_place(serve: Any, trusted: str, manager_of: Make):
    service, names = serve("other.example", tasks=1)
    manager = manager_of(ca_certs=trusted, server_hostname="other.example")
    assert manager.request("GET", f"https://orders:{service.port}/").status == 200
    assert names == ["other.example"]


def test_assert_hostname_verifies_another_name_and_the_services_is_sent(serve: Any, trusted: str, manager_of: Make):
    service, names = serve("other.example", tasks=1)
    url = f"https://orders:{service.port}/"
    assert manager_of(ca_certs=trusted, assert_hostname="other.example").request("GET", url).status == 200
    assert manager_of(ca_certs=trusted, assert_hostname=False).request("GET", url).status == 200
    with pytest.raises(SSLError):
        manager_of(ca_certs=trusted, assert_hostname="third.example").request("GET", url)
    assert set(names) == {"orders.prod.local"}


def test_a_certificate_that_is_not_accepted_is_an_error_of_both(serve: Any, trusted: str, manager_of: Make):
    service, _ = serve("other.example")
    url = f"https://orders:{service.port}/"
    manager = manager_of(ca_certs=trusted)
    with pytest.raises(MaxRetryError) as caught:
        manager.request("GET", url)
    assert isinstance(caught.value, SSLError)
    assert isinstance(caught.value, DiscoveryError)
    assert isinstance(caught.value.reason, SSLError)
    with pytest.raises(SSLError):
        manager_of().request("GET", url, retries=False)  # an authority that is not known
    nodes = manager.discovery.snapshot(f"orders:{service.port}").nodes
    assert {node.health for node in nodes} == {"healthy"}


def test_a_connection_that_was_not_verified_serves_no_manager_that_verifies(
    serve: Any, trusted: str, manager_of: Make, recwarn: pytest.WarningsRecorder
):
    service, _ = serve("other.example", tasks=1)
    url = f"https://orders:{service.port}/"
    loose, strict = manager_of(cert_reqs="CERT_NONE"), manager_of(ca_certs=trusted)
    with pytest.warns(urllib3.exceptions.InsecureRequestWarning):
        assert loose.request("GET", url).status == 200
    with pytest.raises(SSLError):
        strict.request("GET", url)


def test_pools_with_other_tls_options_of_one_manager_share_no_connection(serve: Any, trusted: str, manager_of: Make):
    service, _ = serve("orders.prod.local", tasks=1)
    manager = manager_of(ca_certs=trusted)
    one = manager.connection_from_host("orders", service.port, "https")
    other = manager.connection_from_host(
        "orders", service.port, "https", {"ssl_minimum_version": ssl.TLSVersion.TLSv1_3}
    )
    assert one is not other
    assert [pool.request("GET", "/").status for pool in (one, other)] == [200, 200]
    assert service.tasks[0].connections == 2


def test_a_context_of_the_application_is_used_and_left_as_it_was(serve: Any, authority: trustme.CA, manager_of: Make):
    service, _ = serve("orders.prod.local")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    before = (context.verify_mode, context.check_hostname, context.cert_store_stats())
    manager = manager_of(ssl_context=context)
    for _ in range(3):
        assert manager.request("GET", f"https://orders:{service.port}/").status == 200
    assert (context.verify_mode, context.check_hostname, context.cert_store_stats()) == before


def test_options_of_tls_do_not_disturb_plain_http(lab: Lab, trusted: str, manager_of: Make):
    service = lab.service("users", tasks=1)
    manager = manager_of(ca_certs=trusted, assert_hostname="x", assert_fingerprint="AB", cert_reqs="CERT_REQUIRED")
    assert manager.request("GET", service.url()).status == 200
    eventually(lambda: service.tasks[0].open_connections == 1)
