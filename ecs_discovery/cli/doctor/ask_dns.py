"""Many DNS questions at once, each to one server by itself: a lookup would go on to the next server.

Messages are written and read as in lookups (`wire`). A question is sent again when it meets silence, and over TCP when
its answer is truncated.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ecs_discovery.cli.doctor.facts import AnswerFacts, RecordFacts
from ecs_discovery.errors import foreign
from ecs_discovery.models import Endpoint
from ecs_discovery.resolvers.dns import wire
from ecs_discovery.resolvers.dns.records import (
    AddressRecord,
    AliasLoop,
    Record,
    SrvRecord,
    follow_chain,
    in_zone,
    plain_name,
)
from ecs_discovery.resolvers.dns.replies import _NO_EDNS, _RCODES, _WITHOUT_QUESTION
from ecs_discovery.resolvers.dns.servers import Server
from ecs_discovery.resolvers.dns.udp_client import random_id
from ecs_discovery.runtime.sockets import finish_connect, start_connect

__all__ = ["Ask", "ask_all"]

_WINDOW = 48  # questions in flight: far from the 1,024 packets a second that the VPC's resolver takes
_WAIT = 0.6  # seconds for an answer, and for a connection over TCP
_TRIES = 2
_MOST = 100  # records kept of an answer
_DATAGRAM = 65_535
_NAMES = {0: "NOERROR", 3: "NXDOMAIN", **_RCODES}


@dataclass(frozen=True, slots=True)
class Ask:
    """One question to one server. `round` tells repetitions apart."""

    server: Server
    name: str
    kind: str
    transport: str = "udp"
    round: int = 0


def ask_all(
    asks: Iterable[Ask], deadline_at: float, *, clock: Callable[[], float] = time.monotonic
) -> dict[Ask, AnswerFacts]:
    """Ask, and wait for the answers until `deadline_at` of the clock. What had no time to be asked is left out."""
    waiting, done = deque(dict.fromkeys(asks)), dict[Ask, AnswerFacts]()
    running: set[_Running] = set()
    with selectors.DefaultSelector() as selector:
        while (waiting or running) and clock() < deadline_at:
            while waiting and len(running) < _WINDOW:
                ask = waiting.popleft()
                try:
                    running.add(_Running(ask, selector, clock))
                except (OSError, wire.Malformed) as error:
                    done[ask] = _failed(ask, error)
            if not running:
                break  # none could be asked
            due = min(each.due for each in running)
            for key, _ in selector.select(max(0.0, min(due, deadline_at) - clock())):
                key.data.ready()
            now = clock()
            for each in list(running):
                if each.answer is None and now >= each.due:
                    each.late()
                if each.answer is not None:
                    done[each.ask] = each.answer
                    each.close()
                    running.remove(each)
        for each in running:
            done[each.ask] = each.silent()
            each.close()
    return done


def _failed(ask: Ask, error: Exception) -> AnswerFacts:
    return AnswerFacts(
        str(ask.server), ask.name, ask.kind, ask.transport, "failed", problem=foreign(error) or type(error).__name__
    )


class _Running:
    """A question in flight."""

    def __init__(self, ask: Ask, selector: selectors.BaseSelector, clock: Callable[[], float]) -> None:
        self.ask = ask
        self.answer: AnswerFacts | None = None
        self.due = 0.0
        self._selector = selector
        self._clock = clock
        self._began = clock()
        self._tries = 0
        self._number = random_id()
        self._edns = True
        self._transport = ask.transport
        self._sock: socket.socket | None = None
        self._unsent = b""
        self._read = bytearray()
        self._begin()

    def ready(self) -> None:
        """Its socket is ready."""
        try:
            if self._transport == "tcp":
                self._go_on()
            else:
                assert self._sock is not None
                self._handle(self._sock.recv(_DATAGRAM))
        except BlockingIOError:
            pass
        except (OSError, wire.Malformed) as error:
            self.answer = self._told("failed", problem=foreign(error) or type(error).__name__)

    def late(self) -> None:
        """No answer in time."""
        if self._transport == "udp" and self._tries < _TRIES:
            try:
                self._send()
            except OSError as error:
                self.answer = self._told("failed", problem=foreign(error))
        else:
            self.answer = self.silent()

    def silent(self) -> AnswerFacts:
        """What became of it if nothing came."""
        return self._told("silent")

    def close(self) -> None:
        """Let go of the socket."""
        if self._sock is not None:
            self._selector.unregister(self._sock)
            self._sock.close()
            self._sock = None

    def _begin(self) -> None:
        self._wire = wire.query(self.ask.name, self.ask.kind, self._number, edns=self._edns)
        self._asked = wire.read(self._wire).questions
        server = self.ask.server
        if self._transport == "tcp":
            self._unsent = len(self._wire).to_bytes(2, "big") + self._wire
            self._read.clear()
            self._sock = start_connect(Endpoint(server.host, server.port))
            self._selector.register(self._sock, selectors.EVENT_WRITE, self)
            self._tries += 1
            self.due = self._clock() + 2 * _WAIT
        else:
            sock = socket.socket(socket.AF_INET6 if ":" in server.host else socket.AF_INET, socket.SOCK_DGRAM)
            try:
                sock.setblocking(False)
                sock.connect((server.host, server.port))
            except OSError:
                sock.close()
                raise
            self._sock = sock
            self._selector.register(sock, selectors.EVENT_READ, self)
            self._send()

    def _send(self) -> None:
        assert self._sock is not None
        self._tries += 1
        self.due = self._clock() + _WAIT
        self._sock.send(self._wire)

    def _go_on(self) -> None:
        assert self._sock is not None
        if self._unsent:
            finish_connect(self._sock)
            self._unsent = self._unsent[self._sock.send(self._unsent) :]
            if not self._unsent:
                self._selector.modify(self._sock, selectors.EVENT_READ, self)
            return
        part = self._sock.recv(2 + _DATAGRAM - len(self._read))
        if not part:
            raise OSError("closed in the middle of the answer")
        self._read += part
        end = 2 + int.from_bytes(self._read[:2], "big")
        if 2 <= len(self._read) >= end:
            self._handle(bytes(self._read[2:end]))

    def _handle(self, data: bytes) -> None:
        if data[:2] != self._wire[:2]:
            return
        message = wire.read(data)
        fits = message.questions == self._asked or (not message.questions and message.rcode in _WITHOUT_QUESTION)
        if not message.response or not fits:
            return
        if message.truncated and self._transport == "udp":
            self._again(transport="tcp", edns=self._edns)
        elif message.rcode in _NO_EDNS and self._edns:
            self._again(transport=self._transport, edns=False)
        else:
            self.answer = self._answered(message)

    def _again(self, *, transport: str, edns: bool) -> None:
        self.close()
        self._transport, self._edns = transport, edns
        self._begin()

    def _answered(self, message: wire.Message) -> AnswerFacts:
        name = plain_name(self.ask.name)
        try:
            owner, ttl = follow_chain(name, message.answers)
        except AliasLoop as error:
            return self._told("failed", problem=foreign(error))
        records = [
            _record(record, min(ttl, record.ttl))
            for record in message.answers
            if record.name == owner and _kind(record) == self.ask.kind
        ]
        zone, negative_ttl = next(((z, t) for z, t in message.negative if in_zone(owner, z)), (None, None))
        return self._told(
            "answered",
            rcode=_NAMES.get(message.rcode, f"rcode {message.rcode}"),
            records=tuple(records[:_MOST]),
            additional=tuple(_record(each, each.ttl) for each in message.additional[:_MOST]),
            zone=zone,
            negative_ttl=negative_ttl,
        )

    def _told(
        self,
        outcome: str,
        *,
        rcode: str = "",
        records: tuple[RecordFacts, ...] = (),
        additional: tuple[RecordFacts, ...] = (),
        zone: str | None = None,
        negative_ttl: float | None = None,
        problem: str = "",
    ) -> AnswerFacts:
        ask, seconds = self.ask, self._clock() - self._began
        return AnswerFacts(
            server=str(ask.server),
            name=ask.name,
            kind=ask.kind,
            transport=self._transport,
            outcome=outcome,
            rcode=rcode,
            records=records,
            additional=additional,
            zone=zone,
            negative_ttl=negative_ttl,
            tries=self._tries,
            seconds=round(seconds, 4),
            problem=problem,
        )


def _kind(record: Record) -> str:
    if isinstance(record, AddressRecord):
        return record.family
    return "srv" if isinstance(record, SrvRecord) else "cname"


def _record(record: Record, ttl: float) -> RecordFacts:
    if isinstance(record, AddressRecord):
        return RecordFacts(record.family, record.name, record.address, 0, ttl)
    if isinstance(record, SrvRecord):
        return RecordFacts("srv", record.name, record.target, record.port, ttl)
    return RecordFacts("cname", record.name, record.target, 0, ttl)
