"""DNS records as plain values, and what they mean as endpoints. No I/O, no DNS library.

Names here are in lower case and without the trailing dot; the root is the empty name.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from socket import AF_INET, inet_pton

from ecs_discovery.models import MAX_ENDPOINTS, Endpoint

__all__ = [
    "MAX_ENDPOINTS",
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
    "refusal",
    "screened",
    "wire_ttl",
]

_MAX_ALIASES = 16
_BROADCAST = "255.255.255.255"


class AliasLoop(ValueError):
    """The CNAME records lead in a circle, or through more names than anybody means to."""


@dataclass(frozen=True, slots=True)
class AddressRecord:
    """An A or AAAA record."""

    name: str
    family: str
    """`a` or `aaaa`."""
    address: str
    ttl: float


@dataclass(frozen=True, slots=True)
class AliasRecord:
    """A CNAME record."""

    name: str
    target: str
    ttl: float


@dataclass(frozen=True, slots=True)
class SrvRecord:
    """An SRV record (RFC 2782)."""

    name: str
    priority: int
    weight: int
    port: int
    target: str
    """Empty if the record says that the service is not there (a target of ".")."""
    ttl: float


Record = AddressRecord | AliasRecord | SrvRecord


@dataclass(frozen=True, slots=True)
class Reply:
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


def is_usable(address: str) -> bool:
    """False for what no task can have: unspecified, multicast and broadcast addresses, and what is no address."""
    try:
        packed = inet_pton(AF_INET, address)  # thousands in an answer: `ip_address` takes ten times as long
    except (OSError, ValueError):
        pass
    else:
        return packed not in (b"\0\0\0\0", b"\xff\xff\xff\xff") and not 224 <= packed[0] < 240
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return not (ip.is_unspecified or ip.is_multicast or str(ip) == _BROADCAST)


_REFUSED = (ip_network("169.254.0.0/16"), ip_network("fe80::/10"), ip_network("fd00:ec2::/32"))
_NAT64 = ip_network("64:ff9b::/96")
_SHOWN = 3  # refused addresses that an error names


def screened(endpoints: Sequence[Endpoint], allowed: Sequence[str]) -> tuple[tuple[Endpoint, ...], tuple[str, ...]]:
    """The endpoints that a source outside of this machine may name, and the hosts of the others.

    Whoever can write a record could else have the application talk to the credentials endpoint of its own task.
    `allowed` are networks that are accepted nevertheless.
    """
    networks = _networks(tuple(allowed))
    refused = tuple(dict.fromkeys(each.host for each in endpoints if _is_refused(each.host, networks)))
    if not refused:
        return tuple(endpoints), ()
    return tuple(endpoint for endpoint in endpoints if endpoint.host not in refused), refused


def refusal(server: str, refused: Sequence[str], policy: str) -> tuple[str, str]:
    """What to say where nothing else was named, and what to do about it."""
    more = f" and {len(refused) - _SHOWN} more" if len(refused) > _SHOWN else ""
    return (
        f"{server} names no address that a task can have: {', '.join(refused[:_SHOWN])}{more}",
        f"link-local addresses and the metadata endpoints of AWS are refused; {policy}(allowed_networks=…) allows them",
    )


@lru_cache(maxsize=64)
def _networks(allowed: tuple[str, ...]) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(map(ip_network, allowed))


def _is_refused(host: str, allowed: Sequence[IPv4Network | IPv6Network]) -> bool:
    if ":" not in host and not host.startswith("169.254."):
        return False
    given = ip_address(host)
    ip = given
    if isinstance(given, IPv6Address):  # an IPv4 address in it is where the packets go
        ip = given.ipv4_mapped or (ip_address(int(given) & 0xFFFFFFFF) if given in _NAT64 else given)
    if not any(ip in network for network in _REFUSED):
        return False
    return not any(ip in network or given in network for network in allowed)


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
