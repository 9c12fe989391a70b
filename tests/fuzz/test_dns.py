"""DNS messages of all kinds: no stray exception, a bounded result, bounded time and memory."""

from __future__ import annotations

import dns.message
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecs_discovery.models import Question
from ecs_discovery.resolvers.dns import wire
from ecs_discovery.resolvers.dns.records import AddressRecord, AliasRecord, Record, SrvRecord, plain_name, wire_ttl
from ecs_discovery.resolvers.dns.replies import _Query
from ecs_discovery.resolvers.dns.servers import BadAnswer, Server
from ecs_discovery.resolvers.dns.udp_client import NoEdns, Truncated
from tests.fuzz.bounds import assert_cheap, unhurried
from tests.fuzz.messages import KINDS, message, record

SERVER = Server("127.0.0.1")
SEEDS = [
    *(make()[:600] for make in KINDS.values()),
    message(record(1, b"\x0a\0\0\1") + record(28, b"\xfd" + b"\0" * 14 + b"\1"), 2),
    message(record(33, b"\0\1\0\1\x1f\x90\1a\xc0\x0c"), 1, kind=33),
    message(record(6, b"\2ns\xc0\x0c\4root\xc0\x0c" + b"\0\0\0\1" * 5), 1),
    message(record(5, b"\1a\xc0\x0c") + record(1, b"\x0a\0\0\1", name=b"\1a\xc0\x0c"), 2),
    message(b"\0\0\x29\4\xd0\1\0\0\0\0\0", 1),
]


def ask(kind: str) -> _Query:
    return _Query(Question(kind, "orders.prod.local"), 1)


def taken_apart(data: bytes) -> None:
    for kind in ("a", "srv"):
        try:
            reply = ask(kind).read(data, SERVER)
        except (BadAnswer, NoEdns, Truncated):
            continue
        assert reply is None or len(reply.answers) + len(reply.additional) <= len(data) / 11


@unhurried
@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_an_answer_or_none(data: bytes):
    taken_apart(data)


@unhurried
@given(st.data())
def test_answers_with_changed_bytes_are_an_answer_or_none(data: st.DataObject):
    changed = bytearray(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(0, 8))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    taken_apart(bytes(changed[: data.draw(st.integers(0, len(changed)))]))
    taken_apart(bytes(changed))


def read_by_dnspython(data: bytes) -> list[Record]:
    found: list[Record] = []
    for rrset in dns.message.from_wire(data, ignore_trailing=True).answer:
        name, ttl = plain_name(rrset.name.to_text()), wire_ttl(rrset.ttl)
        for each in rrset if rrset.rdclass == dns.rdataclass.IN else ():
            match rrset.rdtype:
                case dns.rdatatype.A:
                    found.append(AddressRecord(name, "a", each.address, ttl))
                case dns.rdatatype.AAAA:
                    found.append(AddressRecord(name, "aaaa", each.address, ttl))
                case dns.rdatatype.CNAME:
                    found.append(AliasRecord(name, plain_name(each.target.to_text()), ttl))
                case dns.rdatatype.SRV:
                    target = plain_name(each.target.to_text())
                    found.append(SrvRecord(name, each.priority, each.weight, each.port, target, ttl))
    return found


LABEL = st.text(st.characters(max_codepoint=0x7E, min_codepoint=0x21, exclude_characters='."();@$\\'), min_size=1)
NAME = st.lists(LABEL.map(lambda label: label[:20]), min_size=1, max_size=5).map(".".join)
RECORD = st.one_of(
    st.tuples(NAME, st.just("A"), st.ip_addresses(v=4).map(str)),
    st.tuples(NAME, st.just("AAAA"), st.ip_addresses(v=6).map(str)),
    st.tuples(NAME, st.just("CNAME"), NAME.map(lambda name: name + ".")),
    st.tuples(NAME, st.just("SRV"), NAME.map(lambda name: f"1 2 8080 {name}.")),
    st.tuples(NAME, st.just("TXT"), st.just('"x"')),
)


@unhurried
@given(st.lists(RECORD, max_size=6, unique_by=lambda each: each[0]))
def test_what_is_well_formed_says_what_dnspython_says(lines: list[tuple[str, str, str]]):
    answer = dns.message.make_response(dns.message.make_query("orders.", "A"))
    for name, kind, data in lines:
        answer.answer.append(dns.rrset.from_text(name + ".", 60, "IN", kind, data))
    data = answer.to_wire(max_size=65_535)
    assert list(wire.read(data).answers) == read_by_dnspython(data)


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_made_to_be_slow_costs_little(kind: str):
    data = KINDS[kind]()
    assert_cheap(lambda: ask("srv" if kind == "services" else "a").read(data, SERVER))
