"""A reply to one query, read from the wire: its records, or why it is of no use."""

from __future__ import annotations

import math

from ecs_discovery.models import Question
from ecs_discovery.resolvers.dns import wire as wire_module
from ecs_discovery.resolvers.dns.records import AliasLoop, Reply, follow_chain
from ecs_discovery.resolvers.dns.servers import BadAnswer, Server
from ecs_discovery.resolvers.dns.udp_client import NoEdns, Query, Truncated

__all__: list[str] = []

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
        self._asked = wire_module.asked(self.wire, question.name, question.scheme)

    def plain(self) -> Query:
        return _Query(self._question, self._number, edns=False)

    def read(self, wire: bytes, server: Server) -> Reply | None:
        if wire[:2] != self.wire[:2]:
            return None
        try:
            answer = wire_module.read(wire, self._asked)
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
        return answer.questions == self._asked.questions


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
