"""One client in several event loops: one after the other, and at once in several threads."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from ecs_discovery import AsyncDiscovery, Discovery, wrap_client
from ecs_discovery.testing.lab import Lab, LabService
from tests.support import eventually

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@pytest.fixture
def service(lab: Lab) -> LabService:
    return lab.service("orders", tasks=2)


@pytest.fixture(params=[Discovery, AsyncDiscovery], ids=["shared", "own"])
def client(request: pytest.FixtureRequest, library: Any, lab: Lab) -> Iterator[Any]:
    discovery = request.param(namespace="prod.local", nameservers=[lab.nameserver], rng=Random(7))
    yield wrap_client(library.AsyncClient(), discovery)
    gc.collect()  # asyncio warns of connections that its closed loop did not close, as it does with a plain client
    if isinstance(discovery, Discovery):
        discovery.close()
    else:
        asyncio.run(discovery.aclose())


def open_connections(service: LabService) -> int:
    return sum(task.open_connections for task in service.tasks)


async def visit(client: Any, service: LabService, times: int = 4) -> None:
    for _ in range(times):
        assert (await client.get(service.url())).status_code == 200


def test_a_client_serves_one_loop_after_another(client: Any, service: LabService):
    for _ in range(3):
        asyncio.run(visit(client, service))
    asyncio.run(client.aclose())


def test_connections_of_a_loop_that_is_closed_are_dropped(client: Any, service: LabService):
    async def streaming() -> Any:
        request = client.build_request("GET", service.url("/stream/100000"))
        return await client.send(request, stream=True)

    held = asyncio.run(streaming())

    async def closing() -> None:
        await visit(client, service)
        await client.aclose()

    asyncio.run(closing())
    assert not held.is_closed
    eventually(lambda: not open_connections(service))


def test_loops_in_two_threads_share_a_client(client: Any, service: LabService):
    failed: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(visit(client, service, 20))
        except BaseException as error:  # noqa: BLE001  # handed to the test
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    asyncio.run(client.aclose())


def test_closing_a_client_closes_what_another_loop_uses(client: Any, service: LabService):
    async def main() -> None:
        await visit(client, service)
        await asyncio.to_thread(asyncio.run, client.aclose())
        async with asyncio.timeout(10):
            while open_connections(service):
                await asyncio.sleep(0.01)

    asyncio.run(main())
