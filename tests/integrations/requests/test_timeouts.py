"""Time limits: the application's own, and deadlines."""

from __future__ import annotations

import socket
import threading
import time

import pytest
import requests
from urllib3.connection import HTTPConnection

from ecs_discovery import (
    ConnectTimeout,
    DeadlineExceeded,
    RequestError,
    ResolutionTimeout,
    options,
)
from ecs_discovery.client.sync import race as racing
from ecs_discovery.testing.lab import Lab
from tests.integrations.requests.support import discovery_of


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


def test_a_bad_timeout_is_told_as_requests_does(lab: Lab, wrap):
    with pytest.raises(ValueError, match="timeout"):
        wrap().get("http://orders/", timeout=(1, 2, 3))


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


def test_a_urllib3_timeout_and_a_url_without_a_path_work_as_with_plain_requests(lab: Lab, wrap):
    from urllib3.util import Timeout

    service = lab.service("orders", tasks=1, records="A+SRV")
    session = wrap()
    assert session.get("http://orders/", timeout=Timeout(total=5)).status_code == 200
    prepared = session.prepare_request(requests.Request("GET", "http://orders/"))
    prepared.url = "http://orders"
    assert session.send(prepared, timeout=5).status_code == 200
    assert service.requests == 2


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
