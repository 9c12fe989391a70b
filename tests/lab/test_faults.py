"""Each fault does on real sockets what it says, and healing ends it."""

from __future__ import annotations

import http.client
import time

import pytest

from ecs_discovery.testing.lab import Errors, Hang, Reset, Slow, TaskState
from tests.lab.wire import dial, eventually, get, send


def test_a_refusing_task_goes_on_with_open_connections(task):
    with dial(task) as sock:
        send(sock)
        sock.recv(4096)
        task.refuse()
        with pytest.raises(ConnectionRefusedError):
            dial(task)
        send(sock)
        assert b" 200 " in sock.recv(4096)


def test_a_refusing_task_can_cut_open_connections(task):
    with dial(task) as sock:
        send(sock, "/slow/5")
        eventually(lambda: task.in_flight == 1)
        task.refuse(cut=True)
        with pytest.raises(ConnectionResetError):
            sock.recv(4096)
    task.heal()
    assert get(task)[0].status == 200


def test_a_reset_comes_before_any_byte_of_the_answer(task):
    task.reset()
    with dial(task) as sock:
        send(sock)
        with pytest.raises(ConnectionResetError):
            sock.recv(4096)
    assert task.requests == 1


@pytest.mark.parametrize(("path", "count"), [("/bytes/1000", 300), ("/stream/5", 300), ("/bytes/10", 100_000)])
def test_a_reset_can_come_in_the_middle_of_the_answer(task, path, count):
    task.reset(after_bytes=count)
    received = b""
    with dial(task) as sock:
        send(sock, path)
        try:
            while data := sock.recv(4096):
                received += data
            pytest.fail("the answer ended without a reset")
        except ConnectionResetError:
            pass
    assert 0 < len(received) <= count
    assert count > 300 or len(received) == count


def test_a_hanging_task_acknowledges_and_says_nothing(task):
    task.hang()
    with dial(task) as sock:
        sock.settimeout(0.15)
        send(sock)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        assert (task.requests, task.in_flight) == (1, 1)
    task.heal()
    assert get(task)[0].status == 200


def test_a_hanging_task_does_not_say_100_continue(task):
    task.hang()
    with dial(task) as sock:
        sock.settimeout(0.1)
        sock.sendall(b"PUT /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        with pytest.raises(TimeoutError):
            sock.recv(1)


def test_a_slow_task_answers_late(task):
    task.slow(0.15)
    began = time.monotonic()
    assert get(task)[0].status == 200
    assert time.monotonic() - began >= 0.15


def test_errors_have_the_status_and_the_retry_after_asked_for(task):
    task.errors(429, retry_after=1.5)
    response, _ = get(task)
    assert (response.status, response.headers["Retry-After"], response.headers["X-Task"]) == (429, "1.5", task.id)


def test_errors_can_be_those_of_one_path(task):
    task.errors(503, path="/health")
    assert [get(task, path)[0].status for path in ("/health", "/health?full=1", "/", "/healthy")] == [
        503,
        503,
        200,
        200,
    ]


def test_errors_can_be_a_share_of_the_answers_seed_1(task):
    """Of 60 answers at one half, 12 to 48 are errors (4 sigma of the binomial are 15.5)."""
    task.errors(500, probability=0.5)
    connection = http.client.HTTPConnection(task.address, task.port, timeout=2)
    statuses = []
    for _ in range(60):
        connection.request("GET", "/")
        response = connection.getresponse()
        response.read()
        statuses.append(response.status)
    connection.close()
    assert set(statuses) == {200, 500}
    assert 12 <= statuses.count(500) <= 48


def test_faults_can_be_combined_and_replace_those_before(task):
    task.fault(Slow(0.1), Errors(502))
    began = time.monotonic()
    assert get(task)[0].status == 502
    assert time.monotonic() - began >= 0.1
    task.fault(Reset())
    assert task.faults == (Reset(),)


def test_a_draining_task_finishes_answers_and_ends_their_connections(task):
    with dial(task) as busy, dial(task) as idle:
        send(busy, "/slow/0.3")
        eventually(lambda: task.in_flight == 1 and task.open_connections == 2)
        task.drain()
        with pytest.raises(ConnectionRefusedError):
            dial(task)
        send(idle)
        for sock in (busy, idle):
            assert b"connection: close" in sock.recv(4096).lower()
            assert sock.recv(1) == b""


def test_a_draining_task_can_close_idle_connections_at_once(task):
    with dial(task) as busy, dial(task) as idle:
        send(busy, "/slow/0.3")
        eventually(lambda: task.in_flight == 1 and task.open_connections == 2)
        task.drain(close_idle=True)
        assert idle.recv(1) == b""
        assert b" 200 " in busy.recv(4096)


def test_a_killed_task_resets_everything_and_refuses(task):
    with dial(task) as idle, dial(task) as busy:
        send(busy, "/slow/5")
        eventually(lambda: task.in_flight == 1 and task.open_connections == 2)
        task.kill()
        for sock in (idle, busy):
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
    with pytest.raises(ConnectionRefusedError):
        dial(task)
    assert task.state is TaskState.STOPPED
    eventually(lambda: task.open_connections == task.in_flight == 0)
    task.kill()


def test_a_stopped_task_lets_requests_in_flight_finish(task):
    with dial(task) as busy, dial(task) as idle:
        send(busy, "/slow/0.3")
        eventually(lambda: task.in_flight == 1 and task.open_connections == 2)
        task.stop(grace=2)
        assert b" 200 " in busy.recv(4096)
        assert idle.recv(1) == b""
    assert task.state is TaskState.STOPPED


def test_a_stopped_task_resets_what_is_not_done_in_the_grace_time(task):
    with dial(task) as sock:
        send(sock, "/slow/5")
        eventually(lambda: task.in_flight == 1)
        task.stop(grace=0.05)
        with pytest.raises(ConnectionResetError):
            sock.recv(1)


def test_a_stopped_task_takes_no_fault(task):
    task.kill()
    with pytest.raises(RuntimeError, match="has stopped"):
        task.fault(Hang())


@pytest.mark.parametrize(
    "make",
    [lambda: Errors(200), lambda: Errors(probability=2), lambda: Slow(-1), lambda: Slow(1, 1.5), lambda: Reset(-1)],
)
def test_a_fault_that_makes_no_sense_is_a_value_error(make):
    with pytest.raises(ValueError, match="must be"):
        make()


def test_refusing_again_and_again_leaves_the_address_usable(task):
    for _ in range(5):
        with dial(task) as sock:
            task.refuse()
            task.heal()
            send(sock)
            assert b" 200 " in sock.recv(4096)
