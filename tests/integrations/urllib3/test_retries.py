"""`retries=`, the errors, and bodies that are sent again."""

from __future__ import annotations

import io
import json
import pickle
from typing import Any
from urllib.parse import quote

import pytest
import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    MaxRetryError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
)

from ecs_discovery import ConnectError, DeadlineExceeded, DiscoveryError, RequestError, options
from ecs_discovery.testing.lab import Lab
from tests.support import eventually

Make = Any

ONCE = [False, 0, urllib3.Retry(0), urllib3.Retry(False), urllib3.Retry(read=0), urllib3.Retry(read=False)]
AGAIN = [None, 3, 1, urllib3.Retry(3), urllib3.Retry(None), urllib3.Retry(5, connect=0)]


@pytest.mark.parametrize("retries", AGAIN, ids=str)
def test_the_policy_of_the_discovery_retries_whatever_number_is_given(lab: Lab, manager_of: Make, retries: Any):
    service = lab.service("orders", tasks=2)
    service.tasks[0].reset()
    for where in ({"retries": retries}, {}):
        manager = manager_of(**({} if where else {"retries": retries}))
        for _ in range(4):
            assert manager.request("GET", service.url(), **where).status == 200


@pytest.mark.parametrize("retries", ONCE, ids=str)
def test_a_request_that_may_not_be_retried_is_sent_once(lab: Lab, manager_of: Make, retries: Any):
    service = lab.service("orders", tasks=2)
    for task in service.tasks:
        task.reset()
    for number, manager in enumerate((manager_of(), manager_of(retries=retries)), 1):
        where = {"retries": retries} if number == 1 else {}
        with pytest.raises(ProtocolError, match="lets it be sent once") as caught, options(idempotent=True):
            manager.request("GET", service.url(), **where)
        assert isinstance(caught.value, RequestError)
        assert service.requests == number
    for task in service.tasks:
        task.errors(503)
    assert manager_of().request("GET", service.url(), retries=retries).status == 503
    assert service.requests == 3


def test_a_request_that_may_not_be_retried_passes_over_a_task_that_it_cannot_be_sent_to(lab: Lab, manager_of: Make):
    service = lab.service("orders", tasks=2)
    service.tasks[0].refuse()
    manager = manager_of(retries=False)
    for _ in range(4):
        assert manager.request("POST", service.url(), body=b"x").status == 200


def test_without_retries_the_error_is_the_raw_one_and_else_it_is_both(lab: Lab, manager_of: Make):
    service = lab.service("orders", tasks=2)
    for task in service.tasks:
        task.refuse()
    manager = manager_of()
    with pytest.raises(NewConnectionError) as raw:
        manager.request("GET", service.url(), retries=False)
    assert not isinstance(raw.value, MaxRetryError)
    assert isinstance(raw.value, ConnectError)
    for retries in (None, 0, 3):
        with pytest.raises(MaxRetryError) as both:
            manager.request("GET", service.url("/v1"), retries=retries)
        error = both.value
        assert isinstance(error, NewConnectionError)
        assert isinstance(error, ConnectError)
        assert isinstance(error.reason, NewConnectionError)
        assert (error.url, error.pool) == ("/v1", manager.connection_from_url(service.url()))
        assert {each.endpoint.split(":")[0] for each in error.attempts} == {task.address for task in service.tasks}


def test_an_error_arrives_by_pickle_as_what_it_is(lab: Lab, manager_of: Make):
    service = lab.service("orders", tasks=1)
    service.tasks[0].hang()
    with pytest.raises(ReadTimeoutError) as caught:
        manager_of().request("GET", service.url(), timeout=0.2)
    twin = pickle.loads(pickle.dumps(caught.value))
    assert type(twin) is type(caught.value)
    assert isinstance(twin, MaxRetryError)
    assert isinstance(twin.reason, ReadTimeoutError)
    assert str(caught.value) in str(twin)


