"""One request of an httpx client over its attempts. For asyncio."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from functools import cache
from typing import Any

from ecs_discovery.client.aio import race
from ecs_discovery.core.calls.http import keep_alive_timeout
from ecs_discovery.core.lease import Lease
from ecs_discovery.integrations._httpx.aio.pools import AsyncHttpxRoute
from ecs_discovery.integrations._httpx.aio.stream import AsyncHttpxUse, current
from ecs_discovery.integrations._httpx.exchange import UPGRADED, HttpxPart
from ecs_discovery.integrations._httpx.library import Library
from ecs_discovery.integrations.http.aio import AsyncExchange
from ecs_discovery.integrations.http.endpoint_pools import Overtaken
from ecs_discovery.integrations.http.short_bodies import PATIENCE
from ecs_discovery.runtime.sockets import Tuning

__all__ = ["AsyncHttpxExchange"]


class AsyncHttpxExchange(HttpxPart, AsyncExchange[Any, AsyncHttpxUse]):
    """One request over all its attempts."""

    __slots__ = ("connect", "library", "read", "request", "route", "sni", "table")

    def __init__(self, route: AsyncHttpxRoute, request: Any) -> None:
        limits = request.extensions.get("timeout") or {}
        # `super()` takes longer.
        AsyncExchange.__init__(self, route.driver, route.service, route.target, request.method)
        self.connect, self.read = limits.get("connect"), limits.get("read")
        self.route = route
        self.library = route.library
        self.table = route.library.table
        self.request = request
        self.sni = request.extensions.get("sni_hostname")

    # Sending

    def make_use(self, lease: Lease) -> AsyncHttpxUse:
        use = AsyncHttpxUse(lease, self.idempotent and self.replayable(), self)
        use.deadline_at = self.deadline_at()
        return use

    async def send(self, use: AsyncHttpxUse) -> Any:
        token = current.set(use)
        try:
            try:
                response = await self._transport(use).handle_async_request(self.request_of(use))
            except Overtaken:
                response = await self._transport(use).handle_async_request(self.request_of(use))
            use.done = isinstance(response.stream, self.library.client.ByteStream)  # a mock's
            if use.replayable and not use.done:
                length = self.short_length(response)
                if length is not None:
                    use.in_body = True
                    await self._read_body(response, length, use)
            return response
        except self.library.client.TransportError as error:
            other = self.broken_by_another(error, use)
            if other is not None:
                raise other from other.__cause__
            raise
        finally:
            current.reset(token)
            use.connector = None  # else the two would keep each other until the collector comes
            if use.connected is not None:
                use.connected.close()  # the winner's pool had an idle connection

    def _transport(self, use: AsyncHttpxUse) -> Any:
        return self.route.transport(use.lease.node, self.sni)

    async def _read_body(self, response: Any, length: int, use: AsyncHttpxUse) -> None:
        """Read it here, so that a body cut short is this attempt's failure. What comes late is the caller's to read."""
        stream = response.stream
        missing = self.missing(response, length, use)
        body: list[bytes] = []
        late = False
        try:
            if missing <= 0:  # nearly always
                body.extend([piece async for piece in stream])
            else:
                pieces = aiter(stream)
                late = await self._read_soon(pieces, body, length, missing, use)
        finally:
            if not late:
                await stream.aclose()
        if late:
            response.stream = _late_class(self.library)(body, pieces, stream)
        else:
            response.stream = self.library.client.ByteStream(b"".join(body))
            use.done = True

    async def _read_soon(
        self, pieces: AsyncIterator[bytes], body: list[bytes], length: int, missing: int, use: AsyncHttpxUse
    ) -> bool:
        """Read the pieces that come soon. Do others come late?"""
        stream, clock, limit = use.stream, self.engine.clock, self.read
        assert stream is not None
        until = clock() + PATIENCE
        received, known = 0, length - missing
        while True:
            if known <= received < length:  # the next piece has to be waited for
                left = max(0.0, until - clock())
                ends_before = isinstance(limit, (int, float)) and limit <= left
                if not ends_before and not await stream.has_more(left):
                    return True
            piece = await anext(pieces, None)
            if piece is None:
                return False
            body.append(piece)
            received += len(piece)

    async def connect_socket(self, lease: Lease, tuning: Tuning | None) -> socket.socket:
        """A connected socket; `lease` is then of the endpoint that it leads to. Raises OSError."""
        return await race.connect(self.driver.background, self.call, lease, tuning)

    # The answer

    def keep(self, response: Any, use: AsyncHttpxUse) -> None:
        stream = use.stream
        if stream is not None:
            if not stream.answered:  # a server says it with its first answer, and to look for it takes long
                stream.answered = True
                stream.state.keep_alive_timeout = keep_alive_timeout(response.headers.get("Keep-Alive"))
            if response.status_code == UPGRADED:
                stream.upgrade()
        if self.route.encrypted:
            self.route.verified.add(self.sni)
        response.extensions["ecs_discovery"] = use.history
        if not use.done:
            response.stream = _body_class(self.library)(response.stream, self, use)

    async def discard(self, response: Any) -> None:
        await response.aclose()

    # Errors

    @property
    def verified(self) -> bool:  # type: ignore[override]
        return self.sni in self.route.verified


class _Body:
    """The body of an answer that is not read yet. Its use of the endpoint ends with it."""

    def __init__(self, stream: Any, exchange: AsyncHttpxExchange, use: AsyncHttpxUse) -> None:
        self._stream = stream
        self._exchange: AsyncHttpxExchange | None = exchange
        self._use = use

    async def __aiter__(self) -> AsyncIterator[bytes]:
        use = self._use
        pieces = aiter(self._stream)
        while True:
            token = current.set(use) if use.deadline_at is not None else None  # a deadline holds for the body too
            try:
                piece = await anext(pieces, None)
            except Exception as error:
                exchange, self._exchange = self._exchange, None
                use.lease.release()
                if exchange is None:
                    raise
                raise exchange.failed_in_body(error, use) from error
            finally:
                if token is not None:
                    current.reset(token)
            if piece is None:
                return
            yield piece

    async def aclose(self) -> None:
        self._exchange = None
        try:
            await self._stream.aclose()
        finally:
            self._use.lease.release()


@cache
def _body_class(library: Library) -> Any:
    client: Any = library.client
    return type("Body", (_Body, client.AsyncByteStream), {})


class _Late:
    """A body that is read in part: some of it comes late."""

    def __init__(self, body: list[bytes], rest: AsyncIterator[bytes], stream: Any) -> None:
        self._body = body
        self._rest = rest
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._body:
            yield piece
        async for piece in self._rest:
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()


@cache
def _late_class(library: Library) -> Any:
    client: Any = library.client
    return type("LateBody", (_Late, client.AsyncByteStream), {})
