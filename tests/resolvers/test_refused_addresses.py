"""Addresses that no task has, such as the credentials endpoint of our own, are not taken from DNS and Cloud Map."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ecs_discovery import CloudMapPolicy, Discovery, DnsPolicy
from ecs_discovery.config.policies import from_environment
from ecs_discovery.errors import NoEndpoints, ResolutionError, TargetNotFound
from ecs_discovery.models import Question
from ecs_discovery.resolvers import CloudMapResolver
from tests.cloud_map import FakeClient, instance
from tests.resolvers.support import ScriptedDns, World

ORDERS = Question("cloudmap", "prod/orders")
REFUSED = [
    "169.254.169.254",
    "169.254.170.2",
    "169.254.0.1",
    "fe80::1",
    "febf::1",
    "fd00:ec2::254",
    "fd00:ec2::23",
    "::ffff:169.254.169.254",
    "64:ff9b::169.254.169.254",
]
ACCEPTED = ["10.0.0.1", "127.0.0.1", "169.253.1.1", "fd00:ec3::1", "fec0::1", "::ffff:10.0.0.1", "64:ff9b::10.0.0.1"]


def _name(server: ScriptedDns, *addresses: str) -> str:
    """Have the server name these, of one family, and say what to ask."""
    family = "aaaa" if ":" in addresses[0] else "a"
    server.on(f"{family}://orders.local", *(f"orders.local 60 {family.upper()} {each}" for each in addresses))
    return f"{family}://orders.local"


@pytest.mark.parametrize("address", REFUSED)
def test_dns_names_no_link_local_address_and_no_metadata_endpoint(
    world: World, server: ScriptedDns, address: str
) -> None:
    with pytest.raises(ResolutionError, match="no address that a task can have") as caught:
        world.resolve(_name(server, address), server.policy())

    assert not isinstance(caught.value, NoEndpoints | TargetNotFound)
    assert "allowed_networks" in str(caught.value)


@pytest.mark.parametrize("address", ACCEPTED)
def test_other_addresses_are_accepted(world: World, server: ScriptedDns, address: str) -> None:
    answer = world.resolve(_name(server, address), server.policy())

    assert (len(answer.endpoints), answer.refused) == (1, ())


def test_refused_addresses_are_left_out_and_named(world: World, server: ScriptedDns) -> None:
    answer = world.resolve(_name(server, "10.0.0.1", "169.254.169.254"), server.policy())

    assert [endpoint.host for endpoint in answer.endpoints] == ["10.0.0.1"]
    assert answer.refused == ("169.254.169.254",)


def test_srv_targets_lead_to_no_refused_address(world: World, server: ScriptedDns) -> None:
    server.on(
        "srv://orders.local",
        "orders.local 60 SRV 0 0 80 t1.orders.local.",
        additional=["t1.orders.local 60 A 169.254.169.254", "t1.orders.local 60 A 10.0.0.1"],
    )

    answer = world.resolve("srv://orders.local", server.policy())

    assert [endpoint.host for endpoint in answer.endpoints] == ["10.0.0.1"]


@pytest.mark.parametrize(
    ("networks", "address"),
    [
        (("169.254.0.0/16",), "169.254.169.254"),
        (("10.0.0.0/8", "fe80::/10"), "fe80::1"),
        (("169.254.0.0/16",), "::ffff:169.254.169.254"),
        (("::ffff:169.254.0.0/112",), "::ffff:169.254.169.254"),
    ],
)
def test_allowed_networks_are_accepted(
    world: World, server: ScriptedDns, networks: tuple[str, ...], address: str
) -> None:
    policy = replace(server.policy(), allowed_networks=networks)

    assert len(world.resolve(_name(server, address), policy).endpoints) == 1


def test_an_allowed_network_allows_no_other(world: World, server: ScriptedDns) -> None:
    policy = replace(server.policy(), allowed_networks=("169.254.8.0/24",))

    with pytest.raises(ResolutionError, match="no address"):
        world.resolve(_name(server, "169.254.169.254"), policy)


def test_the_hosts_file_may_name_any_address(world: World, server: ScriptedDns, tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text("169.254.8.1 orders.local\n")

    answer = world.resolve("a://orders.local", replace(server.policy(), hosts_file=str(path)))

    assert [endpoint.host for endpoint in answer.endpoints] == ["169.254.8.1"]


def test_a_static_target_may_name_any_address() -> None:
    with Discovery() as discovery:
        assert len(discovery.resolve("static://169.254.8.1:80").endpoints) == 1


def _instances(*addresses: str) -> FakeClient:
    found = [
        instance(f"t{number}", **{"AWS_INSTANCE_IPV6" if ":" in each else "AWS_INSTANCE_IPV4": each})
        for number, each in enumerate(addresses)
    ]
    return FakeClient(*found)


@pytest.mark.parametrize("address", REFUSED)
def test_cloud_map_names_no_link_local_address_and_no_metadata_endpoint(address: str) -> None:
    with pytest.raises(ResolutionError, match="no address that a task can have") as caught:
        CloudMapResolver(CloudMapPolicy(), client=_instances(address)).resolve(ORDERS, 10)

    assert not isinstance(caught.value, NoEndpoints | TargetNotFound)
    found = CloudMapResolver(CloudMapPolicy(), client=_instances(address, "10.0.0.1")).resolve(ORDERS, 10)
    assert [endpoint.host for endpoint in found.endpoints] == ["10.0.0.1"]
    assert len(found.refused) == 1


def test_cloud_map_too_has_allowed_networks() -> None:
    policy = CloudMapPolicy(allowed_networks=("169.254.0.0/16",))

    assert len(CloudMapResolver(policy, client=_instances("169.254.8.1")).resolve(ORDERS, 10).endpoints) == 1


def test_networks_can_be_allowed_by_a_variable() -> None:
    found = from_environment(DnsPolicy, {"ECS_DISCOVERY_DNS_ALLOWED_NETWORKS": "169.254.8.0/24, fe80::/10"})

    assert found.allowed_networks == ("169.254.8.0/24", "fe80::/10")


def test_many_refused_addresses_make_a_short_error(world: World, server: ScriptedDns) -> None:
    target = _name(server, *(f"169.254.{n // 250}.{n % 250}" for n in range(500)))

    with pytest.raises(ResolutionError, match="and 497 more") as caught:
        world.resolve(target, server.policy(), timeout=10)

    assert len(str(caught.value)) < 400
