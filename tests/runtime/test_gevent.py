"""gevent: the synchronous side from greenlets, with the standard library patched."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ecs_discovery.testing.lab import Lab, LabService
from tests.servers import required_module

ROOT = Path(__file__).resolve().parents[2]

PRELUDE = """
from gevent import monkey
monkey.patch_all()
import json, os, sys
import gevent, requests
from ecs_discovery import wrap_session

url, nameserver = sys.argv[1:]
session = wrap_session(requests.Session(), namespace="prod.local", nameservers=[nameserver])

def get(path="/"):
    return session.get(url + path, timeout=10)

def together(count, work):
    greenlets = [gevent.spawn(work, number) for number in range(count)]
    gevent.joinall(greenlets, timeout=40)
    return [greenlet.value for greenlet in greenlets]
"""


@pytest.fixture
def lab() -> Iterator[Lab]:
    required_module("gevent", "gevent")
    with Lab(namespace="prod.local", seed=5) as lab:
        yield lab


def run(code: str, lab: Lab, service: LabService) -> Any:
    """What the code printed, as JSON."""
    result = subprocess.run(
        [sys.executable, "-c", PRELUDE + code, service.url(path=""), lab.nameserver],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=55,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_a_hundred_greenlets_ask_for_a_new_name_once_per_record_type(lab: Lab):
    service = lab.service("orders", tasks=3)
    assert run("print(json.dumps(together(100, lambda _: get().status_code)))", lab, service) == [200] * 100
    assert set(lab.dns.queries.values()) == {1}


@pytest.mark.parametrize("fault", ["refuse", "vanish"])
def test_a_lost_task_costs_no_get(fault: str, lab: Lab):
    service = lab.service("orders", tasks=3)
    getattr(service.tasks[0], fault)()
    assert run("print(json.dumps(together(30, lambda _: get().status_code)))", lab, service) == [200] * 30


def test_a_request_that_waits_lets_other_greenlets_run(lab: Lab):
    """Two requests overlap, and all the while there are turns for others: also within the first quarter of a second,
    when the connection is watched step by step."""
    code = """
get()
events = []

def slow(number):
    events.append("begun")
    get("/slow/0.2")
    events.append("answered")

def others():
    while "answered" not in events:
        events.append("turn")
        gevent.sleep(0.001)

turns = gevent.spawn(others)
together(2, slow)
turns.join()
print(json.dumps([[event for event in events if event != "turn"], events.count("turn") > 10]))
"""
    service = lab.service("orders", tasks=1)
    assert run(code, lab, service) == [["begun", "begun", "answered", "answered"], True]


@pytest.mark.skipif(sys.platform == "win32", reason="no fork here")
def test_a_child_of_a_fork_looks_names_up_itself(lab: Lab):
    code = """
get()
pid = os.fork()
if pid == 0:
    os._exit(0 if session.get(url.replace("orders", "billing"), timeout=10).status_code == 200 else 1)
print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), get().status_code]))
"""
    service = lab.service("orders", tasks=1)
    lab.service("billing", tasks=1, port=service.port)
    assert run(code, lab, service) == [0, 200]
