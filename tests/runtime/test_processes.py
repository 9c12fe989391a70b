"""Forks, threads and the pieces that run in the background."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import requests

from ecs_discovery import CachePolicy, Discovery, wrap_session
from ecs_discovery.runtime.single_flight import Flights
from ecs_discovery.runtime.workers import Workers
from ecs_discovery.testing.lab import Lab
from tests.support import a, eventually

ROOT = Path(__file__).resolve().parents[2]


def python(code: str, *arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_the_child_of_a_fork_has_fresh_locks_dice_and_threads_and_keeps_what_is_known():
    """A lock held by another thread at the fork stays locked for ever in the child, unless it is made anew."""
    code = """
import os, sys, time
import requests
from ecs_discovery import Discovery, wrap_session
from ecs_discovery.client.sync.shared import _registry
from ecs_discovery.testing.lab import Lab
with Lab(namespace="prod.local") as lab:
    service = lab.service("orders", tasks=3, ttl=60)
    target = f"orders:{service.port}"
    session = wrap_session(requests.Session(), namespace="prod.local", nameservers=[lab.nameserver])
    session.get(f"http://{target}/", timeout=10)
    discovery = session.get_adapter("http://").discovery
    inner = discovery._driver.engine.service(target)
    while len(discovery._driver.engine.flights):  # the other record types are still on their way
        time.sleep(0.005)
    asked = lab.dns.total
    locks = (inner._lock, discovery._driver.engine.directory._lock, discovery._driver.engine.directory.cache._lock,
             discovery._driver.engine.flights._lock, _registry._lock, discovery._driver.background.asker._workers._wake)
    for lock in locks:
        lock.acquire()
    children = []
    for _ in range(3):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            draws = [discovery._driver.engine.rng() for _ in range(3)]
            fresh = wrap_session(requests.Session(), namespace="prod.local", nameservers=[lab.nameserver])
            code = fresh.get(f"http://{target}/", timeout=10).status_code
            same = fresh.get_adapter("http://").discovery is discovery
            code = max(code, session.get(f"http://{target}/", timeout=10).status_code)
            os.write(write, repr((draws, code, same, discovery._driver.engine.queries)).encode())
            os._exit(0)
        os.close(write)
        children.append((pid, read))
    results = []
    for pid, read in children:
        results.append(eval(os.read(read, 10000).decode() or "None"))
        os.waitpid(pid, 0)
        os.close(read)
    assert None not in results, results
    assert [result[1:3] for result in results] == [(200, True)] * 3, results
    assert len({tuple(result[0]) for result in results}) == 3, "children share their rng"
    assert lab.dns.total == asked, "the cached answer was not kept"
    assert sum(task.connections for task in service.tasks) == 1 + 2 * 3, "children used the parent's connection"
    for lock in locks:
        lock.release()
    assert session.get(f"http://{target}/", timeout=10).status_code == 200
    print("ok")
    os._exit(0)
"""
    assert python(code).strip() == "ok"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_can_look_names_up_itself():
    code = """
import os
from ecs_discovery import Discovery
from ecs_discovery.testing.lab import Lab
with Lab(namespace="prod.local") as lab:
    service = lab.service("orders", tasks=3)
    lab.service("other", tasks=2, port=service.port)
    discovery = Discovery(namespace="prod.local", nameservers=[lab.nameserver])
    discovery.resolve(f"orders:{service.port}")
    pid = os.fork()
    if pid == 0:
        os._exit(len(discovery.resolve(f"other:{service.port}", timeout=5).endpoints))
    _, status = os.waitpid(pid, 0)
    print(os.waitstatus_to_exitcode(status))
    discovery.close()
"""
    assert python(code).strip() == "2"


def test_one_flight_per_question_and_a_new_one_after_it_landed():
    flights = Flights()
    flight, leads = flights.join(a(), 0.0, 5.0)
    assert leads
    assert flights.join(a(), 4.9, 5.0) == (flight, False)
    assert len(flights) == 1
    assert not flight.cancel()  # a waiter cannot end it
    flights.land(a(), flight)
    assert flight.done()
    other, leads = flights.join(a(), 5.0, 5.0)
    assert leads
    flights.land(a(), flight)  # a leader that is late lands its own only
    assert len(flights) == 1
    flights.land_all()
    assert other.done()
    flights.join(a(), 6.0, 5.0)
    flights.reset()
    assert len(flights) == 0


def test_a_flight_whose_leader_is_lost_is_led_by_the_next_who_asks():
    flights = Flights()
    lost, _ = flights.join(a(), 0.0, 5.0)
    found, leads = flights.join(a(), 5.0, 5.0)
    assert leads
    assert found is not lost
    assert lost.done()  # whoever waits for it looks again


def test_workers_run_jobs_side_by_side_up_to_their_limit_and_then_in_line():
    workers = Workers(limit=2)
    gate, done = threading.Event(), []
    running = threading.Semaphore(0)

    def job() -> None:
        running.release()
        gate.wait(10)
        done.append(threading.current_thread().name)

    for _ in range(5):
        workers.spawn(job)
    assert running.acquire(timeout=5)
    assert running.acquire(timeout=5)
    assert not running.acquire(timeout=0.05)
    gate.set()
    eventually(lambda: len(done) == 5)
    workers.spawn(lambda: done.append("reused"))
    eventually(lambda: len(done) == 6)
    workers.close()
    workers.spawn(lambda: done.append("never"))
    eventually(lambda: not any(thread.name == "ecs_discovery" for thread in threading.enumerate()))
    assert len(done) == 6


def test_idle_workers_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ecs_discovery.runtime.workers._IDLE", 0.01)
    workers = Workers()
    workers.spawn(lambda: None)
    eventually(lambda: not workers._threads)


def test_where_no_thread_can_start_the_job_runs_at_once(monkeypatch: pytest.MonkeyPatch):
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    done = []
    Workers().spawn(lambda: done.append(threading.current_thread() is threading.main_thread()))
    assert done == [True]


def test_threads_that_switch_all_the_time_keep_the_books_right():
    discovery = Discovery(services={"orders": "static://" + ",".join(f"127.0.0.1:{port}" for port in range(1, 8))})
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:

        def work() -> None:
            for number in range(500):
                try:
                    with discovery.lease("orders"):
                        if number % 50 == 0:
                            raise ValueError
                except ValueError:
                    pass

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    nodes = discovery.snapshot("orders").nodes
    assert sum(node.uses for node in nodes) == 4000
    assert sum(node.failures for node in nodes) == 80
    assert all(node.pending == 0 for node in nodes)
    discovery.close()


def test_a_job_that_breaks_its_thread_leaves_room_for_others(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    workers, done = Workers(limit=1), []

    def broken() -> None:
        raise SystemExit

    for _ in range(3):
        workers.spawn(broken)
    eventually(lambda: not workers._threads)
    workers.spawn(lambda: done.append(1))
    eventually(lambda: done == [1])


def test_a_use_begun_before_a_fork_does_not_end_in_the_child():
    code = """
