"""A wrapped requests session against the lab: real DNS, real HTTP, real faults."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import socket
import threading
import time
import weakref
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from requests.adapters import HTTPAdapter
from tenacity import Retrying
from urllib3.connection import HTTPConnection

from ecs_discovery import (
    BalancingPolicy,
    CachePolicy,
    ConfigurationError,
    ConnectError,
    ConnectionPolicy,
    ConnectTimeout,
    DeadlineExceeded,
    Discovery,
    DiscoveryError,
    HedgePolicy,
    RequestError,
    ResolutionTimeout,
    RetryPolicy,
    ServiceConfig,
    TargetNotFound,
    TimeoutPolicy,
    options,
    unwrap_session,
    wrap_session,
)
from ecs_discovery.client.sync import race as racing
from ecs_discovery.events import PushedBack
from ecs_discovery.integrations._requests_exchange import RequestsExchange
from ecs_discovery.integrations.requests import DiscoveryAdapter
from ecs_discovery.testing.lab import Lab, LabTask
from tests.support import FakeClock, eventually, raw


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(namespace="prod.local", seed=7) as lab:
        yield lab


@pytest.fixture
def wrap(lab: Lab) -> Iterator[object]:
    """A wrapped session on a discovery of its own, asking the lab's DNS."""
    made: list[tuple[requests.Session, Discovery]] = []

    def make(**settings) -> requests.Session:
        discovery = Discovery(namespace="prod.local", nameservers=[lab.nameserver], **settings)
        session = wrap_session(requests.Session(), discovery)
        made.append((session, discovery))
        return session

    yield make
    for session, discovery in made:
        session.close()
        discovery.close()


def discovery_of(session: requests.Session) -> Discovery:
    adapter = session.get_adapter("http://")
    assert isinstance(adapter, DiscoveryAdapter)
    return adapter.discovery


def shares(session: requests.Session, url: str, count: int) -> Counter[str]:
    return Counter(session.get(url, timeout=10).headers["X-Task"] for _ in range(count))


# Names and spread


@pytest.mark.parametrize("records", ["A", "SRV", "A+SRV"])
def test_keep_alive_requests_spread_evenly_over_the_tasks(lab: Lab, wrap, records: str):
    service = lab.service("orders", tasks=3, records=records, dynamic_ports=records == "SRV")
    url = "http://orders/v1/42" if "SRV" in records else f"http://orders:{service.port}/v1/42"
    session = wrap()
    counts = shares(session, url, 300)
    assert sorted(counts.values()) == [100, 100, 100]
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


def test_more_endpoints_than_urllib3_keeps_pools_are_all_kept_connected(lab: Lab, wrap):
    service = lab.service("orders", tasks=15, records="SRV")
    lab.dns.additional = True
    session = wrap(services={"orders": "static://" + ",".join(f"{t.address}:{t.port}" for t in service.tasks)})
    shares(session, "http://orders/", 300)
    assert sum(task.connections for task in service.tasks) == 15


# The URL stays logical


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


# Requests and answers


def test_bodies_streams_and_methods_work_as_ever(lab: Lab, wrap):
    service = lab.service("orders", tasks=3)
    session, base = wrap(), f"http://orders:{service.port}"
    assert session.post(f"{base}/echo", data=b"x" * 100_000, timeout=10).content == b"x" * 100_000
    assert session.post(f"{base}/echo", json={"a": 1}, timeout=10).json() == {"a": 1}
    assert session.post(f"{base}/echo", data=(part for part in [b"a", b"b"]), timeout=10).content == b"ab"
    assert session.post(f"{base}/echo", data=io.BytesIO(b"file"), timeout=10).content == b"file"
    assert session.head(f"{base}/", timeout=10).status_code == 200
    with session.get(f"{base}/stream/20", stream=True, timeout=10) as response:
        assert len(b"".join(response.iter_content(1000))) == 20 * 1024
    assert session.get(f"{base}/status/404", timeout=10).status_code == 404
    task = service.tasks[0]
    plain = requests.get(f"http://{task.address}:{task.port}//double/slash", timeout=10).json()["path"]
    assert session.get(f"{base}//double/slash", timeout=10).json()["path"] == plain


