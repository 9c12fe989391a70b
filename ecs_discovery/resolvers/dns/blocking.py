"""Questions over blocking sockets: UDP first, TCP for what does not fit, several questions at once.

Nothing outlives an exchange: no socket, no cache, nothing to break in a forked child. The sockets are
connected, so that the kernel drops what others send and reports a closed port at once.
"""

from __future__ import annotations

import secrets
import selectors
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from math import inf
from types import TracebackType
from typing import Protocol

from ecs_discovery.models import Question
from ecs_discovery.resolvers.dns.records import Reply
from ecs_discovery.resolvers.dns.servers import PAUSE, WINDOW, Allowance, BadAnswer, QueryResult, Server, Tries

__all__ = ["Message", "NoEdns", "Truncated", "UdpClient"]

_DATAGRAM = 65_535


class Truncated(Exception):
    """The answer did not fit into a datagram: ask over TCP."""


class NoEdns(BadAnswer):
    """The server does not know EDNS (RFC 6891): ask it without."""


class Message(Protocol):
    """One question as it goes over the wire."""

    @property
    def wire(self) -> bytes:
        """What to send."""

    def read(self, wire: bytes, server: Server) -> Reply | None:
        """What the server says, None if these bytes are no answer to this message.

        Raises `Truncated`, `NoEdns` or `BadAnswer`.
        """

    def plain(self) -> Message:
        """The same question without EDNS."""


class _PendingQuery:
    """One question in flight."""

    __slots__ = ("due", "message", "question", "tries")

    def __init__(self, question: Question, message: Message, servers: Sequence[Server]) -> None:
        self.question = question
        self.message = message
        self.tries = Tries(question, servers)
        self.due = 0.0


