"""Questions over non-blocking sockets: UDP first, TCP for what does not fit, several lookups at once.

It never waits: its driver tells it which sockets are ready, and it tells when to look again. Threads wait with
`blocking`, asyncio with `aio`. Nothing outlives a client: no socket, no cache, nothing to break in a forked child.
The sockets are connected, so that the kernel drops what others send and reports a closed port at once.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from typing import Protocol

from ecs_discovery.models import Endpoint, Question, Resolution
from ecs_discovery.resolvers.dns.records import Reply
from ecs_discovery.resolvers.dns.servers import PAUSE, WINDOW, Allowance, BadAnswer, QueryResult, Server, Tries
from ecs_discovery.resolvers.dns.steps import Steps
from ecs_discovery.runtime import fork
from ecs_discovery.runtime.sockets import finish_connect, start_connect

__all__ = ["NoEdns", "Query", "RunningLookup", "Truncated", "UdpClient", "Watcher", "random_id"]

_DATAGRAM = 65_535
_STREAM = 2 + 65_535  # the longest message over TCP, with its length before it


def random_id() -> int:
    """An id for a query that cannot be guessed: who can guess it may answer in place of the server."""
    return int.from_bytes(os.urandom(2), "big")


class Truncated(Exception):
    """The answer did not fit into a datagram: ask over TCP."""


class NoEdns(BadAnswer):
    """The server does not know EDNS (RFC 6891): ask it without."""


class Query(Protocol):
    """One question as it goes over the wire."""

    @property
    def wire(self) -> bytes:
        """What to send."""

    def read(self, wire: bytes, server: Server) -> Reply | None:
        """What the server says, None if these bytes are no answer to this message.

        Raises `Truncated`, `NoEdns` or `BadAnswer`.
        """

    def plain(self) -> Query:
        """The same question without EDNS."""


class Watcher(Protocol):
    """What tells the driver of a client that a socket is ready."""

    def watch(self, sock: socket.socket, *, write: bool = False) -> None:
        """From now on, tell when it can be read, or written."""

    def unwatch(self, sock: socket.socket, *, write: bool = False) -> None:
        """Tell no longer."""


class RunningLookup:
    """One lookup in flight: its plan, what it asks at the moment, and what came of it."""

    __slots__ = (
        "_error",
        "_resolution",
        "allowance",
        "asked",
        "began",
        "deadline_at",
        "done",
        "limit_at",
        "outcomes",
        "steps",
        "waiting",
    )

    def __init__(self, steps: Steps, deadline_at: float, allowance: Allowance) -> None:
        self.steps = steps
        self.allowance = allowance
        self.deadline_at = deadline_at
        self.done = False
        self.began = self.limit_at = 0.0  # when the present questions were asked, and are given up
        self.asked = 0
        self.waiting: deque[Question] = deque()
        self.outcomes: dict[Question, QueryResult] = {}
        self._resolution: Resolution | None = None
        self._error: Exception | None = None

    def result(self) -> Resolution:
        """The answer, once it is done. Raises its error."""
        error, self._error = self._error, None  # else the error's frames would keep it, and it them
        if error is not None:
            raise error
        assert self._resolution is not None
        return self._resolution

    def proceed(self, now: float, query_timeout: float) -> None:
        """Have the plan look at the outcomes and say what to ask next."""
        try:
            asking = self.steps.send(self.outcomes) if self.asked else next(self.steps)
        except StopIteration as end:
            self._resolution, self.done = end.value, True
        except Exception as error:  # noqa: BLE001  # raised where the result is wanted
            self._error, self.done = error, True
        else:
            self.began = now
            self.limit_at = min(self.deadline_at, now + query_timeout) if asking.brief else self.deadline_at
            self.asked = len(asking.questions)
            self.waiting = deque(asking.questions)
            self.outcomes = {}


class _Stream:
    """A query over TCP."""

    __slots__ = ("number", "read", "server", "sock", "unsent")

    def __init__(self, sock: socket.socket, number: int, server: Server, wire: bytes) -> None:
        self.sock = sock
        self.number = number
        self.server = server
        self.unsent = len(wire).to_bytes(2, "big") + wire
        self.read = bytearray()


class _PendingQuery:
    """One question in flight."""

    __slots__ = ("due", "lookup", "message", "question", "stream", "tries")

    def __init__(self, lookup: RunningLookup, question: Question, message: Query, servers: Sequence[Server]) -> None:
        self.lookup = lookup
        self.question = question
        self.message = message
        self.tries = Tries(question, servers)
        self.due = 0.0
        self.stream: _Stream | None = None


class UdpClient:
    """Asks `servers` for any number of lookups. Its driver calls `receive` for sockets that are ready, then `proceed`.

    `compose` makes the message of a question and an id, `next_id` gives ids that cannot be guessed.
    """

    def __init__(
        self,
        servers: Sequence[Server],
        compose: Callable[[Question, int], Query],
        watcher: Watcher,
        *,
        query_timeout: float,
        clock: Callable[[], float],
        next_id: Callable[[], int] = random_id,
    ) -> None:
        self._servers = servers
        self._compose = compose
        self._watcher = watcher
        self._query_timeout = query_timeout
        self._clock = clock
        self._next_id = next_id
        self._sockets: dict[Server, socket.socket] = {}
        self._ends: dict[int, Server | _Stream] = {}  # by descriptor
        self._pending: dict[int, _PendingQuery] = {}
        self._lookups: list[RunningLookup] = []
        self.broken = False
        """True in the child of a fork: what was in flight is the parent's."""
        fork.track(self)

    def __enter__(self) -> UdpClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, steps: Steps, deadline_at: float, allowance: Allowance) -> RunningLookup:
        """Begin a lookup, which is given up at a time of the clock. It sends nothing before `proceed`."""
        lookup = RunningLookup(steps, deadline_at, allowance)
        lookup.proceed(self._clock(), self._query_timeout)
        self._lookups.append(lookup)
        return lookup

    def proceed(self) -> float:
        """Send what is due and give up what is late. When to come back at the latest; infinite if nothing is left."""
        self._lookups = [lookup for lookup in self._lookups if not lookup.done]
        return min(map(self._proceed, self._lookups), default=inf)

    def receive(self, descriptor: int) -> None:
        """Take what has come in on a socket that is ready."""
        end = self._ends.get(descriptor)
        if isinstance(end, _Stream):
            self._go_on(end)
        elif end is not None:
            self._receive(end)

    def close(self) -> None:
        """End all of it."""
        for query in self._pending.values():
            self._close_stream(query)
        for sock in self._sockets.values():
            if sock.fileno() in self._ends:  # else it could not be connected
                self._watcher.unwatch(sock)
            sock.close()
        self._sockets, self._ends, self._pending, self._lookups = {}, {}, {}, []

    def after_fork(self) -> None:
        """In the child, let go of the parent's sockets: they stay open in the parent."""
        self.broken = True
        for query in self._pending.values():
            if query.stream is not None:
                query.stream.sock.close()
        for sock in self._sockets.values():
            sock.close()
        self._sockets, self._ends, self._pending, self._lookups = {}, {}, {}, []

    # One lookup

    def _proceed(self, lookup: RunningLookup) -> float:
        while True:
            now = self._clock()
            if now >= lookup.limit_at:
                self._give_up(lookup)
            else:
                mine = [number for number, query in self._pending.items() if query.lookup is lookup]
                while lookup.waiting and len(mine) < WINDOW and lookup.allowance.question():
                    number = self._start(lookup, lookup.waiting.popleft())
                    if number is not None:
                        mine.append(number)
                for number in mine:
                    query = self._pending[number]
                    if query.due <= now:
                        self._send(number, query)
            if len(lookup.outcomes) < lookup.asked:
                break
            lookup.proceed(self._clock(), self._query_timeout)
            if lookup.done:
                return now
        dues = [query.due for query in self._pending.values() if query.lookup is lookup]
        held = bool(lookup.waiting) and len(dues) < WINDOW
        return min(*dues, lookup.limit_at, now + PAUSE if held else inf)

    def _give_up(self, lookup: RunningLookup) -> None:
        seconds = lookup.limit_at - lookup.began
        for number, query in list(self._pending.items()):
            if query.lookup is lookup:
                self._finish(number, query.tries.error(seconds))
        for question in lookup.waiting:
            lookup.outcomes[question] = Tries(question, self._servers).error(seconds)
        lookup.waiting.clear()

    def _start(self, lookup: RunningLookup, question: Question) -> int | None:
        number = self._next_id()
        while number in self._pending:
            number = self._next_id()
        try:
            message = self._compose(question, number)
        except BadAnswer as exc:
            tries = Tries(question, self._servers)
            tries.drop(self._servers[0], exc)
            lookup.outcomes[question] = tries.error(0.0)
            return None
        self._pending[number] = _PendingQuery(lookup, question, message, self._servers)
        return number

    def _send(self, number: int, query: _PendingQuery) -> None:
        if query.stream is not None:
            self._stream_failed(number, query, TimeoutError("no answer in time"))
            return
        while (server := self._next_server(query)) is not None:
            try:
                self._socket(server).send(query.message.wire)
            except OSError as exc:
                query.tries.drop(server, exc)
            else:
                query.due = self._clock() + self._query_timeout
                return
        if query.due == inf and query.tries.open:
            return  # an answer to what was sent may come yet
        self._finish(number, query.tries.error(0.0))

    def _next_server(self, query: _PendingQuery) -> Server | None:
        if query.lookup.allowance.query():
            return query.tries.next_server()
        query.due = inf  # no further try
        return None

    def _socket(self, server: Server) -> socket.socket:
        sock = self._sockets.get(server)
        if sock is None:
            sock = socket.socket(socket.AF_INET6 if ":" in server.host else socket.AF_INET, socket.SOCK_DGRAM)
            self._sockets[server] = sock
            sock.setblocking(False)
            sock.connect((server.host, server.port))
            self._ends[sock.fileno()] = server
            self._watcher.watch(sock)
        return sock

    def _drop(self, number: int, query: _PendingQuery, server: Server, problem: Exception) -> None:
        query.tries.drop(server, problem)
        self._send(number, query)

    def _finish(self, number: int, outcome: QueryResult) -> None:
        query = self._pending.pop(number)
        self._close_stream(query)
        query.lookup.outcomes[query.question] = outcome

    # Datagrams

    def _receive(self, server: Server) -> None:
        sock = self._sockets[server]
        for _ in range(WINDOW):  # a flood of datagrams must not keep the clock from being looked at
            try:
                wire = sock.recv(_DATAGRAM)
            except BlockingIOError:
                return
            except OSError as exc:
                for number, query in list(self._pending.items()):
                    if query.stream is None and query.tries.was_asked(server):
                        self._drop(number, query, server, exc)
                return
            number = int.from_bytes(wire[:2], "big")
            if len(wire) > 1 and number in self._pending:
                self._handle(number, self._pending[number], server, wire)
                if not self._pending:
                    return  # another look would only tell that there is no more

    def _handle(self, number: int, query: _PendingQuery, server: Server, wire: bytes) -> None:
        try:
            reply = query.message.read(wire, server)
        except Truncated:
            if query.stream is None:
                self._ask_over_tcp(number, query, server)
        except NoEdns:
            query.message = query.message.plain()
            try:
                if query.lookup.allowance.query():
                    self._socket(server).send(query.message.wire)
            except OSError as exc:
                return self._drop(number, query, server, exc)
            query.due = self._clock() + self._query_timeout
        except BadAnswer as exc:
            if query.stream is None:
                return self._drop(number, query, server, exc)
            query.tries.drop(server, exc)  # what is asked over TCP goes on
        else:
            if reply is not None:
                self._finish(number, reply)
        return None

    # Streams

    def _ask_over_tcp(self, number: int, query: _PendingQuery, server: Server) -> None:
        try:
            sock = start_connect(Endpoint(server.host, server.port))
        except OSError as exc:
            self._drop(number, query, server, _over_tcp(exc))
            return
        query.stream = stream = _Stream(sock, number, server, query.message.wire)
        # Room for the connection and for the answer, and then it is the next server's turn.
        query.due = min(query.lookup.limit_at, self._clock() + 2 * self._query_timeout)
        self._ends[sock.fileno()] = stream
        self._watcher.watch(sock, write=True)

    def _go_on(self, stream: _Stream) -> None:
        number, sock, query = stream.number, stream.sock, self._pending[stream.number]
        try:
            if stream.unsent:
                finish_connect(sock)
                stream.unsent = stream.unsent[sock.send(stream.unsent) :]
                if not stream.unsent:
                    self._watcher.unwatch(sock, write=True)
                    self._watcher.watch(sock)
                return
            part = sock.recv(_STREAM - len(stream.read))
            if not part:
                raise BadAnswer("closed in the middle of the answer")
            stream.read += part
            end = 2 + int.from_bytes(stream.read[:2], "big")
            if len(stream.read) < end or len(stream.read) < 2:
                return
            reply = query.message.read(bytes(stream.read[2:end]), stream.server)
            if reply is None:
                raise BadAnswer("an answer to another question")
        except BlockingIOError:
            return
        except Truncated:
            self._stream_failed(number, query, BadAnswer("truncated"))
        except (BadAnswer, OSError) as exc:
            self._stream_failed(number, query, exc)
        else:
            self._finish(number, reply)

    def _stream_failed(self, number: int, query: _PendingQuery, problem: Exception) -> None:
        assert query.stream is not None
        server = query.stream.server
        self._close_stream(query)
        self._drop(number, query, server, _over_tcp(problem))

    def _close_stream(self, query: _PendingQuery) -> None:
        stream, query.stream = query.stream, None
        if stream is not None:
            del self._ends[stream.sock.fileno()]
            self._watcher.unwatch(stream.sock, write=bool(stream.unsent))
            stream.sock.close()


def _over_tcp(problem: Exception) -> BadAnswer:
    return BadAnswer(f"failed over TCP: {str(problem) or type(problem).__name__}")
