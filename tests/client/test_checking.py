"""Health checks on real sockets, in both worlds: against the lab's tasks, and against servers that misbehave."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EMFILE

import pytest

from ecs_discovery import CachePolicy, Discovery, HealthCheckPolicy, NoEndpoints, OutlierPolicy
from ecs_discovery.client import health_check as checking
from ecs_discovery.client.aio.health_check import examine as examine_async
from ecs_discovery.client.health_check import Answer, Result
from ecs_discovery.client.sync.health_check import examine
from ecs_discovery.core.balancing.health_checks import Check
from ecs_discovery.core.balancing.node import Checked, Health, Node, Outcome
from ecs_discovery.events import HealthChanged
from ecs_discovery.models import Endpoint
from ecs_discovery.testing.lab import Lab
from tests.support import FakeResolver, a, aaaa, answer, eventually, srv
from tests.worlds import Worlds, refused_port, world

__all__ = ["refused_port", "world"]

HTTP = HealthCheckPolicy(kind="http", path="/health", interval=0.1, timeout=5)
GOOD = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(namespace="prod.local", seed=7) as lab:
        yield lab


def static(tasks) -> str:
    return "static://" + ",".join(f"{task.address}:{task.port}" for task in tasks)


def healths(w, target: str) -> list[Health]:
    return [node.health for node in w.engine.service(target).nodes]


async def use(w, target: str, until: Callable[[], object], within: float = 20.0) -> None:
    """Use the service, whatever becomes of it, until something holds."""
    end = time.monotonic() + within
    while not until():
        assert time.monotonic() < end, healths(w, target)
        async with w.lease(target):
            pass
        await w.pause(0.01)


def test_a_task_that_fails_its_checks_is_out_before_a_request_fails_and_comes_back(lab: Lab, world: Worlds):
    tasks = lab.service("orders", tasks=3).tasks
    target, events = static(tasks), []
    tasks[0].errors(503, path="/health")

    async def scenario(w):
        await use(w, target, lambda: healths(w, target)[0] is Health.EJECTED)
        told = [event for event in events if isinstance(event, HealthChanged)]
        assert [(event.health, event.reason) for event in told] == [("ejected", "3 health checks failed: status 503")]
        node = w.discovery.snapshot(target).nodes[0]
        assert node.failures == 0, "no request of a caller's failed"
        assert node.check is not None
        assert (node.check.result, node.check.failures >= 3) == ("status 503", True)
        assert "status 503" in str(w.discovery.snapshot(target))
        tasks[0].heal()
        await use(w, target, lambda: healths(w, target)[0] is Health.HEALTHY)
        assert w.discovery.snapshot(target).as_dict()["nodes"][0]["check"]["result"] == "ok"

    world.run(scenario, health_check=HTTP, on_event=events.append)


def test_when_all_checks_fail_half_of_the_tasks_stay_in_use(lab: Lab, world: Worlds):
    tasks = lab.service("orders", tasks=4).tasks
    target = static(tasks)
    for task in tasks:
        task.errors(500, path="/health")

    async def scenario(w):
        def all_failed() -> bool:
            nodes = w.engine.service(target).nodes
            return all(node.checked is not None and node.checked.failures >= 5 for node in nodes)

        await use(w, target, all_failed)
        assert healths(w, target).count(Health.HEALTHY) == 2
        for _ in range(20):
            await w.connect(target)

    world.run(scenario, health_check=HTTP)


def test_a_task_that_refuses_checks_is_down_and_is_checked_until_it_answers(lab: Lab, world: Worlds):
    tasks = lab.service("orders", tasks=2).tasks
    target = static(tasks)
    tasks[0].refuse()

    async def scenario(w):
        await use(w, target, lambda: healths(w, target)[0] is Health.DOWN)
        tasks[0].heal()
        await use(w, target, lambda: healths(w, target)[0] is Health.HEALTHY)

    # Nothing but checks tries to connect meanwhile.
    world.run(scenario, health_check=HealthCheckPolicy(kind="tcp", interval=0.1), outlier=OutlierPolicy(connect_min=30))


def test_nothing_connects_unless_checks_are_asked_for(lab: Lab, world: Worlds):
    tasks = lab.service("orders", tasks=2).tasks
    target = static(tasks)

    async def scenario(w):
        for _ in range(50):
            async with w.lease(target):
                await w.pause(0.002)
        assert [task.connections for task in tasks] == [0, 0]
        assert w.discovery.snapshot(target).nodes[0].check is None

    world.run(scenario)


def test_nothing_connects_without_use(lab: Lab, world: Worlds):
    tasks = lab.service("orders", tasks=2).tasks
    target = static(tasks)

    async def scenario(w):
        await w.resolve(target)
        await use(w, target, lambda: all(task.requests for task in tasks))
        checkers = [node.checked for node in w.engine.service(target).nodes]
        while w.engine.service(target)._balancer._checks._running:
            await w.pause(0.005)
        before = [(task.connections, checked.at) for task, checked in zip(tasks, checkers, strict=True)]
        await w.pause(0.5)  # five intervals
        assert [(task.connections, checked.at) for task, checked in zip(tasks, checkers, strict=True)] == before

    world.run(scenario, health_check=HTTP)


def test_a_check_under_way_is_ended_with_its_discovery_or_its_time_and_leaves_nothing(lab: Lab, world: Worlds):
    tasks = lab.service("orders", tasks=3).tasks
    target = static(tasks)
    for task in tasks:
        task.hang()
    before = descriptors()

    async def scenario(w):
        await use(w, target, lambda: sum(task.requests for task in tasks) >= 3)

    world.run(scenario, health_check=HealthCheckPolicy(kind="http", interval=0.1, timeout=0.5))
    eventually(lambda: descriptors() <= before + sum(task.open_connections for task in tasks))
    eventually(lambda: not any(task.open_connections for task in tasks))
    assert descriptors() <= before


def descriptors() -> int:
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("counts in /proc: Linux only")
    return len(os.listdir("/proc/self/fd"))


def test_where_no_thread_can_be_had_a_request_is_not_held_up_by_checks(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    tasks = lab.service("orders", tasks=2).tasks
    target = static(tasks)

    def refused(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with Discovery(health_check=HTTP) as discovery:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refused)
            for _ in range(50):
                with discovery.lease(target):
                    time.sleep(0.01)
            assert [task.connections for task in tasks] == [0, 0]
        until = time.monotonic() + 20
        while not all(task.requests for task in tasks):
            assert time.monotonic() < until
            with discovery.lease(target):
                time.sleep(0.01)


def test_one_use_after_a_spell_without_has_every_task_checked(lab: Lab, world: Worlds):
    tasks = lab.service("orders", tasks=9).tasks  # more than are checked at once
    target = static(tasks)

    async def scenario(w):
        async with w.lease(target):
            await w.pause(1.1)
        assert not any(task.requests for task in tasks)
        async with w.lease(target):
            pass
        while not all(task.requests for task in tasks):
            await w.pause(0.01)

    world.run(scenario, health_check=HealthCheckPolicy(kind="http", interval=1))


def test_a_check_that_is_refused_has_dns_asked_again(world: Worlds, refused_port: int):
    dns = FakeResolver({a(): answer("127.0.0.1"), aaaa(): NoEndpoints("none"), srv(): NoEndpoints("none")})
    target, events = f"orders:{refused_port}", []

    async def scenario(w):
        await use(w, target, lambda: dns.asked.count(a()) == 2)
        told = [event.health for event in events if isinstance(event, HealthChanged)]
        assert told[0] == "down", "the uses of this test end well, which revives it"

    world.run(
        scenario,
        dns=dns,
        health_check=HTTP,
        outlier=OutlierPolicy(connect_min=30),
        cache=CachePolicy(min_ttl=60),
        on_event=events.append,
    )


def test_threads_that_checked_end_with_their_discovery(lab: Lab):
    tasks = lab.service("orders", tasks=2).tasks
    before = set(threading.enumerate())
    with Discovery(health_check=HTTP) as discovery:
        until = time.monotonic() + 20
        while not all(task.requests for task in tasks):
            assert time.monotonic() < until
            with discovery.lease(static(tasks)):
                time.sleep(0.01)
        started = set(threading.enumerate()) - before
        assert started
    eventually(lambda: not any(thread.is_alive() for thread in started), within=4)  # idle ones wait for 5 s


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_the_child_of_a_fork_checks_for_itself():
    """Checks are in flight in threads that the child does not have."""
    code = """
