"""A task that is busy is not a task that is gone: stock servers with one thread and short queues for connections."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import requests

from ecs_discovery import ConnectTimeout, Discovery, wrap_session
from ecs_discovery.core.balancing.node import Health, Outcome
from ecs_discovery.models import Endpoint
from ecs_discovery.testing.lab import Lab, LabService, LabTask
from tests.support import eventually, service_of

pytestmark = pytest.mark.usefixtures("unmeasured")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        server: Any = self.server
        server.started += 1
        server.gate.wait(20)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"done")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def busy() -> Iterator[Any]:
    """Starts a server that handles one request after another, each until its gate opens."""
    servers: list[Any] = []

    def start(backlog: int) -> Any:
        server: Any = HTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
        server.request_queue_size = backlog
        server.server_bind()
        server.server_activate()
        server.gate, server.started = threading.Event(), 0
        server.thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        server.thread.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.gate.set()
        server.shutdown()
        server.server_close()


def health_of(discovery: Discovery) -> set[str]:
    return {node.health for node in discovery.snapshot("orders").nodes}


@pytest.mark.parametrize("backlog", [1, 5, 128])
def test_every_request_that_got_a_connection_is_answered_by_a_task_with_a_full_queue(busy: Any, backlog: int):
    """The others end at the connect limit, and nobody takes the task for vanished."""
    server = busy(backlog)
    with Discovery(services={"orders": f"static://127.0.0.1:{server.server_port}"}) as discovery:
        session = wrap_session(requests.Session(), discovery)

        def get() -> str:
            try:
                return session.get("http://orders/", timeout=(1.0, None)).text
            except ConnectTimeout:
                return "no connection"

        with ThreadPoolExecutor(16) as pool:
            found = [pool.submit(get) for _ in range(12)]
            time.sleep(4)  # longer than any test connect, probe or doubt
            assert health_of(discovery) == {"healthy"}
            server.gate.set()
            texts = [each.result() for each in found]
        session.close()
    answered = texts.count("done")
    assert answered == server.started
    assert answered >= min(12, backlog + 1)
    assert answered + texts.count("no connection") == 12


def test_a_lone_request_to_a_slow_task_causes_no_other_connection(busy: Any):
    server = busy(1)
    with Discovery(services={"orders": f"static://127.0.0.1:{server.server_port}"}) as discovery:
        session = wrap_session(requests.Session(), discovery)
        with ThreadPoolExecutor(1) as pool:
            found = pool.submit(session.get, "http://orders/")
            eventually(lambda: server.started == 1)
            time.sleep(3)
            # A queue of one takes two connections: both places are still free.
            spare = [socket.create_connection(server.server_address, timeout=1) for _ in range(2)]
            for sock in spare:
                sock.close()
            server.gate.set()
            assert found.result().text == "done"
        session.close()


def test_a_connect_without_an_answer_says_nothing_while_requests_in_flight_are_acknowledged():
    service = service_of(static=(Endpoint("10.0.0.1", 80), Endpoint("10.0.0.2", 80)))
    node, other = service.nodes
    service.watch(node, 1)
    service.observe(node, Outcome.UNANSWERED, 1000.0)
    service.observe(other, Outcome.UNANSWERED, 1000.0)
    assert [node.health, other.health] == [Health.HEALTHY, Health.DOWN]
    service.watch(node, -1)
    service.observe(node, Outcome.UNANSWERED, 1001.0)
    assert node.health is Health.DOWN


def task_at_work(service: LabService) -> LabTask:
    """The task that has the request in flight, once there is a task that has it."""
    eventually(lambda: any(task.in_flight for task in service.tasks))
    return next(task for task in service.tasks if task.in_flight)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(namespace="prod.local", seed=5) as lab:
        if not lab.can_vanish:
            pytest.skip("no socket filter here")
        yield lab


def test_a_lone_request_that_was_acknowledged_leaves_a_vanished_task_by_a_keep_alive_probe(lab: Lab):
    """There is no other connection to tell by. The kernel sends its first probe after a second."""
    service = lab.service("orders", tasks=2)
    with Discovery(namespace="prod.local", nameservers=[lab.nameserver]) as discovery:
        session = wrap_session(requests.Session(), discovery)
        with ThreadPoolExecutor(1) as pool:
            began = time.monotonic()
            found = pool.submit(session.get, service.url("/slow/0.5"))
            gone = task_at_work(service)
            gone.vanish()
            response = found.result(15)
        assert response.headers["X-Task"] != gone.id
        assert [attempt.outcome for attempt in response.ecs_discovery.attempts] == ["silent", "ok"]  # type: ignore[attr-defined]
        assert time.monotonic() - began < 5
        session.close()


def test_an_idle_connection_tells_sooner_that_a_task_has_vanished(lab: Lab):
    service = lab.service("orders", tasks=2)
    with Discovery(namespace="prod.local", nameservers=[lab.nameserver]) as discovery:
        session = wrap_session(requests.Session(), discovery)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: session.get(service.url("/slow/0.1")), range(8)))  # several connections to each
            eventually(lambda: not any(task.in_flight for task in service.tasks))
            found = pool.submit(session.get, service.url("/slow/0.6"))
            gone = task_at_work(service)
            gone.vanish()
            response = found.result(15)
        first, second = response.ecs_discovery.attempts  # type: ignore[attr-defined]
        assert (first.outcome, second.outcome) == ("silent", "ok")
        assert first.seconds < 0.95  # a keep-alive probe would have taken more than a second
        session.close()


def test_a_post_in_flight_to_a_vanished_task_has_others_stay_away(lab: Lab):
    service = lab.service("orders", tasks=2)
    with Discovery(namespace="prod.local", nameservers=[lab.nameserver]) as discovery:
        session = wrap_session(requests.Session(), discovery)
        with ThreadPoolExecutor(1) as pool:
            found = pool.submit(session.post, service.url("/slow/0.5"), data=b"x", timeout=4)
            gone = task_at_work(service)
            gone.vanish()
            nodes = discovery._driver.engine.service(f"orders:{service.port}").nodes
            node = next(each for each in nodes if each.endpoint.host == gone.address)
            eventually(lambda: node.gone_at > 0)
            with pytest.raises(requests.RequestException):
                found.result(15)
        assert sum(task.requests for task in service.tasks) == 1  # it was not replayed
        session.close()


def test_a_lone_request_leaves_a_task_that_usually_answers_fast_when_a_test_connect_meets_silence(lab: Lab):
    """It asks elsewhere, once, and does not judge the task by that."""
    service = lab.service("orders", tasks=2)
    with Discovery(namespace="prod.local", nameservers=[lab.nameserver]) as discovery:
        session = wrap_session(requests.Session(), discovery)
        for _ in range(6):
            session.get(service.url())
        eventually(lambda: not any(task.in_flight for task in service.tasks))
        with ThreadPoolExecutor(1) as pool:
            found = pool.submit(session.get, service.url("/slow/0.6"))
            gone = task_at_work(service)
            gone.vanish()
            response = found.result(15)
        first, second = response.ecs_discovery.attempts  # type: ignore[attr-defined]
        assert (first.outcome, second.outcome) == ("doubted", "ok")
        assert first.seconds < 0.95  # a keep-alive probe would have taken more than a second
        session.close()
