"""The rules for addresses look at bytes, for `ipaddress` takes long. It says the same at every border."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest

from ecs_discovery.config.targets import is_address
from ecs_discovery.models import Endpoint
from ecs_discovery.resolvers.addresses import is_usable, screened

LINK_LOCAL = ip_network("169.254.0.0/16")
NETWORKS = (LINK_LOCAL, ip_network("fe80::/10"), ip_network("fd00:ec2::/32"))
MULTICAST = (ip_network("224.0.0.0/4"), ip_network("ff00::/8"))
NAT64 = ip_network("64:ff9b::/96")
MAPPED = ip_network("::ffff:0:0/96")
NO_TASK = ("0.0.0.0", "255.255.255.255", "::")


def _around(*networks: object) -> list[str]:
    """The first and the last address of each, and the addresses before and after."""
    found: list[str] = []
    for network in map(ip_network, map(str, networks)):
        first, last = int(network[0]), int(network[-1])
        kind, most = type(network[0]), 2**network.max_prefixlen
        found += [str(kind(each)) for each in (first - 1, first, last, last + 1) if 0 <= each < most]
    return found


def _inside(prefix: object, addresses: list[str]) -> list[str]:
    """The same IPv4 addresses as the last bytes of IPv6 addresses."""
    first = int(ip_network(str(prefix))[0])
    return [str(IPv6Address(first + int(IPv4Address(each)))) for each in addresses if ":" not in each]


PLAIN = [*_around(*NETWORKS, *MULTICAST, NAT64, MAPPED), *NO_TASK, "10.0.0.1", "2600:1f18::1", "::1", "fd00::1"]
ADDRESSES = [*PLAIN, *_inside(MAPPED, PLAIN), *_inside(NAT64, PLAIN), "fe80::1%eth0", "2600:1f18::1%eth0"]


@pytest.mark.parametrize("address", ADDRESSES)
def test_what_no_task_can_have_is_unusable_however_it_is_written(address: str):
    ip = ip_address(address)
    ip = (isinstance(ip, IPv6Address) and ip.ipv4_mapped) or ip
    assert is_usable(address) is not (str(ip) in NO_TASK or any(ip in network for network in MULTICAST))


@pytest.mark.parametrize("address", ADDRESSES)
def test_what_lies_in_a_refused_network_is_refused_however_it_is_written(address: str):
    ip = ip_address(address)
    if isinstance(ip, IPv6Address):
        ip = ip.ipv4_mapped or (IPv4Address(int(ip) & 0xFFFFFFFF) if ip in NAT64 else ip)
    expected = (address,) if any(ip in network for network in NETWORKS) else ()
    assert screened([Endpoint(address, 80)], ())[1] == expected


@pytest.mark.parametrize("address", [*ADDRESSES, "[::1]", "FE80::A", "1.2.3.4.5", "1.2.3", "a:b", "cafe.bad", "::%\n"])
def test_a_text_is_an_address_where_the_standard_library_reads_it(address: str):
    try:
        ip_address(address.strip("[]"))
    except ValueError:
        assert not is_address(address)
    else:
        assert is_address(address)
