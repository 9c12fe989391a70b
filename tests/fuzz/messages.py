"""DNS answers that mean harm, as bytes. Each answers a question about `orders.prod.local` with the number 1."""

from __future__ import annotations

import struct
from collections.abc import Callable

NAME = b"\x06orders\x04prod\x05local\x00"
LIMIT = 65_535


def message(body: bytes, count: int, *, kind: int = 1, flags: int = 0x8180, name: bytes = NAME) -> bytes:
    """An answer with this many records in the answer section."""
    return struct.pack(">HHHHHH", 1, flags, 1, count, 0, 0) + name + struct.pack(">HH", kind, 1) + body


def record(kind: int, data: bytes, *, name: bytes = b"\xc0\x0c", ttl: int = 60) -> bytes:
    return name + struct.pack(">HHIH", kind, 1, ttl, len(data)) + data


def filled(one: Callable[[int], bytes], kind: int = 1, prefix: bytes = b"", first: int = 0) -> bytes:
    """As many records as fit into a message."""
    parts, size, count = [prefix], len(prefix) + 40, first
    while size + len(part := one(count)) <= LIMIT:
        parts.append(part)
        size += len(part)
        count += 1
    return message(b"".join(parts), count, kind=kind)


def addresses() -> bytes:
    """4,000 A records."""
    return filled(lambda n: record(1, struct.pack(">I", 0x0A000000 + n)))


def long_names() -> bytes:
    """Owners of 127 labels, each found by a pointer into one long name."""
    long = b"\x01a" * 127 + b"\x00"
    begin = 12 + len(NAME) + 4
    first = record(1, b"\x0a\x00\x00\x01", name=long)
    return filled(
        lambda n: record(1, struct.pack(">I", 0x0A000000 + n), name=struct.pack(">H", 0xC000 | begin + 2 * (n % 126))),
        prefix=first,
        first=1,
    )


def deep_pointers() -> bytes:
    """Pointers to pointers, thousands deep, and owners that begin at the deepest."""
    begin = 12 + len(NAME) + 4 + 11
    chain = b"\xc0\x0c" + b"".join(struct.pack(">H", 0xC000 | begin + 2 * n) for n in range(7000))
    first = b"\x00" + struct.pack(">HHIH", 99, 1, 60, len(chain)) + chain
    last = struct.pack(">H", 0xC000 | begin + 2 * 7000)
    return filled(lambda n: record(1, struct.pack(">I", 0x0A000000 + n), name=last), prefix=first, first=1)


def escaped_aliases() -> bytes:
    """CNAME records between names of bytes that have to be escaped."""

    def one(n: int) -> bytes:
        label = b"\x3f" + struct.pack(">H", n) + b"\x00" * 61
        return record(5, label * 3 + b"\x3d" + b"\xff" * 61 + b"\x00", name=b"\xc0\x0c")

    return filled(one)


def services() -> bytes:
    """SRV records with as many targets as fit, none with an address."""
    return filled(lambda n: record(33, struct.pack(">HHH", 0, 0, 80) + b"\x04%04x" % n + b"\xc0\x0c"), kind=33)


def circle() -> bytes:
    """A CNAME to itself."""
    return message(record(5, b"\xc0\x0c"), 1)


def long_chain() -> bytes:
    """Thousands of CNAME records in a row."""
    return filled(lambda n: record(5, b"\x04%04x\x00" % (n + 1), name=b"\xc0\x0c" if not n else b"\x04%04x\x00" % n))


KINDS: dict[str, Callable[[], bytes]] = {
    made.__name__: made
    for made in (addresses, long_names, deep_pointers, escaped_aliases, services, circle, long_chain)
}
