"""The ways in which servers run Python: forks of gunicorn, multiprocessing and billiard (celery's), uWSGI, greenlets.

Each runs in a process of its own; the lab is in this one, and counts what reaches it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import requests

import ecs_discovery
from ecs_discovery.lab import Lab, LabService
from tests.support import eventually

ROOT = Path(ecs_discovery.__file__).parent.parent
BIN = Path(sys.executable).parent

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def needed(module: str) -> None:
    """Skips the test where a server is not installed; fails where all must be."""
    if find_spec(module) is None:
        reason = f"{module} is not installed (extra test)"
        if os.environ.get("TESTS_REQUIRE_SERVERS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(namespace="prod.local", seed=5) as lab:
        yield lab


@pytest.fixture
def orders(lab: Lab) -> LabService:
    return lab.service("orders", tasks=3, ttl=60)


def environment(lab: Lab, orders: LabService) -> dict[str, str]:
    """Where a program finds the lab, and the package."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "ECS_DISCOVERY_NAMESPACE": "prod.local",
        "ECS_DISCOVERY_NAMESERVERS": lab.nameserver,
        "URL": orders.url(),
    }


def run(code: str, lab: Lab, orders: LabService, *flags: str) -> Any:
    """What a program prints, as JSON. Its warnings are errors."""
    command = [sys.executable, "-W", "error", *flags, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, env=environment(lab, orders))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


SESSION = """
import json, os, sys, threading, time
import requests
from ecs_discovery import wrap_session
URL = os.environ["URL"]
session = wrap_session(requests.Session())
discovery = session.get_adapter("http://").discovery
"""


def test_no_thread_of_ours_lives_when_a_process_forks(lab: Lab, orders: LabService):
    """Forking with threads may leave locks held in the child; Python 3.12 warns of it, which is an error here."""
    code = f"""
import os, threading
alive = []
# Hooks of this kind run in the reverse order of their registration: this one after those of the package.
os.register_at_fork(before=lambda: alive.append([each.name for each in threading.enumerate()]))
{SESSION}
from ecs_discovery.models import Question
for number in range(10):
    session.get(URL, timeout=10)
    discovery.background.ask(Question("a", "orders.prod.local"), force=True)  # is under way, or its thread idle
    pid = os.fork()
    if pid == 0:
        os._exit(0 if session.get(URL, timeout=10).ok else 1)
    alive.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
assert session.get(URL, timeout=10).ok
print(json.dumps(alive))
"""
    assert run(code, lab, orders) == [["MainThread"], 0] * 10


def test_a_fork_does_not_wait_for_a_look_up_that_takes_long(lab: Lab, orders: LabService):
    """The look-up goes on in the parent, and what was asked for meanwhile begins after the fork."""
    code = """
import json, os, threading
from ecs_discovery.workers import Workers
workers, gate, done = Workers(limit=1), threading.Event(), []
started = threading.Event()
def long():
    started.set()
    gate.wait(20)
    done.append("long")
workers.spawn(long)
workers.spawn(lambda: done.append("queued"))
started.wait(20)
import warnings
warnings.simplefilter("ignore")  # a thread is left, and Python says so
pid = os.fork()
if pid == 0:
    fresh = threading.Event()
    workers.spawn(fresh.set)  # the child has workers of its own
    os._exit(0 if fresh.wait(10) else 1)
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
gate.set()
last = threading.Event()
workers.spawn(last.set)
last.wait(20)
while len(done) < 2:
    pass
print(json.dumps([code, sorted(done)]))
"""
    assert run(code, lab, orders) == [0, ["long", "queued"]]


def test_a_fork_out_of_a_worker_thread_goes_on(lab: Lab, orders: LabService):
    code = """
import json, os, threading, warnings
from ecs_discovery.workers import Workers
warnings.simplefilter("ignore")
workers, codes, over = Workers(), [], threading.Event()
def job():
    pid = os.fork()
    if pid == 0:
        ran = []
        workers.spawn(lambda: ran.append(1))
        os._exit(0)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    over.set()
workers.spawn(job)
over.wait(20)
print(json.dumps(codes))
"""
    assert run(code, lab, orders) == [0]


