"""What a scenario asks of a client library."""

from __future__ import annotations

import ssl
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from tests.worlds import Asyncio, Threads

__all__ = ["Answer", "ClientUnderTest", "Once", "Opened"]


class Once:
    """A body that can be read once: an iterator, synchronous or asynchronous, as the library takes it."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces


class Answer:
    """What a library answered. `url` and `fields` as the library shows them."""

    def __init__(self, status: int, fields: Mapping[str, str], body: bytes, url: str, history: Any) -> None:
        self.status = status
        self.fields = fields
        self.body = body
        self.url = url
        self.history = history

    @property
    def task(self) -> str:
        """The id of the task that answered."""
        return self.fields["X-Task"]


class Opened(ABC):
    """An answer whose body has not been read."""

    @abstractmethod
    async def read(self) -> bytes:
        """The rest of the body."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of it, read or not."""


class ClientUnderTest(ABC):
    """One library in one world. With threads, the coroutines never suspend."""

    name: ClassVar[str]
    world: ClassVar[type[Threads] | type[Asyncio]]
    error: ClassVar[type[Exception]]
    """The library's class of every failed request."""
    read_timeout: ClassVar[type[Exception]]
    connect_timeout: ClassVar[type[Exception]]
    deadline_error: ClassVar[type[Exception]]
    """What a deadline of ours is to those who know the library alone."""
    body_error: ClassVar[type[Exception]] = RuntimeError
    """What the library makes of a `RuntimeError` in a body that it reads."""
    is_complete: ClassVar[bool] = True
    """It keeps connections, follows redirects, streams and speaks TLS."""
    keeps_cookies: ClassVar[bool] = True

    @abstractmethod
    def __init__(self, discovery: Any, verify: ssl.SSLContext | None = None) -> None: ...

    @abstractmethod
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
        """Send a request and read the answer. Redirects are followed."""

    async def send_foreign(self, method: str, url: str) -> Answer:
        """`send` to a host that is not ours: its answer has no history."""
        raise NotImplementedError

    async def open(self, method: str, url: str) -> Opened:
        """Send a request and return when the head of the answer has come."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close the library's client. The discovery stays open."""
        return