def test_a_deadline_is_a_read_timeout(lab: Lab, manager_of: Make):
    service = lab.service("orders", tasks=1)
    with pytest.raises(ReadTimeoutError) as caught, options(deadline=0.3):
        manager_of().request("GET", service.url("/slow/5"))
    assert isinstance(caught.value, DeadlineExceeded)
    assert isinstance(caught.value, MaxRetryError)
    assert isinstance(caught.value.reason, ReadTimeoutError)


def test_redirects_are_counted_as_given(lab: Lab, manager_of: Make):
    service = lab.service("orders", tasks=2)
    manager = manager_of()

    def hops(count: int) -> str:
        path = "/there"
        for _ in range(count):
            path = _hop(path)
        return service.url(path)

    assert manager.request("GET", hops(3)).status == 200
    with pytest.raises(MaxRetryError, match="too many redirects"):
        manager.request("GET", hops(4))
    assert manager.request("GET", hops(4), retries=4).status == 200
    assert manager.request("GET", hops(6), retries=urllib3.Retry(redirect=6)).status == 200
    with pytest.raises(MaxRetryError, match="too many redirects"):
        manager.request("GET", hops(1), retries=0)
    with pytest.raises(MaxRetryError, match="too many redirects"):
        manager.request("GET", hops(2), retries=urllib3.Retry(5, redirect=1))
    assert manager.request("GET", hops(2), retries=urllib3.Retry(5, redirect=1, raise_on_redirect=False)).status == 302
    assert manager.request("GET", hops(1), retries=False).status == 302
    assert manager.request("GET", hops(1), redirect=False).status == 302


def _hop(path: str) -> str:
    return f"/redirect?to={quote(path, safe='')}"


def test_the_last_request_of_a_row_of_redirects_is_still_retried(lab: Lab, manager_of: Make):
    service = lab.service("orders", tasks=2)
    for task in service.tasks:
        task.errors(503, path="/there")
    found = manager_of().request("GET", service.url(_hop(_hop(_hop("/there")))))  # they use up the default of 3
    assert (found.status, len(found.ecs_discovery.attempts)) == (503, 3)


def test_what_was_given_as_retries_is_on_the_response(lab: Lab, manager_of: Make):
    service = lab.service("orders", tasks=1)
    mine = urllib3.Retry(7)
    manager = manager_of()
    assert manager.request("GET", service.url(), retries=mine).retries is mine
    assert manager.request("GET", service.url()).retries.total == 3


def test_a_file_is_sent_again_from_where_it_stood(lab: Lab, manager_of: Make):
    service = lab.service("orders", tasks=2)
    service.tasks[0].reset()
    manager = manager_of()
    for _ in range(4):
        body = io.BytesIO(b"not this, but this")
        body.seek(10)
        found = manager.request("PUT", service.url("/echo"), body=body)
        assert found.data == b"but this"


@pytest.mark.parametrize(
    "body", [b"bytes", "text", bytearray(b"array"), memoryview(b"view"), [b"a", b"list"]], ids=type
)
def test_a_body_in_memory_is_sent_again(lab: Lab, manager_of: Make, body: Any):
    service = lab.service("orders", tasks=2)
    service.tasks[0].reset()
    manager = manager_of()
    sent = body.encode() if isinstance(body, str) else b"".join(body) if isinstance(body, list) else bytes(body)
    for _ in range(4):
        assert manager.request("PUT", service.url("/echo"), body=body).data == sent


def test_a_file_that_cannot_tell_where_it_stands_is_not_sent_again(lab: Lab, manager_of: Make):
    class Pipe(io.BytesIO):
        def tell(self) -> int:
            raise OSError("a pipe")

        def seek(self, *where: int) -> int:
            raise OSError("a pipe")

    service = lab.service("orders", tasks=1)
    assert manager_of().request("PUT", service.url("/echo"), body=Pipe(b"once")).data == b"once"
    service.tasks[0].reset()
    with pytest.raises(HTTPError, match="its body cannot be sent again"):
        manager_of().request("PUT", service.url(), body=Pipe(b"once"))


