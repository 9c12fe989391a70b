"""TLS under the name of the service."""

from __future__ import annotations

import pytest
import requests

from ecs_discovery import (
    DiscoveryError,
    ServiceConfig,
)
from ecs_discovery.testing.lab import Lab
from tests.integrations.requests.support import discovery_of


def test_tls_is_verified_for_the_services_name_and_never_crosses_names(lab: Lab, wrap, tmp_path, monkeypatch):
    import ssl

    import trustme

    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # requests lets these go before session.verify
        monkeypatch.delenv(variable, raising=False)
    authority = trustme.CA()
    bundle = str(tmp_path / "ca.pem")
    authority.cert_pem.write_to_path(bundle)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("orders.prod.local").configure_cert(context)
    service = lab.service("orders", tasks=2, ssl_context=context)
    addresses = ",".join(f"{task.address}:{task.port}" for task in service.tasks)
    session = wrap(
        services={"billing": f"static://{addresses}", "pay": ServiceConfig("orders", tls_name="orders.prod.local")}
    )
    session.verify = bundle
    for url in (f"https://orders.prod.local:{service.port}/", f"https://orders:{service.port}/"):
        assert session.get(url, timeout=10).status_code == 200
    assert session.get(f"https://pay:{service.port}/", timeout=10).status_code == 200
    # The same endpoints under a name that is in no certificate. Theirs is no fault of connecting.
    with pytest.raises(requests.exceptions.SSLError) as caught:
        session.get("https://billing/", timeout=10)
    assert isinstance(caught.value, DiscoveryError)
    nodes = discovery_of(session).snapshot("billing").nodes
    assert [node.health for node in nodes] == ["healthy", "healthy"]
    session.verify = True
    with pytest.raises(requests.exceptions.SSLError):
        session.get(f"https://orders:{service.port}/", timeout=10)
    assert session.get(f"https://orders:{service.port}/", verify=bundle, timeout=10).status_code == 200


def test_a_certificate_of_another_declared_service_at_the_same_address_is_not_accepted(lab: Lab, wrap, tmp_path):
    import ssl

    import trustme

    authority = trustme.CA()
    bundle = str(tmp_path / "ca.pem")
    authority.cert_pem.write_to_path(bundle)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("orders.prod.local").configure_cert(context)
    task = lab.service("orders", tasks=1, ssl_context=context).tasks[0]
    target = f"static://{task.address}:{task.port}"
    session = wrap(services={"orders": target, "payments": target})
    for _ in range(2):
        assert session.get("https://orders/", verify=bundle, timeout=10).status_code == 200
        with pytest.raises(requests.exceptions.SSLError):
            session.get("https://payments/", verify=bundle, timeout=10)


def test_client_certificates_are_not_mixed_up(lab: Lab, wrap, tmp_path, monkeypatch: pytest.MonkeyPatch):
    import ssl

    import trustme

    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(variable, raising=False)
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("orders.prod.local").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    service = lab.service("orders", tasks=1, ssl_context=context)
    bundle, mine = str(tmp_path / "ca.pem"), str(tmp_path / "mine.pem")
    authority.cert_pem.write_to_path(bundle)
    authority.issue_cert("client.example").private_key_and_cert_chain_pem.write_to_path(mine)
    session, url = wrap(), f"https://orders:{service.port}/"
    assert session.get(url, verify=bundle, cert=mine, timeout=10).status_code == 200
    with pytest.raises(requests.RequestException):
        session.get(url, verify=bundle, timeout=10)
    assert session.get(url, verify=bundle, cert=mine, timeout=10).status_code == 200
