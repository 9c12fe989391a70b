"""Telling a silent peer from a slow one, on real sockets."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator

import pytest
import trustme

from ecs_discovery.models import Endpoint
from ecs_discovery.runtime import sockets, tcp_info
from ecs_discovery.testing.lab import Lab, LabTask

linux = pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO is Linux's")
REQUEST = b"GET /slow/30 HTTP/1.1\r\nHost: orders\r\n\r\n"


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(seed=1) as lab:
        yield lab


@pytest.fixture
def task(lab: Lab) -> LabTask:
    return lab.service("orders", tasks=1).tasks[0]


def connected(task: LabTask) -> socket.socket:
    return sockets.connect(Endpoint(task.address, task.port), 5)


def test_a_connection_is_tuned(task: LabTask):
    with connected(task) as sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.gettimeout() == 5


@pytest.mark.parametrize("endpoint", [Endpoint("127.0.0.1", 1234567), Endpoint("127.0.0.1", -1), Endpoint("a\0b", 80)])
@pytest.mark.parametrize("way", ["connect", "start_connect", "connect_async"])
def test_an_endpoint_that_no_socket_can_connect_to_is_a_failed_connect(endpoint: Endpoint, way: str):
    def connect() -> socket.socket:
        if way == "connect":
            return sockets.connect(endpoint, 1)
        if way == "start_connect":
            return sockets.start_connect(endpoint)
        return asyncio.run(sockets.connect_async(endpoint))

    with pytest.raises(OSError, match=r".") as caught:
        connect()
    assert sockets.sign_of(caught.value) is sockets.ConnectResult.REFUSES


@linux
def test_a_peer_that_vanished_is_silent(task: LabTask):
    with connected(task) as sock:
        task.vanish()
        sock.sendall(REQUEST)
        assert not tcp_info.wait_for_answer(sock, 0.25, None, time.monotonic)
        assert tcp_info.acknowledged(sock) is False


@linux
def test_a_slow_application_is_not(task: LabTask):
    with connected(task) as sock:
        sock.sendall(REQUEST)
        assert tcp_info.wait_for_answer(sock, 0.1, None, time.monotonic)
        assert tcp_info.Progress(sock).silent(0.0, 0.0) is False
        assert tcp_info.acknowledged(sock)


@linux
def test_what_a_vanished_peer_still_repeats_does_not_pass_for_life(task: LabTask):
    """Its last answer, unacknowledged by this side for now, is sent again; the request is not acknowledged by it."""
    with connected(task) as sock:
        for _ in range(3):
            sock.sendall(REQUEST.replace(b"slow/30", b"quick"))
            sock.recv(4096)
        task.vanish()
        sock.sendall(REQUEST)
        began = time.monotonic()
        assert not tcp_info.wait_for_answer(sock, 0.25, None, time.monotonic)
        assert time.monotonic() - began < 0.5


def test_an_acknowledged_request_is_waited_for_until_its_peer_is_known_to_be_gone(task: LabTask):
    with connected(task) as sock:
        sock.sendall(REQUEST)
        looks = iter([False, False, True])
        assert not tcp_info.wait_for_answer(sock, 0.05, None, time.monotonic, lambda: next(looks))
        assert next(looks, None) is None


def test_an_acknowledged_request_is_waited_for_no_longer_than_its_read_timeout(task: LabTask):
    with connected(task) as sock:
        sock.sendall(REQUEST)
        assert tcp_info.wait_for_answer(sock, 0.05, 0.2, time.monotonic, lambda: False)


@pytest.mark.parametrize(
    ("error", "sign"),
    [
        (None, sockets.ConnectResult.ACCEPTS),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), sockets.ConnectResult.REFUSES),
        (OSError(errno.EMFILE, "too many open files"), sockets.ConnectResult.INCONCLUSIVE),
        (TimeoutError("timed out"), sockets.ConnectResult.SILENT),
        (OSError(errno.EHOSTUNREACH, "no route to host"), sockets.ConnectResult.SILENT),
    ],
)
def test_what_a_connect_tells_of_a_host(error: OSError | None, sign: sockets.ConnectResult):
    assert sockets.sign_of(error) is sign


@linux
def test_a_peer_that_answers_is_waited_for_no_longer_than_it_takes(task: LabTask):
    with connected(task) as sock:
        sock.sendall(REQUEST.replace(b"slow/30", b"quick"))
        assert tcp_info.wait_for_answer(sock, 5.0, None, time.monotonic)
        assert sock.recv(12) == b"HTTP/1.1 200"


@linux
def test_a_read_timeout_shorter_than_the_limit_comes_first(task: LabTask):
    with connected(task) as sock:
        task.vanish()
        sock.sendall(REQUEST)
        assert tcp_info.wait_for_answer(sock, 0.25, 0.05, time.monotonic)


@linux
def test_a_peer_that_reads_an_upload_late_is_not_silent():
    """A full window is acknowledged, and probed: progress of acknowledgements counts as life."""
    with socket.create_server(("127.0.0.1", 0)) as server, connected_to(server) as sock:
        peer, _ = server.accept()
        sock.setblocking(False)
        try:
            while True:
                sock.send(b"x" * 65536)
        except BlockingIOError:
            pass
        until, progress = time.monotonic() + 0.8, tcp_info.Progress(sock)
        while time.monotonic() < until:
            assert not progress.silent(0.25, time.monotonic())
            time.sleep(0.02)
        peer.close()


def connected_to(server: socket.socket) -> socket.socket:
    return sockets.connect(Endpoint(*server.getsockname()[:2]), 5)


@linux
@pytest.mark.parametrize("vanish", [True, False], ids=["vanished", "slow"])
def test_under_tls_session_tickets_do_not_pass_for_an_answer(lab: Lab, vanish: bool):
    """TLS 1.3 sends tickets after the handshake: a fresh connection is readable before any answer."""
    authority = trustme.CA()
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("orders.prod.local").configure_cert(server_side)
    client_side = ssl.create_default_context()
    authority.configure_trust(client_side)
    task = lab.service("orders", tasks=1, ssl_context=server_side).tasks[0]
    with client_side.wrap_socket(connected(task), server_hostname="orders.prod.local") as sock:
        assert sock.version() == "TLSv1.3"
        time.sleep(0.05)  # the tickets arrive
        if vanish:
            task.vanish()
        sock.sendall(REQUEST)
        assert tcp_info.wait_for_answer(sock, 0.25, None, time.monotonic) is not vanish


def test_where_nothing_can_be_told_the_read_comes_next(task: LabTask, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tcp_info, "_TCP_INFO", None)
    with connected(task) as sock:
        assert tcp_info.wait_for_answer(sock, 0.1, None, time.monotonic)
        assert tcp_info.Progress(sock).silent(0.1, 0.0) is None
        assert tcp_info.acknowledged(sock) is None


@linux
def test_a_closed_socket_tells_nothing():
    sock = socket.socket()
    sock.close()
    assert tcp_info.Progress(sock).silent(0.1, 0.0) is None
    assert tcp_info.acknowledged(sock) is None


def test_connecting_to_a_vanished_task_ends_at_its_timeout(task: LabTask):
    task.vanish()
    with pytest.raises(TimeoutError):
        sockets.connect(Endpoint(task.address, task.port), 0.1)


def test_a_name_is_passed_through_where_discovery_is_switched_off():
    import asyncio

    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = Endpoint("localhost", server.getsockname()[1])
        sockets.connect(endpoint, 5).close()
        asyncio.run(sockets.connect_async(endpoint)).close()


def test_the_select_fallback_reads_as_poll_does(task: LabTask, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr("select.poll", raising=False)
    threads = threading.active_count()
    with connected(task) as sock:
        assert not sockets.is_ready(sock, 0.01)
        sock.sendall(REQUEST.replace(b"slow/30", b"quick"))
        assert sockets.is_ready(sock, 5)
    assert threading.active_count() <= threads


def test_a_leash_that_is_cut_ends_a_read_in_another_thread(task: LabTask):
    leash = sockets.AbortHandle()
    got: list[bytes] = []
    with connected(task) as sock:
        sock.settimeout(None)
        leash.hold(sock)
        reader = threading.Thread(target=lambda: got.append(sock.recv(1)))
        reader.start()
        leash.cut()
        reader.join(5)
        assert got == [b""]


def test_a_leash_that_was_cut_holds_nothing_any_more(task: LabTask):
    leash = sockets.AbortHandle()
    leash.cut()
    with connected(task) as sock, pytest.raises(ConnectionAbortedError):
        leash.hold(sock)


def test_a_leash_that_was_dropped_or_whose_socket_is_closed_cuts_nothing(task: LabTask):
    leash = sockets.AbortHandle()
    with connected(task) as sock:
        leash.hold(sock)
        leash.drop()
        leash.cut()
        sock.sendall(b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n")
        assert sock.recv(4) == b"HTTP"
    other = sockets.AbortHandle()
    other.hold(sock)
    other.cut()


class Foreign:
    """A socket of another library's: it has a descriptor, and no `getsockopt` that could be trusted."""

    def __init__(self, sock: socket.socket, answer: object) -> None:
        self._sock = sock
        self._answer = answer

    def fileno(self) -> int:
        return self._sock.fileno()

    def getsockopt(self, *_: object) -> object:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


@pytest.mark.parametrize("answer", [AttributeError("no"), TypeError("no"), None, "text"], ids=str)
def test_a_socket_of_another_library_is_left_to_an_ordinary_read(task: LabTask, answer: object):
    with connected(task) as sock:
        began = time.monotonic()
        assert tcp_info.wait_for_answer(Foreign(sock, answer), 0.25, None, time.monotonic, lambda: False)  # type: ignore[arg-type]
        assert time.monotonic() - began < 5  # its handler takes 30 seconds
