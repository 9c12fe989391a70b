"""urllib3."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urljoin

import urllib3
from urllib3.exceptions import ConnectTimeoutError, MaxRetryError, ReadTimeoutError

from ecs_discovery.integrations.urllib3 import DiscoveryPoolManager
from tests.integrations.clients.base import Answer, ClientUnderTest, Once, Opened
from tests.worlds import Threads

__all__ = ["CLIENTS"]


def _answer(url: str, found: urllib3.BaseHTTPResponse) -> Answer:
    # urllib3 shows what it asked for: a path, or where a redirect led.
    shown = urljoin(url, found.geturl() or "")
    return Answer(found.status, found.headers, found.data, shown, getattr(found, "ecs_discovery", None))


class _Opened(Opened):
    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self.response = response

    async def read(self) -> bytes:
        return self.response.read()

    async def close(self) -> None:
        self.response.close()
        self.response.release_conn()


class Urllib3(ClientUnderTest):
    name = "urllib3"
    world = Threads
    error = MaxRetryError
    read_timeout = ReadTimeoutError
    connect_timeout = ConnectTimeoutError
    deadline_error = ReadTimeoutError
    keeps_cookies = False

    def __init__(self, discovery: Any, verify: ssl.SSLContext | None = None) -> None:
        self.manager = DiscoveryPoolManager(discovery, ssl_context=verify)

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
        content: Any = iter(body.pieces) if isinstance(body, Once) else body
        timeout = urllib3.Timeout(connect=connect, read=read)
        return _answer(url, self.manager.request(method, url, body=content, headers=headers, timeout=timeout))

    async def send_foreign(self, method: str, url: str) -> Answer:
        return _answer(url, self.manager.request(method, url, timeout=10))

    async def open(self, method: str, url: str) -> Opened:
        return _Opened(self.manager.request(method, url, timeout=10, preload_content=False))

    async def close(self) -> None:
        self.manager.clear()


CLIENTS = (Urllib3,)
