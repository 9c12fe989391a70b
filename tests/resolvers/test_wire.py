"""DNS messages off the wire: what is one, and what is none."""

from __future__ import annotations

import struct

import pytest

from ecs_discovery.resolvers.dns.records import AddressRecord, AliasRecord, SrvRecord
from ecs_discovery.resolvers.dns.wire import Malformed, asked, query, read
from tests.fuzz.messages import NAME, message, record

A = record(1, b"\x0a\0\0\1")
FILLING = b"\x3f" + b"a" * 63
SOA = b"\2ns\xc0\x0c\4root\xc0\x0c" + struct.pack(">5I", 1, 2, 3, 4, 900)


def test_an_answer_is_taken_apart():
    found = read(message(A + record(28, b"\xfd" + b"\0" * 14 + b"\1") + record(33, b"\0\1\0\2\x1f\x90\1a\xc0\x0c"), 3))
    assert (found.number, found.response, found.opcode, found.truncated, found.rcode) == (1, True, 0, False, 0)
    assert found.questions == (("orders.prod.local", 1, 1),)
    assert found.answers == (
        AddressRecord("orders.prod.local", "a", "10.0.0.1", 60.0),
        AddressRecord("orders.prod.local", "aaaa", "fd00::1", 60.0),
        SrvRecord("orders.prod.local", 1, 2, 8080, "a.orders.prod.local", 60.0),
    )


def test_names_are_compared_in_lower_case_and_odd_bytes_escaped():
    found = read(message(record(5, b"\4A.b\xff\1\\\0", name=b"\3WEB\xc0\x13"), 1))
    assert found.answers == (AliasRecord("web.prod.local", "a\\.b\\255.\\\\", 60.0),)


def test_records_of_other_kinds_and_classes_are_passed_over():
    chaos = b"\xc0\x0c" + struct.pack(">HHIH", 1, 3, 60, 4) + b"\x0a\0\0\2"
    found = read(message(record(16, b"\1x") + chaos + A, 3))
    assert [each.address for each in found.answers] == ["10.0.0.1"]  # type: ignore[union-attr]


def test_a_ttl_with_the_top_bit_set_is_none():
    assert read(message(record(1, b"\x0a\0\0\1", ttl=2**31), 1)).answers[0].ttl == 0


def test_the_zones_own_soa_says_how_long_there_is_none():
    head = struct.pack(">HHHHHH", 1, 0x8183, 1, 0, 1, 0) + NAME + b"\0\1\0\1"
    found = read(head + record(6, SOA, name=b"\xc0\x13"))
    assert found.rcode == 3
    assert found.negative_ttl("orders.prod.local") == 60
    assert found.negative_ttl("orders.elsewhere") is None


def test_the_rcode_of_edns_is_the_whole_one():
    head = struct.pack(">HHHHHH", 1, 0x8180, 1, 0, 0, 1) + NAME + b"\0\1\0\1"
    assert read(head + b"\0\0\x29\4\xd0\1\0\0\0\0\0").rcode == 16


def test_of_a_truncated_answer_no_records_are_read():
    found = read(message(A, 1, flags=0x8380)[:-3])
    assert (found.truncated, found.answers) == (True, ())


def test_bytes_after_the_end_do_not_matter():
    assert len(read(message(A, 1) + b"more").answers) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 11,
        message(A, 2),
        message(A, 1)[:-1],
        message(record(1, b"\x0a\0\0"), 1),
        message(record(28, b"\0" * 15), 1),
        message(record(5, b"\1a\0x"), 1),
        message(record(5, b"\1a"), 1),
        message(record(5, b"\x05a"), 1),
        message(record(33, b"\0\1\0"), 1),
        message(record(6, SOA + b"x"), 1),
        message(record(1, b"\x0a\0\0\1", name=b"\xff\xff"), 1),
        message(record(1, b"\x0a\0\0\1", name=b"\x80\0"), 1),
        message(record(1, b"\x0a\0\0\1", name=b"\xc0\x22"), 1),  # to itself
        message(record(5, FILLING * 3 + b"\x3f" + b"d" * 63 + b"\0"), 1),
        message(record(5, FILLING * 3 + b"\x30" + b"d" * 48 + b"\xc0\x0c"), 1),
    ],
)
def test_what_is_cut_short_or_contradicts_itself_is_no_message(data: bytes):
    with pytest.raises(Malformed):
        read(data)


