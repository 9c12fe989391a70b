"""A wrapped session beside the packages that people use with requests: recorders, mocks, caches, limiters."""

from __future__ import annotations

import copy
import pickle
import threading
import time
import weakref
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter

from ecs_discovery import ConfigurationError, Discovery, unwrap_session, wrap_session


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server: Any = self.server
        server.seen.append((self.path, dict(self.headers)))
        server.answer(self)

    do_POST = do_GET  # noqa: N815  # the name that http.server looks for

    def log_message(self, *args: object) -> None:
        pass


def answer(handler: BaseHTTPRequestHandler, status: int = 200, body: bytes = b"ok", **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


class Fleet:
    """Real HTTP servers, and a session that finds them as `http://orders/`."""

    def __init__(self, count: int, answering: Any = answer) -> None:
        self.servers: list[Any] = []
        for _ in range(count):
            server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            server.daemon_threads = True
            server.seen = []
            server.answer = answering
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            self.servers.append(server)
        targets = ",".join(f"127.0.0.1:{server.server_port}" for server in self.servers)
        self.discovery = Discovery(services={"orders": f"static://{targets}"})
        self.sessions: list[requests.Session] = []

    def wrap(self, session: requests.Session | None = None) -> requests.Session:
        wrapped = wrap_session(session or requests.Session(), self.discovery)
        self.sessions.append(wrapped)
        return wrapped

    @property
    def seen(self) -> list[tuple[str, dict[str, str]]]:
        return [each for server in self.servers for each in server.seen]

    def uses(self) -> int:
        return sum(node.uses for node in self.discovery.snapshot("orders").nodes)

    def close(self) -> None:
        for session in self.sessions:
            session.close()
        self.discovery.close()
        for server in self.servers:
            server.shutdown()
            server.server_close()


@pytest.fixture
def fleet() -> Iterator[Any]:
    made: list[Fleet] = []

    def make(count: int = 1, answering: Any = answer) -> Fleet:
        made.append(Fleet(count, answering))
        return made[-1]

    yield make
    for each in made:
        each.close()


URL = "http://orders/v1"


# The application's own adapter


class TimeoutAdapter(HTTPAdapter):
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.calls = 0
        super().__init__()

    def send(self, request: Any, **options: Any) -> Any:
        self.calls += 1
        options["timeout"] = options.get("timeout") or self.seconds
        return super().send(request, **options)

    def add_headers(self, request: Any, **options: Any) -> None:
        request.headers["X-Signed"] = "yes"

    def build_response(self, req: Any, resp: Any) -> Any:
        response = super().build_response(req, resp)
        response.built = True
        return response


@pytest.mark.parametrize("prefix", ["http://", "http://o", "http://orders/"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_the_methods_of_an_adapter_of_the_applications_own_act_on_our_hosts(fleet: Any, prefix: str, when: str):
    each = fleet(2, lambda handler: time.sleep(0.5 if handler.path == "/slow" else 0) or answer(handler))
    session, own = requests.Session(), TimeoutAdapter(0.1)
    if when == "before":
        session.mount(prefix, own)
    each.wrap(session)
    if when == "after":
        session.mount(prefix, own)
    found = session.get(URL)
    assert found.built
    assert {headers["X-Signed"] for _, headers in each.seen} == {"yes"}
    with pytest.raises(requests.ReadTimeout):
        session.get("http://orders/slow")
    assert own.calls == 2
    assert isinstance(session.get_adapter(URL), TimeoutAdapter)


def test_the_adapter_of_the_application_sees_a_request_once_however_many_attempts_it_takes(fleet: Any):
    each = fleet(3)
    each.servers[0].answer = lambda handler: answer(handler, 503)
    session, own = requests.Session(), TimeoutAdapter(5)
    session.mount("http://", own)
    each.wrap(session)
    for _ in range(9):
        assert session.get(URL).status_code == 200
    assert own.calls == 9
    assert len(each.seen) > 9


def test_what_the_application_sets_on_its_adapter_later_holds(fleet: Any):
    each = fleet(1, lambda handler: time.sleep(0.3) or answer(handler))
    session, own = requests.Session(), TimeoutAdapter(5)
    session.mount("http://", own)
    each.wrap(session)
    assert session.get(URL).status_code == 200
    own.seconds = 0.05
    with pytest.raises(requests.ReadTimeout):
        session.get(URL)


def test_the_adapter_of_a_wrapped_session_is_an_http_adapter(fleet: Any):
    session = fleet().wrap()
    adapter: Any = session.get_adapter("https://example.com/")
    assert isinstance(adapter, HTTPAdapter)
    assert adapter.poolmanager.connection_pool_kw["maxsize"] == 10
    assert adapter.max_retries.total == 0
    assert adapter.proxy_manager == {}
    assert adapter.build_response


def test_an_adapter_for_another_host_stays_the_same_object(fleet: Any):
    session, before, after = requests.Session(), HTTPAdapter(), HTTPAdapter()
    session.mount("https://example.com", before)
    fleet().wrap(session)
    session.mount("https://example.org/some/path", after)
    assert session.get_adapter("https://example.com/") is before
    assert session.get_adapter("https://example.org/some/path/1") is after


def test_a_session_that_lacks_an_adapter_is_wrapped_all_the_same(fleet: Any):
    session = requests.Session()
    session.adapters.pop("https://")
    assert fleet().wrap(session).get(URL).status_code == 200


def test_unwrapping_gives_the_applications_adapters_back(fleet: Any):
    session, own = requests.Session(), TimeoutAdapter(5)
    session.mount("http://orders/", own)
    fleet().wrap(session)
    assert unwrap_session(session).get_adapter(URL) is own


def test_a_wrapped_session_with_an_own_adapter_pickles_and_copies(fleet: Any):
    services = {"orders": f"static://127.0.0.1:{fleet().servers[0].server_port}"}
    session = wrap_session(requests.Session(), services=services)
    for twin in (pickle.loads(pickle.dumps(session)), copy.deepcopy(session)):
        assert twin.get(URL).status_code == 200
        twin.close()
    session.close()


def test_pool_options_of_the_adapter_hold_for_our_hosts(fleet: Any):
    import socket

    class Tuned(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **options: Any) -> None:
            options["socket_options"] = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 20_000)]
            options["source_address"] = ("127.0.0.9", 0)
            super().init_poolmanager(*args, **options)

    peers: list[str] = []
    each = fleet(2, lambda handler: peers.append(handler.client_address[0]) or answer(handler))
    session = requests.Session()
    session.mount("http://", Tuned())
    each.wrap(session)
    with session.get(URL, stream=True) as response:
        sock = response.raw.connection.sock
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 40_000  # the kernel doubles it
    assert peers == ["127.0.0.9"]


def test_as_many_connections_are_kept_as_the_adapter_says(fleet: Any, caplog: pytest.LogCaptureFixture):
    gate = threading.Barrier(30)
    each = fleet(1, lambda handler: (gate.wait(10) and None) or answer(handler))
    session = requests.Session()
    session.mount("http://", HTTPAdapter(pool_maxsize=30))
    each.wrap(session)
    callers = [threading.Thread(target=session.get, args=(URL,)) for _ in range(30)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert "pool is full" not in caplog.text


# Behaviour as with a plain session


def test_elapsed_is_the_time_to_the_head_of_the_answer(fleet: Any):
    def slowly(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "2")
        handler.end_headers()
        handler.wfile.flush()
        time.sleep(0.5)
        handler.wfile.write(b"ok")

    response = fleet(1, slowly).wrap().get(URL)
    assert response.content == b"ok"
    assert response.elapsed.total_seconds() < 0.4
    twin = pickle.loads(pickle.dumps(response))
    assert type(twin) is requests.Response
    assert twin.elapsed == response.elapsed


def test_a_hook_finds_the_body_unread(fleet: Any):
    found: list[bytes] = []
    hook = {"response": lambda response, **_: found.append(response.raw.read(2))}
    response = fleet(1, lambda handler: answer(handler, 200, b"body")).wrap().get(URL, hooks=hook)
    assert found == [b"bo"]
    assert response.content == b"dy"


def test_a_redirect_whose_body_breaks_off_is_followed(fleet: Any):
    def redirect(handler: Any) -> None:
        if handler.path == "/there":
            return answer(handler)
        handler.send_response(302)
        handler.send_header("Location", "/there")
        handler.send_header("Content-Length", "100")
        handler.end_headers()
        handler.wfile.write(b"half")
        handler.close_connection = True
        return None

    assert fleet(1, redirect).wrap().get(URL, timeout=5).text == "ok"


def test_digest_authentication_answers_the_task_that_asked(fleet: Any):
    def digest(handler: Any) -> None:
        nonce = f"nonce-of-{handler.server.server_port}"
        if f'nonce="{nonce}"' in handler.headers.get("Authorization", ""):
            return answer(handler)
        return answer(handler, 401, WWW_Authenticate=f'Digest realm="r", nonce="{nonce}", qop="auth"')

    session = fleet(3, digest).wrap()
    for _ in range(9):
        assert session.get(URL, auth=requests.auth.HTTPDigestAuth("u", "p")).status_code == 200


@pytest.mark.parametrize("timeout", [(0, 5), "5", [1, 2], ("1", 2), (1, 2, 3)], ids=str)
def test_a_bad_timeout_is_the_error_of_a_plain_session(fleet: Any, timeout: Any):
    each = fleet()
    with pytest.raises((ValueError, TypeError)) as plain:
        requests.get(f"http://127.0.0.1:{each.servers[0].server_port}/", timeout=timeout)
    with pytest.raises(type(plain.value)):
        each.wrap().get(URL, timeout=timeout)


def test_no_header_that_is_for_a_proxy_reaches_a_task(fleet: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTP_PROXY", "http://user:secret@127.0.0.1:1")

    def redirect(handler: Any) -> None:
        if handler.path == "/v1":
            return answer(handler, 302, Location="/there")
        return answer(handler)

    each = fleet(1, redirect)
    assert each.wrap().get(URL).status_code == 200
    assert [path for path, _ in each.seen] == ["/v1", "/there"]
    assert all("Proxy-Authorization" not in headers for _, headers in each.seen)


def test_connections_to_our_tasks_outlive_a_thousand_foreign_hosts(fleet: Any):
    each = fleet()
    session = each.wrap()
    connections: set[int] = set()
    each.servers[0].answer = lambda handler: connections.add(handler.client_address[1]) or answer(handler)
    assert session.get(URL).ok
    for number in range(1100):
        session.get_adapter("http://")._link.origins.owns(f"http://host{number}.example/")  # type: ignore[attr-defined]
    assert session.get(URL).ok
    assert len(connections) == 1


# Errors


def test_the_first_argument_of_an_error_is_urllib3s_as_with_a_plain_session(fleet: Any):
    from urllib3.exceptions import MaxRetryError, ReadTimeoutError

    each = fleet(1, lambda handler: time.sleep(0.5) or answer(handler))
    with pytest.raises(requests.ReadTimeout) as slow:
        each.wrap().get(URL, timeout=0.05)
    assert isinstance(slow.value.args[0], ReadTimeoutError)
    with Discovery(services={"gone": "static://127.0.0.1:1"}) as discovery:
        session = wrap_session(requests.Session(), discovery)
        with pytest.raises(requests.ConnectionError) as refused:
            session.get("http://gone/")
        assert isinstance(refused.value.args[0], MaxRetryError)
        twin = pickle.loads(pickle.dumps(refused.value))
        assert str(twin).startswith("gone: failed after")
        assert twin.request.url == "http://gone/"


def test_a_refused_connection_has_no_longer_traceback_than_with_a_plain_session(fleet: Any):
    import traceback

    def lines(call: Any) -> int:
        try:
            call()
        except requests.ConnectionError as error:
            return len("".join(traceback.format_exception(error)).splitlines())
        raise AssertionError

    with Discovery(services={"gone": "static://127.0.0.1:1"}) as discovery:
        session = wrap_session(requests.Session(), discovery)
        assert lines(lambda: session.get("http://gone/")) <= lines(lambda: requests.get("http://127.0.0.1:1/"))


def test_a_failure_is_not_taken_for_what_the_application_was_handling(fleet: Any):
    """The first attempt of a GET ends without an answer, so it is repeated, whatever error is being handled."""
    seen: list[int] = []

    def first_breaks(handler: Any) -> None:
        seen.append(1)
        if len(seen) == 1:
            handler.close_connection = True
            handler.connection.close()
        else:
            answer(handler)

    session = fleet(2, first_breaks).wrap()
    try:
        raise TimeoutError("something else timed out")
    except TimeoutError:
        assert session.get(URL, timeout=5).status_code == 200
    assert len(seen) == 2


# The caller's own mistakes


@pytest.mark.parametrize("mistake", [{"verify": "/nowhere.pem"}, {"cert": "/nowhere.pem"}, {"cert": __file__}], ids=str)
def test_a_mistake_in_tls_files_says_nothing_of_the_endpoints(fleet: Any, mistake: dict[str, Any]):
    each = fleet(3)
    session = each.wrap()
    for _ in range(6):
        with pytest.raises((OSError, requests.RequestException)):
            session.get("https://orders/", timeout=5, **mistake)
    assert {each.health for each in each.discovery.snapshot("orders").nodes} <= {"healthy"}


def test_https_to_a_plain_port_does_not_mark_the_endpoints_down(fleet: Any):
    each = fleet(3)
    session = each.wrap()
    for _ in range(6):
        with pytest.raises(requests.exceptions.SSLError, match="does not seem to speak TLS"):
            session.get("https://orders/", timeout=5)
    assert {each.health for each in each.discovery.snapshot("orders").nodes} == {"healthy"}
    assert session.get(URL).ok


def test_urllib3_future_is_refused_when_a_session_is_wrapped(monkeypatch: pytest.MonkeyPatch):
    import urllib3

    monkeypatch.setattr(urllib3, "AsyncPoolManager", object, raising=False)
    with pytest.raises(ConfigurationError, match="urllib3-future"):
        wrap_session(requests.Session(), namespace="prod.local")


# Recorders, mocks, caches, limiters


def test_vcrpy_records_and_replays(fleet: Any, tmp_path: Any):
    import vcr

    each = fleet(2)
    session = each.wrap()
    for _ in range(2):
        with vcr.use_cassette(str(tmp_path / "cassette.yaml"), record_mode="once"):
            assert session.get(URL).text == "ok"
            assert session.get("http://orders/v2").text == "ok"
    assert sorted(path for path, _ in each.seen) == ["/v1", "/v2"]


@pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")  # of betamax, from Python 3.12 on
def test_betamax_records_and_replays(fleet: Any, tmp_path: Any):
    import betamax

    each = fleet(2)
    session = each.wrap()
    for _ in range(2):
        with betamax.Betamax(session, cassette_library_dir=str(tmp_path)).use_cassette("one"):
            assert session.get(URL).text == "ok"
    assert len(each.seen) == 1
    assert session.get(URL).text == "ok"
    assert len(each.seen) == 2


def test_responses_answers_for_a_name_that_nobody_resolves():
    import responses

    session = wrap_session(requests.Session(), namespace="nowhere.test")
    with responses.RequestsMock() as mock:
        mock.get(URL, json={"a": 1}, match=[responses.matchers.request_kwargs_matcher({"timeout": 5, "stream": False})])
        assert session.get(URL, timeout=5).json() == {"a": 1}
    session.close()


def test_requests_mock_answers_for_our_hosts():
    import requests_mock

    session = wrap_session(requests.Session(), namespace="nowhere.test")
    with requests_mock.Mocker() as mock:
        mock.get(URL, text="mocked")
        assert session.get(URL).text == "mocked"
    session.close()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_hit_of_cachecontrol_touches_no_endpoint(fleet: Any, when: str):
    from cachecontrol import CacheControl

    each = fleet(2, lambda handler: answer(handler, 200, b"cached", Cache_Control="max-age=60"))
    session = requests.Session()
    if when == "before":
        CacheControl(session)
    each.wrap(session)
    if when == "after":
        CacheControl(session)
    assert [session.get(URL).text for _ in range(5)] == ["cached"] * 5
    assert len(each.seen) == 1
    assert each.uses() == 1


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_wait_of_a_limiter_is_no_latency_of_an_endpoint(fleet: Any, when: str):
    from requests_ratelimiter import LimiterAdapter

    each = fleet(1)
    session = requests.Session()
    if when == "before":
        session.mount("http://", LimiterAdapter(per_second=2))
    each.wrap(session)
    if when == "after":
        session.mount("http://", LimiterAdapter(per_second=2))
    began = time.monotonic()
    for _ in range(4):
        assert session.get(URL).ok
    assert time.monotonic() - began > 0.5
    (endpoint,) = each.discovery.snapshot("orders").nodes
    assert endpoint.latency < 0.2


def test_requests_futures_sends_through_a_wrapped_session(fleet: Any):
    from requests_futures.sessions import FuturesSession

    each = fleet(2)
    with FuturesSession(session=each.wrap(), max_workers=4) as futures:
        assert [future.result().status_code for future in [futures.get(URL) for _ in range(10)]] == [200] * 10


def test_a_server_with_one_thread_is_reached_as_by_a_plain_session():
    server: Any = HTTPServer(("127.0.0.1", 0), Handler)
    server.seen, server.answer = [], answer
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    with Discovery(services={"orders": f"static://127.0.0.1:{server.server_port}"}) as discovery:
        session = wrap_session(requests.Session(), discovery)
        assert session.get(URL).ok
        session.close()
    server.shutdown()
    server.server_close()


def test_an_unwanted_streamed_answer_gives_its_connection_back(fleet: Any):
    """One connection per pool, waited for: a place that is not given back would be waited for in vain."""
    turns = iter([503, 200] * 20)
    each = fleet(1, lambda handler: answer(handler, next(turns), b"x" * 100_000))
    session = requests.Session()
    session.mount("http://", HTTPAdapter(pool_maxsize=1, pool_block=True))
    each.wrap(session)
    for _ in range(6):
        with session.get(URL, stream=True, timeout=5) as response:
            assert response.status_code == 200
            assert len(response.content) == 100_000
    assert [node.pending for node in each.discovery.snapshot("orders").nodes] == [0]


def test_a_request_that_was_answered_is_not_kept(fleet: Any):
    import gc
    import weakref

    session = fleet(1).wrap()
    request = session.prepare_request(requests.Request("POST", URL, data=b"z" * 1000))
    kept = weakref.ref(request)
    assert session.send(request).ok
    del request
    gc.collect()
    assert kept() is None


def test_the_wait_for_a_pool_is_part_of_the_time_to_connect(fleet: Any):
    each = fleet(1, lambda handler: answer(handler, 200, b"x" * 1_000_000))
    session = requests.Session()
    session.mount("http://", HTTPAdapter(pool_maxsize=1, pool_block=True))
    each.wrap(session)
    with session.get(URL, stream=True) as held:
        with pytest.raises(requests.ConnectionError) as caught:
            session.get(URL, timeout=(0.3, 5))
        assert caught.value.attempts  # type: ignore[attr-defined]
        assert held.status_code == 200
    assert session.get(URL).ok
    assert [node.pending for node in each.discovery.snapshot("orders").nodes] == [0]


def broken_body(handler: Any) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "100")
    handler.end_headers()
    handler.wfile.write(b"half")
    if handler.path == "/stall":
        handler.wfile.flush()
        time.sleep(1)
    handler.close_connection = True


def test_a_body_that_breaks_off_is_the_error_of_a_plain_session(fleet: Any):
    session = fleet(1, broken_body).wrap()
    with pytest.raises(requests.exceptions.ChunkedEncodingError) as caught:
        session.post(URL, data=b"x", timeout=5)
    assert caught.value.attempts  # type: ignore[attr-defined]
    with pytest.raises(requests.ConnectionError):
        session.post("http://orders/stall", data=b"x", timeout=0.3)


def test_a_length_that_cannot_be_read_keeps_no_connection_and_no_use():
    from tests.support import raw

    odd = b"HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\nConnection: close\r\n\r\nabc"
    with raw(odd) as (address, _), Discovery(services={"orders": f"static://{address}"}) as discovery:
        session = wrap_session(requests.Session(), discovery)
        with pytest.raises(requests.RequestException):
            session.get(URL, timeout=0.3)  # the server keeps it open: a plain session waits as well
        session.close()
        assert [node.pending for node in discovery.snapshot("orders").nodes] == [0]


class Slotted(HTTPAdapter):
    __slots__ = ("token",)

    def __init__(self, token: str) -> None:
        self.token = token
        super().__init__()

    def send(self, request: Any, **options: Any) -> Any:
        request.headers["X-Token"] = self.token
        return super().send(request, **options)


class Particular(HTTPAdapter):
    def __new__(cls, key: str) -> Any:
        return super().__new__(cls)

    def __init__(self, key: str) -> None:
        super().__init__()

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("__"):
            raise AttributeError(name)
        super().__setattr__(name, value)

    def get_connection_with_tls_context(self, *args: Any, **options: Any) -> Any:
        pool = super().get_connection_with_tls_context(*args, **options)
        assert pool.host
        assert pool.num_requests >= 0
        return pool


@pytest.mark.parametrize("make", [Slotted, Particular])
def test_adapters_of_unusual_classes_serve_our_hosts(fleet: Any, make: Any):
    each = fleet(1)
    session = requests.Session()
    session.mount("http://", make("t"))
    each.wrap(session)
    assert session.get(URL).ok


def test_a_deep_copy_of_a_session_shares_no_state_of_its_adapters(fleet: Any):
    session = fleet(1).wrap()
    twin = copy.deepcopy(session)
    adapter: Any = twin.get_adapter(URL)
    adapter.max_retries = 77
    original: Any = session.get_adapter(URL)
    assert original.max_retries != 77
    twin.close()


# The environment


def merged(session: requests.Session, url: str, **given: Any) -> dict[str, Any]:
    settings = {"proxies": {}, "stream": None, "verify": None, "cert": None, **given}
    return dict(session.merge_environment_settings(url, **settings))


@pytest.mark.parametrize("bundle", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
@pytest.mark.parametrize("trust_env", [True, False])
@pytest.mark.parametrize("verify", [None, True, False, "/own/bundle"])
@pytest.mark.parametrize("of_session", [True, False, "/the/sessions"])
def test_the_environment_of_our_hosts_is_as_requests_has_it_but_for_proxies(
    bundle: str, trust_env: bool, verify: Any, of_session: Any, monkeypatch: pytest.MonkeyPatch
):
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(bundle, "/from/the/environment")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    plain, wrapped = requests.Session(), wrap_session(requests.Session(), namespace="prod.local")
    for session in (plain, wrapped):
        session.trust_env, session.verify, session.cert = trust_env, of_session, "/a/cert"
        session.proxies = {"https": "http://sessions.example:3128"}
    expected = merged(plain, "http://orders/", verify=verify)
    expected["proxies"].pop("http", None)  # a proxy of the environment is for other hosts
    assert merged(wrapped, "http://orders/", verify=verify) == expected
    foreign = "http://www.example.org/"
    assert merged(wrapped, foreign, verify=verify) == merged(plain, foreign, verify=verify)


def test_a_session_with_a_way_of_its_own_to_read_the_environment_keeps_it():
    class Own(requests.Session):
        def merge_environment_settings(self, url: Any, *given: Any) -> Any:
            return {"own": url}

    wrapped = wrap_session(Own(), namespace="prod.local")
    assert wrapped.merge_environment_settings("http://orders/", {}, None, None, None) == {"own": "http://orders/"}


def test_a_session_that_is_unwrapped_pickled_or_copied_reads_the_environment_itself():
    wrapped = wrap_session(requests.Session(), namespace="prod.local")
    assert "merge_environment_settings" in vars(wrapped)
    for twin in (pickle.loads(pickle.dumps(wrapped)), copy.deepcopy(wrapped), unwrap_session(wrapped)):
        assert "merge_environment_settings" not in vars(twin)


def test_a_wrapped_session_that_nobody_holds_is_gone_at_once():
    wrapped = wrap_session(requests.Session(), namespace="prod.local")
    held = weakref.ref(wrapped)
    del wrapped
    assert held() is None
