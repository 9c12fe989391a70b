"""A real WebSocket server on a loopback address."""

from __future__ import annotations

import ssl
from contextlib import suppress
from http import HTTPStatus
from socket import SHUT_RDWR
from threading import Thread
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, serve

__all__ = ["Task"]


class Task:
    """Sends its address, then what it is sent."""

    def __init__(self, address: str, port: int, context: ssl.SSLContext | None = None) -> None:
        self.address = address
        self.port = port
        self.hosts: list[str] = []
        """The `Host` of each connection."""
        self.received: list[str | bytes] = []
        self.closed: list[int | None] = []
        """How each connection ended: the code of the other side, if it gave one."""
        self.refusal = 0
        """Answer with this status instead."""
        self._open: list[Any] = []
        self._server: Server = serve(self._handle, address, port, ssl=context, process_request=self._refuse)
        Thread(target=self._server.serve_forever, daemon=True).start()

    def _handle(self, socket: Any) -> None:
        self.hosts.append(socket.request.headers["Host"])
        self._open.append(socket)
        socket.send(self.address)
        with suppress(ConnectionClosed):  # amid an answer
            for message in socket:
                self.received.append(message)
                socket.send(message)
        self.closed.append(socket.close_code)

    def _refuse(self, connection: Any, request: Any) -> Any:
        return connection.respond(HTTPStatus(self.refusal), "") if self.refusal else None

    def close(self, code: int) -> None:
        """Close the connections, and say why."""
        for each in self._open:
            each.close(code)

    def cut(self) -> None:
        """Cut the connections without a word."""
        for each in self._open:
            with suppress(OSError):  # closed by then
                each.socket.shutdown(SHUT_RDWR)

    def end(self) -> None:
        """Stop, and cut the connections."""
        self._server.shutdown()
        self.cut()
