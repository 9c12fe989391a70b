"""A limit that the caller gives is hard, however slowly bytes go on coming."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from ecs_discovery import (
    AsyncDiscovery,
    ConnectTimeout,
    DeadlineExceeded,
    Discovery,
    HedgePolicy,
    options,
    wrap_session,
)
from tests.support import eventually

DRIP = 0.05  # seconds between bytes


@pytest.fixture
def dribble() -> Iterator[Callable[..., int]]:
    """A server that sends `head` at once, and then a byte of `rest` now and then. Its port."""
    over = threading.Event()
    listeners: list[tuple[socket.socket, threading.Thread]] = []

    def serve(connection: socket.socket, head: bytes, rest: bytes) -> None:
        with connection:
            try:
                connection.settimeout(5)
                connection.recv(65536)
                connection.sendall(head)
                for byte in rest:
                    if over.wait(DRIP):
                        return
                    connection.sendall(bytes([byte]))
            except OSError:
                return

    def start(head: bytes, rest: bytes) -> int:
        listener = socket.create_server(("127.0.0.1", 0))

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(connection, head, rest), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        listeners.append((listener, thread))
        return int(listener.getsockname()[1])

    yield start
    over.set()
    for listener, thread in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n"


@pytest.mark.parametrize("hedge", [False, True], ids=["plain", "hedged"])
@pytest.mark.parametrize(("head", "rest"), [(b"", HEAD * 10), (HEAD, b"x" * 200)], ids=["head", "body"])
def test_a_wrapped_request_ends_at_the_deadline(dribble: Any, head: bytes, rest: bytes, hedge: bool):
    services = {"orders": f"static://127.0.0.1:{dribble(head, rest)}"}
    with Discovery(services=services, hedge=HedgePolicy(enabled=hedge)) as discovery:
        session = wrap_session(requests.Session(), discovery)
        began = time.monotonic()
        with (
            options(deadline=0.5),
            pytest.raises(DeadlineExceeded, match="orders: not done within the deadline") as caught,
        ):
            session.get("http://orders/")
        assert 0.4 < time.monotonic() - began < 2  # bytes come for ten seconds and more
        assert isinstance(caught.value, requests.Timeout)
        assert caught.value.attempts
        session.close()


def test_a_deadline_does_not_cut_a_request_that_is_done_before(dribble: Any):
    services = {"orders": f"static://127.0.0.1:{dribble(HEAD, b'x' * 0 + b'')}"}
    with Discovery(services=services) as discovery:
        fired: list[int] = []
        with discovery._driver.background.alarms.at(time.monotonic() + 0.1, lambda: fired.append(1)):
            pass
        kept = discovery._driver.background.alarms.at(time.monotonic() + 0.15, lambda: fired.append(2))
        time.sleep(0.4)
        assert fired == [2]
        assert kept.action is None or fired == [2]


def test_without_a_deadline_of_the_callers_a_slow_body_is_waited_for(dribble: Any):
    services = {"orders": f"static://127.0.0.1:{dribble(HEAD[:-7] + b'10' + HEAD[-4:], b'x' * 10)}"}
    with Discovery(services=services) as discovery:
        session = wrap_session(requests.Session(), discovery)
        assert session.get("http://orders/", timeout=(1, 0.4)).content.startswith(b"x")
        session.close()


def test_a_tls_handshake_that_dribbles_ends_at_the_limit_of_connect(dribble: Any):
    """A record header that promises 16 KiB, and then a byte now and then."""
    port = dribble(b"\x16\x03\x03\x40\x00", b"\x02" * 400)
    context = ssl.create_default_context()
    with Discovery() as discovery:
        began = time.monotonic()
        with pytest.raises(ConnectTimeout):
            discovery.connect(f"static://127.0.0.1:{port}", timeout=0.5, ssl=context, server_hostname="orders")
        assert time.monotonic() - began < 2

    async def main() -> None:
        async with AsyncDiscovery() as discovery:
            began = time.monotonic()
            with pytest.raises(ConnectTimeout):
                await discovery.open_connection(
                    f"static://127.0.0.1:{port}", timeout=0.5, ssl=context, server_hostname="orders"
                )
            assert time.monotonic() - began < 2

    asyncio.run(main())


def test_a_call_in_asyncio_ends_at_the_deadline():
    async def main() -> None:
        async with AsyncDiscovery() as discovery:
            began = time.monotonic()
            with pytest.raises(DeadlineExceeded):
                await discovery.call("static://127.0.0.1:1", lambda attempt: asyncio.sleep(10), deadline=0.2)
            assert time.monotonic() - began < 2

    asyncio.run(main())


def test_no_attempt_follows_a_function_that_outlives_the_deadline_of_a_call():
    with Discovery() as discovery:
        tried: list[float] = []

        def fetch(attempt: Any) -> None:
            tried.append(attempt.remaining)
            time.sleep(0.3)
            raise ConnectionResetError

        with pytest.raises(ConnectionResetError):
            discovery.call("static://127.0.0.1:1,127.0.0.1:2", fetch, deadline=0.2, idempotent=True)
        assert len(tried) == 1
        assert tried[0] <= 0.2


def test_alarms_that_were_called_off_do_not_pile_up():
    with Discovery() as discovery:
        alarms = discovery._driver.background.alarms
        for _ in range(10_000):
            with alarms.at(time.monotonic() + 600, lambda: None):
                pass
        assert len(alarms._heap) < 300


def test_the_thread_of_the_alarms_ends_although_a_late_one_was_set_and_called_off():
    """A request with a long deadline is done at once: no thread stays for the rest of that time."""
    before = set(threading.enumerate())
    with Discovery() as discovery, discovery._driver.background.alarms.at(time.monotonic() + 1e8, lambda: None):
        assert set(threading.enumerate()) - before
    eventually(lambda: not set(threading.enumerate()) - before)
