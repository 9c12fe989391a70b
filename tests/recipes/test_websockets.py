"""websockets: connections that a discovery chooses, and the next one when a task ends."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ecs_discovery import Discovery
from ecs_discovery.testing.lab import Lab
from tests.recipes.conftest import Recipe
from tests.servers import free_port, required_module

required_module("websockets", "websockets")
from websockets.sync.client import connect  # noqa: E402

from tests.websocket_task import Task  # noqa: E402


@pytest.fixture
def feed(lab: Lab, addresses: Callable[[], str]) -> Iterator[Callable[..., list[Task]]]:
    """The tasks of `feed`, with SRV records."""
    made: list[Task] = []

    def make(number: int, context: ssl.SSLContext | None = None) -> list[Task]:
        port = free_port()
        for index in range(number):
            made.append(Task(addresses(), port, context))
            lab.dns.add(f"task{index}.feed.prod.local", "A", made[-1].address, ttl=1)
        records = [f"1 1 {port} task{index}.feed.prod.local." for index in range(number)]
        lab.dns.add("feed.prod.local", "SRV", *records, ttl=1)
        return made

    yield make
    for each in made:
        each.end()


def test_connections_spread_and_keep_the_name(recipe: Recipe, feed: Any):
    three = feed(3)
    found = recipe("## websockets")

    async def scenario() -> None:
        sockets = [await found.open_feed() for _ in range(9)]
        assert {await each.recv() for each in sockets} == {task.address for task in three}
        for each in sockets:
            await each.close()
        await found.discovery.aclose()

    asyncio.run(scenario())
    assert {host for task in three for host in task.hosts} == {"feed.prod.local"}


def test_another_task_takes_over_when_one_ends(recipe: Recipe, feed: Any):
    two = feed(2)
    found = recipe("## websockets")

    async def scenario() -> None:
        messages = found.messages()
        first = await anext(messages)
        await asyncio.to_thread(next(task for task in two if task.address == first).end)
        second = await asyncio.wait_for(anext(messages), 5)
        assert {first, second} == {task.address for task in two}
        await messages.aclose()
        await found.discovery.aclose()

    asyncio.run(scenario())


def test_a_task_that_refuses_the_handshake_is_passed_over(recipe: Recipe, feed: Any):
    two = feed(2)
    two[0].refusal = 503
    found = recipe("## websockets")

    async def scenario() -> None:
        for _ in range(8):
            async with await found.open_feed() as socket:
                assert await socket.recv() == two[1].address
        await found.discovery.aclose()

    asyncio.run(scenario())


def test_a_thread_connects_over_a_socket_of_the_discovery(recipe: Recipe, feed: Any, lab: Lab):
    three = feed(3)
    with Discovery(namespace="prod.local") as discovery:
        found = set()
        for _ in range(12):
            with connect("ws://feed.prod.local/", sock=discovery.connect("feed")) as socket:
                found.add(socket.recv())
    assert found == {task.address for task in three}


def test_the_certificate_is_verified_for_the_name(recipe: Recipe, feed: Any, lab: Lab, certificates: Any):
    files = certificates("feed.prod.local")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(files.cert, files.key)
    (task,) = feed(1, server)
    lab.dns.add("other.prod.local", "A", task.address, ttl=1)
    found = recipe("## websockets")
    client = ssl.create_default_context(cafile=files.ca)

    async def scenario() -> None:
        socket = await found.open_feed("wss://feed.prod.local/", ssl=client)
        assert await socket.recv()
        await socket.close()
        with pytest.raises(ssl.SSLCertVerificationError, match=r"other\.prod\.local"):
            await found.open_feed(f"wss://other.prod.local:{task.port}/", ssl=client)
        await found.discovery.aclose()

    asyncio.run(scenario())