def test_a_streamed_answer_counts_as_load_until_it_is_read_closed_or_forgotten(lab: Lab, wrap):
    service = lab.service("orders", tasks=1)
    session, target = wrap(), f"orders:{service.port}"

    def pending() -> int:
        return discovery_of(session).snapshot(target).nodes[0].pending

    response = session.get(f"http://{target}/bytes/100000", stream=True, timeout=10)
    assert pending() == 1
    assert len(response.content) == 100_000
    assert pending() == 0

    response = session.get(f"http://{target}/bytes/1000000", stream=True, timeout=10)
    assert pending() == 1
    response.close()
    assert pending() == 0

    response = session.get(f"http://{target}/bytes/1000000", stream=True, timeout=10)
    raw = response.raw
    raw.close()  # what the collector would do to the socket
    del response, raw
    session.get(f"http://{target}/", timeout=10)
    eventually(lambda: session.get(f"http://{target}/", timeout=10) and pending() == 0)


def test_threads_share_one_session(lab: Lab, wrap):
    service = lab.service("orders", tasks=3)
    # Tasks and callers share a processor here, and what one waits for the other looks like latency of a task.
    session, url = wrap(balancing=BalancingPolicy(least_latency=1)), f"http://orders:{service.port}/"
    with ThreadPoolExecutor(8) as pool:
        counts = Counter(pool.map(lambda _: session.get(url, timeout=10).headers["X-Task"], range(400)))
    assert sum(counts.values()) == 400
    assert min(counts.values()) > 80
    assert all(node.pending == 0 for node in discovery_of(session).snapshot(f"orders:{service.port}").nodes)


# Faults


def test_a_task_that_refuses_costs_no_request_and_is_set_aside(lab: Lab, wrap):
    service = lab.service("orders", tasks=3)
    session, url = wrap(), f"http://orders:{service.port}/"
    shares(session, url, 6)
    dead = service.tasks[0]
    dead.kill()
    counts = shares(session, url, 60)
    assert dead.id not in counts
    assert session.post(url, data=b"x", timeout=10).status_code == 200
    health = {n.endpoint: n.health for n in discovery_of(session).snapshot(f"orders:{service.port}").nodes}
    assert health[f"{dead.address}:{dead.port}"] == "down"


def test_a_connect_failure_forces_one_question_that_reaches_the_server(lab: Lab, wrap):
    service = lab.service("orders", tasks=3, ttl=60)
    session, url = wrap(), f"http://orders:{service.port}/"
    shares(session, url, 3)
    before = lab.dns.queries["orders.prod.local", "A"]
    service.kill(service.tasks[0])
    service.flush()
    shares(session, url, 30)
    eventually(lambda: lab.dns.queries["orders.prod.local", "A"] == before + 1)
    eventually(lambda: len(discovery_of(session).snapshot(f"orders:{service.port}").nodes) == 2)


def test_a_task_that_resets_idempotent_requests_costs_none_and_a_post_is_not_repeated(lab: Lab, wrap):
    service = lab.service("orders", tasks=3)
    session, url = wrap(), f"http://orders:{service.port}/"
    shares(session, url, 3)
    for task in service.tasks:
        task.reset()
    received = service.requests
    with pytest.raises(requests.ConnectionError) as caught:
        session.post(url, data=b"x", timeout=10)
    assert isinstance(caught.value, RequestError)
    assert "not idempotent" in str(caught.value)
    assert service.requests == received + 1
    service.tasks[1].heal()
    service.tasks[2].heal()
    assert session.get(url, timeout=10).status_code == 200
    with options(idempotent=True):
        assert session.post(url, data=b"x", timeout=10).status_code == 200
    assert session.post(url, data=b"x", headers={"Idempotency-Key": "1"}, timeout=10).status_code == 200


def test_a_body_that_cannot_be_sent_again_is_not_and_a_file_is_rewound(lab: Lab, wrap):
    service = lab.service("orders", tasks=2)
    session, url = wrap(), f"http://orders:{service.port}/echo"
    shares(session, url, 2)
    bad = service.tasks[0]
    bad.reset()
    outcomes = set()
    for _ in range(2):  # one of the two goes to the task that resets
        try:
            outcomes.add(session.put(url, data=(part for part in [b"a", b"b"]), timeout=10).content)
        except requests.ConnectionError as error:
            outcomes.add("cannot be sent again" in str(error))
    assert outcomes == {b"ab", True}
    for _ in range(2):
        assert session.put(url, data=io.BytesIO(b"the whole file"), timeout=10).content == b"the whole file"


