"""A request of a session that discovers beside one of a plain session, in one run: the ratio is the result."""

from __future__ import annotations

import asyncio
import time
from statistics import median
from typing import Any

import aiohttp
import pytest

from ecs_discovery import AsyncDiscovery
from ecs_discovery.integrations.aiohttp import client_session
from tests.benchmarks.test_requests import lab

__all__ = ["lab"]

pytestmark = pytest.mark.benchmark

ROUNDS, REQUESTS = 40, 200


async def per_request(session: aiohttp.ClientSession, url: str) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(REQUESTS):
        async with session.get(url) as response:
            await response.read()
    return (time.perf_counter() - wall) / REQUESTS, (time.process_time() - cpu) / REQUESTS


def test_a_keep_alive_get_of_aiohttp(lab: dict[str, Any], capsys: Any):
    # By name here too: aiohttp keeps no cookies of an address, and looks for them with every request to a name.
    plain_url = f"http://task.test:{lab['tasks'][0].rpartition(':')[2]}/"

    class ToTask(aiohttp.abc.AbstractResolver):
        async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[Any]:
            address = lab["tasks"][0].partition(":")[0]
            return [{"hostname": host, "host": address, "port": port, "family": 2, "proto": 0, "flags": 0}]

        async def close(self) -> None:
            pass

    async def main() -> list[tuple[tuple[float, float], tuple[float, float]]]:
        discovery = AsyncDiscovery(namespace=lab["namespace"], nameservers=[lab["nameserver"]])
        rounds = []
        async with (
            discovery,
            client_session(discovery) as ours,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=ToTask())) as plain,
        ):
            await per_request(ours, lab["url"])
            await per_request(plain, plain_url)
            for number in range(ROUNDS):
                if number % 2:
                    first = await per_request(ours, lab["url"])
                    rounds.append((first, await per_request(plain, plain_url)))
                else:
                    last = await per_request(plain, plain_url)
                    rounds.append((await per_request(ours, lab["url"]), last))
        return rounds

    rounds = asyncio.run(main())
    wall = median(o[0] / p[0] for o, p in rounds)
    cpu = median(o[1] / p[1] for o, p in rounds)
    micros = [median(values) * 1e6 for values in zip(*((o[1], p[1]) for o, p in rounds), strict=True)]
    with capsys.disabled():
        print(f"\naiohttp, keep-alive GET: ours {micros[0]:.0f} us of CPU, plain {micros[1]:.0f} us")
        print(f"aiohttp, keep-alive GET: ratio {wall:.3f} of time, {cpu:.3f} of CPU")
