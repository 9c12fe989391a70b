"""The same RPCs through both kinds of channel."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from ecs_discovery.integrations import grpc as ours
from ecs_discovery.integrations.grpc import aio
from tests.integrations.grpc.fleet import Fleet
from tests.support import eventually
from tests.worlds import Asyncio, Threads, Worlds

IDEMPOTENT = {"/shop.Orders/Get", "/shop.Orders/Slow", "/shop.Orders/List", "/shop.Orders/Missing"}
KINDS = {"List": "unary_stream", "Upload": "stream_unary", "Chat": "stream_stream"}


class SyncCalls:
    """RPCs over a channel of threads. The coroutines never suspend."""

    module: Any = ours

    def __init__(self, channel: Any) -> None:
        self.channel = channel

    def call(self, name: str, request: Any = b"", **options: Any) -> Any:
        """gRPC's call object; for one response its future."""
        multi = getattr(self.channel, KINDS.get(name, "unary_unary"))(f"/shop.Orders/{name}")
        return multi(request, **options) if name in ("List", "Chat") else multi.future(request, **options)

    async def one(self, name: str, request: Any = b"", **options: Any) -> bytes:
        """One response, waited for."""
        multi = getattr(self.channel, KINDS.get(name, "unary_unary"))(f"/shop.Orders/{name}")
        found: bytes = multi(request, **options)
        return found

    async def result(self, call: Any) -> Any:
        return call.result()

    async def read(self, call: Any) -> Any:
        return next(call)

    async def all(self, call: Any) -> list[bytes]:
        return list(call)

    async def told(self, found: Any) -> Any:
        return found

    async def close(self) -> None:
        self.channel.close()


class AsyncCalls(SyncCalls):
    """RPCs over a channel of asyncio."""

    module = aio

    def call(self, name: str, request: Any = b"", **options: Any) -> Any:
        multi = getattr(self.channel, KINDS.get(name, "unary_unary"))(f"/shop.Orders/{name}")
        return multi(request, **options)

    async def one(self, name: str, request: Any = b"", **options: Any) -> bytes:
        found: bytes = await self.call(name, request, **options)
        return found

    async def result(self, call: Any) -> Any:
        return await call

    async def read(self, call: Any) -> Any:
        return await call.read()

    async def all(self, call: Any) -> list[bytes]:
        return [each async for each in call]

    async def told(self, found: Any) -> Any:
        return await found

    async def close(self) -> None:
        await self.channel.close()


def ours_among(threads: list[threading.Thread]) -> set[threading.Thread]:
    return {each for each in threads if each.name == "ecs_discovery"}


Play = Callable[..., None]


@pytest.fixture
def fleet() -> Iterator[Callable[..., Fleet]]:
    made: list[Fleet] = []

    def make(tasks: int = 3, **options: Any) -> Fleet:
        made.append(Fleet(tasks, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(params=[Threads, Asyncio], ids=["threads", "asyncio"])
def play(request: pytest.FixtureRequest) -> Play:
    """Run `await scenario(calls, w)` with a channel to the fleet, which is closed afterwards."""

    def run(
        scenario: Callable[[Any, Any], Awaitable[None]],
        fleet: Fleet,
        *,
        target: str = "fleet://orders",
        credentials: Any = None,
        channel: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        kind = SyncCalls if request.param is Threads else AsyncCalls

        async def inner(w: Any) -> None:
            options: dict[str, Any] = {"idempotent": IDEMPOTENT, "discovery": w.discovery, **(channel or {})}
            if credentials is None:
                calls = kind(kind.module.insecure_channel(target, **options))
            else:
                calls = kind(kind.module.secure_channel(target, credentials, **options))
            try:
                if request.param is Threads:
                    await scenario(calls, w)
                else:
                    await asyncio.wait_for(scenario(calls, w), 40)
            finally:
                await calls.close()
            nodes = w.engine.known(target).nodes if target.startswith("fleet") else ()
            assert all(node.pending == 0 for node in nodes), nodes

        before = ours_among(threading.enumerate())
        Worlds(request.param).run(inner, namespace="prod.local", resolvers={"fleet": fleet}, **settings)
        eventually(lambda: not ours_among(threading.enumerate()) - before)

    return run
