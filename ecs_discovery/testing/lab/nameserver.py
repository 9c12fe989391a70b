"""A name server on loopback that answers as Route 53 does, counts what it is asked and can be made to fail."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import cast

import dns.exception
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype

from ecs_discovery.testing.lab import sockets
from ecs_discovery.testing.lab.faults import DnsFault
from ecs_discovery.testing.lab.loop import LoopThread
from ecs_discovery.testing.lab.zone import Found, Zone, plain

__all__ = ["NameServer"]

_PLAIN_PAYLOAD = 512
_LARGEST_PAYLOAD = 4096
_TCP_IDLE = 10.0
_SERVER_CODES = {
    DnsFault.SERVFAIL: dns.rcode.SERVFAIL,
    DnsFault.REFUSED: dns.rcode.REFUSED,
    DnsFault.NXDOMAIN: dns.rcode.NXDOMAIN,
    DnsFault.EMPTY: dns.rcode.NOERROR,
}


class NameServer:
    """DNS over UDP and TCP on one port.

    An answer over UDP is limited to 512 bytes, or with EDNS to what the client takes, 4096 at most. An answer that does
    not fit comes back empty with the TC bit set. Names outside the namespace are refused. Counts, faults and delays may
    be read and set from any thread."""

    def __init__(self, thread: LoopThread, zone: Zone, rng: Random, address: str) -> None:
        self.queries: Counter[tuple[str, str]] = Counter()
        """Queries received, UDP and TCP, by name (lower case, no trailing dot) and type."""
        self.tcp_queries: Counter[tuple[str, str]] = Counter()
        """How many of the queries came over TCP."""
        self.delay = 0.0
        """Seconds each answer waits."""
        self.loss = 0.0
        """The share of queries over UDP, 0 to 1, that are counted and get no answer."""
        self._fault: DnsFault | None = None
        self._name_faults: dict[str, DnsFault] = {}
        self._zone = zone
        self._rng = rng
        self._thread = thread
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None
        self._streams: set[asyncio.Task[None]] = set()
        self.address, self.port = thread.run(self._open(address))

    def __repr__(self) -> str:
        fault = f" {self._fault.value}" if self._fault else ""
        return f"<NameServer {self.address}:{self.port} {self.total} queries{fault}>"

    @property
    def total(self) -> int:
        """Queries received, UDP and TCP."""
        return sum(self.queries.copy().values())

    @property
    def tcp_total(self) -> int:
        """Queries received over TCP."""
        return sum(self.tcp_queries.copy().values())

    def reset_counts(self) -> None:
        """Count from zero again."""

        def clear() -> None:
            self.queries.clear()
            self.tcp_queries.clear()

        self._thread.call(clear)

    @property
    def fault(self) -> DnsFault | None:
        """What happens to every query in place of an answer; None: nothing. The text of a fault may be assigned."""
        return self._fault

    @fault.setter
    def fault(self, fault: DnsFault | str | None) -> None:
        self._fault = None if fault is None else DnsFault(fault)

    def fail(self, name: str, fault: DnsFault | str | None) -> None:
        """Have one name fail, or with None no longer; this goes before `fault`."""
        full = self._zone.qualified(name)
        value = None if fault is None else DnsFault(fault)

        def change() -> None:
            self._name_faults.pop(full, None)
            if value is not None:
                self._name_faults[full] = value

        self._thread.call(change)

    def heal(self) -> None:
        """End every fault, delay and loss."""
        self._thread.call(self._name_faults.clear)
        self._fault = None
        self.delay = self.loss = 0.0

    @property
    def negative_ttl(self) -> float:
        """How long negative answers hold, in seconds."""
        return self._zone.negative_ttl

    @negative_ttl.setter
    def negative_ttl(self, seconds: float) -> None:
        self._zone.negative_ttl = seconds

    @property
    def additional(self) -> bool:
        """Whether an answer with SRV records brings the addresses of their targets along."""
        return self._zone.additional

    @additional.setter
    def additional(self, included: bool) -> None:
        self._zone.additional = included

    def add(self, name: str, kind: str, *rdata: str, ttl: float = 60.0) -> None:
        """Answer with these records for `name`, in place of others of that type; with none, as an empty name.

        A name without a dot is one of the namespace. `add("alias", "CNAME", "orders.prod.local.")`
        """
        self._thread.call(lambda: self._zone.add(name, kind, *rdata, ttl=ttl))

    def remove(self, name: str, kind: str | None = None) -> None:
        """Forget what was added for `name`: one type, or all."""
        self._thread.call(lambda: self._zone.remove(name, kind))

    # What follows runs in the loop's thread.

    def end(self) -> None:
        """Stop answering and close every socket."""
        if self._udp is not None:
            self._udp.abort()
        if self._tcp is not None:
            self._tcp.close()
        for stream in self._streams:
            stream.cancel()

    async def _open(self, address: str) -> tuple[str, int]:
        loop = asyncio.get_running_loop()
        udp, tcp = _bound_pair(address)
        self._udp, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self.datagram_received), sock=udp)
        self._tcp = await asyncio.start_server(self._serve_stream, sock=tcp)
        host, port = udp.getsockname()
        return host, port

    def datagram_received(self, data: bytes, peer: tuple[str, int]) -> None:
        """Answer one query that came over UDP."""
        reply = self._reply(data, udp=True)
        if reply is None or self._udp is None or (self.loss and self._rng.random() < self.loss):
            return
        if self.delay:
            asyncio.get_running_loop().call_later(self.delay, self._udp.sendto, reply, peer)
        else:
            self._udp.sendto(reply, peer)

    async def _serve_stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stream = cast("asyncio.Task[None]", asyncio.current_task())
        self._streams.add(stream)
        try:
            while True:
                head = await asyncio.wait_for(reader.readexactly(2), _TCP_IDLE)
                data = await asyncio.wait_for(reader.readexactly(struct.unpack("!H", head)[0]), _TCP_IDLE)
                reply = self._reply(data, udp=False)
                if reply is not None:
                    if self.delay:
                        await asyncio.sleep(self.delay)
                    writer.write(struct.pack("!H", len(reply)) + reply)
                    await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._streams.discard(stream)
            writer.transport.abort()

    def _reply(self, data: bytes, *, udp: bool) -> bytes | None:
        try:
            query = dns.message.from_wire(data)
        except dns.exception.DNSException:
            # FORMERR with the id of what came, if it has one and is not an answer itself.
            is_query = len(data) >= 12 and not data[2] & 0x80
            return data[:2] + struct.pack("!5H", 0x8001, 0, 0, 0, 0) if is_query else None
        if query.flags & dns.flags.QR:
            return None
        response = dns.message.make_response(query, recursion_available=True, our_payload=_LARGEST_PAYLOAD)
        if query.opcode() != dns.opcode.QUERY:
            response.set_rcode(dns.rcode.NOTIMP)
        elif len(query.question) != 1:
            response.set_rcode(dns.rcode.FORMERR)
        else:
            question = query.question[0]
            key = (plain(question.name), dns.rdatatype.to_text(question.rdtype))
            self.queries[key] += 1
            if not udp:
                self.tcp_queries[key] += 1
            fault = self._name_faults.get(key[0], self._fault)
            if fault is DnsFault.SILENCE:
                return None
            if fault is DnsFault.GARBAGE:
                return data[:2] + self._rng.randbytes(60)
            if fault is not None:
                found = Found(_SERVER_CODES[fault])
                if fault in (DnsFault.NXDOMAIN, DnsFault.EMPTY):
                    found.authority.append(self._zone.soa())
            elif question.rdclass != dns.rdataclass.IN:
                found = Found(dns.rcode.REFUSED)
            else:
                found = self._zone.find(question.name, question.rdtype)
            response.set_rcode(found.rcode)
            response.answer = list(found.answer)
            response.authority = list(found.authority)
            response.additional = list(found.additional)
        return _rendered(response, query, udp=udp)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, received: Callable[[bytes, tuple[str, int]], None]) -> None:
        self._received = received

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._received(data, addr)


def _rendered(response: dns.message.Message, query: dns.message.Message, *, udp: bool) -> bytes:
    # dnspython would shuffle records, with rng of its own.
    wire = response.to_wire(max_size=65535, want_shuffle=False)
    payload = query.payload if query.edns >= 0 else _PLAIN_PAYLOAD
    if udp and len(wire) > min(max(payload, _PLAIN_PAYLOAD), _LARGEST_PAYLOAD):
        for section in (response.answer, response.authority, response.additional):
            section.clear()
        response.flags |= dns.flags.TC
        wire = response.to_wire(max_size=65535)
    return wire


def _bound_pair(address: str) -> tuple[socket.socket, socket.socket]:
    """A UDP and a listening TCP socket on one port that is free for both."""
    for _ in range(20):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.setblocking(False)
        udp.bind((address, 0))
        with contextlib.suppress(OSError):
            tcp = sockets.bind(*udp.getsockname())
            tcp.listen(sockets.BACKLOG)
            return udp, tcp
        udp.close()
    raise OSError(f"no port of {address} is free for both UDP and TCP")