class UdpClient:
    """Asks `servers` until a deadline. A context manager: leaving it closes its sockets."""

    def __init__(
        self,
        servers: Sequence[Server],
        compose: Callable[[Question, int], Message],
        *,
        query_timeout: float,
        clock: Callable[[], float],
        allowance: Allowance,
    ) -> None:
        self._servers = servers
        self._compose = compose
        self._query_timeout = query_timeout
        self._clock = clock
        self._allowance = allowance
        self._selector = selectors.DefaultSelector()
        self._sockets: dict[Server, socket.socket] = {}
        self._flights: dict[int, _PendingQuery] = {}
        self._outcomes: dict[Question, QueryResult] = {}

    def __enter__(self) -> UdpClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._selector.close()
        for sock in self._sockets.values():
            sock.close()

    def ask(self, questions: Sequence[Question], deadline: float) -> Mapping[Question, QueryResult]:
        """What became of each question by `deadline`, a time of the clock."""
        began = self._clock()
        waiting = deque(questions)
        self._outcomes = {}
        while len(self._outcomes) < len(questions):
            now = self._clock()
            if now >= deadline:
                break
            while waiting and len(self._flights) < WINDOW and self._allowance.question():
                self._start(waiting.popleft())
            held = len(self._flights) < WINDOW and bool(waiting)
            for number, flight in list(self._flights.items()):
                if flight.due <= now:
                    self._send(number, flight)
            if self._flights or held:
                due = min((flight.due for flight in self._flights.values()), default=deadline)
                until = min(due, deadline, now + PAUSE if held else deadline)
                for key, _ in self._selector.select(max(0.0, until - self._clock())):
                    self._receive(key.data, deadline)
        for flight in self._flights.values():
            self._outcomes[flight.question] = flight.tries.error(deadline - began)
        for question in waiting:
            self._outcomes[question] = Tries(question, self._servers).error(deadline - began)
        self._flights = {}
        return self._outcomes

    def _start(self, question: Question) -> None:
        number = secrets.randbelow(65_536)
        while number in self._flights:
            number = secrets.randbelow(65_536)
        try:
            message = self._compose(question, number)
        except BadAnswer as exc:
            tries = Tries(question, self._servers)
            tries.drop(self._servers[0], exc)
            self._outcomes[question] = tries.error(0.0)
        else:
            self._flights[number] = _PendingQuery(question, message, self._servers)

    def _send(self, number: int, flight: _PendingQuery) -> None:
        while (server := self._next_server(flight)) is not None:
            try:
                self._socket(server).send(flight.message.wire)
            except OSError as exc:
                flight.tries.drop(server, exc)
            else:
                flight.due = self._clock() + self._query_timeout
                return
        if flight.due == inf and flight.tries.open:
            return  # an answer to what was sent may come yet
        self._finish(number, flight.tries.error(0.0))

    def _next_server(self, flight: _PendingQuery) -> Server | None:
        if self._allowance.query():
            return flight.tries.next_server()
        flight.due = inf  # no further try
        return None

    def _socket(self, server: Server) -> socket.socket:
        sock = self._sockets.get(server)
        if sock is None:
            sock = socket.socket(socket.AF_INET6 if ":" in server.host else socket.AF_INET, socket.SOCK_DGRAM)
            self._sockets[server] = sock
            sock.setblocking(False)
            sock.connect((server.host, server.port))
            self._selector.register(sock, selectors.EVENT_READ, server)
        return sock

    def _receive(self, server: Server, deadline: float) -> None:
        sock = self._sockets[server]
        for _ in range(WINDOW):  # a flood of datagrams must not keep the clock from being looked at
            try:
                wire = sock.recv(_DATAGRAM)
            except BlockingIOError:
                return
            except OSError as exc:
                for number, flight in list(self._flights.items()):
                    if flight.tries.was_asked(server):
                        self._drop(number, flight, server, exc)
                return
            number = int.from_bytes(wire[:2], "big")
            if len(wire) > 1 and number in self._flights:
                self._take(number, self._flights[number], server, wire, deadline)

    def _take(self, number: int, flight: _PendingQuery, server: Server, wire: bytes, deadline: float) -> None:
        try:
            reply = flight.message.read(wire, server)
        except Truncated:
            try:
                reply = self._over_tcp(flight.message, server, deadline)
            except (BadAnswer, OSError) as exc:
                text = str(exc) or type(exc).__name__
                return self._drop(number, flight, server, BadAnswer(f"failed over TCP: {text}"))
        except NoEdns:
            flight.message = flight.message.plain()
            try:
                if self._allowance.query():
                    self._socket(server).send(flight.message.wire)
            except OSError as exc:
                return self._drop(number, flight, server, exc)
            flight.due = self._clock() + self._query_timeout
            return None
        except BadAnswer as exc:
            return self._drop(number, flight, server, exc)
        if reply is not None:
            self._finish(number, reply)
        return None

    def _drop(self, number: int, flight: _PendingQuery, server: Server, problem: Exception) -> None:
        flight.tries.drop(server, problem)
        self._send(number, flight)

    def _finish(self, number: int, outcome: QueryResult) -> None:
        self._outcomes[self._flights.pop(number).question] = outcome

    def _over_tcp(self, message: Message, server: Server, deadline: float) -> Reply:
        # Room for the connection and for the answer, and then it is the next server's turn.
        until = min(deadline, self._clock() + 2 * self._query_timeout)
        with socket.create_connection((server.host, server.port), self._left(until)) as sock:
            sock.settimeout(self._left(until))
            sock.sendall(len(message.wire).to_bytes(2, "big") + message.wire)
            size = int.from_bytes(self._read_exactly(sock, 2, until), "big")
            try:
                reply = message.read(self._read_exactly(sock, size, until), server)
            except Truncated:
                raise BadAnswer("truncated") from None
        if reply is None:
            raise BadAnswer("an answer to another question")
        return reply

    def _read_exactly(self, sock: socket.socket, size: int, until: float) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            sock.settimeout(self._left(until))
            part = sock.recv(size - len(parts))
            if not part:
                raise BadAnswer("closed in the middle of the answer")
            parts += part
        return bytes(parts)

    def _left(self, until: float) -> float:
        left = until - self._clock()
        if left <= 0:
            raise TimeoutError("no answer in time")
        return left
