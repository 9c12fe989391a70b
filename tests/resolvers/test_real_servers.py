"""The resolvers against Knot DNS, and against Unbound in front of it."""

from __future__ import annotations

import time

import pytest

from ecs_discovery.config.policies import DnsPolicy
from ecs_discovery.errors import NoEndpoints, TargetNotFound
from tests.resolvers.support import World
from tests.servers import KnotServer, UnboundServer


def _policy(server: KnotServer | UnboundServer) -> DnsPolicy:
    return DnsPolicy(nameservers=(server.address,), hosts_file="")


def _counted_down_from(ttl: float) -> object:
    """The TTL, or up to 8 s less: Unbound may have had the answer in its cache."""
    return pytest.approx(ttl - 4, abs=4)


@pytest.fixture(params=["knot", "unbound"])
def policy(request: pytest.FixtureRequest) -> DnsPolicy:
    return _policy(request.getfixturevalue(request.param))


def test_addresses_come_with_their_ttl(world: World, policy: DnsPolicy) -> None:
    answer = world.resolve("a://orders.prod.local", policy)

    assert sorted(endpoint.host for endpoint in answer.endpoints) == ["10.0.0.1", "10.0.0.2"]
    assert answer.ttl == _counted_down_from(60)
    assert answer.source == "dns"


def test_ipv6_addresses_are_answered(world: World, policy: DnsPolicy) -> None:
    assert [endpoint.host for endpoint in world.resolve("aaaa://orders.prod.local", policy).endpoints] == ["fd00::1"]


def test_an_alias_lends_its_smaller_ttl(world: World, policy: DnsPolicy) -> None:
    answer = world.resolve("a://alias.prod.local", policy)

    assert len(answer.endpoints) == 2
    assert answer.ttl == _counted_down_from(20)


def test_srv_answers_carry_ports_and_instance_ids(world: World, policy: DnsPolicy) -> None:
    answer = world.resolve("srv://web.prod.local", policy)

    assert {(endpoint.host, endpoint.port, endpoint.instance_id) for endpoint in answer.endpoints} == {
        ("10.1.0.1", 8080, "0a1b2c"),
        ("10.1.0.2", 8081, "3d4e5f"),
    }
    assert answer.ttl == _counted_down_from(10)


def test_a_missing_name_is_not_found_with_the_zones_negative_ttl(world: World, policy: DnsPolicy) -> None:
    with pytest.raises(TargetNotFound) as caught:
        world.resolve("a://nothing.prod.local", policy)

    assert caught.value.ttl == _counted_down_from(15)


def test_a_missing_kind_is_no_endpoints(world: World, policy: DnsPolicy) -> None:
    with pytest.raises(NoEndpoints) as caught:
        world.resolve("srv://orders.prod.local", policy)

    assert caught.value.ttl == _counted_down_from(15)


def test_an_absent_service_is_no_endpoints(world: World, policy: DnsPolicy) -> None:
    with pytest.raises(NoEndpoints, match="absent"):
        world.resolve("srv://absent.prod.local", policy)


def test_an_answer_too_large_for_udp_is_complete(world: World, policy: DnsPolicy) -> None:
    answer = world.resolve("srv://big.prod.local", policy)

    assert {(endpoint.host, endpoint.port) for endpoint in answer.endpoints} == {
        (f"10.2.0.{i}", 8000 + i) for i in range(1, 41)
    }
    assert not answer.partial


def test_a_cached_answer_counts_down(world: World, unbound: UnboundServer) -> None:
    policy = _policy(unbound)
    until = time.monotonic() + 3

    while (ttl := world.resolve("a://short.prod.local", policy).ttl) >= 3 and time.monotonic() < until:
        time.sleep(0.05)

    assert ttl < 3
