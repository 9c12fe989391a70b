"""A healthy task is a plain HTTP/1.1 server that says who answered and what was asked."""

from __future__ import annotations

import http.client
import json
import re
import socket

import pytest

from ecs_discovery.testing.lab import LabTask
from tests.lab.wire import dial, eventually, get, said, send


def test_an_answer_names_the_task_and_what_was_asked(task):
    response, body = get(task, "/v1/42?x=1", method="POST", body=b"12345", headers={"Host": "orders.prod.local"})
    facts = json.loads(body)

    assert response.status == 200
    assert response.headers["X-Task"] == facts["task"] == task.id
    assert re.fullmatch("[0-9a-f]{32}", task.id)
    assert facts["path"] == "/v1/42?x=1"
    assert facts["method"] == "POST"
    assert facts["host"] == "orders.prod.local"
    assert facts["body_length"] == 5
    assert (facts["address"], facts["port"]) == (task.address, task.port)


@pytest.mark.parametrize("status", [200, 204, 302, 304, 404, 503])
def test_a_status_can_be_asked_for(task, status):
    response, _ = get(task, f"/status/{status}")
    assert response.status == status


@pytest.mark.parametrize("path", ["/status/99", "/status/x", "/bytes/-1", "/slow/soon", "/redirect", "/stream"])
def test_a_path_that_makes_no_sense_gets_a_400(task, path):
    assert get(task, path)[0].status == 400


def test_a_redirect_leads_where_it_was_told(task):
    response, _ = get(task, "/redirect?to=http%3A%2F%2Fusers.prod.local%3A8080%2Fa%3Fb&status=307")
    assert response.status == 307
    assert response.headers["Location"] == "http://users.prod.local:8080/a?b"


def test_a_cookie_is_set(task):
    assert get(task, "/cookie/session/abc")[0].headers["Set-Cookie"] == "session=abc; Path=/"


def test_a_stream_is_chunked(task):
    response, body = get(task, "/stream/4")
    assert response.headers["Transfer-Encoding"] == "chunked"
    assert len(body) == 4 * 1024


@pytest.mark.parametrize("size", [0, 1, 65536, 1_000_001])
def test_bytes_come_with_their_length(task, size):
    response, body = get(task, f"/bytes/{size}")
    assert response.headers["Content-Length"] == str(size)
    assert len(body) == size


def test_a_head_request_gets_the_head_only(task):
    response, body = get(task, "/bytes/1000", method="HEAD")
    assert response.headers["Content-Length"] == "1000"
    assert body == b""


def test_a_body_is_echoed_whether_it_has_a_length_or_is_chunked(task):
    assert get(task, "/echo", method="PUT", body=b"x" * 100_000)[1] == b"x" * 100_000
    assert get(task, "/echo", method="PUT", body=iter([b"ab", b"cd"]), encode_chunked=True)[1] == b"abcd"


def test_a_client_that_expects_100_continue_gets_it(task):
    with dial(task) as sock:
        sock.sendall(b"PUT /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 100 ")
        sock.sendall(b"ok")
        assert sock.recv(1000).endswith(b"ok")


def test_a_connection_serves_many_requests_pipelined_or_not(task):
    connection = http.client.HTTPConnection(task.address, task.port, timeout=2)
    for _ in range(3):
        connection.request("GET", "/")
        connection.getresponse().read()
    connection.close()
    with dial(task) as sock:
        send(sock, "/slow/0.01")
        send(sock, "/status/404")
        received = b""
        while b" 404 " not in received:
            received += sock.recv(4096)

    assert received.index(b" 200 ") < received.index(b" 404 ")
    assert (task.requests, task.connections) == (5, 2)


def test_what_is_no_http_gets_a_400_and_a_closed_connection(task):
    with dial(task) as sock:
        sock.sendall(b"\x16\x03\x01 no http\r\n\r\n")
        assert sock.recv(1000).startswith(b"HTTP/1.1 400 ")
        assert sock.recv(1000) == b""


def test_requests_and_connections_are_counted_while_they_last(task):
    with dial(task) as sock:
        send(sock, "/slow/0.3")
        eventually(lambda: (task.in_flight, task.requests, task.open_connections) == (1, 1, 1))
        sock.recv(4096)
        eventually(lambda: task.in_flight == 0)
    eventually(lambda: task.open_connections == 0)


def test_a_client_that_leaves_takes_its_request_with_it(task):
    with dial(task) as sock:
        send(sock, "/slow/30")
        eventually(lambda: task.in_flight == 1)
    eventually(lambda: task.in_flight == 0)


def test_all_tasks_of_a_service_share_a_port_and_have_their_own_addresses(lab):
    tasks: tuple[LabTask, ...] = lab.service("users", tasks=3).tasks
    assert len({task.port for task in tasks}) == 1
    assert len({task.address for task in tasks}) == 3
    assert {said(task)["task"] for task in tasks} == {task.id for task in tasks}


def test_dynamic_ports_differ_from_task_to_task(lab):
    service = lab.service("users", tasks=3, records="SRV", dynamic_ports=True)
    assert len({task.port for task in service.tasks}) == 3
    assert service.port is None


def test_connections_to_two_tasks_on_one_fixed_port_do_not_meet(lab):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    service = lab.service("users", tasks=2, port=port)
    assert {task.port for task in service.tasks} == {port}
    assert service.url("/a") == f"http://users.prod.local:{port}/a"
