"""What is aiohttp's own of a request: its retry, its time limits, its signals, its bodies and its sockets."""

from __future__ import annotations

import asyncio
import io
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from ecs_discovery import AsyncDiscovery, DeadlineExceeded, DiscoveryError, RetryPolicy, ServiceConfig
from ecs_discovery.integrations.aiohttp import DiscoveryConnector, client_session
from ecs_discovery.testing.lab import Lab, LabService
from tests.integrations.aiohttp.conftest import Play
from tests.support import eventually


def url_of(service: LabService, path: str = "/") -> str:
    return f"http://{service.name}.prod.local:{service.port}{path}"


def nodes(discovery: AsyncDiscovery, service: LabService) -> Any:
    return discovery.snapshot(f"{service.name}.prod.local:{service.port}").nodes


def test_aiohttps_silent_second_try_does_not_multiply_the_attempts(lab: Lab, play: Play):
    service = lab.service("orders", tasks=3)
    for task in service.tasks:
        task.reset()

    async def scenario(session: aiohttp.ClientSession, discovery: AsyncDiscovery) -> None:
        with pytest.raises(aiohttp.ClientError) as caught:
            await session.get(url_of(service))
        assert len(caught.value.attempts) == 3  # type: ignore[attr-defined]
        assert service.requests == 3

    play(scenario, settings={"retry": RetryPolicy(attempts=3, backoff_min=0.001, backoff_max=0.002)})


class Dropping(asyncio.Protocol):
    """Answers the first request of a connection and drops the connection at the second."""

    connections = 0

    def connection_made(self, transport: Any) -> None:
        Dropping.connections += 1
        self.transport = transport
        self.answered = False

    def data_received(self, data: bytes) -> None:
        if self.answered:
            self.transport.abort()
        else:
            self.answered = True
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


@pytest.mark.parametrize(("method", "works"), [("GET", True), ("POST", False)])
def test_hosts_that_are_not_ours_have_aiohttps_second_try(play: Play, method: str, works: bool):
    async def scenario(session: aiohttp.ClientSession, discovery: AsyncDiscovery) -> None:
        server = await asyncio.get_running_loop().create_server(Dropping, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with session.get(url) as response:
            await response.read()
        if works:
            async with session.request(method, url) as response:
                assert await response.read() == b"ok"
        else:
            with pytest.raises(aiohttp.ServerDisconnectedError) as caught:
                await session.request(method, url)
            assert not isinstance(caught.value, DiscoveryError)
        server.close()

    play(scenario)


@pytest.mark.parametrize("path", ["/slow/5", "/stream/20"])
def test_the_total_of_a_timeout_is_final_and_not_the_tasks_fault(lab: Lab, play: Play, path: str):
    service = lab.service("orders", tasks=2)
    if path.startswith("/stream"):
        for task in service.tasks:
            task.hang()

    async def scenario(session: aiohttp.ClientSession, discovery: AsyncDiscovery) -> None:
        began = time.monotonic()
        with pytest.raises(TimeoutError) as caught:
            await session.get(url_of(service, path), timeout=aiohttp.ClientTimeout(total=0.4))
        assert time.monotonic() - began < 3
        assert isinstance(caught.value, DeadlineExceeded)
        assert [attempt.outcome for attempt in caught.value.attempts] == ["out of time"]
        assert service.requests == 1
        assert all((node.failures, node.pending) == (0, 0) for node in nodes(discovery, service))
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0)  # a cancellation that was left over would end it here

    play(scenario)


def test_the_total_of_a_timeout_ends_a_connect_too(lab: Lab, play: Play):
    service = lab.service("orders", tasks=1)
    service.tasks[0].vanish()

    async def scenario(session: aiohttp.ClientSession, discovery: AsyncDiscovery) -> None:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await session.get(url_of(service), timeout=aiohttp.ClientTimeout(total=0.4))
        assert time.monotonic() - began < 3

    play(scenario)


def test_a_place_among_the_connections_that_does_not_become_free_is_no_tasks_fault(lab: Lab, play: Play):
    service = lab.service("orders", tasks=2)

    async def scenario(session: aiohttp.ClientSession, discovery: AsyncDiscovery) -> None:
        held = await session.get(url_of(service, "/stream/2000"))
        with pytest.raises(aiohttp.ConnectionTimeoutError) as caught:
            await session.get(url_of(service), timeout=aiohttp.ClientTimeout(connect=0.2))
        assert isinstance(caught.value, DiscoveryError)
        assert all(node.failures == 0 and node.health == "healthy" for node in nodes(discovery, service))
        held.close()

    play(scenario, connector={"limit": 1}, settings={"retry": RetryPolicy(attempts=1)})


