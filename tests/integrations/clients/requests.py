"""requests."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from ecs_discovery import wrap_session
from tests.integrations.clients.base import Answer, ClientUnderTest, Once, Opened
from tests.worlds import Threads

__all__ = ["CLIENTS"]


class _WithContext(HTTPAdapter):
    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options, ssl_context=self.context)


class _Opened(Opened):
    def __init__(self, response: requests.Response) -> None:
        self.response = response

    async def read(self) -> bytes:
        return self.response.content

    async def close(self) -> None:
        self.response.close()


class Requests(ClientUnderTest):
    name = "requests"
    world = Threads
    error = requests.RequestException
    read_timeout = requests.ReadTimeout
    connect_timeout = requests.ConnectTimeout
    deadline_error = requests.Timeout

    def __init__(self, discovery: Any, verify: ssl.SSLContext | None = None) -> None:
        self.session = requests.Session()
        self.session.trust_env = False
        if verify is not None:
            self.session.mount("https://", _WithContext(verify))
        wrap_session(self.session, discovery)

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
        found: Any = self.session.request(method, url, data=content, headers=headers, timeout=(connect, read))
        return Answer(found.status_code, found.headers, found.content, found.url, getattr(found, "ecs_discovery", None))

    async def send_foreign(self, method: str, url: str) -> Answer:
        found = self.session.request(method, url, timeout=10)
        return Answer(found.status_code, found.headers, found.content, found.url, None)

    async def open(self, method: str, url: str) -> Opened:
        return _Opened(self.session.request(method, url, stream=True, timeout=10))

    async def close(self) -> None:
        self.session.close()


CLIENTS = (Requests,)
