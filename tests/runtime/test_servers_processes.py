"""Servers and pools that fork, with a session that was made and used before the fork."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ecs_discovery.testing.lab import Lab, LabService
from tests.servers import free_port, required_module
from tests.support import eventually

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="these servers are tested on Linux")

# What a process says when it is asked: who it is, how its request went, its first rng, and its threads.
SHARED = """
import json, os, sys, threading, time
import requests
from ecs_discovery import wrap_session

url, here = os.environ["LAB_URL"], os.environ["LAB_DIRECTORY"]
session = wrap_session(requests.Session(), namespace="prod.local")
session.get(url, timeout=10)
discovery = session.get_adapter("http://").discovery

def meet():
    '''Until two processes are here, so that each has something to do.'''
    open(os.path.join(here, f"met-{os.getpid()}"), "w").close()
    until = time.monotonic() + 20
    while sum(name.startswith("met-") for name in os.listdir(here)) < 2 and time.monotonic() < until:
        time.sleep(0.005)

def report():
    rng = [discovery._driver.engine.rng() for _ in range(3)]
    status = session.get(url, timeout=10).status_code
    threads = [thread.name for thread in threading.enumerate()]
    return {"pid": os.getpid(), "status": status, "rng": rng, "threads": threads}
"""

APPLICATION = """
def application(environ, start_response):
    if environ["PATH_INFO"] == "/meet":
        meet()
    said = report()
    uwsgi = sys.modules.get("uwsgi")
    said["has_threads"] = uwsgi is None or bool(uwsgi.has_threads)
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(said).encode()]
"""

POOL = """
from importlib import import_module

def work(number):
    meet()
    return report()

if __name__ == "__main__":
    pool = import_module(sys.argv[1]).get_context("fork").Pool(2)
    print(json.dumps(pool.map(work, range(2), 1)))
    pool.terminate()
"""

GUNICORN = ["-m", "gunicorn", "--preload", "--workers", "2", "--bind", "127.0.0.1:{port}", "app:application"]
UWSGI = [
    *("-c", "import sys, pyuwsgi; sys.exit(pyuwsgi.run(sys.argv[1:]))", "--master", "--processes", "{processes}"),
    *("--http-socket", "127.0.0.1:{port}", "--wsgi-file", "app.py", "--need-app", "--die-on-term"),
]


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(namespace="prod.local", seed=3) as lab:
        yield lab


def environment(lab: Lab, service: LabService, directory: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "default",
        "LAB_URL": service.url(),
        "LAB_DIRECTORY": str(directory),
        "ECS_DISCOVERY_NAMESERVERS": lab.nameserver,
        "ECS_DISCOVERY_CACHE_MIN_TTL": "0",
    }


@contextmanager
def serving(command: list[str], lab: Lab, service: LabService, directory: Path, processes: int = 2) -> Iterator[str]:
    """The URL of a server in a session of its own, which is ended as a whole."""
    (directory / "app.py").write_text(SHARED + APPLICATION)
    port, log = free_port(), directory / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *(part.format(port=port, processes=processes) for part in command)],
            env=environment(lab, service, directory),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )

    def listening() -> bool:
        assert process.poll() is None, log.read_text()
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", port)) == 0

    try:
        eventually(listening, within=20)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
    assert "multi-threaded" not in log.read_text()  # how Python 3.12 warns


def ask(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=30) as response:
        said: dict[str, Any] = json.load(response)
        return said


def assert_each_stands_on_its_own(said: list[dict[str, Any]], service: LabService) -> None:
    assert [each["status"] for each in said] == [200, 200]
    assert len({each["pid"] for each in said}) == 2
    assert said[0]["rng"] != said[1]["rng"]
    assert service.tasks[0].connections == 1 + 2  # the parent's, and one of each child


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("gunicorn", GUNICORN),
        ("pyuwsgi", UWSGI),
        pytest.param("pyuwsgi", [part for part in UWSGI if part != "--master"], id="pyuwsgi without a master"),
    ],
)
def test_each_worker_of_a_server_that_loads_the_application_first_stands_on_its_own(
    name: str, command: list[str], lab: Lab, tmp_path: Path
):
    """gunicorn forks with Python's hooks, uWSGI without."""
    required_module(name, name)
    service = lab.service("orders", tasks=1)
    with serving(command, lab, service, tmp_path) as url, ThreadPoolExecutor(2) as threads:
        said = list(threads.map(ask, [f"{url}/meet"] * 2))
    assert_each_stands_on_its_own(said, service)


def test_uwsgi_without_threads_looks_names_up_in_the_request(lab: Lab, tmp_path: Path):
    """A thread would get no further between two requests, and take the answer it finds then for one that is late."""
    required_module("pyuwsgi", "pyuwsgi")
    service = lab.service("orders", tasks=1, ttl=0)
    with serving(UWSGI, lab, service, tmp_path, processes=1) as url:
        first = ask(url)
        if first["has_threads"]:
            pytest.skip("this uWSGI always runs with threads (2.0.27 and newer)")
        before = lab.dns.total
        second = ask(url)
        refreshed = lab.dns.total - before
    assert (first["status"], second["status"]) == (200, 200)
    assert "ecs_discovery" not in first["threads"] + second["threads"]
    assert refreshed > 0


@pytest.mark.parametrize("name", ["multiprocessing", "billiard"])
def test_each_process_of_a_pool_that_forks_stands_on_its_own(name: str, lab: Lab, tmp_path: Path):
    """The prefork pool of celery is one of billiard's."""
    required_module(name, name)
    service = lab.service("orders", tasks=1)
    script = tmp_path / "pool.py"
    script.write_text(SHARED + POOL)
    result = subprocess.run(
        [sys.executable, str(script), name],
        env=environment(lab, service, tmp_path),
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert result.returncode == 0, result.stderr
    assert not re.search("multi-threaded|Exception ignored", result.stderr), result.stderr
    assert_each_stands_on_its_own(json.loads(result.stdout), service)
