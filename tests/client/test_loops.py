"""One `AsyncDiscovery` in several event loops: one after the other, and at once in several threads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ecs_discovery.testing.lab import Lab

ROOT = Path(__file__).resolve().parents[2]
ROUNDS, WARM = 12, 4

PRELUDE = """
import asyncio, json, os, sys, threading, time
from ecs_discovery import AsyncDiscovery

kind, nameserver, *urls = sys.argv[1:]
if kind == "uvloop":
    import uvloop
    new_loop = uvloop.new_event_loop
else:
    new_loop = asyncio.new_event_loop
discovery = AsyncDiscovery(namespace="prod.local", nameservers=[nameserver])

def run(work):
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(work)

async def visit(target):
    reader, writer = await discovery.open_connection(target, timeout=10)
    writer.write(b"GET / HTTP/1.1\\r\\nHost: orders\\r\\nConnection: close\\r\\n\\r\\n")
    line = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return int(line.split()[1])
"""


def script(code: str, kind: str, lab: Lab, *targets: str) -> object:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", PRELUDE + code, kind, lab.nameserver, *targets],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=55,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


loops = pytest.mark.parametrize(
    "kind",
    ["asyncio", pytest.param("uvloop", marks=pytest.mark.skipif(sys.platform == "win32", reason="no uvloop here"))],
)


@loops
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors cannot be counted here")
def test_loops_one_after_the_other_leave_nothing_behind(kind: str):
    """Each looks a new name up, and ends."""
    code = f"""
def count():
    return len(os.listdir("/proc/self/fd"))

statuses, allowed = [], None
for number, target in enumerate(urls):
    statuses.append(run(visit(target)))
    if number + 1 == {WARM}:
        time.sleep(0.2)
        allowed = count()
until = time.monotonic() + 10
while count() > allowed and time.monotonic() < until:
    time.sleep(0.01)
tasks = [task for task in discovery._driver.background.tasks if not task.get_loop().is_closed()]
print(json.dumps([statuses, count() <= allowed, len(tasks), len(discovery._driver.engine.flights)]))
"""
    with Lab(namespace="prod.local") as lab:
        services = [lab.service(f"orders{number}", tasks=1) for number in range(ROUNDS)]
        targets = [f"srv://{s.name}" if s.port is None else f"{s.name}:{s.port}" for s in services]
        assert script(code, kind, lab, *targets) == [[200] * ROUNDS, True, 0, 0]


@loops
def test_loops_in_several_threads_at_once_share_one_look_up(kind: str):
    code = """
gate, results = threading.Barrier(4), []

async def work():
    gate.wait()
    results.extend(await asyncio.gather(*(visit(urls[0]) for _ in range(10))))

threads = [threading.Thread(target=run, args=(work(),)) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join(40)
print(json.dumps(results))
"""
    with Lab(namespace="prod.local") as lab:
        service = lab.service("orders", tasks=3)
        target = "srv://orders" if service.port is None else f"orders:{service.port}"
        assert script(code, kind, lab, target) == [200] * 40
        assert set(lab.dns.queries.values()) == {1}


@loops
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_of_a_fork_uses_a_loop_of_its_own(kind: str):
    code = """
before = run(visit(urls[0]))
pid = os.fork()
if pid == 0:
    os._exit(0 if [run(visit(url)) for url in urls] == [200, 200] else 1)
print(json.dumps([before, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), run(visit(urls[1]))]))
"""
    with Lab(namespace="prod.local") as lab:
        services = [lab.service(name, tasks=1) for name in ("orders", "billing")]
        targets = [f"srv://{s.name}" if s.port is None else f"{s.name}:{s.port}" for s in services]
        assert script(code, kind, lab, *targets) == [200, 0, 200]
