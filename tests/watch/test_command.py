"""The command: what it prints, when it ends, and how."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ecs_discovery.cli import main
from ecs_discovery.cli.watch import command, look
from ecs_discovery.testing.lab import Lab
from tests.watch.support import ROOT, program
from tests.watch.test_socket import FORKING, HELD

QUICK = ("--seconds", "0.3", "--interval", "0.1")


class Ran(NamedTuple):
    status: object
    lines: list[str]
    """Of standard output, without the time of day."""
    err: str


@pytest.fixture
def run(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    def run(*arguments: str) -> Ran:
        monkeypatch.setenv("ECS_DISCOVERY_INSPECT", str(home))
        with pytest.raises(SystemExit) as ended:
            main(["watch", *arguments])
        out, err = capsys.readouterr()
        return Ran(ended.value.code, [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in out.splitlines()], err)

    return run


# Programs


def test_a_running_program_is_shown_line_by_line(home: Path, run: Callable[..., Ran]):
    with program(HELD, home) as running:
        found = run("orders", *QUICK)
    assert found == (0, [f"python: process {running.pid}", "orders: 1 endpoint from static: 1 healthy"], "")


def test_the_workers_of_a_program_are_one_in_json(home: Path, run: Callable[..., Ran]):
    with program(FORKING, home) as running:
        until = time.monotonic() + 10
        while len(list(home.iterdir())) < 4 and time.monotonic() < until:
            time.sleep(0.01)
        found = run("orders", "--json", *QUICK)
    assert (found.status, found.err) == (0, "")
    assert found.lines
    for line in found.lines:
        frame = json.loads(line)
        (seen,) = frame["programs"]
        assert len(seen["pids"]) == 4
        assert running.pid in seen["pids"]
        (service,) = seen["services"]
        assert (service["workers"], service["uses"], service["endpoints"][0]["known_by"]) == (4, 7, 4)
        assert (frame["name"], frame["resolution"], frame["notices"]) == ("orders", None, [])


def test_one_process_can_be_chosen(home: Path, run: Callable[..., Ran]):
    with program(HELD, home) as first, program(HELD, home):
        found = run("orders", "--pid", str(first.pid), *QUICK)
        assert found.lines[0] == f"python: process {first.pid}"
        assert "2 processes" in run("orders", *QUICK).lines[0]
    found = run("orders", "--pid", str(first.pid), *QUICK)
    assert (found.status, found.lines) == (1, [])
    assert f"process {first.pid} is not open to inspection" in found.err
    assert "ECS_DISCOVERY_INSPECT=1" in found.err


def test_a_program_that_does_not_use_the_name_is_named_and_the_name_is_resolved(home: Path, run: Callable[..., Ran]):
    with program(HELD, home):
        (line,) = run("static://127.0.0.9:1", "--json", "--seconds", "0.1", "--interval", "1").lines
    frame = json.loads(line)
    assert frame["programs"][0]["other_names"] == ["orders"]
    assert frame["resolution"]["services"][0]["endpoints"][0]["endpoint"] == "127.0.0.9:1"
    assert frame["notices"] == []


def test_a_program_that_ends_is_told(home: Path, run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ECS_DISCOVERY_SERVICES", "orders=static://127.0.0.3:1")
    with program(HELD, home) as running:
        assert running.stdin is not None
        stdin, looks = running.stdin, []
        real = look.Watcher.look

        def looking(self: look.Watcher) -> Any:
            looks.append(1)
            if len(looks) == 2:
                stdin.close()
                running.wait(20)
            if len(looks) == 3:
                raise KeyboardInterrupt
            return real(self)

        monkeypatch.setattr(look.Watcher, "look", looking)
        found = run("orders", "--interval", "0.1")
    assert found.lines[2:] == [
        look.NONE_FOUND,
        "python: no process is left",
        "orders: 1 endpoint from static: 1 healthy",
    ]


def test_what_means_harm_is_told_and_the_others_are_shown(home: Path, run: Callable[..., Ran]):
    with (
        program(HELD, home) as running,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener,
    ):
        listener.bind(str(home / "99-abc.sock"))
        listener.listen(8)
        found = run("orders", "--seconds", "0.1", "--interval", "3")
    assert found.lines == [
        "no answer from process 99",
        f"python: process {running.pid}",
        "orders: 1 endpoint from static: 1 healthy",
    ]


def test_it_writes_nothing_and_opens_no_socket_of_its_own(home: Path, run: Callable[..., Ran]):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(home / "99-abc.sock"))
    os.utime(home / "99-abc.sock", (0, 0))
    before = os.stat(home).st_mtime_ns
    assert run("static://127.0.0.1:1", *QUICK).lines[0] == look.NONE_FOUND
    assert [path.name for path in home.iterdir()] == ["99-abc.sock"]
    assert os.stat(home).st_mtime_ns == before


# Without a program


def test_without_a_program_endpoints_come_and_leave_as_the_name_resolves(
    home: Path, run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ECS_DISCOVERY_CACHE_MIN_TTL", "1")
    monkeypatch.setenv("ECS_DISCOVERY_CACHE_MAX_TTL", "1")
    with Lab(namespace="prod.local", seed=1) as lab:
        service = lab.service("orders", tasks=2)
        port = service.tasks[0].port
        totals: list[int] = []
        real = look.Watcher.look

        def looking(self: look.Watcher) -> Any:
            if len(totals) == 2:
                service.scale(3)
            if totals[-1:] == [3]:
                raise KeyboardInterrupt
            frame = real(self)
            assert frame.own is not None
            totals.append(frame.own.services[0].seen.total)
            return frame

        monkeypatch.setattr(look.Watcher, "look", looking)
        found = run(
            f"orders:{port}",
            *("--namespace", "prod.local", "--nameserver", lab.nameserver, "--seconds", "30", "--interval", "0.2"),
        )
    assert (found.status, found.err) == (130, "")
    assert found.lines[:2] == [look.NONE_FOUND, f"orders:{port}: 2 endpoints from dns: 2 healthy"]
    assert any("came (3 now)" in line for line in found.lines)


def test_a_name_that_does_not_resolve_is_told_once(home: Path, run: Callable[..., Ran]):
    with Lab(namespace="prod.local", seed=1) as lab:
        found = run("nothing:80", "--namespace", "prod.local", "--nameserver", lab.nameserver, *QUICK)
    assert found.status == 0
    assert found.lines[0] == look.NONE_FOUND
    assert sum("no such name" in line for line in found.lines) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("http://orders",),
        ("orders", "--pid", "0"),
        ("orders", "--interval", "0"),
        ("orders", "--seconds", "nan"),
        ("orders", "--nameserver", "nowhere"),
        (),
    ],
)
def test_what_makes_no_sense_is_refused(run: Callable[..., Ran], arguments: tuple[str, ...]):
    found = run(*arguments)
    assert (found.status, found.lines) == (2, [])
    assert "ecs-discovery watch" in found.err


def test_an_interval_is_kept_however_long_a_look_takes(monkeypatch: pytest.MonkeyPatch, home: Path):
    now, waited = [0.0], []

    def sleep(seconds: float) -> None:
        waited.append(round(seconds, 3))
        now[0] += seconds

    def looking(self: look.Watcher) -> Any:
        now[0] += 0.25
        return real(self)

    real = look.Watcher.look
    monkeypatch.setattr(look.Watcher, "look", looking)
    with pytest.raises(SystemExit):
        command.watch(
            ["static://127.0.0.1:1", "--json", "--interval", "1", "--seconds", "2.5"],
            clock=lambda: now[0],
            sleep=sleep,
        )
    assert waited == [0.75, 0.75, 0.25]


# Its end


@contextmanager
def started(home: Path, *arguments: str, terminal: bool, prelude: str = "pass") -> Iterator[tuple[Any, int]]:
    """The command in a process of its own, and what reads its output."""
    mine, theirs = pty.openpty() if terminal else os.pipe()
    code = f"import sys; {prelude}; from ecs_discovery.cli import main; main(['watch', *sys.argv[1:]])"
    environ = {"PATH": "/usr/bin:/bin", "ECS_DISCOVERY_INSPECT": str(home), "TERM": "xterm", "COLUMNS": "80"}
    running = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env={**environ, "LINES": "24", "PYTHONPATH": str(ROOT)},
    )
    os.close(theirs)
    try:
        yield running, mine
    finally:
        running.kill()
        running.wait(20)
        assert running.stderr is not None
        running.stderr.close()
        os.close(mine)


def read_until(descriptor: int, text: str) -> str:
    """What comes until `text` does, or the end."""
    found, until = b"", time.monotonic() + 20
    while text.encode() not in found and time.monotonic() < until:
        if select.select([descriptor], [], [], 0.1)[0]:
            try:
                part = os.read(descriptor, 65536)
            except OSError:  # the other end of a terminal is closed
                break
            if not part:
                break
            found += part
    return found.decode(errors="replace")


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, None)])
def test_ctrl_c_ends_it_quietly(home: Path, terminal: bool, number: signal.Signals, status: int | None):
    with program(HELD, home), started(home, "orders", "--interval", "5", terminal=terminal) as (running, output):
        assert "1 endpoint from static" in read_until(output, "1 endpoint from static")
        time.sleep(0.2)  # it waits for the next look, and no output tells when
        running.send_signal(number)
        rest = read_until(output, "nothing of this kind")
        expected = status if status is not None else 143 if terminal else -signal.SIGTERM
        assert running.wait(20) == expected
        assert running.stderr.read() == b""
        if terminal:  # it leaves the other screen, and the last picture stays
            assert "\x1b[?1049l" in rest
            assert "1 endpoint from static" in rest.partition("\x1b[?1049l")[2]


def test_a_terminal_without_rich_gets_lines(home: Path):
    with (
        program(HELD, home),
        started(home, "orders", "--seconds", "0.2", terminal=True, prelude="sys.modules['rich'] = None") as (
            ran,
            output,
        ),
    ):
        text = read_until(output, "nothing of this kind")
        assert ran.wait(20) == 0
        assert "orders: 1 endpoint from static: 1 healthy" in text
        assert "\x1b" not in text
        assert b"a live table needs rich" in ran.stderr.read()


def test_it_ends_when_nobody_reads_its_lines(home: Path):
    with started(home, "static://127.0.0.1:1", "--json", "--interval", "0.1", terminal=False) as (running, output):
        read_until(output, "\n")
        os.dup2(os.open(os.devnull, os.O_RDONLY), output)  # the only reader is gone
        assert running.wait(20) == 0
        assert running.stderr.read() == b""


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_it_needs_no_other_package(home: Path, missing: str):
    with started(
        home, "static://127.0.0.1:1", "--seconds", "0.1", terminal=False, prelude=f"sys.modules['{missing}'] = None"
    ) as (running, output):
        assert "1 endpoint from static" in read_until(output, "1 endpoint from static")
        assert running.wait(20) == 0
