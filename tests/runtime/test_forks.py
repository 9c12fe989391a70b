"""What a fork does to the threads of the background: they end before it, and what they were to do is not lost."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ecs_discovery.runtime.workers import Workers
from ecs_discovery.testing.lab import Lab
from tests.support import eventually

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

# A hook that is registered before ours runs after it.
PRELUDE = """
import os, sys, threading, time
from threading import Event, Thread
at_fork = [lambda: None]
os.register_at_fork(before=lambda: at_fork[0]())
from ecs_discovery.runtime.workers import Workers

def fork(in_child=lambda: 0):
    pid = os.fork()
    if pid == 0:
        os._exit(in_child())
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def ours():
    return [thread for thread in threading.enumerate() if thread.name == "ecs_discovery"]
"""


def python(code: str, *arguments: str, warnings: bool = True) -> str:
    """Run code in an interpreter of its own; unless the process may have threads, a warning of them is an error."""
    strict = ["-W", "error::DeprecationWarning"] if warnings else []
    result = subprocess.run(
        [sys.executable, *strict, "-c", PRELUDE + code, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=50,
    )
    assert result.returncode == 0, result.stderr
    assert "Exception ignored" not in result.stderr, result.stderr  # what a hook raises is only printed
    return result.stdout.strip()


def test_no_thread_of_ours_lives_at_a_fork():
    """Python 3.12 and newer warn of threads, and here that is an error; older ones are asked which there are."""
    code = """
import requests
from ecs_discovery import Question, wrap_session
nameserver, url = sys.argv[1:]
session = wrap_session(requests.Session(), namespace="prod.local", nameservers=[nameserver])
session.get(url, timeout=10)
driver = session.get_adapter("http://").discovery._driver
driver.background.ask(Question("a", "orders.prod.local"), force=True)  # nobody waits for it: a worker does it
while len(driver.engine.flights):
    time.sleep(0.005)
before, alive = len(ours()), []
at_fork[0] = lambda: alive.extend(threading.enumerate())
status = fork(lambda: session.get(url, timeout=10).status_code - 200)
print(before > 0, [thread.name for thread in alive], status, session.get(url, timeout=10).status_code)
"""
    with Lab(namespace="prod.local") as lab:
        service = lab.service("orders", tasks=2)
        assert python(code, lab.nameserver, service.url()) == "True ['MainThread'] 0 200"


def test_a_fork_does_not_wait_for_a_job_that_takes_long():
    code = """
workers, begun, released, done = Workers(), Event(), Event(), Event()
def job():
    begun.set()
    released.wait()
    done.set()
workers.spawn(job)
begun.wait()
status = fork()
released.set()
print(status, done.wait(10))
"""
    assert python(code, warnings=False) == "0 True"


@pytest.mark.parametrize("closed", [False, True])
def test_what_is_spawned_while_a_fork_is_coming_waits_until_it_is_over(closed: bool):
    code = """
workers, done, early = Workers(), Event(), []
def while_forking():
    thread = Thread(target=workers.spawn, args=(done.set,))
    thread.start()
    thread.join()
    if sys.argv[1] == "True":
        workers.close(drop=False)
    early.append((done.is_set(), ours()))
at_fork[0] = while_forking
fork()
print(early, done.wait(10))
"""
    assert python(code, str(closed), warnings=False) == "[(False, [])] True"


def test_the_thread_that_forks_does_what_it_spawns_meanwhile_itself():
    """It could wait for nobody."""
    code = """
workers, done = Workers(), []
at_fork[0] = lambda: workers.spawn(lambda: done.append(threading.current_thread().name))
fork()
print(done)
"""
    assert python(code) == "['MainThread']"


def test_a_worker_may_fork_itself():
    code = """
workers, statuses, after = Workers(), [], Event()
def in_child():
    ran = Event()
    workers.spawn(ran.set)
    return 0 if ran.wait(10) else 1
def job():
    statuses.append(fork(in_child))
    pid = os.fork()
    if pid == 0:
        return  # the loop of the worker goes on in the child, and ends
    statuses.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    workers.spawn(after.set)
workers.spawn(job)
print(after.wait(20), statuses)
"""
    assert python(code, warnings=False) == "True [0, 0]"


def test_a_fork_while_another_thread_holds_the_lock_goes_on():
    code = """
workers, held, released, done = Workers(), Event(), Event(), Event()
def hold():
    with workers._wake:
        held.set()
        released.wait()
Thread(target=hold).start()
held.wait()
status = fork(lambda: 0 if workers.spawn(lambda: None) else 1)
released.set()
workers.spawn(done.set)
print(status, done.wait(10))
"""
    assert python(code, warnings=False) == "0 True"


def test_forks_in_two_threads_at_once_lose_no_job():
    code = """
workers, done = Workers(limit=4), []
def forks():
    for number in range(20):
        workers.spawn(lambda: done.append(number))
        assert fork() == 0
        workers.spawn(lambda: done.append(number))
threads = [Thread(target=forks) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join(40)
until = time.monotonic() + 10
while len(done) < 80 and time.monotonic() < until:
    time.sleep(0.005)
print(len(done), len(workers._jobs))
"""
    assert python(code, warnings=False) == "80 0"


@pytest.mark.parametrize(
    ("has_threads", "worker", "here"),
    [(1, 1, False), (0, 1, True), (1, 0, True)],
    ids=["threads", "without enable-threads, up to 2.0.26", "before it forks its workers"],
)
def test_where_uwsgi_has_threads_do_harm_the_job_runs_at_once(
    has_threads: int, worker: int, here: bool, monkeypatch: pytest.MonkeyPatch
):
    uwsgi: Any = SimpleNamespace(has_threads=has_threads, worker_id=lambda: worker)
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
    workers, done = Workers(), []
    assert workers.spawn(lambda: done.append(threading.current_thread() is threading.main_thread()))
    eventually(lambda: done == [here])
    workers.close()
    assert not workers.spawn(lambda: done.append(True))


DURING_AN_IMPORT = """
import os, sys, threading, time, builtins
from ecs_discovery import Discovery, RetryPolicy
importing, go_on = threading.Event(), threading.Event()

class Slow:  # holds up the import of a module, as a slow disk does
    def find_spec(self, name, path=None, target=None):
        if name == SLOW:
            importing.set()
            time.sleep(0.3)  # the fork comes meanwhile; the import must not end before it
        return None

sys.meta_path.insert(0, Slow())
discovery = Discovery(services={"x": "static://127.0.0.1:1,127.0.0.2:1"}, retry=RetryPolicy(attempts=2))

def use():
    try:
        discovery.connect("x", timeout=1)
    except OSError:
        pass

worker = threading.Thread(target=use)
worker.start()
assert importing.wait(10)
pid = os.fork()
if not pid:
    use()
    os._exit(7)
worker.join()
_, status = os.waitpid(pid, 0)
print(os.waitstatus_to_exitcode(status))
"""


def test_a_fork_waits_for_an_import_of_ours_so_that_the_child_can_retry():
    code = f'SLOW = "ecs_discovery.client.sync.retry"\n{DURING_AN_IMPORT}'
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=40)
    assert (done.stdout.strip(), done.stderr.count("Traceback")) == ("7", 0), done.stderr