def test_names_whose_reading_would_not_end_are_no_message():
    labels = b"".join(b"\1" + bytes([97 + n % 26]) for n in range(120))
    many = b"".join(record(5, labels + b"\0", name=b"\0") for _ in range(250))
    with pytest.raises(Malformed, match="too many"):
        read(message(many, 250))
    long = b"".join(record(5, (b"\1" + bytes([n])) * 120 + b"\0", name=b"\0") for n in range(100))
    with pytest.raises(Malformed, match="too many"):
        read(message(long, 100))


def test_a_name_that_is_met_again_inside_another_one_is_passed_over_whole():
    # The second owner's labels were read before, as the rest of the first one's, which ran on into it.
    begin = 12 + len(NAME) + 4
    first = record(16, b"\1x\3abc\0", name=b"\0")
    inside = begin + 11
    again = record(5, b"\1y" + struct.pack(">H", 0xC000 | inside), name=struct.pack(">H", 0xC000 | inside + 2))
    found = read(message(first + again, 2))
    assert found.answers == (AliasRecord("abc", "y.x.abc", 60.0),)


def test_a_pointer_to_a_name_further_on_is_refused_even_where_that_name_was_read_before():
    # A label of 41 octets runs from the first record over the next two into the last. Its rest is read there, early.
    begin = 12 + len(NAME) + 4
    inside = begin + 11
    further = inside + 42
    first = record(16, b"\x29", name=b"\0")
    second = record(5, b"\1y\0", name=struct.pack(">H", 0xC000 | inside))
    third = record(5, b"\1z\0", name=struct.pack(">H", 0xC000 | further))
    fourth = record(16, b"\3abc\0", name=b"\0")
    assert message(first + second + third + fourth, 4)[further:] == b"\3abc\0"
    with pytest.raises(Malformed, match="points forward"):
        read(message(first + second + third + fourth, 4))


@pytest.mark.parametrize("name", ["orders.prod.local", "", "a\\.b\\255.c\\\\", "x" * 63, ".".join(["a" * 50] * 4)])
@pytest.mark.parametrize("edns", [True, False])
def test_a_question_is_read_as_it_was_written(name: str, edns: bool):
    found = read(query(name, "srv", 513, edns=edns))
    assert (found.number, found.response, found.questions) == (513, False, ((name, 33, 1),))


ANSWERS = [
    message(A, 1),
    message(record(5, b"\4next\xc0\x13") + record(1, b"\x0a\0\0\1", name=b"\4next\xc0\x13"), 2),
    message(record(1, b"\x0a\0\0\1", name=NAME), 1),
    message(A, 1, name=NAME.upper()),
    message(A, 1, name=b"\5other\4prod\5local\0"),
    message(A, 1, kind=28),
    message(A, 1, flags=0x8380),
]


@pytest.mark.parametrize("edns", [True, False])
@pytest.mark.parametrize("data", ANSWERS)
def test_an_answer_says_the_same_whether_its_question_is_read_or_recognised(data: bytes, edns: bool):
    sent = query("orders.prod.local", "a", 1, edns=edns)
    assert read(data, asked(sent, "orders.prod.local", "a")) == read(data)


@pytest.mark.parametrize("name", ["orders.prod.local", "a\\.b\\000.c\\\\", ""])
@pytest.mark.parametrize("edns", [True, False])
def test_a_question_that_came_back_as_it_was_sent_is_recognised(name: str, edns: bool):
    sent = query(name, "a", 1, edns=edns)
    expected = asked(sent, name, "a")
    assert read(sent, expected).questions is expected.questions


def test_a_name_beyond_ascii_is_asked_for_as_idna_has_it():
    assert read(query("grün.local", "a", 1, edns=False)).questions == (("xn--grn-ioa.local", 1, 1),)


@pytest.mark.parametrize("name", ["a..b", ".a", "a.", "x" * 64, ".".join(["a" * 50] * 6), "a\\256", "ä" * 80])
def test_what_is_no_name_is_not_asked_for(name: str):
    with pytest.raises(Malformed):
        query(name, "a", 1, edns=True)
