"""Which addresses a task can have, and what is said of answers that name others."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from socket import AF_INET, AF_INET6, inet_pton

from ecs_discovery.models import Endpoint

__all__ = ["refusal", "screened"]

_BROADCAST = "255.255.255.255"
_MAPPED = b"\0" * 10 + b"\xff\xff"  # an IPv4 address written as one of IPv6


def is_usable(address: str) -> bool:
    """False for what no task can have: unspecified, multicast and broadcast addresses, and what is no address."""
    packed = _packed(address)
    if packed is not None:
        if packed.startswith(_MAPPED):
            packed = packed[len(_MAPPED) :]
        if len(packed) == 4:
            return packed not in (b"\0\0\0\0", b"\xff\xff\xff\xff") and not 224 <= packed[0] < 240
        return any(packed) and packed[0] != 0xFF
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return not (ip.is_unspecified or ip.is_multicast or str(ip) == _BROADCAST)


def _packed(address: str) -> bytes | None:
    """The bytes of an address; None if `ip_address` must say what it is, which takes ten times as long."""
    try:
        return inet_pton(AF_INET6 if ":" in address else AF_INET, address)
    except (OSError, ValueError):
        return None


_REFUSED = (ip_network("169.254.0.0/16"), ip_network("fe80::/10"), ip_network("fd00:ec2::/32"))

_NAT64 = ip_network("64:ff9b::/96")

# How the IPv6 addresses begin that may be refused, or hold an IPv4 address that may be.
_NEAR = re.compile(rb"\xfe[\x80-\xbf]|\xfd\x00\x0e\xc2|\x00\x64\xff\x9b|\x00{10}\xff\xff")

_SHOWN = 3  # refused addresses that an error names


def screened(endpoints: Sequence[Endpoint], allowed: Sequence[str]) -> tuple[tuple[Endpoint, ...], tuple[str, ...]]:
    """The endpoints that a source outside of this machine may name, and the hosts of the others.

    A writer of records could else have the application talk to the credentials endpoint of its own task.
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
    packed = _packed(host)
    if packed is not None and len(packed) == 16 and _NEAR.match(packed) is None:
        return False
    given = ip_address(host)
    ip = given
    if isinstance(given, IPv6Address):  # an IPv4 address in it is where the packets go
        ip = given.ipv4_mapped or (ip_address(int(given) & 0xFFFFFFFF) if given in _NAT64 else given)
    if not any(ip in network for network in _REFUSED):
        return False
    return not any(ip in network or given in network for network in allowed)
