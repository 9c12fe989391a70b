"""DNS messages off the wire (RFC 1035), read in time and memory that their size bounds. No I/O, no DNS library.

A library for all of DNS takes seconds for 64 KiB of long names that point to each other. Here each label is read once.
"""

from __future__ import annotations

import re
import struct
from socket import AF_INET6, inet_ntoa, inet_ntop
from typing import NamedTuple

from ecs_discovery.models import Value
from ecs_discovery.resolvers.dns.records import AddressRecord, AliasRecord, Record, SrvRecord, in_zone, wire_ttl

__all__ = ["Asked", "Malformed", "Message", "asked", "query", "read"]

_A, _CNAME, _SOA, _AAAA, _SRV, _OPT = 1, 5, 6, 28, 33, 41
_IN = 1
_KINDS = {"a": _A, "aaaa": _AAAA, "srv": _SRV, "soa": _SOA}
_RECURSION = 0x0100
_PAYLOAD = 1232  # fits every path without fragments (DNS flag day 2020)
_MAX_NAME = 255  # octets (RFC 1035, section 2.3.4)
_MAX_STEPS = 20_000  # labels and pointers of all names of a message: 64 KiB hold 1,300 SRV targets of six labels
_MAX_CHARACTERS = 1_000_000  # of them with what follows each
_HEADER = struct.Struct(">HHHHHH")
_FIXED = struct.Struct(">HHIH")  # type, class, TTL, length of the data
_PAIR = struct.Struct(">HH")
_EDNS = b"\0" + _FIXED.pack(_OPT, _PAYLOAD, 0, 0)  # no question ends so: its class is not 0
_SRV_HEAD = struct.Struct(">HHH")
_NUMBER = struct.Struct(">I")
_PLAIN = b"abcdefghijklmnopqrstuvwxyz0123456789-_"
_SPECIAL = b'"().;\\@$'
_ESCAPED = {
    byte: f"\\{chr(byte)}" if byte in _SPECIAL else chr(byte) if 0x20 < byte < 0x7F else f"\\{byte:03d}"
    for byte in range(256)
}

_USUAL = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")  # names that are written as they are sent
_CHARACTER = re.compile(r"\\([0-9]{3})|\\(.)|(.)", re.DOTALL)


class Malformed(ValueError):
    """These bytes are no DNS message, or this text no name."""


class Asked(NamedTuple):
    """The question of a query, as it was sent and as `read` gives it."""

    wire: bytes
    questions: tuple[tuple[str, int, int], ...]


class Message(Value):
    """What an answer says, as far as it matters here."""

    number: int
    response: bool
    opcode: int
    truncated: bool
    """True if the server had more to say than fitted. Records were not read then."""
    rcode: int
    """The extended one, where the server speaks EDNS."""
    questions: tuple[tuple[str, int, int], ...]
    """Name, type and class."""
    answers: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    negative: tuple[tuple[str, float], ...] = ()
    """The zones of the authority section's SOA records, and how long each says that there is none (RFC 2308)."""

    def negative_ttl(self, name: str) -> float | None:
        """How long "there is none" holds for `name`, None if no zone of its own says so."""
        return next((ttl for zone, ttl in self.negative if in_zone(name, zone)), None)


def query(name: str, scheme: str, number: int, *, edns: bool) -> bytes:
    """A question about an absolute name, written as `read` writes names. Raises `Malformed` for what is no name."""
    body = _HEADER.pack(number, _RECURSION, 1, 0, 0, int(edns)) + _packed(name) + _PAIR.pack(_KINDS[scheme], _IN)
    return body + _EDNS if edns else body


def asked(wire: bytes, name: str, scheme: str) -> Asked:
    """The question of a `query`."""
    questions = ((name, _KINDS[scheme], _IN),) if _USUAL.fullmatch(name) else read(wire).questions
    return Asked(wire[_HEADER.size :].removesuffix(_EDNS), questions)


def _packed(name: str) -> bytes:
    if len(name) < _MAX_NAME - 1 and _USUAL.fullmatch(name):
        return b"".join([bytes((len(label),)) + label for label in name.encode("ascii").split(b".")]) + b"\0"
    labels = [bytearray()] if name else []
    try:
        ascii_name = name if name.isascii() else name.encode("idna").decode("ascii")
        for number, escaped, plain in _CHARACTER.findall(ascii_name):
            if plain == ".":
                labels.append(bytearray())
            else:
                labels[-1].append(int(number) if number else ord(escaped or plain))
    except ValueError as error:
        raise Malformed("no name that DNS could have") from error
    if not all(0 < len(label) < 64 for label in labels) or sum(map(len, labels)) + len(labels) >= _MAX_NAME:
        raise Malformed("a label has 1 to 63 octets, a name 253 at most")
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def read(wire: bytes, asked: Asked | None = None) -> Message:
    """Takes a message apart. Raises `Malformed`. Bytes after its end do not matter.

    `asked` is what it may answer: a question that came back as it was sent is not read again."""
    try:
        return _Reader(wire).message(asked)
    except (IndexError, ValueError, OSError, struct.error) as error:
        raise Malformed(str(error)) from error


