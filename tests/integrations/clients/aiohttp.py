"""aiohttp."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp

from ecs_discovery.integrations.aiohttp import client_session
from tests.integrations.clients.base import Answer, ClientUnderTest, Once, Opened
from tests.worlds import Asyncio

__all__ = ["CLIENTS"]


async def _pieces(body: Once) -> AsyncIterator[bytes]:
    for piece in body.pieces:
        yield piece


class _Opened(Opened):
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def read(self) -> bytes:
        return await self.response.read()

    async def close(self) -> None:
        self.response.close()


class Aiohttp(ClientUnderTest):
    name = "aiohttp"
    world = Asyncio
    error = aiohttp.ClientError
    read_timeout = aiohttp.SocketTimeoutError
    connect_timeout = aiohttp.ConnectionTimeoutError
    deadline_error = aiohttp.ServerTimeoutError
    body_error = aiohttp.ClientConnectionError

    def __init__(self, discovery: Any, verify: ssl.SSLContext | None = None) -> None:
        self.session = client_session(discovery, trust_env=True)
        self.verify = True if verify is None else verify

    async def send(
        self,
        method: str,
        url: str,
        *,
        body: bytes | Once | None = None,
        headers: Mapping[str, str] | None = None,
        connect: float = 5.0,
        read: float | None = 10.0,
    ) -> Answer:
        content = _pieces(body) if isinstance(body, Once) else body
        timeout = aiohttp.ClientTimeout(sock_connect=connect, sock_read=read)
        async with self.session.request(
            method, url, data=content, headers=headers, timeout=timeout, ssl=self.verify
        ) as found:
            history = getattr(found, "ecs_discovery", None)
            return Answer(found.status, found.headers, await found.read(), str(found.url), history)

    async def send_foreign(self, method: str, url: str) -> Answer:
        async with self.session.request(method, url) as found:
            assert not hasattr(found, "ecs_discovery")
            return Answer(found.status, found.headers, await found.read(), str(found.url), None)

    async def open(self, method: str, url: str) -> Opened:
        return _Opened(await self.session.request(method, url))

    async def close(self) -> None:
        await self.session.close()


CLIENTS = (Aiohttp,)
