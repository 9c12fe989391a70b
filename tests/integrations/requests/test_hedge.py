"""Wrapped requests that are hedged: real sockets, in the lab."""

from __future__ import annotations

import io
import os
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
import trustme

from ecs_discovery import (
    BalancingPolicy,
    Discovery,
    HedgePolicy,
    OutlierPolicy,
    RequestError,
    RetryPolicy,
    options,
    wrap_session,
)
from ecs_discovery.integrations._requests_exchange import RequestsExchange
from ecs_discovery.testing.lab import Lab
from tests.support import eventually

HEDGE = HedgePolicy(enabled=True)
DELAY = 0.05


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(namespace="prod.local", seed=5) as lab:
        yield lab


@pytest.fixture
def wrap(lab: Lab) -> Iterator[Callable[..., requests.Session]]:
    made: list[Any] = []

    def make(**settings: Any) -> requests.Session:
        settings = {"hedge": HEDGE, "balancing": BalancingPolicy(picker="round_robin")} | settings
        discovery = Discovery(namespace="prod.local", nameservers=[lab.nameserver], **settings)
        session = wrap_session(requests.Session(), discovery)
        made.extend([session, discovery])
        return session

    yield make
    for each in made:
        each.close()


def service_of(session: requests.Session, url: str) -> Any:
    """The service behind a URL: it has seen many requests of a twentieth of a second, and may hedge."""
    adapter: Any = session.get_adapter(url)
    service = adapter._link.origins.route(url).service
    for _ in range(100):
        service.hedging.delay(1000)
    for _ in range(200):
        service.hedging.learn(DELAY)
    return service


def quiet(service: Any) -> bool:
    return all(node.pending == 0 for node in service.nodes)


def latencies(session: requests.Session, url: str, count: int) -> list[float]:
    found = []
    for _ in range(count):
        began = time.perf_counter()
        assert session.get(url, timeout=10).status_code == 200
        found.append(time.perf_counter() - began)
    return sorted(found)


def test_one_in_ten_tasks_that_pauses_at_times_is_not_felt(lab: Lab, wrap):
    """A task pauses for 0.3 s in three of ten requests, 3 % of all: of 500 that is 15, and the 99th percentile hides
    five (fewer than six happen once in a thousand runs). With hedges a few are left, those that came while the
    allowance was used up."""
    service = lab.service("orders", tasks=10)
    session = wrap(hedge=HedgePolicy(enabled=True, percentile=0.96))
    latencies(session, service.url(), 200)
    service.tasks[0].slow(0.3, probability=0.3)
    before = service.requests
    found = latencies(session, service.url(), 500)
    assert found[494] < 0.25
    extra = service.requests - before - 500
    assert 0 < extra <= 0.05 * 500 + 10  # what was saved up before comes on top
    plain = wrap(hedge=HedgePolicy())
    assert latencies(plain, service.url(), 500)[494] > 0.3


@pytest.mark.parametrize("stream", [False, True])
def test_a_slow_request_is_answered_by_another_task(lab: Lab, wrap, stream: bool):
    service = lab.service("orders", tasks=2)
    session = wrap()
    inner = service_of(session, service.url())
    service.tasks[0].hang()
    for _ in range(4):
        with session.get(service.url(), timeout=10, stream=stream) as response:
            assert response.headers["X-Task"] == service.tasks[1].id
            assert response.json()
    eventually(lambda: quiet(inner))
    hung = next(node for node in inner.nodes if node.endpoint.host == service.tasks[0].address)
    assert (hung.failures, hung.successes) == (0, 0)


def test_the_response_tells_of_the_one_that_was_overtaken(lab: Lab, wrap):
    service = lab.service("orders", tasks=2)
    session = wrap()
    service_of(session, service.url())
    service.tasks[0].hang()
    trails = [session.get(service.url(), timeout=10).ecs_discovery for _ in range(2)]
    hedged = next(trail for trail in trails if len(trail.attempts) == 2)
    assert [attempt.outcome for attempt in hedged.attempts] == ["overtaken", "ok"]


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_the_losers_connection_is_closed_and_its_thread_ends_at_once(lab: Lab, wrap, secure: bool, tmp_path):
    settings: dict[str, Any] = {}
    if secure:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        settings["ssl_context"] = lab_context(authority)
    service = lab.service("orders", tasks=2, **settings)
    session = wrap()
    url = service.url(scheme="https" if secure else "http")
    inner = service_of(session, url)
    service.tasks[0].hang()
    for _ in range(10):  # the other may win before the loser has sent anything
        session.get(url, verify=str(tmp_path / "ca.pem"))  # without a timeout: the loser would wait for ever
        if service.tasks[0].requests:
            break
    assert service.tasks[0].requests >= 1
    eventually(lambda: quiet(inner), within=2)
    eventually(lambda: service.tasks[0].open_connections == 0, within=2)
    assert service.tasks[1].open_connections >= 1


def lab_context(authority: trustme.CA) -> Any:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("orders.prod.local").configure_cert(context)
    return context


def test_a_loser_that_was_done_just_in_time_leaves_its_connection_to_others(lab: Lab, wrap):
    """Both answer at about the same time, over and over: no request fails by a connection cut under it."""
    service = lab.service("orders", tasks=3)
    session = wrap(hedge=HedgePolicy(enabled=True, percentile=0.5, max_extra=1.0), retry=RetryPolicy(attempts=2))
    inner = service_of(session, service.url())
    for task in service.tasks:
        task.slow(0.004, probability=0.5)
    errors: list[Exception] = []

    def work() -> None:
        try:
            for _ in range(100):
                inner.hedging.learn(0.003)
                for _ in range(3):
                    inner.budget.deposit()
                response = session.get(service.url(), timeout=10)
                assert response.status_code == 200
                assert {report.outcome for report in response.ecs_discovery.attempts} <= {"ok", "overtaken"}
        except Exception as error:  # noqa: BLE001  # handed to the test
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors[0]
    assert service.requests > 440
    eventually(lambda: quiet(inner))