def test_signals_tell_of_one_request_and_of_each_connection(lab: Lab, play: Play):
    service = lab.service("orders", tasks=2)
    told: list[str] = []
    config = aiohttp.TraceConfig()
    for name in ("on_request_start", "on_request_end", "on_connection_create_end", "on_connection_reuseconn"):

        async def tell(session: Any, context: Any, params: Any, name: str = name) -> None:
            told.append(name)
            if name == "on_request_start":
                assert params.url.host == "orders.prod.local"

        getattr(config, name).append(tell)

    async def scenario(session: aiohttp.ClientSession, discovery: AsyncDiscovery) -> None:
        for _ in range(4):
            async with session.get(url_of(service)) as response:
                await response.read()
        assert told.count("on_request_start") == told.count("on_request_end") == 4
        assert told.count("on_connection_create_end") == 2
        assert told.count("on_connection_reuseconn") == 2

    play(scenario, trace_configs=[config])


def test_an_answer_tells_its_attempts_and_the_name(lab: Lab, play: Play):
    service = lab.service("orders", tasks=2)
    service.tasks[0].errors(503)

    async def scenario(session: aiohttp.ClientSession, discovery: AsyncDiscovery) -> None:
        histories = []
        for _ in range(2):
            async with session.get(url_of(service)) as response:
                assert response.host == "orders.prod.local"
                assert str(response.url) == url_of(service)
                histories.append([each.outcome for each in response.ecs_discovery.attempts])  # type: ignore[attr-defined]
        assert ["status 503", "ok"] in histories

    play(scenario, settings={"retry": RetryPolicy(backoff_min=0.001, backoff_max=0.002)})


def test_a_short_body_is_left_for_the_application_to_stream(lab: Lab, play: Play):
    service = lab.service("orders", tasks=1)

    async def scenario(session: aiohttp.ClientSession, discovery: AsyncDiscovery) -> None:
        async with session.get(url_of(service, "/bytes/50000")) as response:
            pieces = [piece async for piece in response.content.iter_chunked(1000)]
            assert sum(map(len, pieces)) == 50_000

    play(scenario)


async def pieces(*given: bytes) -> AsyncIterator[bytes]:
    for piece in given:
        yield piece


def file() -> Any:
    return io.BytesIO(b"of a file")


@pytest.mark.parametrize(
    ("body", "sent"),
    [(b"bytes", b"bytes"), ("text", b"text"), (file, b"of a file"), (lambda: pieces(b"a", b"b"), b"ab")],
    ids=["bytes", "text", "file", "chunked"],
)
def test_bodies_of_every_kind_are_sent_past_a_task_that_refuses(lab: Lab, play: Play, body: Any, sent: bytes):
    service = lab.service("orders", tasks=2)
    service.tasks[0].refuse()

    async def scenario(session: aiohttp.ClientSession, discovery: AsyncDiscovery) -> None:
        for _ in range(2):
            data = body() if callable(body) else body
            async with session.put(url_of(service, "/echo"), data=data) as response:
                assert await response.read() == sent

    play(scenario)


def test_a_file_is_sent_again_from_its_start_where_aiohttp_can_rewind_it(lab: Lab, play: Play):
    if not hasattr(aiohttp.payload.Payload, "consumed"):
        pytest.skip("this aiohttp sends a file once")
    service = lab.service("orders", tasks=2)
    service.tasks[0].reset()

    async def scenario(session: aiohttp.ClientSession, discovery: AsyncDiscovery) -> None:
        for _ in range(3):
            async with session.put(url_of(service, "/echo"), data=file()) as response:
                assert await response.read() == b"of a file"

    play(scenario, settings={"retry": RetryPolicy(backoff_min=0.001, backoff_max=0.002)})


class Served:
    """An aiohttp server on several loopback addresses of one port."""

    def __init__(self, *routes: web.RouteDef, count: int = 2) -> None:
        self.routes = routes
        self.count = count
        self.targets = ""

    async def __aenter__(self) -> Served:
        app = web.Application()
        app.add_routes(self.routes)
        self.runner = web.AppRunner(app)
        await self.runner.setup()
        ports = []
        for _ in range(self.count):
            sock = socket.create_server(("127.0.0.1", 0))
            await web.SockSite(self.runner, sock).start()
            ports.append(sock.getsockname()[1])
        self.targets = "static://" + ",".join(f"127.0.0.1:{port}" for port in ports)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.runner.cleanup()