import os, sys, time
from ecs_discovery import Discovery, HealthCheckPolicy
from ecs_discovery.testing.lab import Lab
with Lab(namespace="prod.local") as lab:
    tasks = lab.service("orders", tasks=2).tasks
    target = "static://" + ",".join(f"{task.address}:{task.port}" for task in tasks)
    for task in tasks:
        task.hang()
    discovery = Discovery(health_check=HealthCheckPolicy(kind="http", interval=0.1, timeout=30))

    def use(until):
        end = time.monotonic() + 20
        while not until():
            assert time.monotonic() < end
            with discovery.lease(target):
                time.sleep(0.01)

    use(lambda: all(task.requests for task in tasks))
    pid = os.fork()
    if pid == 0:
        service = discovery._driver.engine.service(target)
        try:
            use(lambda: all(node.checked.result == "ok" for node in service.nodes))
        except BaseException:
            os._exit(1)
        os._exit(0)
    for task in tasks:
        task.heal()
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    os._exit(0)  # its own checks hang for another half minute
"""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert (ran.stdout.strip(), ran.stderr) == ("0", "")


# One check

Serve = Callable[[socket.socket], None]


@contextmanager
def server(serve: Serve) -> Iterator[int]:
    """A server that treats one connection after another like this; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                with sock:
                    try:
                        serve(sock)
                    except OSError:
                        pass

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def check_of(port: int, policy: HealthCheckPolicy) -> Check:
    return Check(Node(Endpoint("127.0.0.1", port)), Checked(), 0.0, policy, "orders.prod.local:8080")


