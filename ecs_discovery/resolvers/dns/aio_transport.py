"""One DNS query over the event loop's own transports, for loops that cannot watch a socket (Windows)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ecs_discovery.models import Question
from ecs_discovery.resolvers.dns.records import Reply
from ecs_discovery.resolvers.dns.replies import _Query
from ecs_discovery.resolvers.dns.servers import BadAnswer, Server
from ecs_discovery.resolvers.dns.udp_client import NoEdns, Query, Truncated, random_id

__all__ = ["ask_with_asyncio"]


async def ask_with_asyncio(question: Question, server: Server, *, next_id: Callable[[], int] = random_id) -> Reply:
    """Ask once over asyncio's own transports. Waits without a limit; raises `BadAnswer` or `OSError`."""
    message: Query = _Query(question, next_id())
    while True:
        try:
            return await _ask_datagram(message, server)
        except NoEdns:
            message = message.plain()
        except Truncated:
            return await _ask_stream(message, server)


async def _ask_datagram(message: Query, server: Server) -> Reply:
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Reply] = loop.create_future()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: _Listener(message, server, answer), remote_addr=(server.host, server.port)
    )
    try:
        transport.sendto(message.wire)
        return await answer
    finally:
        transport.close()


class _Listener(asyncio.DatagramProtocol):
    """Takes the first datagram that answers the message."""

    def __init__(self, message: Query, server: Server, answer: asyncio.Future[Reply]) -> None:
        self._message = message
        self._server = server
        self._answer = answer

    def datagram_received(self, data: bytes, addr: object) -> None:
        if self._answer.done():
            return
        try:
            reply = self._message.read(data, self._server)
        except (Truncated, BadAnswer) as exc:
            self._answer.set_exception(exc)
        else:
            if reply is not None:
                self._answer.set_result(reply)

    def error_received(self, exc: Exception) -> None:
        if not self._answer.done():
            self._answer.set_exception(exc)


async def _ask_stream(message: Query, server: Server) -> Reply:
    reader, writer = await asyncio.open_connection(server.host, server.port)
    try:
        writer.write(len(message.wire).to_bytes(2, "big") + message.wire)
        size = int.from_bytes(await reader.readexactly(2), "big")
        reply = message.read(await reader.readexactly(size), server)
    except (Truncated, asyncio.IncompleteReadError) as exc:
        raise BadAnswer(f"failed over TCP: {type(exc).__name__}") from exc
    finally:
        writer.close()
    if reply is None:
        raise BadAnswer("failed over TCP: an answer to another question")
    return reply