def test_a_vanished_task_is_noticed_while_a_slow_one_is_left_alone(lab: Lab, wrap):
    service = lab.service("orders", tasks=3)
    session, url = wrap(), f"http://orders:{service.port}"
    shares(session, f"{url}/", 6)
    slow: list[int] = []
    waiter = threading.Thread(target=lambda: slow.append(session.get(f"{url}/slow/1.2", timeout=10).status_code))
    busy = next(iter(service.tasks))
    waiter.start()
    eventually(lambda: any(task.in_flight for task in service.tasks))
    busy = next(task for task in service.tasks if task.in_flight)
    gone = next(task for task in service.tasks if task is not busy)
    gone.vanish()
    began = time.monotonic()
    counts = shares(session, f"{url}/", 20)
    assert gone.id not in counts
    assert time.monotonic() - began < 5  # not the read timeout of 10 s
    node = next(n for n in discovery_of(session).snapshot(f"orders:{service.port}").nodes if gone.address in n.endpoint)
    assert node.health == "down"
    waiter.join()
    assert slow == [200]


def test_a_post_to_a_vanished_task_goes_on_waiting(lab: Lab, wrap):
    service = lab.service("orders", tasks=1)
    session, url = wrap(), f"http://orders:{service.port}/"
    session.get(url, timeout=10)
    service.tasks[0].vanish()
    with pytest.raises(requests.ReadTimeout) as caught:
        session.post(url, data=b"x", timeout=(1, 0.6))
    assert isinstance(caught.value, DiscoveryError)


def test_a_new_connection_to_a_vanished_task_is_given_up_for_another(lab: Lab, wrap):
    service = lab.service("orders", tasks=2)
    service.tasks[0].vanish()
    session, url = wrap(timeout=TimeoutPolicy(connect=0.6)), f"http://orders:{service.port}/"
    assert len(shares(session, url, 4)) == 1


def test_errors_that_ask_to_try_again_are_retried_elsewhere_and_the_last_is_returned(lab: Lab, wrap):
    service = lab.service("orders", tasks=3)
    session, url = wrap(), f"http://orders:{service.port}/"
    service.tasks[0].errors(503)
    counts = shares(session, url, 60)
    assert service.tasks[0].id not in counts
    for task in service.tasks:
        task.errors(503)
    assert session.get(url, timeout=10).status_code == 503
    received = service.requests
    assert session.post(url, timeout=10).status_code == 503
    assert service.requests == received + 1


def test_retry_after_beyond_the_deadline_is_not_waited_for(lab: Lab, wrap):
    service = lab.service("orders", tasks=1)
    service.tasks[0].errors(503, retry_after=60)
    session, url = wrap(), f"http://orders:{service.port}/"
    assert session.get(url, timeout=10).status_code == 503
    assert service.requests == 1


def test_a_task_that_fails_fast_attracts_no_requests(lab: Lab, wrap):
    service = lab.service("orders", tasks=3)
    session, url = wrap(retry=RetryPolicy(attempts=1)), f"http://orders:{service.port}/"
    service.tasks[0].errors(500)
    codes = [session.get(url, timeout=10).status_code for _ in range(60)]
    assert codes.count(500) == 3  # then it costs too much to be chosen, before five in a row eject it


def test_a_task_that_answers_503_is_spared_and_that_is_told_once(lab: Lab, wrap):
    service = lab.service("orders", tasks=3)
    told = []
    session, url = wrap(retry=RetryPolicy(attempts=2), on_event=told.append), f"http://orders:{service.port}/"
    bad = service.tasks[0]
    bad.errors(503, retry_after=60)
    codes = [session.get(url, timeout=10).status_code for _ in range(60)]
    assert codes == [200] * 60  # it speaks for itself: the others need not be waited for
    (event,) = [event for event in told if isinstance(event, PushedBack)]
    assert (bad.address in str(event.endpoint), event.seconds) == (True, 60.0)
    nodes = discovery_of(session).snapshot(f"orders:{service.port}").nodes
    assert sum(node.spared_for > 50 for node in nodes) == 1