import os
from ecs_discovery import Discovery
discovery = Discovery(services={"orders": "static://127.0.0.1:1,127.0.0.1:2"})
with discovery.lease("orders"):
    pid = os.fork()
if pid == 0:
    pending = [node.pending for node in discovery.snapshot("orders").nodes]
    os._exit(0 if pending == [0, 0] else 1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), [n.pending for n in discovery.snapshot("orders").nodes])
"""
    if hasattr(os, "fork"):
        assert python(code).strip() == "0 [0, 0]"


def test_threads_that_switch_all_the_time_share_a_session_while_its_name_is_asked_again_and_again():
    session = requests.Session()
    interval = sys.getswitchinterval()
    with Lab(namespace="prod.local") as lab:
        service = lab.service("orders", tasks=3, ttl=0)
        cache = CachePolicy(min_ttl=0.0)
        discovery = Discovery(namespace="prod.local", nameservers=[lab.nameserver], cache=cache)
        wrap_session(session, discovery)
        statuses: list[int] = []
        sys.setswitchinterval(1e-6)
        try:

            def work() -> None:
                statuses.extend(session.get(service.url(), timeout=20).status_code for _ in range(25))

            threads = [threading.Thread(target=work) for _ in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            sys.setswitchinterval(interval)
        assert statuses == [200] * 150
        eventually(lambda: session.get(service.url(), timeout=20).ok and discovery._driver.engine.queries > 3)
        target = f"orders.prod.local:{service.port}" if service.port else "orders.prod.local"
        assert all(node.pending == 0 for node in discovery.snapshot(target).nodes)
        session.close()
        discovery.close()


def test_nothing_but_the_registry_grows_in_the_modules():
    """A second round of use, its discovery given up, leaves every container and cache of a module as it was."""
    code = """
import gc, sys, time, requests
from collections import deque
from weakref import WeakKeyDictionary, WeakSet, WeakValueDictionary
from ecs_discovery import Discovery, wrap_session

nameserver, *urls = sys.argv[1:]
kinds = (dict, list, set, deque, WeakKeyDictionary, WeakSet, WeakValueDictionary)

def sizes():
    gc.collect()
    found = {}
    for module, content in [(name, vars(each)) for name, each in sys.modules.items() if name.startswith("ecs_disc")]:
        for name, value in content.items():
            if name.startswith("__"):
                continue
            if isinstance(value, kinds):
                found[module, name] = len(value)
            elif hasattr(value, "cache_info"):
                found[module, name] = value.cache_info().currsize
    return found

def use(url):
    session = wrap_session(requests.Session(), Discovery(namespace="prod.local", nameservers=[nameserver]))
    assert session.get(url, timeout=10).status_code == 200
    session.close()
    session.get_adapter("http://").discovery.close()

use(urls[0])
until, before = time.monotonic() + 10, sizes()
while before["ecs_discovery.runtime.fork", "_threaded"] and time.monotonic() < until:
    time.sleep(0.01)
    before = sizes()
for url in urls:
    use(url)
until, after = time.monotonic() + 10, sizes()
while after != before and time.monotonic() < until:  # the last threads are about to end
    time.sleep(0.01)
    after = sizes()
print(len(after) > 5, {key: (before.get(key), size) for key, size in after.items() if before.get(key) != size})
"""
    with Lab(namespace="prod.local") as lab:
        urls = [lab.service(f"orders{number}", tasks=1).url() for number in range(5)]
        assert python(code, lab.nameserver, *urls).strip() == "True {}"


def test_a_worker_that_is_given_up_after_its_job_has_ended_is_not_counted_as_idle():
    workers, threads = Workers(4), list[threading.Thread]()
    workers.spawn(lambda: threads.append(threading.current_thread()))
    eventually(lambda: len(workers._resting) == 1)
    workers.replace(threads[0])
    done = threading.Event()
    assert workers.spawn(done.set)
    assert done.wait(10)
