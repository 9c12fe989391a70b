"""A server of HTTP/2 without TLS, whose connections can be made to fail."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions

__all__ = ["Http2Server", "serving"]

Say = Callable[["Http2Server", h2.connection.H2Connection, int], None]


class Http2Server:
    """Answers 200 with its number, unless `say` does something else with a request."""

    def __init__(self, address: str, port: int = 0) -> None:
        self.listener = socket.create_server((address, port))
        self.address, self.port = self.listener.getsockname()[:2]
        self.connections = 0
        self.requests = 0
        self.say: Say | None = None
        self.close_now = False
        """The connection ends without a word after what was said."""
        self.socks: list[socket.socket] = []

    def run(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            self.socks.append(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        conn = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        conn.initiate_connection()
        with sock:
            try:
                sock.sendall(conn.data_to_send())
                while data := sock.recv(65_536):
                    for event in conn.receive_data(data):
                        if isinstance(event, h2.events.RequestReceived):
                            self.requests += 1
                            (self.say or Http2Server.answer)(self, conn, event.stream_id)
                    sock.sendall(conn.data_to_send())
                    if self.close_now:
                        return
            except (OSError, h2.exceptions.ProtocolError):
                pass  # the other side has ended it

    def answer(self, conn: h2.connection.H2Connection, stream: int, status: int = 200) -> None:
        body = f"{self.address}:{self.port}".encode()
        conn.send_headers(stream, [(":status", str(status)), ("content-length", str(len(body)))])
        conn.send_data(stream, body, end_stream=True)

    def close(self) -> None:
        self.listener.close()
        for sock in self.socks:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


@contextmanager
def serving(count: int) -> Iterator[list[Http2Server]]:
    """So many servers, each on an address of its own."""
    servers: list[Any] = []
    try:
        for number in range(count):
            server = Http2Server(f"127.0.0.{number + 11}", servers[0].port if servers else 0)
            servers.append(server)
            threading.Thread(target=server.run, daemon=True).start()
        yield servers
    finally:
        for server in servers:
            server.close()