def test_an_ejected_task_gets_no_requests(lab: Lab, wrap):
    service = lab.service("orders", tasks=3)
    balancing = BalancingPolicy(picker="least_pending")
    session = wrap(retry=RetryPolicy(attempts=1), balancing=balancing)
    url = f"http://orders:{service.port}/"
    bad = service.tasks[0]
    bad.errors(500)
    codes = [session.get(url, timeout=10).status_code for _ in range(60)]
    assert codes.count(500) == 5
    node = next(n for n in discovery_of(session).snapshot(f"orders:{service.port}").nodes if bad.address in n.endpoint)
    assert node.health == "ejected"
    assert "5 failures in a row" in node.reason


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


def test_connects_that_time_out_are_requests_connect_timeouts(lab: Lab, wrap):
    service = lab.service("orders", tasks=2)
    for task in service.tasks:
        task.vanish()
    session = wrap()
    with pytest.raises(requests.ConnectTimeout) as caught:
        session.get(f"http://orders:{service.port}/", timeout=(0.3, 5))
    assert isinstance(caught.value, ConnectTimeout)


def test_a_read_timeout_is_requests_own_and_not_repeated(lab: Lab, wrap):
    service = lab.service("orders", tasks=2)
    session = wrap()
    with pytest.raises(requests.ReadTimeout) as caught:
        session.get(f"http://orders:{service.port}/slow/5", timeout=(2, 0.2))
    assert isinstance(caught.value, RequestError)
    assert service.requests == 1


def test_the_wait_for_an_acknowledgement_is_part_of_the_read_timeout(lab: Lab, wrap, monkeypatch: pytest.MonkeyPatch):
    service = lab.service("orders", tasks=1)
    seen = []
    real = HTTPConnection.getresponse

    def getresponse(conn):
        seen.append(conn.timeout)
        return real(conn)

    monkeypatch.setattr(HTTPConnection, "getresponse", getresponse)
    session, url = wrap(), f"http://orders:{service.port}"
    assert session.get(f"{url}/", timeout=(5, 30)).status_code == 200
    assert session.get(f"{url}/slow/0.4", timeout=(5, 30)).status_code == 200
    assert session.get(f"{url}/", timeout=(5, 30)).status_code == 200
    assert (seen[0], seen[2]) == (30, 30)
    assert 20 < seen[1] < 29.9


def test_a_deadline_that_has_passed_is_a_timeout(lab: Lab, wrap):
    service = lab.service("orders", tasks=1)
    session, url = wrap(), f"http://orders:{service.port}/"
    service.tasks[0].errors(503)
    with options(deadline=0.000001), pytest.raises(requests.Timeout) as cold:
        session.get(url, timeout=10)
    assert isinstance(cold.value, (ResolutionTimeout, DeadlineExceeded))  # as soon as it was resolved, or before
    session.get(url, timeout=10)
    with options(deadline=0.000001), pytest.raises(requests.Timeout) as caught:
        session.get(url, timeout=10)
    assert isinstance(caught.value, DeadlineExceeded)


def test_an_unknown_service_is_a_connection_error_that_names_it(lab: Lab, wrap):
    with pytest.raises(requests.ConnectionError, match="nope") as caught:
        wrap().get("http://nope/", timeout=10)
    assert isinstance(caught.value, TargetNotFound)
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), TargetNotFound)


@pytest.mark.parametrize("fault", ["servfail", "silence", "garbage"])
def test_dns_trouble_after_the_first_answer_changes_nothing(lab: Lab, wrap, fault: str):
    service = lab.service("orders", tasks=2, ttl=1)
    session = wrap(cache=CachePolicy(min_ttl=0.05, max_ttl=1))
    url = f"http://orders:{service.port}/"
    shares(session, url, 2)
    lab.dns.fault = fault
    total = lab.dns.total
    eventually(lambda: session.get(url, timeout=10).ok and lab.dns.total > total)
    assert len(shares(session, url, 20)) == 2


def test_every_task_replaced_under_load_with_dns_behind_costs_no_request(lab: Lab, wrap):
    service = lab.service("orders", tasks=3, ttl=1, registration_lag=0.1, deregistration_lag=0.6)
    session = wrap(cache=CachePolicy(min_ttl=0.3))
    url = f"http://orders:{service.port}/"
    old = {task.id for task in service.tasks}
    shares(session, url, 6)
    deployment = service.deploy(interval=0.3, background=True)
    statuses: Counter[int] = Counter()
    while not deployment.done:
        statuses[session.get(url, timeout=10).status_code] += 1
    assert set(statuses) == {200}
    eventually(lambda: not (set(shares(session, url, 9)) & old))


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


