"""Connections under asyncio whose making is cancelled, fails or is too slow, and what the event loop is left with."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest
import trustme

from ecs_discovery import AsyncDiscovery, ConnectError, DiscoveryError

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
STEPS = 60  # of the loop: a connection to a server in it is made within these


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def client_side(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture(scope="module")
def server_side(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("orders.prod.local").configure_cert(context)
    return context


async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The server speaks first, and says a lot."""
    with suppress(OSError):
        writer.write(b"hello " * 1000)
        await writer.drain()
        writer.close()
        await writer.wait_closed()


async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """It waits for the client's farewell, and gives none itself."""
    with suppress(OSError):
        await reader.read()
        writer.transport.abort()


@asynccontextmanager
async def serving(handler: Handler, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    server = await asyncio.start_server(handler, "127.0.0.1", 0, ssl=context)
    host, port = server.sockets[0].getsockname()
    try:
        yield f"static://{host}:{port}"
    finally:
        server.close()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def new_loop(kind: str) -> asyncio.AbstractEventLoop:
    if kind == "asyncio":
        return asyncio.new_event_loop()
    made: asyncio.AbstractEventLoop = pytest.importorskip("uvloop").new_event_loop()
    return made


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
@pytest.mark.parametrize("tls", [True, False], ids=["tls", "plain"])
def test_a_connection_cancelled_at_any_step_leaves_the_loop_and_no_socket(
    kind: str, tls: bool, client_side: ssl.SSLContext, server_side: ssl.SSLContext
):
    """After each step in turn; every time an unrelated connection is made at once, which gets the freed descriptor."""
    troubles: list[object] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: troubles.append(context))
        async with (
            serving(wait, server_side if tls else None) as target,
            serving(greet) as other,
            AsyncDiscovery() as discovery,
        ):
            host, _, port = other.removeprefix("static://").rpartition(":")
            connect = partial(discovery.open_connection, target, timeout=10)
            if tls:
                connect = partial(connect, ssl=client_side, server_hostname="orders.prod.local")
            await asyncio.sleep(0.05)
            before = descriptors()
            for steps in range(STEPS):
                task = asyncio.create_task(connect())
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                with suppress(asyncio.CancelledError):
                    _, made = await task
                    made.transport.abort()
                reader, writer = await asyncio.open_connection(host, int(port))
                assert (await reader.read()).startswith(b"hello")
                writer.close()
                await writer.wait_closed()
            await asyncio.sleep(0.1)
            assert descriptors() == before
            assert [node.pending for node in discovery._driver.engine.service(target).nodes] == [0]

    with asyncio.Runner(loop_factory=partial(new_loop, kind)) as runner:
        runner.run(main())
    assert troubles == []


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_what_a_tls_server_says_first_reaches_the_protocol_after_connection_made(
    kind: str, client_side: ssl.SSLContext, server_side: ssl.SSLContext
):
    class Notes(asyncio.Protocol):
        def __init__(self) -> None:
            self.told: list[str] = []
            self.data = b""
            self.over = asyncio.get_running_loop().create_future()

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.told.append("made")
            assert transport.get_extra_info("ssl_object") is not None

        def data_received(self, data: bytes) -> None:
            self.told.append("data")
            self.data += data

        def eof_received(self) -> None:
            self.told.append("eof")

        def connection_lost(self, error: Exception | None) -> None:
            self.told.append("lost")
            self.over.set_result(None)

    class Buffered(asyncio.BufferedProtocol):
        def __init__(self) -> None:
            self.notes = Notes()
            self.buffer = bytearray(100)
            self.connection_made = self.notes.connection_made  # type: ignore[method-assign]
            self.connection_lost = self.notes.connection_lost  # type: ignore[method-assign]
            self.eof_received = self.notes.eof_received  # type: ignore[method-assign]

        def get_buffer(self, sizehint: int) -> bytearray:
            return self.buffer

        def buffer_updated(self, nbytes: int) -> None:
            self.notes.data_received(bytes(self.buffer[:nbytes]))

    async def main() -> None:
        async with serving(greet, server_side) as target, AsyncDiscovery() as discovery:
            for factory in (Notes, Buffered):
                _, protocol = await discovery.create_connection(
                    factory, target, ssl=client_side, server_hostname="orders.prod.local", timeout=10
                )
                notes = protocol if isinstance(protocol, Notes) else protocol.notes
                await notes.over
                assert notes.data == b"hello " * 1000
                assert notes.told[0] == "made"
                assert notes.told[-1] == "lost"

    with asyncio.Runner(loop_factory=partial(new_loop, kind)) as runner:
        runner.run(main())


@pytest.mark.parametrize("tls", [True, False], ids=["tls", "plain"])
def test_a_protocol_that_cannot_be_made_leaves_no_socket(
    tls: bool, client_side: ssl.SSLContext, server_side: ssl.SSLContext
):
    def fail() -> asyncio.Protocol:
        raise ZeroDivisionError

    async def main() -> None:
        async with serving(wait, server_side if tls else None) as target, AsyncDiscovery() as discovery:
            await asyncio.sleep(0.05)
            before = descriptors()
            with pytest.raises(ZeroDivisionError):
                await discovery.create_connection(
                    fail, target, ssl=client_side if tls else None, server_hostname="orders.prod.local", timeout=10
                )
            await asyncio.sleep(0.05)
            assert descriptors() == before

    asyncio.run(main())


def test_a_handshake_that_is_never_answered_ends_at_the_connect_limit_and_leaves_no_socket(client_side: ssl.SSLContext):
    async def main() -> None:
        async with serving(wait) as target, AsyncDiscovery() as discovery:
            await asyncio.sleep(0.05)
            before = descriptors()
            with pytest.raises(ConnectError) as caught:
                await discovery.open_connection(
                    target, ssl=client_side, server_hostname="orders.prod.local", timeout=0.2
                )
            assert isinstance(caught.value, DiscoveryError)
            await asyncio.sleep(0.05)
            assert descriptors() == before

    asyncio.run(main())
