"""A vanished task meets everything with silence."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import time

import pytest

from ecs_discovery.testing.lab import Lab, Refuse, Vanish
from tests.lab.wire import dial, eventually, get, send, unacknowledged


@pytest.fixture
def _filtered(lab):
    if not lab.can_vanish:
        pytest.skip("no socket filter here")


pytestmark = pytest.mark.usefixtures("_filtered")


def assert_no_connection(task) -> None:
    with pytest.raises(TimeoutError):
        dial(task, timeout=0.2)


def assert_silence(sock: socket.socket, seconds: float = 0.2) -> None:
    assert select.select([sock], [], [], seconds) == ([], [], [])


def test_connecting_to_a_vanished_task_times_out(task):
    task.vanish()
    assert_no_connection(task)
    assert task.connections == 0


def test_a_vanished_task_acknowledges_nothing_on_open_connections(task):
    with dial(task) as sock:
        send(sock)
        sock.recv(4096)
        task.vanish()
        send(sock)
        assert_silence(sock)
        assert unacknowledged(sock) > 0
        assert task.requests == 1


def test_a_hanging_task_on_the_contrary_acknowledges(task):
    task.hang()
    with dial(task) as sock:
        send(sock)
        eventually(lambda: task.requests == 1)
        eventually(lambda: unacknowledged(sock) == 0)


def test_an_answer_in_flight_does_not_get_out_of_a_vanished_task(task):
    with dial(task) as sock:
        send(sock, "/slow/0.3")
        eventually(lambda: task.in_flight == 1)
        task.vanish()
        assert_silence(sock, 0.5)
        task.heal()
        assert b" 200 " in sock.recv(4096)


def test_a_stream_stops_when_its_task_vanishes(task):
    with dial(task) as sock:
        send(sock, "/stream/500")
        sock.recv(1024)
        task.vanish()
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while sock.recv(65536):
                pass
        assert_silence(sock)


def test_a_healed_task_gets_what_was_sent_meanwhile(task):
    with dial(task) as sock:
        task.vanish()
        send(sock)
        assert_silence(sock, 0.05)
        task.heal()
        assert b" 200 " in sock.recv(4096)
    assert get(task)[0].status == 200


def test_a_task_that_is_killed_after_it_vanished_is_not_heard_of(task):
    with dial(task) as sock:
        task.vanish()
        task.kill()
        send(sock)
        assert_silence(sock)
        assert unacknowledged(sock) > 0
    assert_no_connection(task)
    eventually(lambda: task.open_connections == 0)


def test_a_task_that_is_stopped_after_it_vanished_is_not_heard_of(task):
    with dial(task) as sock:
        task.vanish()
        task.stop(grace=0.05)
        assert_silence(sock)
    assert_no_connection(task)


def test_a_client_that_closes_is_not_noticed_by_a_vanished_task(task):
    with dial(task) as sock:
        eventually(lambda: task.open_connections == 1)
        task.vanish()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    time.sleep(0.05)
    assert task.open_connections == 1


def test_a_refusing_task_that_vanishes_no_longer_refuses(task):
    task.refuse()
    task.vanish()
    assert_no_connection(task)
    task.fault(Vanish(), Refuse())
    assert_no_connection(task)
    task.refuse()
    with pytest.raises(ConnectionRefusedError):
        dial(task)


def test_closing_the_lab_ends_the_connections_of_vanished_tasks():
    with Lab(seed=1) as lab:
        task = lab.service("orders").tasks[0]
        sock = dial(task)
        eventually(lambda: task.open_connections == 1)
        task.vanish()
        task.kill()
    with sock, pytest.raises(ConnectionResetError):
        sock.recv(1)


def test_without_a_filter_connecting_times_out_all_the_same():
    with Lab(seed=1, packet_filter=False) as lab:
        task = lab.service("orders").tasks[0]
        task.vanish()
        assert_no_connection(task)
        task.heal()
        assert get(task)[0].status == 200
        assert task.connections == 1


def test_without_a_filter_open_connections_are_a_clear_error_unless_approximate():
    with Lab(seed=1, packet_filter=False) as lab:
        task = lab.service("orders").tasks[0]
        with dial(task) as sock:
            eventually(lambda: task.open_connections == 1)
            with pytest.raises(RuntimeError, match="approximate=True"):
                task.vanish()
            assert task.faults == ()
            task.vanish(approximate=True)
            send(sock)
            assert_silence(sock)
            task.heal()
            assert b" 200 " in sock.recv(4096)


def test_without_a_filter_a_killed_task_is_not_heard_of_either():
    with Lab(seed=1, packet_filter=False) as lab:
        task = lab.service("orders").tasks[0]
        with dial(task) as sock:
            eventually(lambda: task.open_connections == 1)
            task.vanish(approximate=True)
            task.kill()
            assert_silence(sock)
        assert_no_connection(task)


def test_kill_takes_effect_while_a_forked_child_holds_the_sockets(task):
    with dial(task) as sock:
        eventually(lambda: task.open_connections == 1)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
        try:
            task.kill()
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
            with pytest.raises(ConnectionRefusedError):
                dial(task, timeout=0.5)
        finally:
            os.close(writing)
            os.close(reading)
            os.waitpid(child, 0)
