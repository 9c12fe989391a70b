"""(a) One keep-alive GET, or one RPC, of each library: plain, wrapped, and through a proxy beside the client.

Plain goes to one task that it knows; the others choose among three. The tasks run in a process of their own, and the
CPU of the proxy counts for the client that needs it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from typing import Any

import aiohttp
import httpx
import httpx2
import requests
import urllib3

from benchmarks import rpc
from benchmarks.measure import Cost, rotated, seconds_each, seconds_each_async, summary, without_garbage
from benchmarks.peers import LabProcess, Proxy, proxies
from ecs_discovery import AsyncDiscovery, Discovery, wrap_client, wrap_session
from ecs_discovery.integrations.aiohttp import client_session
from ecs_discovery.integrations.urllib3 import DiscoveryPoolManager

__all__ = ["run"]

REQUESTS = 200
Work = Callable[[], object]
AsyncWork = Callable[[], Awaitable[object]]


def run(rounds: int) -> dict[str, Any]:
    """The medians of each library and way, by library."""
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        lab = stack.enter_context(LabProcess("--tasks", "3", "--seed", "1"))
        beside: dict[str, Proxy] = {}
        for proxy in proxies(lab):
            beside[proxy.name] = stack.enter_context(proxy)
        urls = {"plain": f"http://{lab.tasks[0]}/", **{name: f"{proxy.url}/" for name, proxy in beside.items()}}
        pids = {name: proxy.pid for name, proxy in beside.items()}
        discovery = stack.enter_context(Discovery(namespace=lab.namespace, nameservers=[lab.nameserver]))
        ours = f"http://orders:{lab.port}/"
        for name, make in THREADS.items():
            with ExitStack() as clients:
                ways = make(clients, discovery, ours, urls)
                found[name] = summary(compared(ways, rounds, pids), "plain")
        for name, make_async in TASKS.items():
            found[name] = summary(asyncio.run(in_a_loop(make_async, lab, ours, urls, rounds, pids)), "plain")
    found["gRPC, threads"] = summary(rpc.run(rounds), "plain")
    return found


def compared(ways: dict[str, Work], rounds: int, pids: dict[str, int]) -> dict[str, list[Cost]]:
    for work in ways.values():  # connections are opened
        seconds_each(work, 20)
    costs: dict[str, list[Cost]] = {name: [] for name in ways}
    with without_garbage():
        for number in range(rounds):
            for name in rotated(list(ways), number):
                costs[name].append(seconds_each(ways[name], REQUESTS, pids.get(name)))
    return costs


async def in_a_loop(
    make: Any, lab: LabProcess, ours: str, urls: dict[str, str], rounds: int, pids: dict[str, int]
) -> dict[str, list[Cost]]:
    async with AsyncExitStack() as clients:
        discovery = await clients.enter_async_context(
            AsyncDiscovery(namespace=lab.namespace, nameservers=[lab.nameserver])
        )
        ways: dict[str, AsyncWork] = await make(clients, discovery, ours, urls)
        for work in ways.values():
            await seconds_each_async(work, 20)
        costs: dict[str, list[Cost]] = {name: [] for name in ways}
        with without_garbage():
            for number in range(rounds):
                for name in rotated(list(ways), number):
                    costs[name].append(await seconds_each_async(ways[name], REQUESTS, pids.get(name)))
    return costs


def _requests(trust_env: bool) -> Any:
    def make(clients: ExitStack, discovery: Discovery, ours: str, urls: dict[str, str]) -> dict[str, Work]:
        session = wrap_session(clients.enter_context(requests.Session()), discovery)
        session.trust_env = trust_env
        ways: dict[str, Work] = {"wrapped": lambda: session.get(ours)}
        for name, url in urls.items():
            plain = clients.enter_context(requests.Session())
            plain.trust_env = trust_env
            ways[name] = partial(plain.get, url)
        return ways

    return make


def _urllib3(clients: ExitStack, discovery: Discovery, ours: str, urls: dict[str, str]) -> dict[str, Work]:
    manager = clients.enter_context(DiscoveryPoolManager(discovery))
    ways: dict[str, Work] = {"wrapped": lambda: manager.request("GET", ours)}
    for name, url in urls.items():
        plain = clients.enter_context(urllib3.PoolManager())
        ways[name] = partial(plain.request, "GET", url)
    return ways


def _httpx(library: Any) -> Any:
    def make(clients: ExitStack, discovery: Discovery, ours: str, urls: dict[str, str]) -> dict[str, Work]:
        client = wrap_client(clients.enter_context(library.Client()), discovery)
        ways: dict[str, Work] = {"wrapped": lambda: client.get(ours)}
        for name, url in urls.items():
            plain = clients.enter_context(library.Client())
            ways[name] = partial(plain.get, url)
        return ways

    return make


def _httpx_async(library: Any) -> Any:
    async def make(
        clients: AsyncExitStack, discovery: AsyncDiscovery, ours: str, urls: dict[str, str]
    ) -> dict[str, AsyncWork]:
        client = wrap_client(await clients.enter_async_context(library.AsyncClient()), discovery)
        ways: dict[str, AsyncWork] = {"wrapped": lambda: client.get(ours)}
        for name, url in urls.items():
            plain = await clients.enter_async_context(library.AsyncClient())
            ways[name] = partial(plain.get, url)
        return ways

    return make


class Here(aiohttp.abc.AbstractResolver):
    """Every name is the address that a benchmark wants it to be."""

    def __init__(self, address: str) -> None:
        self.address = address

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[Any]:
        return [{"hostname": host, "host": self.address, "port": port, "family": 2, "proto": 0, "flags": 0}]

    async def close(self) -> None:
        pass


async def _aiohttp(
    clients: AsyncExitStack, discovery: AsyncDiscovery, ours: str, urls: dict[str, str]
) -> dict[str, AsyncWork]:
    """By name in all ways, as programs do: aiohttp looks for cookies for each request to a name, and keeps none of an
    address."""

    async def get(session: aiohttp.ClientSession, url: str) -> bytes:
        async with session.get(url) as response:
            return await response.read()

    session = await clients.enter_async_context(client_session(discovery))
    ways: dict[str, AsyncWork] = {"wrapped": lambda: get(session, ours)}
    for name, url in urls.items():
        address, port = url.removeprefix("http://").removesuffix("/").split(":")
        connector = aiohttp.TCPConnector(resolver=Here(address))
        plain = await clients.enter_async_context(aiohttp.ClientSession(connector=connector))
        ways[name] = partial(get, plain, f"http://orders.test:{port}/")
    return ways


THREADS: dict[str, Any] = {
    "requests": _requests(trust_env=True),
    "requests, trust_env off": _requests(trust_env=False),
    "urllib3": _urllib3,
    "httpx, threads": _httpx(httpx),
    "httpx2, threads": _httpx(httpx2),
}
TASKS: dict[str, Any] = {
    "httpx, asyncio": _httpx_async(httpx),
    "httpx2, asyncio": _httpx_async(httpx2),
    "aiohttp": _aiohttp,
}
