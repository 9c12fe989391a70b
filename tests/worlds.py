"""Two worlds, one set of scenarios: the same calls on a `Discovery` in threads and an `AsyncDiscovery` in asyncio."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest

from ecs_discovery import AsyncDiscovery, Discovery
from ecs_discovery.models import Question, Resolution
from ecs_discovery.resolvers import AsyncCloudMapResolver, CloudMapResolver

Scenario = Callable[[Any], Awaitable[None]]


class AsyncResolverOf:
    """A synchronous fake resolver, for asyncio."""

    def __init__(self, resolver: Any) -> None:
        self.resolver = resolver

    async def resolve(self, question: Question, timeout: float) -> Resolution:
        await asyncio.sleep(0)
        found: Resolution = self.resolver.resolve(question, timeout)
        return found


class Threads:
    """Calls a `Discovery`; `dns` is a fake resolver, `dnspolicy` the policy.

    Coroutine functions here never suspend; concurrency is threads.
    """

    name = "threads"

    def __init__(self, **settings: Any) -> None:
        resolver = settings.pop("dns", None)
        if "dnspolicy" in settings:
            settings["dns"] = settings.pop("dnspolicy")
        self.discovery = Discovery(**settings)
        if resolver is not None:
            self.discovery._driver.background.asker.dns = resolver

    @property
    def engine(self) -> Any:
        return self.discovery._driver.engine

    async def resolve(self, target: str, **options: Any) -> Resolution:
        return self.discovery.resolve(target, **options)

    async def warm(self, *targets: str, **options: Any) -> None:
        self.discovery.warm(*targets, **options)

    async def call(self, target: str, fetch: Callable[[Any], Any], **options: Any) -> Any:
        return self.discovery.call(target, fetch, **options)

    @asynccontextmanager
    async def lease(self, target: str, **options: Any) -> Any:
        with self.discovery.lease(target, **options) as lease:
            yield lease

    async def connect(self, target: str, **options: Any) -> tuple[str, int]:
        """Connect, say hello by HTTP, and tell who the peer was."""
        with self.discovery.connect(target, **options) as sock:
            peer = sock.getpeername()[:2]
            sock.settimeout(5)
            sock.sendall(b"GET / HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n")
            assert sock.recv(12) == b"HTTP/1.1 200"
        return peer  # type: ignore[no-any-return]

    async def many(self, count: int, work: Callable[[], Awaitable[Any]]) -> list[Any]:
        results: list[Any] = []
        barrier = threading.Barrier(count)

        def run() -> None:
            barrier.wait()
            try:
                work().send(None)  # type: ignore[attr-defined]  # never suspends
            except StopIteration as end:
                results.append(end.value)
            except Exception as error:  # noqa: BLE001  # handed to the test
                results.append(error)

        threads = [threading.Thread(target=run) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results

    async def pause(self, seconds: float) -> None:
        threading.Event().wait(seconds)

    async def close(self) -> None:
        self.discovery.close()


class Asyncio:
    """Calls an `AsyncDiscovery`; concurrency is tasks."""

    name = "asyncio"

    def __init__(self, **settings: Any) -> None:
        resolver = settings.pop("dns", None)
        if "dnspolicy" in settings:
            settings["dns"] = settings.pop("dnspolicy")
        resolvers = settings.pop("resolvers", None)
        if resolvers:
            settings["resolvers"] = {
                scheme: AsyncCloudMapResolver(share=each)
                if isinstance(each, CloudMapResolver)
                else AsyncResolverOf(each)
                for scheme, each in resolvers.items()
            }
        self.discovery = AsyncDiscovery(**settings)
        if resolver is not None:
            self.discovery._driver.background.asker.dns = AsyncResolverOf(resolver)

    @property
    def engine(self) -> Any:
        return self.discovery._driver.engine

    async def resolve(self, target: str, **options: Any) -> Resolution:
        return await self.discovery.resolve(target, **options)

    async def warm(self, *targets: str, **options: Any) -> None:
        await self.discovery.warm(*targets, **options)

    async def call(self, target: str, fetch: Callable[[Any], Any], **options: Any) -> Any:
        async def fetching(attempt: Any) -> Any:
            found = fetch(attempt)
            return await found if asyncio.iscoroutine(found) else found

        return await self.discovery.call(target, fetching, **options)

    def lease(self, target: str, **options: Any) -> Any:
        return self.discovery.lease(target, **options)

    async def connect(self, target: str, **options: Any) -> tuple[str, int]:
        reader, writer = await self.discovery.open_connection(target, **options)
        peer = writer.get_extra_info("peername")[:2]
        writer.write(b"GET / HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n")
        assert await reader.readexactly(12) == b"HTTP/1.1 200"
        await reader.read()
        writer.close()
        await writer.wait_closed()
        return peer  # type: ignore[no-any-return]

    async def many(self, count: int, work: Callable[[], Awaitable[Any]]) -> list[Any]:
        return await asyncio.gather(*(work() for _ in range(count)), return_exceptions=True)

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        await self.discovery.aclose()


class Worlds:
    """Runs scenarios in one world."""

    def __init__(self, kind: type[Threads] | type[Asyncio]) -> None:
        self.kind = kind
        self.name = kind.name

    def run(self, scenario: Scenario, **settings: Any) -> None:
        """`await scenario(world)` with a world made of these settings, closed afterwards. Its rng are seeded."""
        settings.setdefault("rng", Random(7))

        async def main() -> None:
            world = self.kind(**settings)
            try:
                await scenario(world)
            finally:
                await world.close()

        asyncio.run(main())


@pytest.fixture(params=[Threads, Asyncio], ids=["threads", "asyncio"])
def world(request: pytest.FixtureRequest) -> Worlds:
    return Worlds(request.param)


@pytest.fixture
def refused_port() -> Iterator[int]:
    """A port on 127.0.0.1 that refuses connections."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]
