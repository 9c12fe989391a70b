"""A client library that there is not: what an integration has to supply, and no more.

`Sync` and `Async` are its two faces. It speaks HTTP/1.1 with a connection for each request.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Mapping
from typing import Any

from ecs_discovery.client.aio import race as async_race
from ecs_discovery.client.sync import race as sync_race
from ecs_discovery.core.calls.call import Call
from ecs_discovery.core.calls.failure_kinds import Fault
from ecs_discovery.errors import DiscoveryError
from ecs_discovery.integrations.http.aio import AsyncExchange, AsyncUse
from ecs_discovery.integrations.http.errors import as_class, of_call
from ecs_discovery.integrations.http.exchange import AttemptUse
from ecs_discovery.integrations.http.failure_table import FailureTable, Row
from ecs_discovery.integrations.http.history import AttemptHistory
from ecs_discovery.integrations.http.liveness import PeerSilentError, Suspicion, wait_for_answer
from ecs_discovery.integrations.http.sync import SyncExchange
from ecs_discovery.integrations.http.timeouts import read_limit
from ecs_discovery.runtime.sockets import AbortHandle, is_ours


class MadeUpError(Exception):
    """What the library raises."""


class MadeUpTimeout(MadeUpError):
    """It took too long."""


class Cut(MadeUpError):
    """The answer ended early."""


class Answer:
    """What it returns."""

    def __init__(self, status: int, fields: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.fields = fields
        self.body = body
        self.history: AttemptHistory | None = None


class Request:
    """What it sends. `body` is bytes, or an iterator that can be read once."""

    def __init__(self, method: str, host: str, path: str = "/", body: Any = None, **fields: str) -> None:
        self.method = method
        self.host = host
        self.path = path
        self.body = body
        self.fields = fields

    @property
    def replayable(self) -> bool:
        return self.body is None or isinstance(self.body, bytes)

    def encoded(self) -> bytes:
        body = (self.body if isinstance(self.body, bytes) else b"".join(self.body)) if self.body else b""
        fields = {"Host": self.host, "Connection": "close", "Content-Length": str(len(body)), **self.fields}
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
        return f"{self.method} {self.path} HTTP/1.1\r\n{lines}\r\n".encode() + body


def parsed(data: bytes) -> Answer:
    head, end, body = data.partition(b"\r\n\r\n")
    if not data:
        raise ConnectionResetError("closed without an answer")
    lines = head.decode().split("\r\n")
    fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    if not end or len(body) < int(fields.get("content-length", 0)):
        raise Cut("the connection ended within the answer")
    return Answer(int(lines[0].split()[1]), fields, body)


TABLE = FailureTable(
    unsent=(
        Row(Fault.OWN, (OSError,), lambda error: isinstance(error, OSError) and is_ours(error)),
        Row(Fault.CONNECT_TIMEOUT, (TimeoutError,)),
        Row(Fault.CONNECT, (OSError,)),
    ),
    sent=(
        Row(Fault.SILENT, (PeerSilentError,)),
        Row(Fault.READ_TIMEOUT, (MadeUpTimeout, TimeoutError)),
        Row(Fault.CUT, (Cut,)),
        Row(Fault.CLOSED, (ConnectionError,)),
    ),
)


class _MadeUp:
    """What is the same for threads and asyncio."""

    table = TABLE
    request: Request
    last_fault: Fault | None

    def replayable(self) -> bool:
        return self.request.replayable

    def has_key(self) -> bool:
        return "Idempotency_Key" in self.request.fields

    def status(self, response: Answer) -> int:
        return response.status

    def field(self, response: Answer, name: str) -> str | None:
        return response.fields.get(name.lower())

    def keep(self, response: Answer, use: AttemptUse) -> None:
        response.history = use.history

    def is_of_connection(self, error: Exception) -> bool:
        return isinstance(error, (MadeUpError, OSError))

    def as_error(self, told: DiscoveryError | Call, error: Exception, use: AttemptUse | None) -> Exception:
        if isinstance(told, DiscoveryError):
            return as_class(told, MadeUpTimeout if "deadline" in str(told) else MadeUpError)
        late = self.last_fault is Fault.CONNECT_TIMEOUT
        theirs = MadeUpTimeout if late or self.last_fault is Fault.READ_TIMEOUT else MadeUpError
        made = of_call(told, self.last_fault, theirs, timed_out=late)
        made.__cause__ = error
        return made


class SyncUse(AttemptUse):
    """Another thread may end it."""

    __slots__ = ("abort",)

    def __init__(self, lease: Any, replayable: bool) -> None:
        super().__init__(lease, replayable)
        self.abort = AbortHandle()


class Sync(_MadeUp, SyncExchange[Answer, SyncUse]):
    """One request in a thread."""

    uses: tuple[SyncUse, ...] = ()

    def make_use(self, lease: Any) -> SyncUse:
        use = SyncUse(lease, self.idempotent and self.replayable())
        self.uses = (*self.uses, use)
        return use

    def send(self, use: SyncUse) -> Answer:
        with sync_race.connect(self.driver.background, self.call, use.lease) as sock:
            use.abort.hold(sock)
            use.sent = True
            sock.sendall(self.request.encoded())
            limit = read_limit(self.read, self.deadline_at(), self.engine.clock())
            patience = self.engine.settings.connection.ack_timeout
            wait_for_answer(use, Suspicion(self), sock, None, patience, limit, self.engine.clock)
            sock.settimeout(limit)
            data = b""
            try:
                while piece := sock.recv(65_536):
                    data += piece
            except ConnectionResetError:
                if data:
                    raise Cut("reset within the answer") from None
                raise
            return parsed(data)

    def cut(self) -> None:
        for use in self.uses:
            use.abort.cut()

    def cut_attempt(self, use: SyncUse) -> None:
        use.abort.cut()


class Async(_MadeUp, AsyncExchange[Answer, AsyncUse]):
    """One request in a task."""

    def make_use(self, lease: Any) -> AsyncUse:
        return AsyncUse(lease, self.idempotent and self.replayable())

    async def send(self, use: AsyncUse) -> Answer:
        loop = asyncio.get_running_loop()
        sock: socket.socket = await async_race.connect(self.driver.background, self.call, use.lease)
        try:
            use.sent = True
            await loop.sock_sendall(sock, self.request.encoded())
            self.watch(use, sock)
            data = b""
            try:
                async with asyncio.timeout(self.read):
                    while piece := await loop.sock_recv(sock, 65_536):
                        data += piece
            except ConnectionResetError:
                if data:
                    raise Cut("reset within the answer") from None
                raise
            return parsed(data)
        finally:
            sock.close()


class Client:
    """The library's client, of either world: `await client.send(request)`."""

    def __init__(self, discovery: Any, kind: type[Any]) -> None:
        self._driver = discovery._driver
        self._kind = kind

    async def send(self, request: Request, *, connect: float | None = None, read: float | None = 10.0) -> Answer:
        service = self._driver.engine.service(request.host, 80)
        exchange = self._kind(self._driver, service, request.host, request.method)
        exchange.connect, exchange.read = connect, read
        exchange.request = request
        found = exchange.run()
        answer: Answer = await found if asyncio.iscoroutine(found) else found
        return answer


def seconds_since(began: float) -> float:
    return time.monotonic() - began
