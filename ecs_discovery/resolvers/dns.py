"""DNS look-ups for threads.

Messages and sockets are ours (`wire`, `exchange`): dnspython takes seconds to read some answers, measures time with the
wall clock and stops listening for an answer that comes later than the first wait. Only what Windows is set to use is
asked of it.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Callable

from ecs_discovery.models import Question, Resolution
from ecs_discovery.policies import DnsPolicy
from ecs_discovery.resolvers import wire as wire_module
from ecs_discovery.resolvers.exchange import Exchange, Message, NoEdns, Truncated
from ecs_discovery.resolvers.hosts import HostsFile
from ecs_discovery.resolvers.lookup import normal
from ecs_discovery.resolvers.nameservers import Allowance, BadAnswer, Server, configured_servers
from ecs_discovery.resolvers.records import AliasLoop, Reply, follow_chain
from ecs_discovery.resolvers.search import steps_for

__all__ = ["DnsResolver", "ask_with_asyncio", "registry_servers"]

_QUERY = 0  # opcode
_NOERROR, _FORMERR, _SERVFAIL, _NXDOMAIN, _NOTIMP, _REFUSED, _BADVERS = 0, 1, 2, 3, 4, 5, 16
_RCODES = {
    _FORMERR: "FORMERR",
    _SERVFAIL: "SERVFAIL",
    _NOTIMP: "NOTIMP",
    _REFUSED: "REFUSED",
    6: "YXDOMAIN",
    7: "YXRRSET",
    8: "NXRRSET",
    9: "NOTAUTH",
    10: "NOTZONE",
    _BADVERS: "BADVERS",
}
_WITHOUT_QUESTION = (_FORMERR, _SERVFAIL, _NOTIMP, _REFUSED)
_NO_EDNS = (_FORMERR, _NOTIMP, _BADVERS)


class DnsResolver:
    """Asks DNS for `a`, `aaaa` and `srv` questions, with blocking sockets.

    Names are absolute unless `DnsPolicy(search=True)`; for addresses the hosts file comes first. Addresses come without
    a port (0). SRV targets that came without an address are looked up too. Nothing is kept between
    look-ups but the parsed hosts file, so that any number of threads and forked children may share one.
    """

    def __init__(
        self,
        policy: DnsPolicy,
        *,
        clock: Callable[[], float] = time.monotonic,
        may_ask: Callable[[], bool] | None = None,
    ) -> None:
        """`may_ask` says whether a question that follows from an answer may be asked now; False: a moment later."""
        self._policy = policy
        self._may_ask = may_ask
        self._clock = clock
        self._hosts = HostsFile.shared(policy.hosts_file) if policy.hosts_file else None

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
        allowance = Allowance(self._may_ask)
        with Exchange(servers, _Query, query_timeout=wait, clock=self._clock, allowance=allowance) as exchange:
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
            self.wire = wire_module.query(question.name, question.scheme, number, edns=edns)
        except wire_module.Malformed as exc:
            raise BadAnswer(f"cannot be asked: {exc}") from exc
        self._asked = wire_module.read(self.wire).questions

    def plain(self) -> Message:
        return _Query(self._question, self._number, edns=False)

    def read(self, wire: bytes, server: Server) -> Reply | None:
        if wire[:2] != self.wire[:2]:
            return None
        try:
            answer = wire_module.read(wire)
        except wire_module.Malformed as exc:
            raise BadAnswer(f"answered garbage ({exc})") from exc
        if not self._is_answer(answer):
            return None
        if answer.truncated:
            raise Truncated
        rcode = answer.rcode
        if rcode in (_NOERROR, _NXDOMAIN):
            return _reply(self._question, answer, server)
        told = f"answered {_RCODES.get(rcode, f'rcode {rcode}')}"
        raise NoEdns(told) if self._edns and rcode in _NO_EDNS else BadAnswer(told)

    def _is_answer(self, answer: wire_module.Message) -> bool:
        if not answer.response or answer.opcode != _QUERY:
            return False
        if not answer.questions:
            return answer.rcode in _WITHOUT_QUESTION
        return answer.questions == self._asked


def _reply(question: Question, answer: wire_module.Message, server: Server) -> Reply:
    try:
        name, ttl = follow_chain(question.name, answer.answers)
    except AliasLoop:
        name, ttl = question.name, math.inf
    negative_ttl = answer.negative_ttl(name)
    return Reply(
        str(server),
        exists=answer.rcode != _NXDOMAIN,
        answers=answer.answers,
        additional=answer.additional,
        negative_ttl=None if negative_ttl is None else min(ttl, negative_ttl),
    )


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
