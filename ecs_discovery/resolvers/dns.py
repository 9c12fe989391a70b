"""DNS look-ups for threads, and the only module that knows dnspython.

dnspython reads and writes the messages; the sockets are ours (`exchange`), because its own measure time
with the wall clock and stop listening for an answer that comes later than the first wait.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Callable

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from ecs_discovery.foreign_text import foreign
from ecs_discovery.models import Question, Resolution
from ecs_discovery.policies import DnsPolicy
from ecs_discovery.resolvers.exchange import Exchange, Message, NoEdns, Truncated
from ecs_discovery.resolvers.hosts import HostsFile
from ecs_discovery.resolvers.lookup import normal
from ecs_discovery.resolvers.nameservers import BadAnswer, Server, configured_servers
from ecs_discovery.resolvers.records import (
    AddressRecord,
    AliasLoop,
    AliasRecord,
    Record,
    Reply,
    SrvRecord,
    follow_chain,
    in_zone,
    plain_name,
    wire_ttl,
)
from ecs_discovery.resolvers.search import steps_for

__all__ = ["DnsResolver", "ask_with_asyncio", "registry_servers"]

_PAYLOAD = 1232  # fits every path without fragments (DNS flag day 2020)
_NO_EDNS_RCODES = (dns.rcode.FORMERR, dns.rcode.NOTIMP, dns.rcode.BADVERS)


class DnsResolver:
    """Asks DNS for `a`, `aaaa` and `srv` questions, with blocking sockets.

    Names are absolute unless `DnsPolicy(search=True)`; for addresses the hosts file comes first. Addresses come without
    a port (0). SRV targets that came without an address are looked up too. Nothing is kept between
    look-ups but the parsed hosts file, so that any number of threads and forked children may share one.
    """

    def __init__(self, policy: DnsPolicy, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._policy = policy
        self._clock = clock
        self._hosts = HostsFile(policy.hosts_file) if policy.hosts_file else None

    def __repr__(self) -> str:
        return f"<DnsResolver {', '.join(self._policy.nameservers) or 'system nameservers'}>"

    def resolve(self, question: Question, timeout: float) -> Resolution:
        """See `Resolver.resolve`. Raises `ConfigurationError` for any other kind of question."""
        deadline = self._clock() + timeout
        asked, question = question, normal(question)
        local = self._hosts.lookup(question) if self._hosts else None
        if local is not None:
            return local
        servers = configured_servers(question, self._policy.nameservers)
        wait = self._policy.query_timeout
        steps = steps_for(asked, self._policy)
        with Exchange(servers, _Query, query_timeout=wait, clock=self._clock) as exchange:
            asking = next(steps)
            while True:
                limit = min(deadline, self._clock() + wait) if asking.brief else deadline
                outcomes = exchange.ask(asking.questions, limit)
                try:
                    asking = steps.send(outcomes)
                except StopIteration as end:
                    resolution: Resolution = end.value
                    return resolution


class _Query:
    """One question as a DNS message."""

    def __init__(self, question: Question, number: int, *, edns: bool = True) -> None:
        self._question = question
        self._number = number
        self._edns = edns
        try:
            self._message = dns.message.make_query(
                question.name + ".",
                question.scheme,
                use_edns=0 if edns else False,
                payload=_PAYLOAD,
                id=number,
            )
            self.wire = self._message.to_wire()
        except (dns.exception.DNSException, UnicodeError) as exc:
            raise BadAnswer(f"cannot be asked: {foreign(exc)}") from exc

    def plain(self) -> Message:
        return _Query(self._question, self._number, edns=False)

    def read(self, wire: bytes, server: Server) -> Reply | None:
        if wire[:2] != self.wire[:2]:
            return None
        try:
            answer = dns.message.from_wire(wire, ignore_trailing=True, raise_on_truncation=True)
        except dns.message.Truncated as exc:
            if not self._message.is_response(exc.message()):  # type: ignore[no-untyped-call]
                return None
            raise Truncated from exc
        except Exception as exc:  # dnspython lets IndexError and the like out for some malformed messages
            raise BadAnswer(f"answered garbage ({type(exc).__name__})") from exc
        if not self._message.is_response(answer):
            return None
        rcode = answer.rcode()
        if rcode in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            return _reply(self._question, answer, server)
        if self._edns and rcode in _NO_EDNS_RCODES:
            raise NoEdns(f"answered {dns.rcode.to_text(rcode)}")
        raise BadAnswer(f"answered {dns.rcode.to_text(rcode)}")


def _reply(question: Question, message: dns.message.Message, server: Server) -> Reply:
    answers = _records(message.answer)
    try:
        name, ttl = follow_chain(question.name, answers)
    except AliasLoop:
        name, ttl = question.name, math.inf
    negative_ttl = _negative_ttl(name, message.authority)
    return Reply(
        str(server),
        exists=message.rcode() != dns.rcode.NXDOMAIN,
        answers=answers,
        additional=_records(message.additional),
        negative_ttl=None if negative_ttl is None else min(ttl, negative_ttl),
    )


def _records(section: list[dns.rrset.RRset]) -> tuple[Record, ...]:
    found: list[Record] = []
    for rrset in section:
        if rrset.rdclass != dns.rdataclass.IN:
            continue
        name, ttl = plain_name(rrset.name.to_text()), wire_ttl(rrset.ttl)
        for data in rrset:
            match rrset.rdtype:
                case dns.rdatatype.A:
                    found.append(AddressRecord(name, "a", data.address, ttl))
                case dns.rdatatype.AAAA:
                    found.append(AddressRecord(name, "aaaa", data.address, ttl))
                case dns.rdatatype.CNAME:
                    found.append(AliasRecord(name, plain_name(data.target.to_text()), ttl))
                case dns.rdatatype.SRV:
                    target = plain_name(data.target.to_text())
                    found.append(SrvRecord(name, data.priority, data.weight, data.port, target, ttl))
    return tuple(found)


def _negative_ttl(name: str, authority: list[dns.rrset.RRset]) -> float | None:
    """How long "there is none" holds: the lesser of the SOA's TTL and its minimum (RFC 2308, section 5)."""
    for rrset in authority:
        if rrset.rdtype == dns.rdatatype.SOA and in_zone(name, plain_name(rrset.name.to_text())):
            return min(wire_ttl(rrset.ttl), wire_ttl(rrset[0].minimum))
    return None


