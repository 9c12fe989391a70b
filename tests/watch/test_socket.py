"""The socket of a program: whom it is open to, what it says, and when it is there."""

from __future__ import annotations

import asyncio
import builtins
import gc
import json
import logging
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
import requests

from ecs_discovery import AsyncDiscovery, ConfigurationError, Discovery, wrap_session
from ecs_discovery.client.inspection import document
from ecs_discovery.config.settings import inspection_directory
from ecs_discovery.core.balancing.node import Outcome
from ecs_discovery.models import Resolution
from ecs_discovery.runtime import inspection_socket
from ecs_discovery.testing.lab import Lab
from tests.support import endpoints, eventually
from tests.watch.support import ROOT, connected, only, program, received, told
from tests.worlds import Worlds, world

__all__ = ["world"]

TWO = {"orders": "static://127.0.0.1:1,127.0.0.2:1"}


def test_a_finaliser_that_comes_when_python_has_emptied_the_modules_says_nothing(home: Path):
    sockets = inspection_socket.InspectionSocket(str(home), lambda request: b"", lambda: True)
    sockets.open()
    try:
        FunctionType(inspection_socket.InspectionSocket.wake.__code__, {"__builtins__": builtins})(sockets)
    finally:
        sockets.close()


# Whom it is open to


def test_the_socket_and_its_directory_are_for_their_user_alone(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ECS_DISCOVERY_INSPECT", str(home / "made"))
    with Discovery():
        assert stat.S_IMODE((home / "made").lstat().st_mode) == 0o700
        found = only(home / "made").lstat()
        assert stat.S_ISSOCK(found.st_mode)
        assert stat.S_IMODE(found.st_mode) == 0o600


def test_the_usual_directory_is_the_users_own(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ECS_DISCOVERY_INSPECT", "1")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home))
    with Discovery():
        assert only(home / "ecs_discovery").name.startswith(f"{os.getpid()}-")
    assert inspection_socket.usual_directories({}, 42) == ("/tmp/ecs_discovery-42",)


@pytest.mark.parametrize("spoilt", ["open to others", "of another user", "a symbolic link", "a file", "too long"])
def test_a_directory_that_cannot_be_trusted_is_refused_and_said_once(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, spoilt: str
):
    path = home / ("d" * 100 if spoilt == "too long" else "directory")
    if spoilt == "a symbolic link":
        (home / "other").mkdir(0o700)
        path.symlink_to(home / "other")
    elif spoilt == "a file":
        path.touch(0o700)
    elif spoilt != "too long":
        path.mkdir(0o755 if spoilt == "open to others" else 0o700)
    if spoilt == "of another user":
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    monkeypatch.setenv("ECS_DISCOVERY_INSPECT", str(path))
    with caplog.at_level(logging.WARNING, "ecs_discovery"), Discovery(services=TWO) as first, Discovery():
        assert len(first.resolve("orders").endpoints) == 2
    assert [record.getMessage().partition(": ")[0] for record in caplog.records] == [
        "this process is not open to inspection"
    ]
    assert not list(home.rglob("*.sock"))


@pytest.mark.parametrize(
    ("text", "directory"),
    [("1", ""), ("on", ""), (" yes ", ""), ("0", None), ("off", None), ("", None), ("/run/x", "/run/x")],
)
def test_the_variable_says_where(text: str, directory: str | None):
    assert inspection_directory({"ECS_DISCOVERY_INSPECT": text}) == directory
    assert inspection_directory({}) is None


@pytest.mark.parametrize("text", ["maybe", "relative/path", "/with\0nul"])
def test_a_variable_that_says_nothing_is_refused(text: str):
    with pytest.raises(ConfigurationError, match="ECS_DISCOVERY_INSPECT"):
        inspection_directory({"ECS_DISCOVERY_INSPECT": text})


def test_the_variable_is_known(home: Path):
    with Discovery():  # a warning is an error here
        pass


def test_nothing_is_loaded_for_those_who_do_not_ask():
    code = """
import sys, threading
from ecs_discovery import Discovery
with Discovery(services={"orders": "static://127.0.0.1:1"}) as discovery:
    discovery.resolve("orders")
    print([name for name in sys.modules if "inspection" in name], threading.active_count())
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "ECS_DISCOVERY_INSPECT": "0"},
        timeout=30,
    )
    assert (done.stdout, done.stderr) == ("[] 1\n", "")


# What it says


def test_what_a_program_knows_is_shown(home: Path, world: Worlds):
    async def scenario(w: Any) -> None:
        await w.resolve("orders")
        for _ in range(6):
            async with w.lease("orders") as lease:
                if lease.host == "127.0.0.2":
                    lease.fail()
        async with w.lease("orders"):
            found = told(only(home))
        (service,) = found["services"]
        assert found["pid"] == os.getpid()
        assert (service["target"], service["source"], service["total"], service["pending"]) == (
            "orders",
            "static",
            2,
            1,
        )
        assert (service["uses"], service["failures"]) == (7, sum(e["failures"] for e in service["endpoints"]))
        assert {each["endpoint"] for each in service["endpoints"]} == {"127.0.0.1:1", "127.0.0.2:1"}
        assert {"what": "members", "kind": "added", "number": 2} in service["counts"]

    world.run(scenario, services=TWO)


def test_an_ejection_is_shown_with_its_reason_and_its_end(home: Path, world: Worlds):
    async def scenario(w: Any) -> None:
        await w.resolve("orders")
        service = w.engine.service("orders")
        bad = service.nodes[1]
        for _ in range(20):
            service.observe(service.nodes[0], Outcome.SUCCESS, w.engine.clock(), 0.01)
            service.observe(bad, Outcome.FAILURE, w.engine.clock())
        seen = {each["endpoint"]: each for each in told(only(home))["services"][0]["endpoints"]}
        assert seen["127.0.0.2:1"]["state"] == "ejected"
        assert "in a row" in seen["127.0.0.2:1"]["reason"]
        assert seen["127.0.0.2:1"]["returns_in"] > 0
        assert seen["127.0.0.1:1"]["state"] == "healthy"

    world.run(scenario, services=TWO)


def test_the_default_discovery_of_a_wrapped_session_is_shown(home: Path):
    with Lab(namespace="prod.local", seed=1) as lab:
        service = lab.service("orders", tasks=2)
        with wrap_session(requests.Session(), namespace="prod.local", nameservers=[lab.nameserver]) as session:
            assert session.get(service.url(), timeout=5).status_code == 200
            found = told(only(home))
        (seen,) = found["services"]
        assert (seen["total"], seen["uses"], seen["source"]) == (2, 1, "dns")
        assert 0 < seen["ttl"] <= 60
        assert 0 <= seen["age"] < 60
        assert sum(each["number"] for each in found["lookups"] if each["kind"] == "ok") >= 1


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("orders", ["orders", "orders.prod.local:8080", "dns://orders:8080"]),
        ("orders.prod.local", ["orders", "orders.prod.local:8080", "dns://orders:8080"]),
        ("orders:8080", ["orders.prod.local:8080", "dns://orders:8080"]),
        ("dns://orders:8080", ["dns://orders:8080"]),
        ("shop", ["cloudmap://prod.local/shop"]),
        ("nothing", []),
        ("", []),
        ("no target at all", []),
    ],
)
def test_a_name_means_all_services_of_that_name(asked: str, shown: list[str]):
    targets = ["orders", "orders.prod.local:8080", "dns://orders:8080", "cloudmap://prod.local/shop"]
    with Discovery(namespace="prod.local") as discovery:
        for target in targets:
            discovery._engine.service(target)
        found = json.loads(document([discovery._engine], asked))
    assert [each["target"] for each in found["services"]] == shown
    assert found["names"] == [target for target in targets if target not in shown]


def test_of_ten_thousand_endpoints_those_in_trouble_are_shown_and_the_others_counted(home: Path):
    with Discovery(namespace="prod.local") as d:
        service = d._engine.service("orders")
        service._accept(Resolution(endpoints(10_000), 10.0, "dns"), d._engine.clock())
        bad = service.nodes[7_777]
        service.observe(bad, Outcome.CONNECT, d._engine.clock())
        pauses: list[int] = []
        text = document([d._engine], "orders", pause=lambda: pauses.append(1))
        (seen,) = json.loads(text)["services"]
        assert len(text) < 128 * 1024
        assert (seen["total"], len(seen["endpoints"])) == (10_000, 200)
        assert [each["number"] for each in seen["states"]] == [9_999, 0, 0, 1]
        assert seen["endpoints"][0]["endpoint"] == str(bad.endpoint)
        assert len(pauses) == 40  # others get their turn between steps of 250 endpoints
        assert len(told(only(home))["services"][0]["endpoints"]) == 200


def test_many_services_are_bounded_too():
    with Discovery() as discovery:
        for port in range(1, 201):
            discovery._engine.service(f"orders:{port}")
        found = json.loads(document([discovery._engine], "orders"))
        assert (len(found["services"]), found["services_left"]) == (8, 192)
        found = json.loads(document([discovery._engine], ""))
        assert (len(found["names"]), found["names_left"]) == (50, 150)


def test_arguments_of_the_program_are_not_shown(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["/srv/app/serve.py", "--password", "hunter2"])
    with Discovery() as discovery:
        text = document([discovery._engine], "").decode()
    assert '"program": "serve.py"' in text
    assert "hunter2" not in text


# When it is there


def test_closing_the_last_discovery_removes_it(home: Path):
    first, second = Discovery(), Discovery()
    first.close()
    assert told(only(home))["pid"] == os.getpid()
    second.close()
    assert list(home.iterdir()) == []


def test_closing_the_last_discovery_of_asyncio_removes_it(home: Path):
    async def main() -> None:
        async with AsyncDiscovery():
            assert len(list(home.iterdir())) == 1

    asyncio.run(main())
    assert list(home.iterdir()) == []


def test_a_discovery_made_later_opens_it_again(home: Path):
    for _ in range(200):  # the thread of the one before is still ending
        with Discovery(services=TWO) as discovery:
            discovery.resolve("orders")
            assert told(only(home))["services"][0]["total"] == 2
    assert list(home.iterdir()) == []


def test_a_discovery_that_is_only_dropped_removes_it(home: Path):
    discovery = Discovery()
    assert len(list(home.iterdir())) == 1
    del discovery
    gc.collect()
    eventually(lambda: list(home.iterdir()) == [])


HELD = """
import sys
from ecs_discovery import Discovery
discovery = Discovery(services={"orders": "static://127.0.0.1:1"})
discovery.resolve("orders")
print("ready", flush=True)
sys.stdin.read()
"""


def test_the_exit_of_the_program_removes_it(home: Path):
    with program(HELD, home) as running:
        assert told(only(home))["pid"] == running.pid
    assert list(home.iterdir()) == []


def test_what_a_killed_program_left_is_removed_by_the_next_one_and_what_lives_is_not(home: Path):
    with program(HELD, home) as dead, program(HELD, home) as alive:
        dead.send_signal(signal.SIGKILL)
        dead.wait(20)
        names = {int(path.name.partition("-")[0]): path for path in home.iterdir()}
        assert set(names) == {dead.pid, alive.pid}
        other = home / "notes.sock"
        other.touch()
        for path in home.iterdir():
            os.utime(path, (time.time() - 3600,) * 2)
        with Discovery():
            assert not names[dead.pid].exists()
            assert told(names[alive.pid])["pid"] == alive.pid
            assert other.exists()


def test_one_that_is_just_being_opened_is_not_taken_for_a_dead_one(home: Path):
    opening = home / "123-abc.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(str(opening))  # and does not listen yet
        with Discovery():
            assert opening.exists()


FORKING = """
import os, sys, threading, time
alive = []  # a hook that is registered before ours runs after it
os.register_at_fork(before=lambda: alive.extend(thread.name for thread in threading.enumerate()))
from ecs_discovery import Discovery
discovery = Discovery(services={"orders": "static://127.0.0.1:1"})
with discovery.lease("orders"):
    pass
children = []
for _ in range(3):
    read, write = os.pipe()
    time.sleep(0.1)  # the thread of the socket is at rest
    pid = os.fork()
    if not pid:
        os.close(write)
        with discovery.lease("orders"):
            pass
        os.read(read, 1)  # until the parent ends
        discovery.close()
        os._exit(0)
    os.close(read)
    children.append((pid, write))
print("ready" if set(alive) == {"MainThread"} else alive, flush=True)
sys.stdin.read()
for _, write in children:
    os.close(write)
for pid, _ in children:
    os.waitpid(pid, 0)
"""


def test_a_fork_has_a_socket_of_its_own_and_the_parent_keeps_its(home: Path):
    with program(FORKING, home) as running:
        eventually(lambda: len(list(home.iterdir())) == 4)
        found = [told(path) for path in home.iterdir()]
        assert all(path.name.startswith(f"{told(path)['pid']}-") for path in home.iterdir())
        assert len({each["pid"] for each in found}) == 4
        assert running.pid in {each["pid"] for each in found}
        assert {(each["program"], each["group"]) for each in found} == {("python", found[0]["group"])}
        assert sorted(each["services"][0]["uses"] for each in found) == [1, 2, 2, 2]
    assert list(home.iterdir()) == []


def test_a_child_that_runs_another_program_at_once_opens_none(home: Path):
    with Discovery():
        subprocess.run([sys.executable, "-c", ""], preexec_fn=lambda: time.sleep(0.02), check=True, timeout=30)
        time.sleep(0.3)  # longer than a child waits before it opens a socket: none may come
        assert only(home).name.startswith(f"{os.getpid()}-")
        assert told(only(home))["pid"] == os.getpid()


# Clients that mean harm


def test_who_says_nothing_is_sent_away_and_others_are_served_meanwhile(home: Path):
    with Discovery(services=TWO) as discovery:
        discovery.resolve("orders")
        silent = [connected(only(home)) for _ in range(3)]  # one less than are served at once
        began = time.monotonic()
        assert told(only(home))["services"][0]["total"] == 2
        assert time.monotonic() - began < 0.9  # sooner than the silent ones are sent away
        assert [received(sock) for sock in silent] == [b"", b"", b""]
        for sock in silent:
            sock.close()


def test_however_many_connect_each_is_served_or_sent_away(home: Path):
    with Discovery(services=TWO) as discovery:
        discovery.resolve("orders")
        silent = [connected(only(home)) for _ in range(12)]
        assert told(only(home))["services"][0]["total"] == 2  # after three rounds of a second each
        for sock in silent:
            sock.close()


def test_who_sends_without_end_is_sent_away_before_its_time_is_up(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inspection_socket, "_ASK", 30.0)
    with Discovery(), connected(only(home)) as sock:
        sock.sendall(b"x" * 512)
        assert received(sock) == b""


def test_who_takes_nothing_is_sent_away(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inspection_socket, "_SEND", 0.3)
    with Discovery() as discovery:
        found = discovery._engine._inspection
        assert found is not None
        found._socket._answer = lambda request: b"x" * 10_000_000
        with connected(only(home)) as sock:
            sock.sendall(b"orders\n")
            time.sleep(1)  # longer than the server waits: to read is what must not be done meanwhile
            assert len(received(sock)) < 10_000_000


def test_a_client_is_served_on_when_the_thread_is_woken_for_something_else(home: Path):
    with Discovery() as discovery, connected(only(home)) as sock:
        found = discovery._engine._inspection
        assert found is not None
        sock.sendall(b"ord")
        for _ in range(20):
            found._socket.wake()
            time.sleep(0.005)
        sock.sendall(b"ers\n")
        assert json.loads(received(sock))["pid"] == os.getpid()


def test_a_fault_of_ours_is_said_once_and_breaks_nothing(home: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING, "ecs_discovery"), Discovery(services=TWO) as discovery:
        found = discovery._engine._inspection
        assert found is not None
        found._socket._answer = lambda request: b"%d" % (1 // 0)
        for _ in range(2):
            with connected(only(home)) as sock:
                sock.sendall(b"orders\n")
                assert received(sock) == b""
        assert len(discovery.resolve("orders").endpoints) == 2
    assert [record.getMessage() for record in caplog.records] == [
        "an inspection failed: ZeroDivisionError: integer division or modulo by zero"
    ]
