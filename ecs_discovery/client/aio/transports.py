"""Transports: a connected socket under asyncio, with TLS if wanted, whatever ends the making of it.

From the moment a transport has a socket, only the transport may close it. A socket closed under its transport leaves
the loop with a stale descriptor. The next connection that gets the same number then fails, in any part of the program.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from ssl import SSLContext
from typing import Any, TypeVar

__all__ = ["create"]

P = TypeVar("P", bound=asyncio.BaseProtocol)


async def create(
    sock: socket.socket, factory: Callable[[], P], context: SSLContext | None, name: str | None, **options: Any
) -> tuple[asyncio.Transport, P]:
    """A transport over `sock`, which is its own from now on, and the protocol that `factory` makes for it.

    With `context`, the transport is TLS for `name`, and `options` go to the loop's `start_tls`. Raises OSError; then,
    and if it is cancelled, the socket is closed at once.
    """
    loop = asyncio.get_running_loop()
    # What arrives before the caller's protocol is there is kept by this one.
    gate = _Gate(half_open=context is None)
    transport, _ = await loop.create_connection(lambda: gate, sock=sock)  # closes it itself if cancelled
    try:
        ready = transport
        if context is not None:
            secured = await loop.start_tls(transport, gate, context, server_hostname=name, **options)
            if secured is None:  # it ended in the very moment that its handshake was done
                raise ConnectionResetError("the connection ended with its handshake")
            ready = secured
        protocol = factory()
        ready.set_protocol(protocol)
        protocol.connection_made(ready)
        gate.hand_over(protocol, ready)
    except BaseException:  # cancelled and interrupted too
        transport.abort()  # `close` would wait for a peer's farewell
        raise
    return ready, protocol


class _Gate(asyncio.Protocol):
    """Keeps what arrives, for the protocol that comes after it."""

    def __init__(self, half_open: bool) -> None:
        self._half_open = half_open  # TLS has no such state
        self._kept: list[Callable[[asyncio.BaseProtocol, asyncio.Transport], object]] = []

    def data_received(self, data: bytes) -> None:
        self._kept.append(lambda protocol, _: _feed(protocol, data))

    def eof_received(self) -> bool:
        self._kept.append(_end)
        return self._half_open

    def connection_lost(self, error: Exception | None) -> None:
        self._kept.append(lambda protocol, _: protocol.connection_lost(error))

    def hand_over(self, protocol: asyncio.BaseProtocol, transport: asyncio.Transport) -> None:
        """Tell `protocol` all of it."""
        for tell in self._kept:
            tell(protocol, transport)
        self._kept.clear()


def _end(protocol: asyncio.BaseProtocol, transport: asyncio.Transport) -> None:
    if not protocol.eof_received():  # type: ignore[attr-defined]  # each kind of a stream's protocol has it
        transport.close()


def _feed(protocol: asyncio.BaseProtocol, data: bytes) -> None:
    if not isinstance(protocol, asyncio.BufferedProtocol):
        protocol.data_received(data)  # type: ignore[attr-defined]  # a Protocol, then
        return
    left = memoryview(data)
    while left:
        buffer = memoryview(protocol.get_buffer(len(left))).cast("B")
        size = min(len(buffer), len(left))
        buffer[:size] = left[:size]
        protocol.buffer_updated(size)
        left = left[size:]
