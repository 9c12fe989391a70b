"""Lookups while the interpreter exits: Python 3.12 and newer start no thread then."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ecs_discovery import Discovery, ResolutionError
from ecs_discovery.models import Question, Resolution
from ecs_discovery.testing.lab import Lab
from tests.support import answer

ROOT = Path(__file__).resolve().parents[2]

AT_EXIT = """
import asyncio, atexit, socket, sys, time
from ecs_discovery import AsyncDiscovery, Discovery, DiscoveryError
silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
silent.bind(("127.0.0.1", 0))
nameserver = sys.argv[1] if len(sys.argv) > 1 else f"127.0.0.1:{silent.getsockname()[1]}"
settings = dict(namespace="prod.local", nameservers=[nameserver])

def tell(look_up):
    began = time.monotonic()
    try:
        found = f"{len(look_up().endpoints)} endpoints"
    except DiscoveryError as error:
        found = f"{type(error).__name__} {error}"
    print("late" if time.monotonic() - began > 1.5 else "in time", found)
"""


def at_exit(code: str, *arguments: str) -> str:
    """What a program prints whose code runs at exit."""
    result = subprocess.run(
        [sys.executable, "-c", AT_EXIT + code, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr, result.stderr
    return result.stdout.strip()


def test_a_lookup_at_exit_ends_within_its_timeout():
    code = """
discovery = Discovery(**settings)
atexit.register(lambda: tell(lambda: discovery.resolve("orders:80", timeout=0.05)))
"""
    assert at_exit(code).startswith("in time ResolutionTimeout orders:80: ")


def test_a_lookup_at_exit_finds_what_is_there():
    code = """
discovery = Discovery(**settings)
atexit.register(lambda: tell(lambda: discovery.resolve(sys.argv[2], timeout=10)))
"""
    with Lab(namespace="prod.local") as lab:
        service = lab.service("orders", tasks=3)
        assert at_exit(code, lab.nameserver, f"orders:{service.port}").endswith(" 3 endpoints")


def test_a_lookup_of_asyncio_at_exit_ends_within_its_timeout():
    """Its modules are loaded before, since that takes a while."""
    code = """
import ecs_discovery.resolvers.dns.aio

async def look_up():
    async with AsyncDiscovery(**settings) as discovery:
        return await discovery.resolve("orders:80", timeout=0.05)
atexit.register(lambda: tell(lambda: asyncio.run(look_up())))
"""
    assert at_exit(code).startswith("in time ResolutionTimeout orders:80: ")


def test_a_resolver_for_threads_does_not_hold_up_a_loop_at_exit():
    """Without a thread for it the lookup fails at once; before Python 3.12 there is a thread, and a timeout."""
    code = """
class Own:
    def resolve(self, question, timeout):
        time.sleep(timeout)
        raise OSError("late")

async def look_up():
    async with AsyncDiscovery(resolvers={"own": Own()}, **settings) as discovery:
        return await discovery.resolve("own://orders", timeout=0.05)
atexit.register(lambda: tell(lambda: asyncio.run(look_up())))
"""
    found = at_exit(code)
    assert found.startswith("in time Resolution")
    assert "no thread can be started" in found or "not resolved within" in found


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Python 3.12 at exit, in any version."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)


class Slow:
    """Takes as long as it may."""

    def __init__(self) -> None:
        self.limits: list[float] = []

    def resolve(self, question: Question, timeout: float) -> Resolution:
        self.limits.append(timeout)
        time.sleep(timeout)
        raise ResolutionError("no answer", target=str(question))


@pytest.mark.usefixtures("no_threads")
def test_without_threads_the_questions_of_a_lookup_share_its_timeout():
    with Discovery() as discovery:
        slow: Any = Slow()
        discovery._driver.background.asker.dns = slow
        with pytest.raises(ResolutionError):
            discovery.resolve("orders", timeout=0.2)
    assert sum(slow.limits) <= 0.21


@pytest.mark.usefixtures("no_threads")
def test_without_threads_a_refresh_takes_no_more_than_half_of_the_time_of_a_caller():
    """What is known will do: it needs the other half to connect."""

    class Once(Slow):
        def resolve(self, question: Question, timeout: float) -> Resolution:
            return super().resolve(question, timeout) if self.known else answer("10.0.0.1", ttl=5.0)

        known = False

    clock = [1000.0]
    with Discovery(clock=lambda: clock[0] + time.monotonic()) as discovery:
        source: Any = Once()
        discovery._driver.background.asker.dns = source
        discovery.resolve("dns://orders:80")
        source.known = True
        clock[0] += 20
        assert discovery.resolve("dns://orders:80", timeout=0.4).endpoints
    assert source.limits
    assert sum(source.limits) <= 0.21


@pytest.mark.usefixtures("no_threads")
def test_without_threads_a_lookup_that_nobody_waits_for_is_brief():
    with Discovery() as discovery:
        slow: Any = Slow()
        discovery._driver.background.asker.dns = slow
        discovery._driver.background.force(
            [Question("a", "orders"), Question("aaaa", "orders"), Question("srv", "orders")]
        )
    assert sum(slow.limits) <= 0.26