def examined(world: Worlds, port: int, policy: HealthCheckPolicy) -> Result:
    found = []

    async def scenario(w):
        check = check_of(port, policy)
        if world.name == "threads":
            found.append(examine(check))
        else:
            found.append(await examine_async(check))

    world.run(scenario)
    return found[0]


def answering(data: bytes) -> Serve:
    def serve(sock: socket.socket) -> None:
        sock.recv(4096)
        sock.sendall(data)

    return serve


def dripping(sock: socket.socket) -> None:
    sock.recv(4096)
    for byte in GOOD * 10:
        sock.sendall(bytes([byte]))
        time.sleep(0.1)


def flooding(sock: socket.socket) -> None:
    sock.recv(4096)
    while True:
        sock.sendall(b"HTTP/1.1 103 Early Hints\r\n" + b"Link: </a>\r\n" * 100)


def hanging(sock: socket.socket) -> None:
    sock.recv(4096)
    sock.recv(4096)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (GOOD, "ok"),
        (b"HTTP/1.0 301 Moved\r\n\r\n", "ok"),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204\r\n\r\n", "ok"),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "status 503"),
        (b"HTTP/1.1 404\n", "status 404"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no HTTP/1 answer"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "no HTTP/1 answer"),
        (b"HTTP/1.1 2000 OK\r\n", "no HTTP/1 answer"),
        (b"HTTP/1.1 \xb2\xb0\xb0 OK\r\n", "no HTTP/1 answer"),
        (b"HTTP/2 200\r\n", "no HTTP/1 answer"),
        (b"HTTP/1.1 200", "closed without an answer"),
        (b"", "closed without an answer"),
    ],
)
def test_what_a_task_answers_decides(world: Worlds, data: bytes, why: str):
    with server(answering(data)) as port:
        found = examined(world, port, HTTP)
    assert found == Result(Outcome.SUCCESS if why == "ok" else Outcome.FAILURE, why)