POOL = """
def work(number):
    return os.getpid(), session.get(URL, timeout=10).status_code, discovery.engine.dice()

assert session.get(URL, timeout=10).ok
with {pool} as pool:
    print(json.dumps(pool.map(work, range(40), chunksize=1)))
"""


@pytest.mark.parametrize(
    ("module", "pool"),
    [
        ("multiprocessing", "__import__('multiprocessing').get_context('fork').Pool(2)"),
        ("billiard", "__import__('billiard').Pool(2)"),
    ],
    ids=["multiprocessing", "celery"],
)
def test_the_processes_of_a_pool_go_on_with_what_their_parent_knew(
    lab: Lab, orders: LabService, module: str, pool: str
):
    needed(module)
    results = run(SESSION + POOL.format(pool=pool), lab, orders, "-W", "default::DeprecationWarning:billiard")
    assert {status for _, status, _ in results} == {200}
    assert len({dice for _, _, dice in results}) == 40, "children draw alike"
    assert set(lab.dns.queries.values()) == {1}, "one look-up per record type, by the parent"
    processes = {process for process, _, _ in results}
    assert sum(task.connections for task in orders.tasks) >= 1 + len(processes), "none uses its parent's connection"


APPLICATION = (
    SESSION
    + """
assert session.get(URL, timeout=10).ok  # before the fork


def application(environ, start_response):
    answer = session.get(URL, timeout=10)
    start_response("200 OK", [("Content-Type", "application/json")])
    found = [os.getpid(), answer.status_code, discovery.engine.dice(), discovery.engine.queries]
    return [json.dumps(found).encode()]
"""
)


@contextmanager
def server(command: list[str], address: str, directory: Path, lab: Lab, orders: LabService, code: str) -> Iterator[str]:
    """The URL of a server of the application, which says its address in its log."""
    (directory / "app.py").write_text(code)
    log = directory / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=directory, env=environment(lab, orders), stdout=output, stderr=subprocess.STDOUT
        )
    try:

        def found() -> re.Match[str] | None:
            assert process.poll() is None, log.read_text()
            return re.search(address, log.read_text())

        eventually(found, within=30)
        match = found()
        assert match is not None
        yield f"http://127.0.0.1:{match[1]}/"
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(15)


def answers(url: str, log: Path) -> list[tuple[int, int, float, int]]:
    """What an application says, until two of its processes have answered several times."""
    found: list[tuple[int, int, float, int]] = []
    until = time.monotonic() + 30
    while len(found) < 40 or len({process for process, *_ in found}) < 2:
        assert time.monotonic() < until, (found, log.read_text())
        response = requests.get(url, timeout=15)
        assert response.status_code == 200, log.read_text()
        found.append(tuple(response.json()))
    return found


def test_gunicorn_forks_workers_from_an_application_that_it_has_loaded(lab: Lab, orders: LabService, tmp_path: Path):
    needed("gunicorn")
    command = [sys.executable, "-m", "gunicorn", "--preload", "-w", "2", "-b", "127.0.0.1:0", "app:application"]
    with server(command, r"Listening at: http://127\.0\.0\.1:(\d+)", tmp_path, lab, orders, APPLICATION) as url:
        found = answers(url, tmp_path / "log")
    assert {status for _, status, _, _ in found} == {200}
    assert len({dice for _, _, dice, _ in found}) == len(found), "workers draw alike"
    assert set(lab.dns.queries.values()) == {1}, "one look-up per record type, before the fork"
    assert sum(task.connections for task in orders.tasks) >= 1 + 2


NO_THREADS = "import uwsgi\nuwsgi.has_threads = 0  # as up to 2.0.26, unless started with enable-threads\n"