async def converse(request: web.Request) -> web.WebSocketResponse:
    answer = web.WebSocketResponse()
    await answer.prepare(request)
    async for message in answer:
        await answer.send_str(f"{message.data} by {request.transport.get_extra_info('sockname')[1]}")  # type: ignore[union-attr]
    return answer


def test_the_use_of_an_endpoint_lasts_as_long_as_its_web_socket():
    async def work() -> None:
        async with Served(web.get("/ws", converse)) as served:
            discovery = AsyncDiscovery(services={"orders": served.targets})
            async with discovery, client_session(discovery) as session:
                ports = set()
                for _ in range(4):
                    async with session.ws_connect("ws://orders/ws") as ws:
                        await ws.send_str("hello")
                        ports.add((await ws.receive_str()).split()[-1])
                        assert sum(node.pending for node in discovery.snapshot("orders").nodes) == 1
                    assert sum(node.pending for node in discovery.snapshot("orders").nodes) == 0
                assert len(ports) == 2

    asyncio.run(asyncio.wait_for(work(), 30))


async def continued(request: web.Request) -> web.Response:
    return web.Response(body=await request.read())


def test_an_expected_continue_is_waited_for_with_each_attempt():
    async def work() -> None:
        refusing = socket.create_server(("127.0.0.1", 0))
        port = refusing.getsockname()[1]
        refusing.close()
        async with Served(web.post("/", continued), count=1) as served:
            discovery = AsyncDiscovery(services={"orders": f"{served.targets},127.0.0.1:{port}"})
            async with discovery, client_session(discovery) as session:
                for _ in range(4):
                    async with session.post("http://orders/", data=b"body", expect100=True) as response:
                        assert await response.read() == b"body"

    asyncio.run(asyncio.wait_for(work(), 30))


def test_what_the_application_wants_of_its_sockets_holds_for_our_hosts(lab: Lab, play: Play):
    service = lab.service("orders", tasks=1)
    made: list[Any] = []

    def factory(info: Any) -> socket.socket:
        made.append(info)
        return socket.socket(*info[:3])

    options: dict[str, Any] = {"local_addr": ("127.0.0.7", 0)}
    if "socket_factory" in aiohttp.TCPConnector.__init__.__kwdefaults__:
        options["socket_factory"] = factory

    async def scenario(session: aiohttp.ClientSession, discovery: AsyncDiscovery) -> None:
        async with session.get(url_of(service, "/stream/300")) as response:
            assert response.connection is not None
            assert response.connection.transport is not None
            assert response.connection.transport.get_extra_info("sockname")[0] == "127.0.0.7"
            await response.read()
        assert len(made) == ("socket_factory" in options)

    play(scenario, connector=options)


def test_a_proxy_that_the_application_names_is_used(lab: Lab, play: Play):
    service, proxy = lab.service("orders", tasks=1), lab.service("proxy", tasks=1)
    task = proxy.tasks[0]

    async def scenario(session: aiohttp.ClientSession, discovery: AsyncDiscovery) -> None:
        async with session.get(url_of(service), proxy=f"http://{task.address}:{task.port}") as response:
            assert response.headers["X-Task"] == task.id

    play(scenario)


def test_a_cancelled_connect_leaves_no_place_taken(lab: Lab, play: Play):
    service = lab.service("orders", tasks=1)
    service.tasks[0].vanish()

    async def scenario(session: aiohttp.ClientSession, discovery: AsyncDiscovery) -> None:
        task = asyncio.create_task(session.get(url_of(service))._coro)  # type: ignore[arg-type]
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert session.connector is not None
        assert not session.connector._acquired
        assert all(node.pending == 0 for node in nodes(discovery, service))

    play(scenario)


def test_a_target_that_is_none_is_an_invalid_url_to_aiohttp():
    async def work() -> None:
        async with client_session(namespace="prod.local") as session:
            with pytest.raises(aiohttp.InvalidURL) as caught:
                await session.get("http://a..prod.local/")
            assert isinstance(caught.value, DiscoveryError)
            assert caught.value.url is not None

    asyncio.run(work())