async def ask_with_asyncio(question: Question, server: Server) -> Reply:
    """Ask once over asyncio's own transports: for loops where aiodns cannot work.

    Waits without a limit; raises `BadAnswer` or `OSError`.
    """
    message: Message = _Query(question, secrets.randbelow(65_536))
    while True:
        try:
            return await _ask_datagram(message, server)
        except NoEdns:
            message = message.plain()
        except Truncated:
            return await _ask_stream(message, server)


async def _ask_datagram(message: Message, server: Server) -> Reply:
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Reply] = loop.create_future()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: _Listener(message, server, answer), remote_addr=(server.host, server.port)
    )
    try:
        transport.sendto(message.wire)
        return await answer
    finally:
        transport.close()


class _Listener(asyncio.DatagramProtocol):
    """Takes the first datagram that answers the message."""

    def __init__(self, message: Message, server: Server, answer: asyncio.Future[Reply]) -> None:
        self._message = message
        self._server = server
        self._answer = answer

    def datagram_received(self, data: bytes, addr: object) -> None:
        if self._answer.done():
            return
        try:
            reply = self._message.read(data, self._server)
        except (Truncated, BadAnswer) as exc:
            self._answer.set_exception(exc)
        else:
            if reply is not None:
                self._answer.set_result(reply)

    def error_received(self, exc: Exception) -> None:
        if not self._answer.done():
            self._answer.set_exception(exc)


async def _ask_stream(message: Message, server: Server) -> Reply:
    reader, writer = await asyncio.open_connection(server.host, server.port)
    try:
        writer.write(len(message.wire).to_bytes(2, "big") + message.wire)
        size = int.from_bytes(await reader.readexactly(2), "big")
        reply = message.read(await reader.readexactly(size), server)
    except (Truncated, asyncio.IncompleteReadError) as exc:
        raise BadAnswer(f"failed over TCP: {type(exc).__name__}") from exc
    finally:
        writer.close()
    if reply is None:
        raise BadAnswer("failed over TCP: an answer to another question")
    return reply


def registry_servers() -> list[str]:
    """The nameservers that Windows is set to use. Raises `OSError` if it names none."""
    import dns.resolver

    try:
        return [str(server) for server in dns.resolver.Resolver().nameservers]
    except dns.resolver.NoResolverConfiguration as exc:
        raise OSError(str(exc)) from exc
