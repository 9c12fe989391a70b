"""The task metadata endpoint: optional, asked once, never trusted."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from ecs_discovery.runtime.task_metadata import TaskMetadata, parse, task_metadata

FARGATE = {
    "Cluster": "arn:aws:ecs:eu-west-1:111122223333:cluster/blue",
    "TaskARN": "arn:aws:ecs:eu-west-1:111122223333:task/blue/e9028f8d5d8e4f258373e7b93ce9a3c3",
    "Family": "orders",
    "ServiceName": "orders-service",
    "AvailabilityZone": "eu-west-1a",
    "AvailabilityZoneID": "euw1-az1",
    "Containers": [
        {"Type": "CNI_PAUSE", "Networks": [{"NetworkMode": "awsvpc", "IPv4Addresses": ["10.0.0.1"]}]},
        {"Type": "NORMAL", "Networks": [{"NetworkMode": "awsvpc", "IPv4Addresses": ["10.0.2.61"]}]},
    ],
}
KNOWN = TaskMetadata(
    cluster="blue",
    service="orders-service",
    family="orders",
    task_id="e9028f8d5d8e4f258373e7b93ce9a3c3",
    zone="eu-west-1a",
    zone_id="euw1-az1",
    network_mode="awsvpc",
    address="10.0.2.61",
)


class Endpoint:
    """A metadata endpoint that says what it is told to."""

    def __init__(self) -> None:
        self.body: bytes = json.dumps(FARGATE).encode()
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                self.send_response(200)
                self.end_headers()
                self.wfile.write(outer.body)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    @property
    def environ(self) -> dict[str, str]:
        return {"ECS_CONTAINER_METADATA_URI_V4": f"http://127.0.0.1:{self.server.server_port}/v4/abc"}

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    made = Endpoint()
    yield made
    made.close()


def test_a_task_knows_where_it_is_and_asks_once(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    found = []
    threads = [threading.Thread(target=lambda: found.append(task_metadata(environ=endpoint.environ))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [KNOWN] * 8
    assert endpoint.asked == ["/v4/abc/task"]


@pytest.mark.parametrize("body", [b"", b"not json", b"[]", b"null", b"5"])
def test_an_answer_that_makes_no_sense_is_no_answer(endpoint: Endpoint, body: bytes):
    endpoint.body = body
    assert task_metadata(environ=endpoint.environ) is None


def test_outside_of_ecs_nothing_is_known_and_nobody_is_asked():
    assert task_metadata(environ={}) is None
    assert task_metadata(environ={"ECS_CONTAINER_METADATA_URI_V4": "file:///etc/passwd"}) is None


def test_an_endpoint_that_does_not_answer_costs_its_time_limit_once():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        environ = {"ECS_CONTAINER_METADATA_URI_V4": f"http://127.0.0.1:{server.getsockname()[1]}"}
        assert task_metadata(environ=environ, timeout=0.05) is None
        assert task_metadata(environ=environ, timeout=30) is None


@pytest.mark.parametrize(
    "task",
    [
        {},
        {"Cluster": 5, "Containers": "none", "TaskARN": ""},
        {"Containers": [5, {"Networks": [None, {"IPv4Addresses": "10.0.0.1"}]}]},
        {"Containers": [{"Type": "CNI_PAUSE"}]},
    ],
)
def test_what_is_missing_or_odd_is_unknown(task: Any):
    assert parse(task) == TaskMetadata()


def test_a_cluster_may_be_told_by_its_short_name():
    found = parse({"Cluster": "default"})
    assert found is not None
    assert found.cluster == "default"


OK = b"HTTP/1.0 200 OK\r\n"


@pytest.mark.parametrize(
    "head", [b"", OK + b"\r\n", OK + b"Content-Length: 9999999\r\n\r\n"], ids=["status", "body", "length"]
)
def test_an_endpoint_that_sends_a_byte_now_and_then_is_given_up_in_time(head: bytes):
    stop = threading.Event()

    def serve(connection: socket.socket) -> None:
        connection.sendall(head)
        while not stop.wait(0.05):
            connection.sendall(b"1")

    with answering(serve) as environ:
        began = time.monotonic()
        found = task_metadata(timeout=0.4, environ=environ)
        took = time.monotonic() - began
        stop.set()
    assert found is None
    assert took < 5


BODIES = {
    "nested": b"[" * 200_000,
    "too long": b'{"Family": "' + b"x" * 300_000 + b'"}',
    "no JSON": b"\xff\xfe",
    "a huge number": b"1" * 10_000,
    "an odd status": None,
}


@pytest.mark.parametrize("kind", BODIES)
def test_whatever_else_is_answered_is_nothing_known(kind: str):
    body = BODIES[kind]
    answer = b"HTTP/1.0 2000000 \r\n\r\n" if body is None else b"HTTP/1.0 200 OK\r\n\r\n" + body
    with answering(lambda connection: connection.sendall(answer)) as environ:
        assert task_metadata(timeout=5, environ=environ) is None


@pytest.mark.parametrize(
    "answer", [b"garbage\r\n\r\n", b"", OK + b"a: b\r\n" * 200 + b"\r\n", b"HTTP/1.0 " + b"2" * 100_000]
)
def test_what_is_no_http_is_nothing_known(answer: bytes):
    with answering(lambda connection: connection.sendall(answer)) as environ:
        assert task_metadata(timeout=5, environ=environ) is None


def test_redirects_are_not_followed(endpoint: Endpoint):
    place = endpoint.environ["ECS_CONTAINER_METADATA_URI_V4"].encode()
    answer = b"HTTP/1.0 302 Found\r\nLocation: " + place + b"\r\n\r\n"
    with answering(lambda connection: connection.sendall(answer)) as environ:
        assert task_metadata(timeout=5, environ=environ) is None
    assert endpoint.asked == []


@pytest.mark.parametrize(
    "uri", ["http://[", "http://127.0.0.1:99999/", "http://127.0.0.1:x/", "http://\r\n/", "http://"]
)
def test_an_address_that_makes_no_sense_is_nothing_known(uri: str):
    assert task_metadata(timeout=0.2, environ={"ECS_CONTAINER_METADATA_URI_V4": uri}) is None


def test_facts_that_nobody_could_have_registered_are_not_kept():
    found = parse({**FARGATE, "Family": "x" * 256, "AvailabilityZone": "a\x1b[2J", "Cluster": "c/" + "x" * 300})
    assert found is not None
    assert (found.family, found.zone, found.cluster, found.service) == (None, None, None, "orders-service")


@contextmanager
def answering(serve: Callable[[socket.socket], object]) -> Iterator[dict[str, str]]:
    """An endpoint whose every connection is handed to `serve` after its request was read."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, suppress(OSError):
                    connection.recv(65_536)
                    serve(connection)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield {"ECS_CONTAINER_METADATA_URI_V4": f"http://127.0.0.1:{listener.getsockname()[1]}/v4/abc"}
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
