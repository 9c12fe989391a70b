"""DNS records as plain values, and what they mean as endpoints. No I/O, no DNS library.

Names here are in lower case and without the trailing dot; the root is the empty name.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ecs_discovery.models import Endpoint
from ecs_discovery.resolvers.addresses import is_usable

__all__ = [
    "AddressRecord",
    "AliasLoop",
    "AliasRecord",
    "Record",
    "Reply",
    "SrvRecord",
    "endpoints_from_addresses",
    "endpoints_from_srv",
    "follow_chain",
    "in_zone",
    "plain_name",
    "wire_ttl",
]

_MAX_ALIASES = 16


class AliasLoop(ValueError):
    """The CNAME records lead in a circle, or through more names than are ever meant."""


class AddressRecord(NamedTuple):
    """An A or AAAA record."""

    name: str
    family: str
    """`a` or `aaaa`."""
    address: str
    ttl: float


class AliasRecord(NamedTuple):
    """A CNAME record."""

    name: str
    target: str
    ttl: float


class SrvRecord(NamedTuple):
    """An SRV record (RFC 2782)."""

    name: str
    priority: int
    weight: int
    port: int
    target: str
    """Empty if the record says that the service is not there (a target of ".")."""
    ttl: float


Record = AddressRecord | AliasRecord | SrvRecord


class Reply(NamedTuple):
    """A server's valid answer to one question, positive or negative."""

    server: str
    exists: bool
    """False for NXDOMAIN."""
    answers: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    negative_ttl: float | None = None
    """How long "there is none" holds in seconds, where the server says so (RFC 2308)."""


def plain_name(text: str) -> str:
    """`text` as names are compared here: DNS ignores case, and the trailing dot is notation."""
    return text.removesuffix(".").lower()


def wire_ttl(ttl: int) -> float:
    """A TTL off the wire in seconds; with the top bit set it counts as 0 (RFC 2181, section 8)."""
    return float(ttl) if 0 <= ttl < 2**31 else 0.0


def in_zone(name: str, zone: str) -> bool:
    """True if `name` is `zone` or below it."""
    return not zone or name == zone or name.endswith("." + zone)


def follow_chain(name: str, records: Iterable[Record]) -> tuple[str, float]:
    """Where the CNAME records lead from `name`, and the smallest TTL on the way (infinite if there are none).

    Records of names that are not on the way are never looked at. Raises `AliasLoop`.
    """
    aliases: dict[str, AliasRecord] = {}
    for record in records:
        if isinstance(record, AliasRecord):
            aliases.setdefault(record.name, record)
    ttl = math.inf
    for _ in range(_MAX_ALIASES):
        alias = aliases.get(name)
        if alias is None:
            return name, ttl
        name, ttl = alias.target, min(ttl, alias.ttl)
    raise AliasLoop(f"more than {_MAX_ALIASES} CNAME records in a row")


def endpoints_from_addresses(records: Sequence[AddressRecord]) -> tuple[Endpoint, ...]:
    """Endpoints without a port, in the order answered, each once."""
    found = dict.fromkeys(record.address for record in records)
    return tuple(Endpoint(address, 0) for address in found if is_usable(address))


def endpoints_from_srv(
    owners: Sequence[str], records: Sequence[SrvRecord], addresses: Mapping[str, Sequence[AddressRecord]]
) -> tuple[Endpoint, ...]:
    """Every address of every record's target, in the order answered, each once.

    `owners` are the names the records were asked for and found under: Cloud Map names a target
    `<instance id>.<owner>`, from which the instance id is read.
    """
    found: dict[tuple[str, int, str | None], Endpoint] = {}
    for record in records:
        instance_id = _instance_id(record.target, owners)
        for address in addresses.get(record.target, ()):
            if not is_usable(address.address):
                continue
            endpoint = Endpoint(address.address, record.port, record.priority, record.weight, instance_id=instance_id)
            found.setdefault(endpoint.key, endpoint)
    return tuple(found.values())


def _instance_id(target: str, owners: Sequence[str]) -> str | None:
    label, _, parent = target.partition(".")
    return label if parent in owners else None