# TLS


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


# Life of a session


def test_wrapping_twice_is_once_and_unwrapping_restores(lab: Lab):
    session = requests.Session()
    before = dict(session.adapters)
    wrap_session(session, namespace="prod.local")
    mounted = dict(session.adapters)
    assert wrap_session(session) is session
    assert dict(session.adapters) == mounted
    wrap_session(session, namespace="other.local")
    adapter = session.get_adapter("http://")
    assert isinstance(adapter, DiscoveryAdapter)
    assert adapter.settings.namespace == "other.local"
    assert adapter.original is before["http://"]
    unwrap_session(session)
    assert dict(session.adapters) == before
    assert unwrap_session(session) is session


def test_equal_settings_share_a_discovery_and_others_do_not():
    one = discovery_of(wrap_session(requests.Session(), namespace="shared.local"))
    assert discovery_of(wrap_session(requests.Session(), namespace="shared.local")) is one
    assert discovery_of(wrap_session(requests.Session(), namespace="else.local")) is not one
    one.close()
    assert discovery_of(wrap_session(requests.Session(), namespace="shared.local")) is not one


def test_default_discoveries_that_no_session_uses_any_more_are_let_go():
    kept = wrap_session(requests.Session(), namespace="kept.local")
    mine = discovery_of(kept)
    made = [
        weakref.ref(discovery_of(wrap_session(requests.Session(), namespace="shared.local", retry=Retrying())))
        for _ in range(100)
    ]
    gc.collect()
    assert sum(each() is not None for each in made) <= 32
    assert made[-1]() is not None  # for a session per call
    assert discovery_of(wrap_session(requests.Session(), namespace="kept.local")) is mine


def test_a_wrapped_session_works_after_close_and_never_closes_the_discovery(lab: Lab, wrap):
    service = lab.service("orders", tasks=1)
    session, url = wrap(), f"http://orders:{service.port}/"
    session.get(url, timeout=10)
    session.close()
    assert session.get(url, timeout=10).status_code == 200
    assert not discovery_of(session)._driver.engine.closed


def test_a_closed_discovery_is_told_through_requests(lab: Lab, wrap):
    service = lab.service("orders", tasks=1)
    session, url = wrap(), f"http://orders:{service.port}/"
    session.get(url, timeout=10)
    discovery_of(session).close()
    for _ in range(2):
        with pytest.raises(requests.ConnectionError, match="closed"):
            session.get(url, timeout=10)


@pytest.mark.parametrize("how", ["pickle", "deepcopy"])
def test_a_wrapped_session_pickles_and_copies_by_its_settings(lab: Lab, wrap, how: str):
    service = lab.service("orders", tasks=1)
    session, url = wrap(), f"http://orders:{service.port}/"
    session.headers["X-Mine"] = "1"
    session.get(url, timeout=10)
    twin = pickle.loads(pickle.dumps(session)) if how == "pickle" else copy.deepcopy(session)
    assert twin.headers["X-Mine"] == "1"
    assert twin.get(url, timeout=10).status_code == 200
    assert (discovery_of(twin) is discovery_of(session)) is (how == "deepcopy")
    twin.close()


def test_without_namespace_and_service_wrapping_says_what_to_set():
    with pytest.raises(ConfigurationError, match="ECS_DISCOVERY_NAMESPACE"):
        wrap_session(requests.Session())
    with pytest.raises(ConfigurationError, match="session"):
        wrap_session("session", namespace="prod.local")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="discovery"):
        wrap_session(requests.Session(), "discovery")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="not both"):
        wrap_session(requests.Session(), Discovery(), namespace="prod.local")