def test_a_body_in_chunks_arrives(lab: Lab, manager_of: Make):
    service = lab.service("orders", tasks=2)
    manager = manager_of()
    assert manager.request("POST", service.url("/echo"), body=iter([b"a", b"bc"]), chunked=True).data == b"abc"
    seen = json.loads(manager.request("POST", service.url(), body=b"abc", chunked=True).data)
    assert seen["headers"]["transfer-encoding"] == "chunked"


def test_the_answer_tells_its_attempts(lab: Lab, manager_of: Make):
    service = lab.service("orders", tasks=2)
    service.tasks[0].reset()
    manager = manager_of()
    found = [manager.request("GET", service.url()).ecs_discovery for _ in range(4)]
    assert {len(each.attempts) for each in found} == {1, 2}
    assert {each.endpoint.host for each in found} == {service.tasks[1].address}


def test_a_stream_ends_its_use_when_it_is_read_or_let_go(lab: Lab, manager_of: Make):
    service = lab.service("orders", tasks=1)
    manager = manager_of()

    def pending() -> int:
        (node,) = manager.discovery.snapshot(f"orders.prod.local:{service.port}").nodes
        return node.pending

    with manager.request("GET", service.url("/stream/100"), preload_content=False) as found:
        assert pending() == 1
        assert sum(len(piece) for piece in found.stream()) == 100 * 1024
        assert pending() == 0
    found = manager.request("GET", service.url("/stream/3"), preload_content=False)
    found.drain_conn()
    assert pending() == 0
    found = manager.request("GET", service.url("/stream/2000"), preload_content=False)
    found.close()
    found.release_conn()
    eventually(lambda: pending() == 0)


def test_a_stream_that_is_cut_is_an_error_of_urllib3(lab: Lab, manager_of: Make):
    service = lab.service("orders", tasks=1)
    service.tasks[0].reset(after_bytes=200)
    found = manager_of().request("GET", service.url("/bytes/400"), preload_content=False)
    with pytest.raises(ProtocolError) as caught:
        found.read()
    assert not isinstance(caught.value, DiscoveryError)


def test_a_full_pool_that_blocks_is_waited_for_as_long_as_is_said(lab: Lab, manager_of: Make):
    service = lab.service("orders", tasks=1)
    manager = manager_of(maxsize=1, block=True)
    held = manager.request("GET", service.url("/stream/2000"), preload_content=False)
    with pytest.raises(urllib3.exceptions.EmptyPoolError) as caught:
        manager.request("GET", service.url(), pool_timeout=0.1)
    assert isinstance(caught.value, DiscoveryError)
    held.close()
    held.release_conn()
    assert manager.request("GET", service.url(), pool_timeout=2).status == 200


@pytest.mark.parametrize(
    ("timeout", "kind"),
    [
        (0.3, ReadTimeoutError),
        (urllib3.Timeout(total=0.3), ReadTimeoutError),
        (urllib3.Timeout(read=0.3), ReadTimeoutError),
    ],
)
def test_a_timeout_in_any_form_bounds_the_wait_for_an_answer(lab: Lab, manager_of: Make, timeout: Any, kind: Any):
    service = lab.service("orders", tasks=1)
    with pytest.raises(ReadTimeoutError):
        manager_of().request("GET", service.url("/slow/5"), timeout=timeout)
    with pytest.raises(ReadTimeoutError):
        manager_of(timeout=timeout).request("GET", service.url("/slow/5"))


def test_a_connect_timeout_is_both(lab: Lab, manager_of: Make):
    service = lab.service("orders", tasks=1)
    service.tasks[0].vanish()
    with pytest.raises(ConnectTimeoutError) as caught:
        manager_of(timeout=urllib3.Timeout(connect=0.3)).request("GET", service.url())
    assert isinstance(caught.value, MaxRetryError)
    assert isinstance(caught.value.reason, ConnectTimeoutError)
