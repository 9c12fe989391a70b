"""A request of a wrapped httpx client beside one of a plain client, in one run: the ratio is the result."""

from __future__ import annotations

import asyncio
import time
from statistics import median
from typing import Any

import httpx
import httpx2
import pytest

from ecs_discovery import Discovery, wrap_client
from tests.benchmarks.test_requests import compare, lab

__all__ = ["lab"]

pytestmark = pytest.mark.benchmark

ROUNDS, REQUESTS = 30, 150


@pytest.fixture(params=[httpx, httpx2], ids=["httpx", "httpx2"])
def library(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_a_keep_alive_get_in_threads(lab: dict[str, Any], library: Any, capsys: Any):
    plain_url = f"http://{lab['tasks'][0]}/"
    with (
        Discovery(namespace=lab["namespace"], nameservers=[lab["nameserver"]]) as discovery,
        wrap_client(library.Client(), discovery) as ours,
        library.Client() as plain,
    ):
        compare(f"{library.__name__}, threads", lambda: ours.get(lab["url"]), lambda: plain.get(plain_url), capsys)


async def per_request(client: Any, url: str) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(REQUESTS):
        await client.get(url)
    return (time.perf_counter() - wall) / REQUESTS, (time.process_time() - cpu) / REQUESTS


def test_a_keep_alive_get_in_a_task(lab: dict[str, Any], library: Any, capsys: Any):
    plain_url = f"http://{lab['tasks'][0]}/"

    async def main() -> list[tuple[tuple[float, float], tuple[float, float]]]:
        discovery = Discovery(namespace=lab["namespace"], nameservers=[lab["nameserver"]])
        rounds = []
        async with wrap_client(library.AsyncClient(), discovery) as ours, library.AsyncClient() as plain:
            await per_request(ours, lab["url"])
            await per_request(plain, plain_url)
            for number in range(ROUNDS):
                if number % 2:
                    first = await per_request(ours, lab["url"])
                    rounds.append((first, await per_request(plain, plain_url)))
                else:
                    last = await per_request(plain, plain_url)
                    rounds.append((await per_request(ours, lab["url"]), last))
        discovery.close()
        return rounds

    rounds = asyncio.run(main())
    wall = median(o[0] / p[0] for o, p in rounds)
    cpu = median(o[1] / p[1] for o, p in rounds)
    micros = [median(values) * 1e6 for values in zip(*((o[1], p[1]) for o, p in rounds), strict=True)]
    with capsys.disabled():
        print(f"\n{library.__name__}, asyncio: ours {micros[0]:.0f} us of CPU, plain {micros[1]:.0f} us")
        print(f"{library.__name__}, asyncio: ratio {wall:.3f} of time, {cpu:.3f} of CPU")