def test_the_environment_gives_the_namespace_the_redirect_and_the_off_switch(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    service = lab.service("orders", tasks=1)
    task = service.tasks[0]
    monkeypatch.setenv("ECS_DISCOVERY_NAMESPACE", "prod.local")
    monkeypatch.setenv("ECS_DISCOVERY_SERVICES", f"orders=static://{task.address}:{task.port}")
    session = wrap_session(requests.Session())
    assert session.get("http://orders/", timeout=10).json()["host"] == "orders"
    assert session.get("http://orders.prod.local/", timeout=10).status_code == 200
    session.close()
    assert lab.dns.total == 0
    monkeypatch.setenv("ECS_DISCOVERY_DISABLED", "1")
    session = requests.Session()
    before = dict(session.adapters)
    assert wrap_session(session).adapters == before
    monkeypatch.setenv("ECS_DISCOVERY_DISABLED", "perhaps")
    with pytest.raises(ConfigurationError, match="ECS_DISCOVERY_DISABLED"):
        wrap_session(requests.Session())


def test_what_the_application_set_on_its_own_adapter_holds_for_ours(lab: Lab):
    lab_service = lab.service("orders", tasks=1)
    session = requests.Session()
    session.mount("http://", HTTPAdapter(pool_block=True, max_retries=3))
    with Discovery(namespace="prod.local", nameservers=[lab.nameserver]) as discovery:
        wrap_session(session, discovery)
        assert session.get(f"http://orders:{lab_service.port}/", timeout=10).status_code == 200
        session.close()


def test_an_adapter_the_application_mounts_for_one_of_our_hosts_wins(lab: Lab, wrap):
    session = wrap()

    class Mine(HTTPAdapter):
        def send(self, request, **kwargs):
            raise requests.ConnectionError("mine")

    session.mount("http://orders", Mine())
    with pytest.raises(requests.ConnectionError, match="mine"):
        session.get("http://orders/", timeout=3)


def test_a_bad_timeout_is_told_as_requests_does(lab: Lab, wrap):
    with pytest.raises(ValueError, match="timeout"):
        wrap().get("http://orders/", timeout=(1, 2, 3))


def test_the_routes_a_session_remembers_are_bounded(lab: Lab, wrap):
    service = lab.service("orders", tasks=1)
    session = wrap()
    session.get_adapter("http://")._link.origins.limit = 3  # type: ignore[attr-defined]
    for name in ("orders", "ORDERS", "orders.prod.local", "Orders", "oRders", "orderS"):
        assert session.get(f"http://{name}:{service.port}/", timeout=10).status_code == 200
    assert len(session.get_adapter("http://")._link.origins._routes) <= 3  # type: ignore[attr-defined]


def test_a_short_unwanted_answer_is_read_so_that_its_connection_is_used_again(lab: Lab, wrap):
    service = lab.service("orders", tasks=1)
    session, url = wrap(), f"http://orders:{service.port}/"
    task = service.tasks[0]
    task.errors(503)
    session.get(url, timeout=10)
    task.heal()
    assert session.get(url, timeout=10).status_code == 200
    assert task.connections == 1
    assert task.requests == 4


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


def test_a_key_sends_requests_to_one_task(lab: Lab, wrap):
    service = lab.service("orders", tasks=4)
    session, url = wrap(), f"http://orders:{service.port}/"
    with options(key="customer-7"):
        assert len(shares(session, url, 12)) == 1


def test_a_task_that_comes_back_is_used_again(lab: Lab, wrap):
    service = lab.service("orders", tasks=2)
    clock = FakeClock()
    session, url = wrap(clock=clock), f"http://orders:{service.port}/"
    shares(session, url, 4)
    bad = service.tasks[0]
    bad.refuse(cut=True)
    assert len(shares(session, url, 10)) == 1
    bad.heal()
    clock.advance(1.5)
    eventually(lambda: bad.id in shares(session, url, 2))


def test_a_wrong_header_is_the_callers_fault_not_the_tasks(lab: Lab, wrap):
    service = lab.service("orders", tasks=1)
    session, target = wrap(), f"orders:{service.port}"
    session.get(f"http://{target}/", timeout=10)
    with pytest.raises(requests.exceptions.InvalidHeader):
        session.get(f"http://{target}/", headers={"X": "a\nb"}, timeout=10)
    node = discovery_of(session).snapshot(target).nodes[0]
    assert (node.pending, node.failures) == (0, 0)


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


def test_a_large_upload_to_a_slow_reader_is_bound_by_the_applications_timeout_only(lab: Lab, wrap):

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        body, seen = b"x" * 8_000_000, []

        def serve() -> None:
            conn, _ = server.accept()
            time.sleep(0.9)  # longer than one attempt may take to connect
            received = 0
            conn.settimeout(5)
            while received < len(body):
                received += len(conn.recv(1 << 20))
            conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            seen.append(received)
            conn.close()

        thread = threading.Thread(target=serve)
        thread.start()
        session = wrap(services={"upload": f"static://127.0.0.1:{server.getsockname()[1]}"})
        assert session.put("http://upload/", data=body).status_code == 200
        thread.join()
        assert seen[0] >= len(body)


def test_a_body_cut_short_is_repeated_elsewhere_and_counts_against_the_task(lab: Lab, wrap):
    service = lab.service("orders", tasks=2)
    session, target = wrap(), f"orders:{service.port}"
    shares(session, f"http://{target}/", 2)
    bad = service.tasks[0]
    bad.reset(after_bytes=200)
    for _ in range(12):
        assert len(session.get(f"http://{target}/bytes/50000", timeout=10).content) == 50_000
    node = next(n for n in discovery_of(session).snapshot(target).nodes if bad.address in n.endpoint)
    assert node.failures >= 5
    assert node.health == "ejected"


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


def test_a_host_that_is_no_name_is_an_invalid_url(lab: Lab, wrap):
    for url in ("http://orders-/", "http://or,ders/"):
        with pytest.raises(requests.exceptions.InvalidURL) as caught:
            wrap().get(url, timeout=3)
        assert isinstance(caught.value, ConfigurationError)
        assert isinstance(pickle.loads(pickle.dumps(caught.value)), requests.exceptions.InvalidURL)


def test_a_urllib3_timeout_and_a_url_without_a_path_work_as_with_plain_requests(lab: Lab, wrap):
    from urllib3.util import Timeout

    service = lab.service("orders", tasks=1, records="A+SRV")
    session = wrap()
    assert session.get("http://orders/", timeout=Timeout(total=5)).status_code == 200
    prepared = session.prepare_request(requests.Request("GET", "http://orders/"))
    prepared.url = "http://orders"
    assert session.send(prepared, timeout=5).status_code == 200
    assert service.requests == 2


def test_retry_after_longer_than_the_read_timeout_is_not_waited_for(lab: Lab, wrap):
    service = lab.service("orders", tasks=2)
    for task in service.tasks:
        task.errors(503, retry_after=3)
    session = wrap()
    assert session.get(f"http://orders:{service.port}/", timeout=1).status_code == 503
    assert [task.requests for task in service.tasks] == [1, 1]
    for task in service.tasks:
        task.errors(429, retry_after=3)
    assert session.get(f"http://orders:{service.port}/", timeout=1).status_code == 429
    assert service.requests == 4


def test_an_unwanted_answer_whose_body_never_comes_does_not_hold_up_the_next_attempt():
    stalled = b"HTTP/1.1 503 No\r\nContent-Length: 10\r\n\r\n"
    good = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
    with raw(stalled) as (first, _), raw(stalled) as (second, _), raw(good) as (third, _):
        discovery = Discovery(services={"orders": f"static://{first},{second},{third}"})
        session = wrap_session(requests.Session(), discovery)
        for _ in range(3):  # whoever is chosen first
            assert session.get("http://orders/", stream=True, timeout=20).text == "ok"
        session.close()
        discovery.close()


def test_an_answer_that_cannot_be_understood_counts_against_its_task_and_is_told_with_its_target():
    doubled = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok"
    with raw(doubled) as (address, _), Discovery(services={"orders": f"static://{address}"}) as discovery:
        session = wrap_session(requests.Session(), discovery)
        with pytest.raises(DiscoveryError, match="orders") as caught:
            session.get("http://orders/", timeout=10)
        assert caught.value.endpoints == (address,)
        assert discovery.snapshot("orders").nodes[0].failures == 1
        session.close()


HEADS = {
    "status": b"HTTP/1.1 " + b"\x1b[2J" * 15_000 + b"\r\n\r\n",
    "line": b"\x1b]0;owned\x07" * 5000 + b"\r\n\r\n",
    "fields": b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 9000,
}


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


def test_connecting_does_not_count_as_the_tasks_latency(lab: Lab, wrap, monkeypatch):
    service = lab.service("orders", tasks=1)
    session, url = wrap(), f"http://orders:{service.port}/"
    connect = racing.connect

    def slowly(*args):
        time.sleep(0.3)  # a handshake that the machine was late with
        return connect(*args)

    monkeypatch.setattr(racing, "connect", slowly)
    for _ in range(3):
        session.get(url, timeout=10, headers={"Connection": "close"})
    (node,) = discovery_of(session).snapshot(f"orders:{service.port}").nodes
    assert node.latency < 0.3


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
