"""WebSockets of httpx2: an endpoint for each, in use until the socket ends."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from itertools import count
from random import Random
from typing import Any

import httpcore2
import httpx2
import pytest
import trustme

from ecs_discovery import AsyncDiscovery, CachePolicy, ConnectError, Discovery, ServiceConfig, wrap_client
from ecs_discovery.integrations.httpx2 import AsyncDiscoveryTransport, DiscoveryTransport
from ecs_discovery.testing.lab import Lab
from tests.servers import free_port, required_module
from tests.support import eventually
from tests.worlds import Threads, Worlds

required_module("websockets", "websockets")
required_module("wsproto", "httpx2[ws]")
from httpx2.websockets import WebSocketDisconnect, WebSocketNetworkError, WebSocketUpgradeError  # noqa: E402
from websockets.server import ServerProtocol  # noqa: E402

from tests.websocket_task import Task  # noqa: E402

HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    "Sec-WebSocket-Version": "13",
}
_addresses = count(1)


class Socket:
    """A session of either world. With threads, the coroutines never suspend."""

    def __init__(self, session: Any, is_sync: bool) -> None:
        self.session = session
        self.is_sync = is_sync

    @property
    def response(self) -> Any:
        return self.session.response

    async def send(self, message: str | bytes) -> None:
        send = self.session.send_text if isinstance(message, str) else self.session.send_bytes
        found = send(message)
        if not self.is_sync:
            await found

    async def receive(self) -> str | bytes:
        found = self.session.receive(timeout=5)
        event = found if self.is_sync else await found
        return event.data if isinstance(event.data, str) else bytes(event.data)


class Clients:
    """Opens sockets with a client of one world."""

    def __init__(self, w: Any, **options: Any) -> None:
        self.is_sync = w.name == Threads.name
        self.discovery = w.discovery
        kind: Any = httpx2.Client if self.is_sync else httpx2.AsyncClient
        self.client = wrap_client(kind(**options), w.discovery)

    @asynccontextmanager
    async def open(self, url: str) -> AsyncIterator[Socket]:
        if self.is_sync:
            with self.client.websocket(url) as session:
                yield Socket(session, True)
        else:
            async with self.client.websocket(url) as session:
                yield Socket(session, False)

    def pending(self) -> dict[str, int]:
        """The uses in flight of each address."""
        nodes = self.discovery.snapshot("feed").nodes
        return {node.endpoint.partition(":")[0]: node.pending for node in nodes if node.pending}

    async def close(self) -> None:
        if self.is_sync:
            self.client.close()
        else:
            await self.client.aclose()


Play = Callable[..., None]
Feed = Callable[..., list[Task]]


@pytest.fixture
def feed() -> Iterator[Feed]:
    """Tasks on one port."""
    made: list[Task] = []

    def make(number: int, context: ssl.SSLContext | None = None) -> list[Task]:
        port = free_port()
        tasks = [Task(f"127.14.0.{next(_addresses)}", port, context) for _ in range(number)]
        made.extend(tasks)
        return tasks

    yield make
    for each in made:
        each.end()


@pytest.fixture
def play(world: Worlds) -> Play:
    """Run `await scenario(clients)` with the service `feed` at these addresses."""

    def run(scenario: Callable[[Clients], Any], *where: str, tls_name: str | None = None, **options: Any) -> None:
        async def inner(w: Any) -> None:
            clients = Clients(w, **options)
            try:
                await scenario(clients)
            finally:
                await clients.close()

        world.run(inner, services={"feed": ServiceConfig(f"static://{','.join(where)}", tls_name=tls_name)})

    return run


def at(tasks: list[Task]) -> list[str]:
    """Where they are."""
    return [f"{task.address}:{task.port}" for task in tasks]


def test_sockets_open_at_once_are_spread(feed: Feed, play: Play):
    three = feed(3)

    async def scenario(clients: Clients) -> None:
        opened: list[AbstractAsyncContextManager[Socket]] = []
        found = []
        for _ in range(6):
            opened.append(clients.open("ws://feed/"))
            found.append(await (await opened[-1].__aenter__()).receive())
        assert set(found) == {task.address for task in three}
        for each in reversed(opened):
            await each.__aexit__(None, None, None)

    play(scenario, *at(three))


def test_a_task_that_refuses_is_passed_over(feed: Feed, play: Play):
    (task,) = feed(1)

    async def scenario(clients: Clients) -> None:
        for _ in range(4):
            async with clients.open("ws://feed/") as opened:
                assert await opened.receive() == task.address
                history = opened.response.extensions["ecs_discovery"]
                assert history.endpoint.host == task.address

    play(scenario, *at([task]), f"127.14.1.1:{task.port}")


def test_a_task_that_is_not_ready_is_passed_over(feed: Feed, play: Play):
    two = feed(2)
    two[0].refusal = 503

    async def scenario(clients: Clients) -> None:
        for _ in range(4):
            async with clients.open("ws://feed/") as opened:
                assert await opened.receive() == two[1].address
        assert clients.pending() == {}

    play(scenario, *at(two))


def test_the_endpoint_is_in_use_until_the_socket_closes(feed: Feed, play: Play):
    (task,) = feed(1)

    async def scenario(clients: Clients) -> None:
        async with clients.open("ws://feed/") as opened:
            await opened.receive()
            assert clients.pending() == {task.address: 1}
        assert clients.pending() == {}

    play(scenario, *at([task]))
    eventually(lambda: task.closed == [1000])


def test_the_host_and_the_url_are_the_services(feed: Feed, play: Play):
    (task,) = feed(1)

    async def scenario(clients: Clients) -> None:
        async with clients.open("ws://feed/updates?from=1") as opened:
            assert str(opened.response.url) == "ws://feed/updates?from=1"
            assert opened.response.request.headers["Host"] == "feed"
            assert await opened.receive() == task.address

    play(scenario, *at([task]))
    assert task.hosts == ["feed"]


def test_messages_go_both_ways(feed: Feed, play: Play):
    (task,) = feed(1)

    async def scenario(clients: Clients) -> None:
        async with clients.open("ws://feed/") as opened:
            assert await opened.receive() == task.address
            for message in ("a", b"\x00\x01", "b" * 60_000, b"c" * 60_000):
                await opened.send(message)
                assert await opened.receive() == message

    play(scenario, *at([task]))


def test_a_task_that_closes_says_why(feed: Feed, play: Play):
    (task,) = feed(1)

    async def scenario(clients: Clients) -> None:
        async with clients.open("ws://feed/") as opened:
            await opened.receive()
            threading.Thread(target=task.close, args=(1001,)).start()
            with pytest.raises(WebSocketDisconnect) as caught:
                await opened.receive()
            assert caught.value.code == 1001
        assert clients.pending() == {}

    play(scenario, *at([task]))


def test_a_task_that_ends_without_a_word_is_a_network_error(feed: Feed, play: Play):
    (task,) = feed(1)

    async def scenario(clients: Clients) -> None:
        async with clients.open("ws://feed/") as opened:
            await opened.receive()
            task.cut()
            with pytest.raises(WebSocketNetworkError):
                await opened.receive()
        assert clients.pending() == {}

    play(scenario, *at([task]))


def test_a_task_that_declines_is_the_callers_to_see(feed: Feed, play: Play):
    (task,) = feed(1)
    task.refusal = 403

    async def scenario(clients: Clients) -> None:
        with pytest.raises(WebSocketUpgradeError) as caught:
            async with clients.open("ws://feed/"):
                pass
        assert caught.value.response.status_code == 403
        assert clients.pending() == {}

    play(scenario, *at([task]))


def test_nobody_there_is_an_error_of_both(play: Play):
    async def scenario(clients: Clients) -> None:
        with pytest.raises(httpx2.ConnectError) as caught:
            async with clients.open("ws://feed/"):
                pass
        assert isinstance(caught.value, ConnectError)

    play(scenario, f"127.14.1.1:{free_port()}")


def test_the_certificate_is_verified_for_the_name(feed: Feed, play: Play):
    authority = trustme.CA()
    (task,) = feed(1, tls_of(authority, "feed.example"))
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)

    async def scenario(clients: Clients) -> None:
        async with clients.open("wss://feed/") as opened:
            assert await opened.receive() == task.address
            await opened.send("over TLS")
            assert await opened.receive() == "over TLS"

    async def other(clients: Clients) -> None:
        with pytest.raises(httpx2.ConnectError, match="certificate"):
            async with clients.open("wss://feed/"):
                pass

    play(scenario, *at([task]), tls_name="feed.example", verify=trusting)
    assert task.hosts == ["feed"]
    play(other, *at([task]), tls_name="other.example", verify=trusting)


def test_what_was_sent_last_arrives_although_the_socket_closes(feed: Feed, play: Play):
    authority = trustme.CA()
    (task,) = feed(1, tls_of(authority, "feed"))
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    message = b"last" * 75_000
    few = [(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)]

    async def scenario(clients: Clients) -> None:
        kind = DiscoveryTransport if clients.is_sync else AsyncDiscoveryTransport
        await clients.close()
        clients.client = (httpx2.Client if clients.is_sync else httpx2.AsyncClient)(
            transport=kind(clients.discovery, verify=trusting, socket_options=few)
        )
        async with clients.open("wss://feed/") as opened:
            await opened.receive()
            await opened.send(message)
        await until(lambda: task.received == [message])

    play(scenario, *at([task]), tls_name="feed")


def test_a_socket_outlives_the_leaving_of_its_endpoint(feed: Feed, world: Worlds, lab: Lab):
    two = feed(2)
    lab.dns.add("feed.prod.local", "A", *(task.address for task in two), ttl=1)
    target = f"feed:{two[0].port}"

    async def scenario(w: Any) -> None:
        clients = Clients(w)
        async with clients.open(f"ws://{target}/") as opened:
            (stays,) = {task.address for task in two} - {await opened.receive()}
            lab.dns.add("feed.prod.local", "A", stays, ttl=1)
            while len((await w.resolve(target)).endpoints) == 2:
                await asyncio.sleep(0.1)
            async with clients.open(f"ws://{target}/") as other:
                assert await other.receive() == stays
            await opened.send("still here")
            assert await opened.receive() == "still here"
        await clients.close()

    settings = {"namespace": "prod.local", "nameservers": [lab.nameserver], "cache": CachePolicy(min_ttl=0.2)}
    world.run(scenario, **settings)


def test_closing_the_client_ends_its_sockets(feed: Feed, play: Play):
    (task,) = feed(1)

    async def scenario(clients: Clients) -> None:
        async with clients.open("ws://feed/") as opened:
            await opened.receive()
            await clients.close()
            with pytest.raises((WebSocketNetworkError, WebSocketDisconnect)):
                await opened.receive()
        assert clients.pending() == {}

    play(scenario, *at([task]))


def test_bytes_for_a_connection_that_has_ended_are_not_lost_silently(feed: Feed):
    (task,) = feed(1)

    async def main() -> None:
        services = {"feed": f"static://{task.address}:{task.port}"}
        async with (
            AsyncDiscovery(services=services, rng=Random(7)) as discovery,
            wrap_client(httpx2.AsyncClient(), discovery) as client,
            client.stream("GET", "ws://feed/", headers=HANDSHAKE) as response,
        ):
            stream = response.extensions["network_stream"]
            assert task.address.encode() in await stream.read(1000)
            task.cut()
            while await stream.read(1000):
                pass
            with pytest.raises(httpcore2.WriteError, match="has ended"):
                await stream.write(b"into the void")

    asyncio.run(main())


def test_no_thread_waits_for_a_task_that_is_silent():
    with silent_task() as where, Discovery(services={"feed": f"static://{where}"}, rng=Random(7)) as discovery:
        before = set(threading.enumerate())

        def made() -> list[threading.Thread]:
            return [each for each in threading.enumerate() if each not in before and "Executor" in each.name]

        with wrap_client(httpx2.Client(), discovery) as client, client.websocket("ws://feed/"):
            eventually(made)
        eventually(lambda: not made())


@contextmanager
def silent_task() -> Iterator[str]:
    """A server that accepts one WebSocket, and says nothing from then on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepted: list[socket.socket] = []

        def serve() -> None:
            protocol = ServerProtocol()
            connection, _ = listener.accept()
            accepted.append(connection)
            protocol.receive_data(connection.recv(65_536))
            (request,) = protocol.events_received()
            protocol.send_response(protocol.accept(request))
            connection.sendall(b"".join(protocol.data_to_send()))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            thread.join(10)
            for each in accepted:
                each.close()


async def until(condition: Callable[[], object]) -> None:
    """Wait for it, and let other tasks run."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def tls_of(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context
