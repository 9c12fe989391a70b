"""One HTTP/1.1 connection of a task, from accept to the last byte."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Protocol, cast

import h11

from ecs_discovery.testing.lab import sockets
from ecs_discovery.testing.lab.replies import Reply, Request

__all__ = ["Connection", "Host"]

_NO_BODY = frozenset({204, 304})


class Host(Protocol):
    """What a connection asks of the task it belongs to."""

    in_flight: int
    requests: int

    @property
    def draining(self) -> bool:
        """True if every answer is to end its connection."""

    @property
    def hanging(self) -> bool:
        """True if nothing is said to new requests."""

    def answer(self, request: Request) -> Reply | None:
        """The answer to a request; None: there never will be an answer."""

    def ended(self, connection: Connection) -> None:
        """The connection is closed."""


class Connection(asyncio.Protocol):
    """Reads requests, asks its task for the answers and writes them."""

    def __init__(self, host: Host, sock: socket.socket) -> None:
        self.sock = sock
        self._host = host
        self._transport: asyncio.Transport | None = None
        self._http = h11.Connection(h11.SERVER)
        self._head: h11.Request | None = None
        self._body = bytearray()
        self._answering = False
        self._writer: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._bytes_left: int | None = None
        self._silent = False
        self._held: list[bytes] = []
        self._close_held = False

    def __repr__(self) -> str:
        state = "silent" if self._silent else "in flight" if self.busy else "idle"
        return f"<Connection fd={self.sock.fileno()} {state}>"

    @property
    def busy(self) -> bool:
        """True from the head of a request to the end of its answer."""
        return self._head is not None

    @property
    def has_unread(self) -> bool:
        """Has something arrived that was not read yet?

        The lab may share an interpreter with its callers, and then reads milliseconds later than a server of its own
        process would. To close such a connection resets a request that such a server would have seen.
        """
        try:
            return bool(self.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except (OSError, ValueError):
            return False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._silent:
            self._transport.pause_reading()
        elif self._close_held:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._writer is not None:
            self._writer.cancel()
        self._end_request()
        self._host.ended(self)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        self._http.receive_data(data)
        self._advance()

    def eof_received(self) -> None:
        # As most servers do: a client that shuts its side is gone, and its request with it.
        return None

    def reset(self) -> None:
        """End it with an RST, without the bytes still to be sent."""
        sockets.reset(self.sock)
        self.abort()

    def abort(self) -> None:
        """Drop it without a word at the level of HTTP and TLS."""
        if self._transport is not None:
            self._transport.abort()
        else:
            self._close_held = True

    def close(self) -> None:
        """Close it after what was written is sent; while silent, after it is heard again."""
        if self._silent or self._transport is None:
            self._close_held = True
        else:
            self._transport.close()

    def silence(self, *, filtered: bool) -> None:
        """Nothing gets in or out until `hear`; with `filtered` the kernel acknowledges nothing either."""
        self._silent = True
        if filtered and self.sock.fileno() >= 0:
            sockets.drop_packets(self.sock)
        if self._transport is not None:
            self._transport.pause_reading()

    def hear(self, *, filtered: bool) -> None:
        """Undo `silence`; what was held back goes out."""
        self._silent = False
        if filtered and self.sock.fileno() >= 0:
            sockets.let_packets_in(self.sock)
        if self._transport is None:
            return
        held, self._held = self._held, []
        if held:
            self._transport.write(b"".join(held))
        if self._close_held:
            self._transport.close()
        else:
            self._transport.resume_reading()

    def _advance(self) -> None:
        try:
            while not self._answering and self._step():
                pass
        except h11.RemoteProtocolError as error:
            self._reject(error)

    def _step(self) -> bool:
        """Take one event from h11; False if there is none to be had now."""
        event = self._http.next_event()
        if isinstance(event, h11.Request):
            self._head = event
            self._body.clear()
            self._host.requests += 1
            self._host.in_flight += 1
        elif isinstance(event, h11.Data):
            self._body += event.data
        elif isinstance(event, h11.EndOfMessage):
            self._answer()
        else:
            if self._http.they_are_waiting_for_100_continue and not self._host.hanging:
                self._write(self._http.send(h11.InformationalResponse(status_code=100, headers=[])))
            elif isinstance(event, h11.ConnectionClosed):
                self.close()
            return False
        return True

    def _answer(self) -> None:
        assert self._head is not None
        self._answering = True
        reply = self._host.answer(
            Request(
                self._head.method.decode("ascii"),
                self._head.target.decode("latin-1"),
                tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in self._head.headers),
                bytes(self._body),
            )
        )
        if reply is None:
            return
        self._bytes_left = reply.cut_after
        if reply.after or reply.blocks is not None:
            self._writer = asyncio.get_running_loop().create_task(self._send_slowly(reply))
            return
        self._write(self._whole(reply))
        self._finish()

    async def _send_slowly(self, reply: Reply) -> None:
        if reply.after:
            await asyncio.sleep(reply.after)
        if reply.blocks is None:
            self._write(self._whole(reply))
        else:
            self._write(self._opening(reply))
            for block in reply.blocks() if self._has_body(reply) else ():
                self._write(self._http.send(h11.Data(data=block)))
                await self._writable.wait()
                if reply.pause:
                    await asyncio.sleep(reply.pause)
            self._write(self._http.send(h11.EndOfMessage()))
        self._writer = None
        self._finish()
        self._advance()

    def _whole(self, reply: Reply) -> bytes:
        data = self._opening(reply)
        if self._has_body(reply):
            data += self._http.send(h11.Data(data=reply.body)) or b""
        return data + (self._http.send(h11.EndOfMessage()) or b"")

    def _opening(self, reply: Reply) -> bytes:
        headers = list(reply.headers)
        length = len(reply.body) if reply.blocks is None else reply.length
        if length is not None and reply.status not in _NO_BODY:
            headers.append(("Content-Length", str(length)))
        if self._host.draining:
            headers.append(("Connection", "close"))
        return self._http.send(h11.Response(status_code=reply.status, headers=headers)) or b""

    def _has_body(self, reply: Reply) -> bool:
        return self._head is not None and self._head.method != b"HEAD" and reply.status not in _NO_BODY

    def _write(self, data: bytes | None) -> None:
        if not data or self._transport is None or self._transport.is_closing():
            return
        left = self._bytes_left
        if left is not None:
            data, self._bytes_left = data[:left], max(left - len(data), 0)
        if self._silent:
            self._held.append(data)
        else:
            self._transport.write(data)
        if self._bytes_left == 0 and not self._silent:
            self.reset()

    def _finish(self) -> None:
        self._end_request()
        self._answering = False
        if self._bytes_left is not None and not self._silent:
            self.reset()
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        else:
            self.close()
            self._answering = True

    def _reject(self, error: h11.RemoteProtocolError) -> None:
        self._answering = True
        with contextlib.suppress(h11.LocalProtocolError):
            headers = [("Content-Length", "0"), ("Connection", "close")]
            self._write(self._http.send(h11.Response(status_code=error.error_status_hint, headers=headers)))
        self._end_request()
        self.close()

    def _end_request(self) -> None:
        if self._head is not None:
            self._head = None
            self._host.in_flight -= 1
