"""A cold lookup beside dnspython and aiodns asking the same questions, in one run: the ratio is the result.

Knot answers on loopback, in a process of its own. Single lookups of both kinds alternate; the medians are compared.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from statistics import median
from typing import Any

import aiodns
import dns.asyncresolver
import dns.resolver
import pytest

from ecs_discovery import AsyncDiscovery, Discovery, DnsPolicy
from tests.resolvers.conftest import ZONE
from tests.servers import KnotServer, required

pytestmark = pytest.mark.benchmark

LOOKUPS, WARM = 400, 20
A, AAAA, SRV = ("orders.prod.local", "A"), ("orders.prod.local", "AAAA"), ("web.prod.local", "SRV")
CASES: dict[str, tuple[str, tuple[str, ...], list[tuple[str, str]]]] = {
    "A": ("dns://orders.prod.local:80", ("a",), [A]),
    "SRV": ("srv://web.prod.local", ("a",), [SRV]),
    "A, AAAA": ("dns://orders.prod.local:80", ("a", "aaaa"), [A, AAAA]),
    "A, AAAA, SRV": ("orders.prod.local:80", ("a", "aaaa"), [A, AAAA, ("orders.prod.local", "SRV")]),
}
"""Target, address families, and the questions that its lookup asks."""


@pytest.fixture(scope="module")
def knot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KnotServer]:
    with KnotServer(required("knotd", "knot"), tmp_path_factory.mktemp("knot"), ZONE) as running:
        yield running


def questions(server: KnotServer, names: list[tuple[str, str]]) -> Callable[[], None]:
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = ["127.0.0.1"], server.port

    def ask() -> None:
        for name, kind in names:
            resolver.resolve(name + ".", kind, raise_on_no_answer=False)

    return ask


def told(name: str, ours: list[float], theirs: list[float], whose: str, capsys: Any) -> None:
    mine, other = median(ours[WARM:]) * 1e3, median(theirs[WARM:]) * 1e3
    with capsys.disabled():
        print(f"\n{name}: {mine:.2f} ms, {whose} {other:.2f} ms, ratio {mine / other:.2f}")


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@pytest.fixture(autouse=True)
def no_garbage() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("case", CASES)
def test_a_cold_lookup_of_threads(case: str, knot: KnotServer, capsys: Any):
    target, families, names = CASES[case]
    ask = questions(knot, names)
    ours, theirs = list[float](), list[float]()
    for _ in range(LOOKUPS):
        with Discovery(dns=DnsPolicy(nameservers=(knot.address,), families=families)) as discovery:
            ours.append(timed(partial(discovery.resolve, target)))
        theirs.append(timed(ask))
    told(f"threads, {case}", ours, theirs, "dnspython", capsys)


@pytest.mark.parametrize("case", CASES)
def test_a_cold_lookup_of_asyncio(case: str, knot: KnotServer, capsys: Any):
    target, families, names = CASES[case]
    ask = questions(knot, names)

    async def channels() -> None:
        channel = aiodns.DNSResolver([knot.address], timeout=5)
        await asyncio.gather(*(channel.query_dns(name + ".", kind) for name, kind in names), return_exceptions=True)
        await channel.close()

    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = ["127.0.0.1"], knot.port

    async def ask_async() -> None:
        for name, kind in names:
            await resolver.resolve(name + ".", kind, raise_on_no_answer=False)

    async def timed_async(work: Callable[[], Awaitable[object]]) -> float:
        began = time.perf_counter()
        await work()
        return time.perf_counter() - began

    async def main() -> None:
        ours, theirs, theirs_async, others = list[float](), list[float](), list[float](), list[float]()
        for _ in range(LOOKUPS):
            async with AsyncDiscovery(dns=DnsPolicy(nameservers=(knot.address,), families=families)) as discovery:
                ours.append(await timed_async(partial(discovery.resolve, target)))
            theirs.append(timed(ask))
            theirs_async.append(await timed_async(ask_async))
            others.append(await timed_async(channels))
        told(f"asyncio, {case}", ours, theirs_async, "dnspython under asyncio", capsys)
        told(f"asyncio, {case}", ours, theirs, "dnspython in this thread", capsys)
        told(f"asyncio, {case}", ours, others, "aiodns", capsys)

    asyncio.run(main())
