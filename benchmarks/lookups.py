"""(b) Lookups, cold and cached, beside dnspython, aiodns, `getaddrinfo` and the cache of aiohttp. Knot answers on
loopback.

Cold means a fresh `Discovery`, whose making and closing do not count.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import aiodns
import aiohttp
import dns.asyncresolver
import dns.resolver

from benchmarks import system_resolver
from benchmarks.measure import without_garbage
from benchmarks.system_resolver import SystemResolver
from ecs_discovery import AsyncDiscovery, Discovery, DnsPolicy
from tests.resolvers.conftest import ZONE
from tests.servers import KnotServer

__all__ = ["run"]

A, AAAA, SRV = ("orders.prod.local", "A"), ("orders.prod.local", "AAAA"), ("web.prod.local", "SRV")
CASES: dict[str, tuple[str, tuple[str, ...], list[tuple[str, str]]]] = {
    "A": ("dns://orders.prod.local:80", ("a",), [A]),
    "SRV": ("srv://web.prod.local", ("a",), [SRV]),
    "A, AAAA": ("dns://orders.prod.local:80", ("a", "aaaa"), [A, AAAA]),
    "A, AAAA, SRV": ("orders.prod.local:80", ("a", "aaaa"), [A, AAAA, ("orders.prod.local", "SRV")]),
}
"""Target, address families, and the questions that its lookup asks."""
CACHED = 2000


def run(rounds: int) -> dict[str, Any]:
    """Medians in microseconds, and the ratios of ours to dnspython's."""
    program = shutil.which("knotd")
    if program is None:
        return {"left out": "knotd is not installed (Debian's package knot)"}
    against = system_resolver.reason_against()
    also = "" if against else f"{system_resolver.ADDRESS}@53"
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(KnotServer(program, directory, ZONE, also))
        system = None if against else stack.enter_context(SystemResolver(directory))
        found: dict[str, Any] = {"cold, threads": {}, "cold, asyncio": {}}
        if against:
            found["getaddrinfo left out"] = against
        with without_garbage():
            for case in CASES:
                found["cold, threads"][case] = _cold(case, server, rounds, system)
                found["cold, asyncio"][case] = asyncio.run(_cold_async(case, server, rounds))
            found["cached"] = {**_cached(server), **asyncio.run(_cached_async(server))}
        return found


def _told(times: dict[str, list[float]]) -> dict[str, float]:
    ours = times["this"]
    found = {f"{name}_us": median(values) * 1e6 for name, values in times.items()}
    for name, values in times.items():
        if name != "this":
            found[f"ratio to {name}"] = median(a / b for a, b in zip(ours, values, strict=True))
    return found


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


async def _timed_async(work: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began


def _cold(case: str, server: KnotServer, rounds: int, system: SystemResolver | None) -> dict[str, float]:
    target, families, names = CASES[case]
    if system is not None and not system.can_ask(families, {kind for _, kind in names}):
        system = None
    peer = dns.resolver.Resolver(configure=False)
    peer.nameservers, peer.port = ["127.0.0.1"], server.port

    def ask() -> None:
        for name, kind in names:
            peer.resolve(name + ".", kind, raise_on_no_answer=False)

    times: dict[str, list[float]] = {"this": [], "dnspython": []}
    if system is not None:
        times["getaddrinfo"] = []
    for number in range(20 * rounds):
        others = 0.0 if system is None else system.seconds(names[0][0], families)
        with Discovery(dns=DnsPolicy(nameservers=(server.address,), families=families)) as discovery:
            ours, theirs = _timed(partial(discovery.resolve, target)), _timed(ask)
        _wait_for_workers()
        if number >= 20:
            times["this"].append(ours)
            times["dnspython"].append(theirs)
            if system is not None:
                times["getaddrinfo"].append(others)
    return _told(times)


def _wait_for_workers() -> None:
    """The worker of this round ends now, and not while the next lookup waits for the interpreter."""
    for thread in threading.enumerate():
        if thread.name == "ecs_discovery":
            thread.join()


async def _cold_async(case: str, server: KnotServer, rounds: int) -> dict[str, float]:
    target, families, names = CASES[case]
    peer = dns.asyncresolver.Resolver(configure=False)
    peer.nameservers, peer.port = ["127.0.0.1"], server.port

    async def ask() -> None:
        for name, kind in names:
            await peer.resolve(name + ".", kind, raise_on_no_answer=False)

    async def channels() -> None:
        channel = aiodns.DNSResolver([server.address], timeout=5)
        await asyncio.gather(*(channel.query_dns(name + ".", kind) for name, kind in names), return_exceptions=True)
        await channel.close()

    times: dict[str, list[float]] = {"this": [], "dnspython": [], "aiodns": []}
    for number in range(20 * rounds):
        async with AsyncDiscovery(dns=DnsPolicy(nameservers=(server.address,), families=families)) as discovery:
            ours = await _timed_async(partial(discovery.resolve, target))
        theirs, others = await _timed_async(ask), await _timed_async(channels)
        if number >= 20:
            for name, value in (("this", ours), ("dnspython", theirs), ("aiodns", others)):
                times[name].append(value)
    return _told(times)


def _cached(server: KnotServer) -> dict[str, float]:
    peer = dns.resolver.Resolver(configure=False)
    peer.nameservers, peer.port = ["127.0.0.1"], server.port
    peer.cache = dns.resolver.Cache()
    with Discovery(dns=DnsPolicy(nameservers=(server.address,))) as discovery:
        ways: dict[str, Callable[[], object]] = {
            "this, threads": lambda: discovery.resolve("dns://orders.prod.local:80"),
            "dnspython, with its cache": lambda: peer.resolve("orders.prod.local.", "A"),
        }
        return {f"{name}_us": _best(work) for name, work in ways.items()}


def _best(work: Callable[[], object]) -> float:
    work()
    found = []
    for _ in range(15):
        began = time.perf_counter()
        for _ in range(CACHED):
            work()
        found.append((time.perf_counter() - began) / CACHED)
    return median(found) * 1e6


async def _cached_async(server: KnotServer) -> dict[str, float]:
    connector = aiohttp.TCPConnector(resolver=aiohttp.AsyncResolver(nameservers=[server.address]), ttl_dns_cache=60)
    try:
        async with AsyncDiscovery(dns=DnsPolicy(nameservers=(server.address,))) as discovery:
            ways: dict[str, Callable[[], Awaitable[object]]] = {
                "this, asyncio": lambda: discovery.resolve("dns://orders.prod.local:80"),
                "aiohttp's cache": lambda: connector._resolve_host("orders.prod.local", 80),
            }
            found = {}
            for name, work in ways.items():
                await work()
                each = []
                for _ in range(15):
                    began = time.perf_counter()
                    for _ in range(CACHED):
                        await work()
                    each.append((time.perf_counter() - began) / CACHED)
                found[f"{name}_us"] = median(each) * 1e6
            return found
    finally:
        await connector.close()
