"""What `install` does to a process: threads, clients that come and go, other settings, packages of the same names."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ecs_discovery.testing.lab import Lab, LabService
from tests.integrations.install.test_run import launcher, ran, url_of


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(namespace="prod.local", seed=7) as lab:
        yield lab


@pytest.fixture
def service(lab: Lab) -> LabService:
    return lab.service("orders", tasks=3)


def said(lab: Lab, code: str, *arguments: str, **more: str) -> Any:
    """What a program below `ecs-discovery run` prints as JSON."""
    result = ran([*launcher(lab), sys.executable, "-c", code, *arguments], **more)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.parametrize("library", ["requests", "httpx"])
def test_first_requests_of_many_threads_at_once_are_all_ours(lab: Lab, service: LabService, library: str):
    code = f"""
import json, sys, threading
import {library} as library
barrier, found = threading.Barrier(8), []
def ask():
    barrier.wait()
    try:
        found.append(library.get(sys.argv[1], timeout=10).status_code)
    except Exception as error:
        found.append(repr(error))
threads = [threading.Thread(target=ask) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(json.dumps(found))
"""
    assert said(lab, code, url_of(service)) == [200] * 8


def test_clients_that_come_and_go_leave_no_connection(lab: Lab, service: LabService):
    code = """
import asyncio, gc, json, os, sys
import httpx
def opened():
    return len(os.listdir("/dev/fd"))
httpx.get(sys.argv[1])
gc.collect()
gc.disable()
before = opened()
for _ in range(10):
    httpx.get(sys.argv[1])
    with httpx.Client() as client:
        client.get(sys.argv[1])
async def main():
    async with httpx.AsyncClient() as client:
        await client.get(sys.argv[1])
        before = opened()
    for _ in range(10):
        async with httpx.AsyncClient() as client:
            await client.get(sys.argv[1])
    return opened() - before
print(json.dumps([opened() - before, asyncio.run(main())]))
"""
    in_threads, in_tasks = said(lab, code, url_of(service))
    assert in_threads <= 1
    assert in_tasks <= 1


def test_a_package_of_the_programs_own_with_a_librarys_name_is_imported(lab: Lab, tmp_path: Path):
    for name in ("grpc", "httpx"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("mine = True\n")
    code = "import json, grpc, httpx; print(json.dumps([grpc.mine, httpx.mine]))"
    assert said(lab, code, PYTHONPATH=str(tmp_path)) == [True, True]


def test_other_settings_hold_for_clients_that_are_there(lab: Lab, service: LabService):
    task = service.tasks[0]
    code = """
import json, sys
import ecs_discovery, httpx, requests
nameserver, url, other, target = sys.argv[1:]
ecs_discovery.install(namespace="prod.local", nameservers=[nameserver])
client, session = httpx.Client(), requests.Session()
found = [client.get(url).status_code, session.get(url).status_code]
ecs_discovery.install(services={"other": target})
found += [client.get(other).status_code, session.get(other).status_code]
ecs_discovery.install()
found += [client.get(other).status_code]
print(json.dumps(found))
"""
    arguments = (lab.nameserver, url_of(service), "http://other/", f"static://{task.address}:{task.port}")
    assert said(lab, code, *arguments) == [200] * 5
