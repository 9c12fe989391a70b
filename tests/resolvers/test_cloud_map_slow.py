"""A Cloud Map that answers a byte at a time, or never: it holds no threads, and is used again once it is well."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from ecs_discovery import CloudMapPolicy, Question
from ecs_discovery.errors import ResolutionError
from ecs_discovery.resolvers import CloudMapResolver
from ecs_discovery.resolvers.cloud_map.calls import Calls
from ecs_discovery.runtime.workers import Workers
from tests.cloud_map import KEYS, FakeClient, instance
from tests.support import FakeClock, eventually

BODY = json.dumps(
    {"Instances": [{"InstanceId": "t1", "Attributes": {"AWS_INSTANCE_IPV4": "10.0.0.1"}}], "InstancesRevision": 1}
).encode()
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY


class Api:
    """An API that dribbles: the head at once, and of the body a byte now and then, for ever."""

    def __init__(self, head: bytes) -> None:
        self.ill = True
        self.open = 0
        self._head = head
        self._stop = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        self.open += 1
        with connection, suppress(OSError):
            connection.settimeout(0.5)
            while not self._stop.is_set():
                try:
                    if not connection.recv(65_536):
                        break
                except TimeoutError:
                    continue
                if not self.ill:
                    connection.sendall(ANSWER)
                    continue
                connection.sendall(self._head)
                while not self._stop.wait(0.05):
                    connection.sendall(b" ")
        self.open -= 1

    def close(self) -> None:
        self._stop.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()


HEADS = {"head": b"HTTP/1.1 200 OK\r\nX: ", "body": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n"}


@pytest.fixture(params=HEADS)
def api(request: pytest.FixtureRequest) -> Iterator[Api]:
    made = Api(HEADS[request.param])
    yield made
    made.close()


def at_once(resolver: CloudMapResolver, count: int, timeout: float) -> list[Any]:
    found: list[Any] = []

    def ask(number: int) -> None:
        try:
            found.append(resolver.resolve(Question("cloudmap", f"prod/s{number}"), timeout))
        except ResolutionError as error:
            found.append(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_answers_a_byte_at_a_time_hold_nobody_up_once_the_api_is_well(api: Api, monkeypatch: pytest.MonkeyPatch):
    for name, value in KEYS.items():
        monkeypatch.setenv({"region_name": "AWS_DEFAULT_REGION"}.get(name, name.upper()), value)
    policy = CloudMapPolicy(endpoint_url=api.url, timeout=0.3, connect_timeout=0.2, read_timeout=0.2, max_calls=1000)
    resolver = CloudMapResolver(policy)
    resolver._client(Question("cloudmap", "prod/orders"))  # takes seconds: not within the time limits
    for _ in range(2):
        assert all(isinstance(each, ResolutionError) for each in at_once(resolver, 12, 0.3))
        time.sleep(0.9)  # more than two calls may take
    api.ill = False
    found = resolver.resolve(Question("cloudmap", "prod/orders"), 10)
    assert [endpoint.host for endpoint in found.endpoints] == ["10.0.0.1"]
    eventually(lambda: len(resolver._calls._running) == 0)
    eventually(lambda: api.open <= 8)  # what was cut is closed on the other side too
    resolver.close()


def test_threads_of_a_client_that_hangs_are_replaced_up_to_eight_times():
    clock, leave = FakeClock(), threading.Event()
    client = FakeClient(instance(AWS_INSTANCE_IPV4="10.0.0.1"))
    entered: list[None] = []

    def hang() -> Any:
        entered.append(None)
        leave.wait(20)
        return [instance(AWS_INSTANCE_IPV4="10.0.0.1")]

    def reached(count: int) -> bool:
        return len(entered) == count

    client.instances = hang
    resolver = CloudMapResolver(client=client, clock=clock)
    for expected in (8, 16, 16):
        for number in range(12):
            resolver.submit(Question("cloudmap", f"prod/s{number}"))
        eventually(partial(reached, expected))
        time.sleep(0.05)
        assert reached(expected)
        clock.advance(10)
    client.instances = [instance(AWS_INSTANCE_IPV4="10.0.0.1")]
    leave.set()
    assert resolver.resolve(Question("cloudmap", "prod/orders"), 10).endpoints
    resolver.close()


def test_a_call_that_has_had_its_time_begins_no_other_connection():
    clock = FakeClock()
    calls = Calls(Workers(1), clock, longest=1.0, replacements=1)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        calls.hold(ours)  # of no call
        with calls.call():
            calls.end_overdue()
            calls.hold(ours)
            clock.advance(2)
            calls.end_overdue()
            assert theirs.recv(1) == b""
            with pytest.raises(ConnectionAbortedError):
                calls.hold(ours)
    calls.after_fork()


@pytest.mark.parametrize("client", [object(), type("C", (), {"_endpoint": type("E", (), {"http_session": None})()})()])
def test_a_client_of_another_kind_is_left_as_it_is(client: Any):
    Calls(Workers(1), FakeClock(), longest=1.0, replacements=1).watch(client)