def test_a_connection_that_is_back_in_its_pool_is_not_cut(lab: Lab, wrap, monkeypatch: pytest.MonkeyPatch):
    """The loser has read its answer, and its thread has yet to say so."""
    service = lab.service("orders", tasks=2)
    session = wrap()
    inner = service_of(session, service.url())
    perform = RequestsExchange.send

    def tardy(exchange: RequestsExchange, use: Any) -> Any:
        response = perform(exchange, use)
        if exchange.call.number == 1:
            time.sleep(4 * DELAY)
        return response

    with monkeypatch.context() as patch:
        patch.setattr(RequestsExchange, "send", tardy)
        session.get(service.url(), timeout=10)
        eventually(lambda: quiet(inner))
    assert service.requests == 2
    latencies(session, service.url(), 6)
    assert [task.connections for task in service.tasks] == [1, 1]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_what_changes_something_is_never_hedged_unless_the_application_says_so(lab: Lab, wrap, method: str):
    service = lab.service("orders", tasks=2)
    session = wrap()
    service_of(session, service.url())
    for task in service.tasks:
        task.slow(3 * DELAY)
    session.request(method, service.url(), data=b"x", timeout=10)
    session.request(method, service.url(), data=b"x", headers={"Idempotency-Key": "1"}, timeout=10)
    assert service.requests == 2
    with options(idempotent=True):
        session.request(method, service.url(), data=b"x", timeout=10)
    assert service.requests == 4
    with options(idempotent=False):
        session.get(service.url(), timeout=10)
    assert service.requests == 5


def test_a_body_that_is_read_from_a_file_is_not_hedged(lab: Lab, wrap):
    service = lab.service("orders", tasks=2)
    session = wrap()
    service_of(session, service.url())
    for task in service.tasks:
        task.slow(3 * DELAY)
    with options(idempotent=True):
        session.post(service.url(), data=io.BytesIO(b"x"), timeout=10)
    assert service.requests == 1


def test_an_error_status_waits_for_the_other_answer(lab: Lab, wrap):
    """The first attempt is slow, and its hedge answers 503 at once."""
    service = lab.service("orders", tasks=2)
    session = wrap(retry=RetryPolicy(attempts=2), balancing=BalancingPolicy(picker="round_robin", pushback=0))
    inner = service_of(session, service.url())
    session.get(service.url(), timeout=10)
    (first,) = [task for task in service.tasks if task.requests == 0]  # it is that one's turn
    (second,) = [task for task in service.tasks if task is not first]
    first.slow(4 * DELAY)
    second.errors(503)
    response = session.get(service.url(), timeout=10)
    assert (response.status_code, response.headers["X-Task"]) == (200, first.id)
    assert [attempt.outcome for attempt in response.ecs_discovery.attempts] == ["status 503", "ok"]
    assert service.requests == 3
    eventually(lambda: quiet(inner))
    assert next(node for node in inner.nodes if node.endpoint.host == second.address).failures == 1


def test_where_both_fail_the_error_names_both(lab: Lab, wrap):
    service = lab.service("orders", tasks=2)
    session = wrap(retry=RetryPolicy(attempts=2), outlier=OutlierPolicy(consecutive_failures=1000))
    inner = service_of(session, service.url())
    for task in service.tasks:
        task.hang()
    failed: list[RequestError] = []

    def get() -> None:
        try:
            session.get(service.url(), timeout=10)
        except RequestError as error:
            failed.append(error)

    thread = threading.Thread(target=get)
    thread.start()
    eventually(lambda: service.requests == 2)
    for task in service.tasks:
        task.refuse(cut=True)
    thread.join()
    (error,) = failed
    assert {attempt.endpoint for attempt in error.attempts} == {f"{t.address}:{t.port}" for t in service.tasks}
    assert isinstance(error, requests.ConnectionError)
    eventually(lambda: quiet(inner))


def test_hundreds_of_hedged_requests_leak_no_file_and_no_thread(lab: Lab, wrap):
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("no /proc here")
    service = lab.service("orders", tasks=3)
    session = wrap(hedge=HedgePolicy(enabled=True, max_extra=1.0), retry=RetryPolicy(budget_floor=1000))
    inner = service_of(session, service.url())
    for _ in range(10):
        session.get(service.url())
    before = len(os.listdir("/proc/self/fd"))
    service.tasks[0].hang()
    for number in range(100):
        response = session.get(service.url(), stream=number % 2 == 0)
        assert response.content
        inner.hedging.learn(0.01)
        for _ in range(20):
            inner.hedging.learn(0.01)
    assert service.requests > 120
    eventually(lambda: quiet(inner))
    session.close()
    # The lab's ends of the connections are files of this process too.
    eventually(lambda: len(os.listdir("/proc/self/fd")) <= before)
    session.get_adapter("http://").discovery.close()  # type: ignore[attr-defined]
    eventually(lambda: not [thread for thread in threading.enumerate() if thread.name == "ecs_discovery"])


def test_without_hedging_no_thread_is_used(lab: Lab, wrap):
    service = lab.service("orders", tasks=2)
    session = wrap(hedge=None)
    session.get(service.url(), timeout=10)
    assert session.get_adapter("http://").discovery._driver.background.attempts._threads == set()  # type: ignore[attr-defined]
