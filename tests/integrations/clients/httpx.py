"""httpx and httpx2, in both worlds."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

import httpx
import httpx2

from ecs_discovery import wrap_client
from tests.integrations.clients.base import Answer, ClientUnderTest, Once, Opened
from tests.worlds import Asyncio, Threads

__all__ = ["CLIENTS"]


def _answer(found: Any) -> Answer:
    return Answer(
        found.status_code, found.headers, found.content, str(found.url), found.extensions.get("ecs_discovery")
    )


class _Httpx(ClientUnderTest):
    library: Any

    def limits(self, connect: float, read: float | None) -> Any:
        return self.library.Timeout(10.0, connect=connect, read=read)


class _SyncOpened(Opened):
    def __init__(self, response: Any) -> None:
        self.response = response

    async def read(self) -> bytes:
        return self.response.read()  # type: ignore[no-any-return]

    async def close(self) -> None:
        self.response.close()


class _Sync(_Httpx):
    world = Threads

    def __init__(self, discovery: Any, verify: ssl.SSLContext | None = None) -> None:
        options: dict[str, Any] = {} if verify is None else {"verify": verify}
        self.client = wrap_client(self.library.Client(follow_redirects=True, **options), discovery)

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
        content = iter(body.pieces) if isinstance(body, Once) else body
        limits = self.limits(connect, read)
        return _answer(self.client.request(method, url, content=content, headers=headers, timeout=limits))

    async def send_foreign(self, method: str, url: str) -> Answer:
        return _answer(self.client.request(method, url, timeout=10))

    async def open(self, method: str, url: str) -> Opened:
        return _SyncOpened(self.client.send(self.client.build_request(method, url, timeout=10), stream=True))

    async def close(self) -> None:
        self.client.close()


class _AsyncOpened(Opened):
    def __init__(self, response: Any) -> None:
        self.response = response

    async def read(self) -> bytes:
        return await self.response.aread()  # type: ignore[no-any-return]

    async def close(self) -> None:
        await self.response.aclose()


class _Async(_Httpx):
    world = Asyncio

    def __init__(self, discovery: Any, verify: ssl.SSLContext | None = None) -> None:
        options: dict[str, Any] = {} if verify is None else {"verify": verify}
        self.client = wrap_client(self.library.AsyncClient(follow_redirects=True, **options), discovery)

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
        content: Any = body
        if isinstance(body, Once):

            async def pieces() -> Any:
                for piece in body.pieces:
                    yield piece

            content = pieces()
        limits = self.limits(connect, read)
        return _answer(await self.client.request(method, url, content=content, headers=headers, timeout=limits))

    async def send_foreign(self, method: str, url: str) -> Answer:
        return _answer(await self.client.request(method, url, timeout=10))

    async def open(self, method: str, url: str) -> Opened:
        return _AsyncOpened(await self.client.send(self.client.build_request(method, url, timeout=10), stream=True))

    async def close(self) -> None:
        await self.client.aclose()


class _Of1:
    name = "httpx"
    library: Any = httpx
    error = httpx.TransportError
    read_timeout = httpx.ReadTimeout
    connect_timeout = httpx.ConnectTimeout
    deadline_error = httpx.TimeoutException


class _Of2:
    name = "httpx2"
    library: Any = httpx2
    error = httpx2.TransportError
    read_timeout = httpx2.ReadTimeout
    connect_timeout = httpx2.ConnectTimeout
    deadline_error = httpx2.TimeoutException


class SyncHttpx(_Of1, _Sync):
    pass


class AsyncHttpx(_Of1, _Async):
    pass


class SyncHttpx2(_Of2, _Sync):
    pass


class AsyncHttpx2(_Of2, _Async):
    pass


CLIENTS = (SyncHttpx, AsyncHttpx, SyncHttpx2, AsyncHttpx2)