def test_uvloop_serves_as_well(lab: Lab):
    uvloop = pytest.importorskip("uvloop")
    service = lab.service("orders", tasks=2)
    service.tasks[0].refuse()

    async def work() -> None:
        discovery = AsyncDiscovery(namespace="prod.local", nameservers=[lab.nameserver])
        async with discovery, client_session(discovery) as session:
            for _ in range(6):
                async with session.post(url_of(service, "/echo"), data=b"x") as response:
                    assert await response.read() == b"x"
            with pytest.raises(DeadlineExceeded):
                await session.get(url_of(service, "/slow/5"), timeout=aiohttp.ClientTimeout(total=0.3))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work())


def test_connections_verified_for_two_names_are_two(lab: Lab, play: Play):
    """By key: with the same endpoint, name and options alone decide."""

    async def scenario(session: aiohttp.ClientSession, discovery: AsyncDiscovery) -> None:
        connector: Any = session.connector
        assert isinstance(connector, DiscoveryConnector)
        keys = set()
        other = AsyncDiscovery(
            services={name: ServiceConfig("static://127.0.0.1:1", tls_name=f"{name}.test") for name in ("one", "two")}
        )
        routes = type(connector._routes)(other, lambda key: None)
        for name in ("one", "two"):
            for server_hostname in (None, "three.test"):
                request = aiohttp.ClientRequest(
                    "GET",
                    aiohttp.client.URL(f"https://{name}/"),
                    loop=asyncio.get_running_loop(),
                    session=session,
                    server_hostname=server_hostname,
                )
                route = routes.find(request)
                await other.resolve(name)
                lease = other._driver.engine.start_attempt(route.service, other._driver.engine.call(route.service))
                keys.add(route.key(lease.node, request))
                lease.release()
        assert len(keys) == 3  # of the two services, and of the name that the application gave for either
        await other.aclose()

    play(scenario)


def test_an_endpoint_that_left_keeps_no_connection(lab: Lab, play: Play):
    service = lab.service("orders", tasks=2, ttl=1)

    async def scenario(session: aiohttp.ClientSession, discovery: AsyncDiscovery) -> None:
        async def get() -> None:
            async with session.get(url_of(service)) as response:
                await response.read()

        for _ in range(4):
            await get()
        left = service.tasks[0]
        service.deregister(left)
        service.flush()
        until = time.monotonic() + 10
        while left.open_connections:
            assert time.monotonic() < until
            await get()
            await asyncio.sleep(0.1)
        eventually(lambda: service.tasks[0].open_connections == 0)

    play(scenario)


def test_an_answer_whose_short_body_comes_late_is_handed_over_without_it():
    """A server may wait for what the application does when it has the head."""

    async def work() -> None:
        go = asyncio.Event()

        async def early(request: web.Request) -> web.StreamResponse:
            answer = web.StreamResponse(headers={"Content-Length": "2"})
            await answer.prepare(request)
            await answer.write(b"o")
            await go.wait()
            await answer.write(b"k")
            return answer

        async with Served(web.get("/", early), count=1) as served:
            discovery = AsyncDiscovery(services={"orders": served.targets})
            async with discovery, client_session(discovery) as session, session.get("http://orders/") as response:
                go.set()
                assert await response.read() == b"ok"

    asyncio.run(asyncio.wait_for(work(), 30))


def test_a_body_that_the_application_cannot_give_is_aiohttps_error_as_it_is(lab: Lab, play: Play):
    service = lab.service("orders", tasks=2)

    async def broken() -> AsyncIterator[bytes]:
        yield b"first"
        raise RuntimeError("no more")

    async def scenario(session: aiohttp.ClientSession, discovery: AsyncDiscovery) -> None:
        with pytest.raises(aiohttp.ClientConnectionError) as caught:
            await session.post(url_of(service), data=broken())
        assert not isinstance(caught.value, DiscoveryError)
        assert isinstance(caught.value.__cause__, RuntimeError)
        assert all(node.failures == 0 for node in nodes(discovery, service))

    play(scenario)


def test_a_connection_is_not_used_longer_than_its_server_keeps_it(lab: Lab, play: Play):
    service = lab.service("orders", tasks=1)

    async def scenario(session: aiohttp.ClientSession, discovery: AsyncDiscovery) -> None:
        for _ in range(2):
            async with session.get(url_of(service, "/keep-alive/1")) as response:
                await response.read()
            await asyncio.sleep(0.7)  # half a second is what can be relied on
        assert service.tasks[0].connections == 2

    play(scenario)