class _Reader:
    def __init__(self, wire: bytes) -> None:
        self._wire = wire
        self._at = _HEADER.size
        self._names: dict[int, tuple[str, int]] = {}  # what begins at an offset: the name, and its octets
        self._steps = 0
        self._characters = 0
        self._extended = 0
        self._negative: list[tuple[str, float]] = []

    def message(self, expected: Asked | None) -> Message:
        number, flags, questions, answers, authority, additional = _HEADER.unpack_from(self._wire)
        if expected is not None and questions == 1 and self._wire.startswith(expected.wire, self._at):
            asked = expected.questions
            self._names[self._at] = (asked[0][0], len(expected.wire) - _PAIR.size)
            self._at += len(expected.wire)
        else:
            asked = tuple([self._question() for _ in range(min(questions, 2))])  # more than one is not ours anyway
        truncated = bool(flags & 0x0200)
        head = (number, bool(flags & 0x8000), flags >> 11 & 15, truncated)
        if truncated or questions > 1:
            return Message(*head, flags & 15, asked)
        found = self._section(answers)
        self._section(authority)
        negative, self._negative = tuple(self._negative), []
        more = self._section(additional)
        return Message(*head, self._extended << 4 | flags & 15, asked, found, more, negative)

    def _question(self) -> tuple[str, int, int]:
        name = self._name()
        kind, group = _PAIR.unpack_from(self._wire, self._at)
        self._at += _PAIR.size
        return name, kind, group

    def _section(self, count: int) -> tuple[Record, ...]:
        wire = self._wire
        found: list[Record] = []
        for _ in range(count):
            name = self._name()
            kind, group, ttl, size = _FIXED.unpack_from(wire, self._at)
            begin = self._at + _FIXED.size
            end = begin + size
            if end > len(wire):
                raise Malformed("a record ends after the message")
            self._at = begin
            if kind == _OPT:
                self._extended = ttl >> 24
            elif group == _IN:
                record = self._record(name, kind, wire_ttl(ttl), begin, end)
                if record is not None:
                    found.append(record)
            self._at = end
        return tuple(found)

    def _record(self, name: str, kind: int, ttl: float, begin: int, end: int) -> Record | None:
        wire = self._wire
        if kind == _A:
            return AddressRecord(name, "a", inet_ntoa(wire[begin:end]), ttl)
        if kind == _AAAA:
            return AddressRecord(name, "aaaa", inet_ntop(AF_INET6, wire[begin:end]), ttl)
        if kind == _CNAME:
            return AliasRecord(name, self._last_name(end), ttl)
        if kind == _SRV:
            priority, weight, port = _SRV_HEAD.unpack_from(wire, begin)
            self._at += _SRV_HEAD.size
            return SrvRecord(name, priority, weight, port, self._last_name(end), ttl)
        if kind == _SOA:
            self._name(), self._name()
            if self._at + 5 * _NUMBER.size != end:
                raise Malformed("a SOA record of another length")
            (minimum,) = _NUMBER.unpack_from(wire, end - _NUMBER.size)
            self._negative.append((name, min(ttl, wire_ttl(minimum))))
        return None

    def _last_name(self, end: int) -> str:
        name = self._name()
        if self._at != end:
            raise Malformed("a name ends elsewhere than its record")
        return name

    def _name(self) -> str:
        """The name here: in lower case, without the last dot, "" for the root. Moves behind it."""
        wire, names = self._wire, self._names
        at, read_to, before = self._at, 0, self._at
        if wire[at] >= 0xC0:  # nearly always a pointer to a name that was read
            target = (wire[at] & 0x3F) << 8 | wire[at + 1]
            known = names.get(target) if target < at else None
            if known is not None:
                self._at = at + 2
                return known[0]
        passed: list[tuple[int, int]] = []  # where the labels begin that are read for the first time
        octets = 1
        while True:
            self._steps += 1
            if octets > _MAX_NAME or self._steps > _MAX_STEPS:
                raise Malformed("a name of more than 255 octets, or too many names")
            known = names.get(at) if read_to else None
            size = wire[at]
            if size >= 0xC0:
                target = (size & 0x3F) << 8 | wire[at + 1]
                read_to = read_to or at + 2
                if target >= before:
                    raise Malformed("a name points forward")
                at = before = target
                continue
            if size > 63:
                raise Malformed("a label of an unknown kind")
            if known is not None or not size:
                break
            passed.append((at, size))
            octets += 1 + size
            at += 1 + size
        self._at = read_to or at + 1
        text, octets = known if known is not None else ("", 1)
        for begin, size in reversed(passed):
            label = self._label(wire[begin + 1 : begin + 1 + size], size)
            text = f"{label}.{text}" if text else label
            octets += 1 + size
            self._characters += len(text)
            if octets > _MAX_NAME:
                raise Malformed("a name of more than 255 octets")
            if self._characters > _MAX_CHARACTERS:
                raise Malformed("too many names")
            names[begin] = (text, octets)
        return text

    def _label(self, label: bytes, size: int) -> str:
        if len(label) < size:
            raise Malformed("a label ends after the message")
        text = label.lower()
        if not text.translate(None, _PLAIN):
            return text.decode("ascii")
        return "".join(map(_ESCAPED.__getitem__, text))