@pytest.mark.parametrize("before", ["", NO_THREADS], ids=["with threads", "without"])
@pytest.mark.parametrize("master", [["--master"], []], ids=["master", "no master"])
def test_uwsgi_workers_go_on_with_what_was_known_before_the_fork(
    lab: Lab, tmp_path: Path, before: str, master: list[str]
):
    """Answers live for a second, so that refreshes fall due between requests."""
    needed("pyuwsgi")
    orders = lab.service("orders", tasks=3, ttl=1)
    arguments = ["--http-socket", "127.0.0.1:0", "--wsgi-file", "app.py", "--need-app", "--die-on-term", *master]
    command = [str(BIN / "uwsgi"), *arguments, "--processes", "2"]
    code = before + APPLICATION.replace("wrap_session(requests.Session())", FAST)
    with server(command, r"bound to TCP address 127\.0\.0\.1:(\d+)", tmp_path, lab, orders, code) as url:
        found = answers(url, tmp_path / "log")
        gone = time.monotonic() + 1.2
        while time.monotonic() < gone:
            found += answers(url, tmp_path / "log")[:1]
        refreshed = lab.dns.total
        eventually(lambda: requests.get(url, timeout=15).ok and lab.dns.total > refreshed, within=15)
    assert {status for _, status, _, _ in found} == {200}
    assert len({dice for _, _, dice, _ in found}) == len(found), "workers draw alike"


FAST = """wrap_session(
    requests.Session(),
    cache=__import__("ecs_discovery").CachePolicy(min_ttl=0, jitter=0),
)"""

GREENLETS = """
from gevent import monkey
monkey.patch_all()
import gevent
"""


def test_under_gevent_a_hundred_greenlets_make_one_look_up_per_record_type(lab: Lab, orders: LabService):
    needed("gevent")
    code = (
        GREENLETS
        + SESSION
        + """
jobs = [gevent.spawn(session.get, URL, timeout=20) for _ in range(100)]
gevent.joinall(jobs, timeout=40)
print(json.dumps([job.value.status_code if job.value is not None else repr(job.exception) for job in jobs]))
"""
    )
    assert run(code, lab, orders) == [200] * 100
    assert set(lab.dns.queries.values()) == {1}


def test_under_gevent_a_request_that_waits_lets_others_go_on(lab: Lab, orders: LabService):
    """A slow answer is waited for with `TCP_INFO` and `poll`; other greenlets run meanwhile."""
    needed("gevent")
    code = (
        GREENLETS
        + SESSION
        + """
session.get(URL, timeout=10)
order = []
def slow():
    session.get(URL + "slow/1.5", timeout=10)
    order.append("slow")
def fast():
    for _ in range(5):
        session.get(URL, timeout=10)
    order.append("fast")
gevent.joinall([gevent.spawn(slow), gevent.spawn(slow), gevent.spawn(fast)], timeout=30)
print(json.dumps(order))
"""
    )
    assert run(code, lab, orders) == ["fast", "slow", "slow"]


@pytest.mark.parametrize("fault", ["refuse", "vanish"])
def test_under_gevent_a_task_that_is_lost_costs_no_request(lab: Lab, orders: LabService, fault: str):
    needed("gevent")
    if fault == "vanish" and not lab.can_vanish:
        pytest.skip("no socket filter here")
    code = (
        GREENLETS
        + SESSION
        + """
jobs = []
for number in range(60):
    jobs.append(gevent.spawn(session.get, URL, timeout=10))
    if number == 20:
        print("now", flush=True)
        sys.stdin.readline()
    gevent.sleep(0.01)
gevent.joinall(jobs, timeout=40)
print(json.dumps([job.value.status_code if job.value is not None else repr(job.exception) for job in jobs]))
"""
    )
    command = [sys.executable, "-W", "error", "-c", code]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(lab, orders)
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        getattr(orders.tasks[0], fault)(**({"cut": True} if fault == "refuse" else {}))
        out, _ = process.communicate("\n", timeout=50)
    assert json.loads(out) == [200] * 60


def test_under_gevent_a_process_forks_without_waiting_for_greenlets(lab: Lab, orders: LabService):
    needed("gevent")
    code = (
        GREENLETS
        + SESSION
        + """
session.get(URL, timeout=10)
pid = os.fork()
if pid == 0:
    os._exit(0 if session.get(URL, timeout=10).ok else 1)
print(json.dumps(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
"""
    )
    assert run(code, lab, orders) == 0