@pytest.mark.parametrize("serve", [dripping, hanging])
def test_a_check_ends_at_its_time_limit(world: Worlds, serve: Serve):
    policy = HealthCheckPolicy(kind="http", timeout=1)
    began = time.monotonic()
    with server(serve) as port:
        found = examined(world, port, policy)
        took = time.monotonic() - began
    assert found == Result(Outcome.FAILURE, "no answer within 1 s")
    assert took < 8  # the drip goes on for 17 s


def test_an_answer_without_end_is_read_for_16_kib(world: Worlds):
    with server(flooding) as port:
        found = examined(world, port, HTTP)
    assert found == Result(Outcome.FAILURE, "no status within 16384 bytes")


def test_statuses_can_be_chosen(world: Worlds):
    with server(answering(b"HTTP/1.1 301 Moved\r\n")) as port:
        assert examined(world, port, HealthCheckPolicy(kind="http", statuses="200-299")).why == "status 301"
        assert examined(world, port, HealthCheckPolicy(kind="http", statuses="200,301")).why == "ok"


def test_a_check_asks_for_the_path_under_the_name_of_the_service(world: Worlds):
    asked = []

    def serve(sock: socket.socket) -> None:
        asked.append(sock.recv(4096))
        sock.sendall(GOOD)

    with server(serve) as port:
        examined(world, port, HTTP)
    assert asked[0].startswith(b"GET /health HTTP/1.1\r\nHost: orders.prod.local:8080\r\n")
    assert asked[0].endswith(b"Connection: close\r\n\r\n")


def test_a_port_that_opens_is_enough_for_tcp(world: Worlds):
    with server(lambda sock: None) as port:
        assert examined(world, port, HealthCheckPolicy(kind="tcp")) == Result(Outcome.SUCCESS, "ok")


def test_a_refused_check_is_a_failed_connect(world: Worlds):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        found = examined(world, sock.getsockname()[1], HTTP)
    assert found == Result(Outcome.CONNECT, "Connection refused")


def test_a_check_that_meets_silence_is_a_failed_connect(lab: Lab, world: Worlds):
    task = lab.service("orders", tasks=1).tasks[0]
    task.vanish()
    check = check_of(task.port, HealthCheckPolicy(kind="http", timeout=1))
    check.node.endpoint = Endpoint(task.address, task.port)
    found = []

    async def scenario(w):
        found.append(examine(check) if world.name == "threads" else await examine_async(check))

    world.run(scenario)
    assert found == [Result(Outcome.UNANSWERED, "no connection within 1 s")]


def test_a_process_that_has_run_out_of_descriptors_says_nothing_of_the_task(
    world: Worlds, monkeypatch: pytest.MonkeyPatch
):
    async def none_async(*_: object) -> socket.socket:
        raise OSError(EMFILE, "Too many open files")

    def none(*_: object) -> socket.socket:
        raise OSError(EMFILE, "Too many open files")

    monkeypatch.setattr("ecs_discovery.runtime.sockets.connect", none)
    monkeypatch.setattr("ecs_discovery.runtime.sockets.connect_async", none_async)
    assert examined(world, 9, HTTP).outcome is Outcome.NEUTRAL


def test_a_process_that_was_held_up_says_nothing_of_the_task():
    check = check_of(9, HealthCheckPolicy(kind="http", timeout=1))
    assert checking.failed(check, TimeoutError(), True, 0.4).outcome is Outcome.FAILURE
    assert checking.failed(check, TimeoutError(), False, 0.4).outcome is Outcome.UNANSWERED
    assert checking.failed(check, TimeoutError(), True, 0.6).outcome is Outcome.NEUTRAL
    assert checking.failed(check, TimeoutError(), False, 0.6).outcome is Outcome.NEUTRAL


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_an_answer_is_read_however_it_is_cut(size: int):
    data = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nA: b\r\n\r\nHTTP/1.1 418 I'm a teapot\r\nC: d"
    answer = Answer()
    for start in range(0, len(data), size):
        if answer.status is None:
            answer.feed(data[start : start + size])
    assert answer.status == 418
