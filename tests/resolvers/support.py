"""A DNS server on loopback that answers as a test tells it to, over UDP and TCP, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from ecs_discovery.config.policies import DnsPolicy
from ecs_discovery.models import Question, Resolution
from ecs_discovery.resolvers import AsyncDnsResolver, DnsResolver


@dataclass(frozen=True)
class World:
    """The thread or an asyncio resolver, asked the same way."""

    name: str

    def resolve(self, text: str, policy: DnsPolicy, timeout: float = 5.0) -> Resolution:
        scheme, _, name = text.partition("://")
        question = Question(scheme, name)
        if self.name == "threads":
            return DnsResolver(policy).resolve(question, timeout)
        return asyncio.run(AsyncDnsResolver(policy).resolve(question, timeout))


@dataclass(frozen=True)
class Seen:
    """A question as it arrived."""

    name: str
    kind: str
    tcp: bool
    payload: int
    """The EDNS payload size it offered; 0 without EDNS."""


@dataclass
class Script:
    """What is answered to one question."""

    answer: Sequence[str] = ()
    additional: Sequence[str] = ()
    authority: Sequence[str] = ()
    rcode: str = "NOERROR"
    shape: Callable[[dns.message.Message], list[bytes]] = lambda response: [response.to_wire(max_size=65_535)]
    """The datagrams that are sent for it."""


def records(*lines: str) -> list[dns.rrset.RRset]:
    """Record sets from lines such as `orders.prod.local 60 A 10.0.0.1`."""
    found = []
    for line in lines:
        name, ttl, kind, data = line.split(maxsplit=3)
        found.append(dns.rrset.from_text(name.removesuffix(".") + ".", int(ttl), "IN", kind, data))
    return found


class ScriptedDns:
    """The server. A context manager; what it was not told about is NXDOMAIN."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.seen: list[Seen] = []
        self.lose = 0
        """So many datagrams are lost from now on."""
        self.knows_edns = True
        self._scripts: dict[tuple[str, str], Script] = {}
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for _ in range(50):  # the same port has to be free for both
            self._tcp.bind((host, port))
            try:
                self._udp.bind(self._tcp.getsockname())
                break
            except OSError:
                self._tcp.close()
                self._tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._tcp.listen()
        self.host = host
        self.port: int = self._udp.getsockname()[1]
        self._stopping = False
        self._thread = threading.Thread(target=self._serve, name="scripted-dns")

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def policy(self, *others: str, query_timeout: float = 2.0, families: tuple[str, ...] = ("a", "aaaa")) -> DnsPolicy:
        return DnsPolicy(
            nameservers=(self.address, *others), query_timeout=query_timeout, families=families, hosts_file=""
        )

    def on(self, text: str, *answer: str, **script: object) -> None:
        """`on("a://name", "name 60 A 10.0.0.1")`: what to answer; see `Script` for the rest."""
        scheme, _, name = text.partition("://")
        self._scripts[(name, scheme.upper())] = Script(answer, **script)  # type: ignore[arg-type]

    def asked(self, kind: str | None = None) -> list[str]:
        return [seen.name for seen in self.seen if kind in (None, seen.kind)]

    def __enter__(self) -> ScriptedDns:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wake:
            wake.sendto(b"", (self.host, self.port))
        self._thread.join()
        self._udp.close()
        self._tcp.close()

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._udp, selectors.EVENT_READ)
            selector.register(self._tcp, selectors.EVENT_READ)
            while not self._stopping:
                for key, _ in selector.select():
                    if key.fileobj is self._udp:
                        wire, peer = self._udp.recvfrom(65_535)
                        for datagram in self._answers(wire, tcp=False) if wire else ():
                            self._udp.sendto(datagram, peer)
                    else:
                        with contextlib.suppress(OSError):
                            self._serve_stream(self._tcp.accept()[0])

    def _serve_stream(self, connection: socket.socket) -> None:
        connection.settimeout(2)
        with connection, connection.makefile("rb") as stream:
            size = int.from_bytes(stream.read(2), "big")
            for wire in self._answers(stream.read(size), tcp=True):
                connection.sendall(len(wire).to_bytes(2, "big") + wire)

    def _answers(self, wire: bytes, *, tcp: bool) -> list[bytes]:
        query = dns.message.from_wire(wire)
        [asked] = query.question
        name, kind = asked.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(asked.rdtype)
        self.seen.append(Seen(name, kind, tcp, query.payload if query.edns >= 0 else 0))
        if self.lose:
            self.lose -= 1
            return []
        script = self._scripts.get((name.lower(), kind), Script(rcode="NXDOMAIN"))
        response = dns.message.make_response(query, recursion_available=True)
        if query.edns >= 0 and not self.knows_edns:
            response.use_edns(False)
            response.set_rcode(dns.rcode.FORMERR)
            return [response.to_wire()]
        response.set_rcode(dns.rcode.from_text(script.rcode))
        for section, lines in (
            (response.answer, script.answer),
            (response.authority, script.authority),
            (response.additional, script.additional),
        ):
            section.extend(records(*lines))  # sets of one record each: dnspython shuffles within a set
        datagrams = script.shape(response)
        limit = query.payload if query.edns >= 0 else 512
        if not tcp and any(len(datagram) > limit for datagram in datagrams):
            short = dns.message.make_response(query)
            short.flags |= dns.flags.TC
            return [short.to_wire()]
        return datagrams
