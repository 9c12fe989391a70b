"""TLS of a wrapped session: an application's SSLContext stays what it was, and names are verified."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import requests
import trustme
from requests.adapters import HTTPAdapter
from urllib3.util.ssl_ import create_urllib3_context

from ecs_discovery import Discovery, wrap_session


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *args: object) -> None:
        pass


class ContextAdapter(HTTPAdapter):
    def __init__(self, context: ssl.SSLContext, **options: Any) -> None:
        self.context = context
        self.options = options
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options, ssl_context=self.context, **self.options)


@pytest.fixture(autouse=True)
def _no_bundle_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def serve(authority: trustme.CA) -> Iterator[Any]:
    servers: list[Any] = []

    def start(*names: str) -> Discovery:
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert(*names).configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        discovery = Discovery(services={"orders": f"static://127.0.0.1:{server.server_port}"})
        servers.append((server, discovery))
        return discovery

    yield start
    for server, discovery in servers:
        discovery.close()
        server.shutdown()
        server.server_close()


def state(context: ssl.SSLContext) -> tuple[Any, ...]:
    return (
        context.check_hostname,
        context.verify_mode,
        context.verify_flags,
        context.options,
        context.minimum_version,
        context.maximum_version,
        context.cert_store_stats(),
        context.get_ca_certs(binary_form=True),
    )


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return context


def test_a_context_of_the_applications_is_what_it_was(authority: trustme.CA, serve: Any):
    context = trusting(authority)
    before = state(context)
    session = requests.Session()
    session.mount("https://", ContextAdapter(context))
    wrap_session(session, serve("orders"))
    assert session.get("https://orders/").text == "ok"
    with pytest.raises((ValueError, requests.RequestException)):
        session.get("https://orders/", verify=False)
    assert session.get("https://orders/").text == "ok"
    assert state(context) == before
    session.close()


def test_a_certificate_of_another_name_is_refused_with_a_context_of_the_applications(authority: trustme.CA, serve: Any):
    context = trusting(authority)
    session = requests.Session()
    session.mount("https://", ContextAdapter(context))
    wrap_session(session, serve("payments"))
    with pytest.raises(requests.exceptions.SSLError, match="orders"):
        session.get("https://orders/")
    assert context.check_hostname
    session.close()


def test_a_context_without_roots_gets_those_that_requests_would_add(authority: trustme.CA, serve: Any, tmp_path: Any):
    """As the recipes have it, that give a context for the sake of its ciphers."""
    context = create_urllib3_context()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    session = requests.Session()
    session.mount("https://", ContextAdapter(context))
    session.verify = str(tmp_path / "ca.pem")
    wrap_session(session, serve("orders"))
    assert session.get("https://orders/").text == "ok"
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    session.close()


def test_an_adapter_that_asks_for_no_check_of_the_name_gets_none(authority: trustme.CA, serve: Any, tmp_path: Any):
    class Unnamed(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **options: Any) -> None:
            super().init_poolmanager(*args, **options, assert_hostname=False)

    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    session = requests.Session()
    session.verify = str(tmp_path / "ca.pem")
    discovery = serve("payments")
    wrap_session(session, discovery)
    with pytest.raises(requests.exceptions.SSLError):
        session.get("https://orders/")
    session.mount("https://", Unnamed())
    assert session.get("https://orders/").text == "ok"
    session.close()


def test_a_certificate_failure_on_the_only_task_is_not_retried(authority: trustme.CA, serve: Any):
    session = wrap_session(requests.Session(), serve("orders"))
    with pytest.raises(requests.exceptions.SSLError) as caught:
        session.get("https://orders/")
    assert len(caught.value.attempts) == 1  # type: ignore[attr-defined]
    assert caught.value.attempts[0].outcome == "certificate"  # type: ignore[attr-defined]
    session.close()


def test_connections_for_hundreds_of_verify_values_are_not_kept(authority: trustme.CA, serve: Any, tmp_path: Any):
    discovery = serve("orders")
    session = wrap_session(requests.Session(), discovery)
    for number in range(80):
        bundle = tmp_path / f"ca-{number}.pem"
        authority.cert_pem.write_to_path(str(bundle))
        assert session.get("https://orders/", verify=str(bundle)).ok
    (route,) = session.get_adapter("https://")._link.origins._routes.values()  # type: ignore[attr-defined]
    assert len(route.pools) <= 64
    session.close()
