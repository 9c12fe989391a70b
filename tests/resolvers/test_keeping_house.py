"""What the resolvers leave behind, which is nothing, and what they do on event loops that cannot watch sockets."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ecs_discovery.errors import ResolutionTimeout
from ecs_discovery.models import Question
from ecs_discovery.resolvers import AsyncDnsResolver, DnsResolver
from ecs_discovery.resolvers.dns import aio as dns_async
from tests.resolvers.support import ScriptedDns

ORDERS = Question("a", "orders.prod.local")
_needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts in /proc: Linux only")


def _held() -> tuple[int, int]:
    """Descriptors and threads of this process."""
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


def _settles_at(most: tuple[int, int]) -> bool:
    """True as soon as no more is held than `most`."""
    until = time.monotonic() + 5
    while any(now > limit for now, limit in zip(_held(), most, strict=True)):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def orders(server: ScriptedDns) -> ScriptedDns:
    server.on("a://orders.prod.local", "orders.prod.local 300 A 10.0.0.1")
    return server


async def _many(resolver: AsyncDnsResolver, count: int) -> None:
    for _ in range(count):
        await resolver.resolve(ORDERS, 5)


@_needs_proc
def test_500_look_ups_in_threads_leave_nothing_behind(orders: ScriptedDns) -> None:
    resolver = DnsResolver(orders.policy())
    resolver.resolve(ORDERS, 5)
    before = _held()

    for _ in range(500):
        resolver.resolve(ORDERS, 5)

    assert _settles_at(before)
    assert len(orders.seen) == 501


@_needs_proc
def test_500_look_ups_in_asyncio_leave_nothing_behind(orders: ScriptedDns) -> None:
    resolver = AsyncDnsResolver(orders.policy())
    asyncio.run(_many(resolver, 1))
    before = _held()

    asyncio.run(_many(resolver, 500))

    assert _settles_at(before)
    assert len(orders.seen) == 501


@_needs_proc
def test_cancelled_look_ups_leave_nothing_behind(orders: ScriptedDns) -> None:
    resolver = AsyncDnsResolver(orders.policy())
    asyncio.run(_many(resolver, 1))
    before = _held()
    orders.lose = 1000

    async def cancelled() -> None:
        tasks = [asyncio.create_task(resolver.resolve(ORDERS, 60)) for _ in range(20)]
        while len(orders.seen) < 21:
            await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        assert all(
            isinstance(result, asyncio.CancelledError)
            for result in await asyncio.gather(*tasks, return_exceptions=True)
        )

    asyncio.run(cancelled())

    assert _settles_at(before)


def test_more_lookups_at_once_than_may_be_in_flight_all_succeed(orders: ScriptedDns) -> None:
    resolver = AsyncDnsResolver(orders.policy(query_timeout=2))

    async def at_once() -> int:
        answers = await asyncio.gather(*(resolver.resolve(ORDERS, 10) for _ in range(200)))
        return len(answers)

    assert asyncio.run(at_once()) == 200
    assert not dns_async._loops_without_readers


def test_one_resolver_serves_many_threads(orders: ScriptedDns) -> None:
    resolver = DnsResolver(orders.policy(query_timeout=2))

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: resolver.resolve(ORDERS, 10), range(100)))

    assert {answer.endpoints[0].host for answer in answers} == {"10.0.0.1"}


def test_one_resolver_serves_loops_in_several_threads(orders: ScriptedDns) -> None:
    resolver = AsyncDnsResolver(orders.policy(query_timeout=2))
    threads = [threading.Thread(target=lambda: asyncio.run(_many(resolver, 10))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(orders.seen) == 40


def _python(code: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run a program in a new interpreter, which finds the package where this one does."""
    root = Path(__file__).parents[2]
    return subprocess.run(
        # Python 3.12 and newer warn of a fork while threads run, which is what some of these try on purpose.
        [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", code, *arguments],
        cwd=root,
        capture_output=True,
        timeout=25,
        check=False,
    )


_FORKING = """
import asyncio, os, sys, time
from ecs_discovery.models import Question
from ecs_discovery.config.policies import DnsPolicy
from ecs_discovery.resolvers import AsyncDnsResolver, DnsResolver

policy = DnsPolicy(nameservers=(sys.argv[1],), hosts_file="")
blocking, resolver = DnsResolver(policy), AsyncDnsResolver(policy)

async def many(count):
    for _ in range(count):
        await resolver.resolve(Question("a", "orders.prod.local"), 5)

def held():
    return len(os.listdir("/proc/self/fd")) + len(os.listdir("/proc/self/task"))

asyncio.run(many(3))
blocking.resolve(Question("a", "orders.prod.local"), 5)
child = os.fork()
if child == 0:
    blocking.resolve(Question("a", "orders.prod.local"), 5)
    asyncio.run(many(1))
    before = held()
    asyncio.run(many(30))
    until = time.monotonic() + 5
    while held() > before + 2 and time.monotonic() < until:
        time.sleep(0.02)
    os._exit(0 if held() <= before + 2 else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@_needs_proc
def test_a_forked_child_resolves_and_leaves_nothing_behind(orders: ScriptedDns) -> None:
    done = _python(_FORKING, orders.address)

    assert (done.returncode, done.stderr) == (0, b"")


def test_importing_the_package_imports_no_dns_library() -> None:
    code = (
        "import sys, ecs_discovery.resolvers as r; assert not {'dns', 'aiodns', 'pycares'} & set(sys.modules);"
        "r.AsyncDnsResolver; assert not {'dns', 'aiodns', 'pycares'} & set(sys.modules); r.DnsResolver"
    )

    done = _python(code)

    assert (done.returncode, done.stderr) == (0, b"")


def test_where_a_loop_cannot_watch_sockets_its_own_transports_are_used_and_the_log_says_so_once(
    orders: ScriptedDns, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: object, descriptor: int) -> None:
        raise NotImplementedError

    caplog.set_level(logging.INFO, "ecs_discovery")
    monkeypatch.setattr(dns_async, "_loops_without_readers", set())
    monkeypatch.setattr(asyncio.SelectorEventLoop, "remove_reader", refuse)
    resolver = AsyncDnsResolver(orders.policy())

    asyncio.run(_many(resolver, 3))

    assert len(orders.seen) == 3
    assert [record.name for record in caplog.records] == ["ecs_discovery"]
    assert "its own transports" in caplog.text


def test_uvloop_works(orders: ScriptedDns) -> None:
    uvloop = pytest.importorskip("uvloop")

    uvloop.run(_many(AsyncDnsResolver(orders.policy()), 3))

    assert len(orders.seen) == 3
    assert not dns_async._loops_without_readers


def test_errors_keep_their_story_when_pickled(server: ScriptedDns) -> None:
    server.lose = 100
    with pytest.raises(ResolutionTimeout) as caught:
        DnsResolver(server.policy()).resolve(ORDERS, 0.3)

    copy = pickle.loads(pickle.dumps(caught.value))

    assert type(copy) is ResolutionTimeout
    assert str(copy) == str(caught.value)


def test_resolvers_show_whom_they_ask(server: ScriptedDns) -> None:
    assert repr(DnsResolver(server.policy())) == f"<DnsResolver {server.address}>"
    assert repr(AsyncDnsResolver(server.policy())) == f"<AsyncDnsResolver {server.address}>"
