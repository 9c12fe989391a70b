"""The made-up library."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from tests.integrations.clients.base import Answer, ClientUnderTest, Once
from tests.integrations.http.made_up import Async, Client, MadeUpError, MadeUpTimeout, Request, Sync
from tests.worlds import Asyncio, Threads

__all__ = ["CLIENTS"]


class _MadeUp(ClientUnderTest):
    error = MadeUpError
    read_timeout = connect_timeout = deadline_error = MadeUpTimeout
    is_complete = False
    kind: type[Any]

    def __init__(self, discovery: Any, verify: ssl.SSLContext | None = None) -> None:
        self.client = Client(discovery, self.kind)

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
        parts = urlsplit(url)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        content = iter(body.pieces) if isinstance(body, Once) else body
        fields = {name.replace("-", "_"): value for name, value in (headers or {}).items()}
        request = Request(method, parts.netloc, path, content, **fields)
        found = await self.client.send(request, connect=connect, read=read)
        return Answer(found.status, _Fields(found.fields), found.body, url, found.history)


class _Fields(dict[str, str]):
    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.lower())


class SyncMadeUp(_MadeUp):
    name = "made-up"
    world = Threads
    kind = Sync


class AsyncMadeUp(_MadeUp):
    name = "made-up"
    world = Asyncio
    kind = Async


CLIENTS = (SyncMadeUp, AsyncMadeUp)
