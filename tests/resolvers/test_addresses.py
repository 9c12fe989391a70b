"""What the resolvers make of a DNS server's answers about addresses, in every world alike."""

from __future__ import annotations

import socket
import time

import pytest

from ecs_discovery.config.policies import DnsPolicy
from ecs_discovery.errors import ConfigurationError, NoEndpoints, ResolutionError, ResolutionTimeout, TargetNotFound
from ecs_discovery.models import Endpoint
from tests.resolvers.support import ScriptedDns, World

SOA = "prod.local 900 SOA ns.prod.local. admin.prod.local. 1 3600 600 86400 900"


def _hosts(server: ScriptedDns, world: World, text: str = "a://orders.prod.local") -> list[str]:
    return [endpoint.host for endpoint in world.resolve(text, server.policy()).endpoints]


def test_addresses_come_in_the_order_answered_without_a_port(world: World, server: ScriptedDns) -> None:
    server.on("a://orders.prod.local", "orders.prod.local 60 A 10.0.0.2", "orders.prod.local 60 A 10.0.0.1")

    answer = world.resolve("a://orders.prod.local", server.policy())

    assert answer.endpoints == (Endpoint("10.0.0.2", 0), Endpoint("10.0.0.1", 0))
    assert (answer.ttl, answer.source, answer.partial) == (60, "dns", False)


def test_names_are_absolute_and_case_does_not_matter(world: World, server: ScriptedDns) -> None:
    server.on("a://orders", "ORDERS 60 CNAME Orders.Prod.LOCAL.", "orders.PROD.local 60 A 10.0.0.1")

    assert _hosts(server, world, "a://Orders.") == ["10.0.0.1"]
    assert server.asked() == ["orders"]


def test_the_smallest_ttl_of_the_chain_holds(world: World, server: ScriptedDns) -> None:
    server.on(
        "a://a.local",
        "a.local 300 CNAME b.local.",
        "b.local 7 CNAME c.local.",
        "c.local 60 A 10.0.0.1",
    )

    answer = world.resolve("a://a.local", server.policy())

    assert answer.ttl == 7
    assert [endpoint.host for endpoint in answer.endpoints] == ["10.0.0.1"]


def test_an_alias_that_leads_nowhere_is_no_endpoints(world: World, server: ScriptedDns) -> None:
    server.on("a://a.local", "a.local 300 CNAME b.local.")

    with pytest.raises(NoEndpoints, match=r"leads to b\.local"):
        world.resolve("a://a.local", server.policy())


def test_an_alias_to_a_missing_name_is_not_found(world: World, server: ScriptedDns) -> None:
    server.on("a://a.local", "a.local 300 CNAME b.local.", rcode="NXDOMAIN")

    with pytest.raises(TargetNotFound):
        world.resolve("a://a.local", server.policy())


def test_aliases_in_a_circle_are_an_error_and_not_an_absence(world: World, server: ScriptedDns) -> None:
    server.on("a://a.local", "a.local 300 CNAME b.local.", "b.local 300 CNAME a.local.")

    with pytest.raises(ResolutionError, match="circle") as caught:
        world.resolve("a://a.local", server.policy())

    assert not isinstance(caught.value, NoEndpoints | TargetNotFound)
    assert caught.value.__cause__ is not None


def test_nxdomain_is_not_found_for_as_long_as_the_soa_says(world: World, server: ScriptedDns) -> None:
    server.on("a://gone.prod.local", rcode="NXDOMAIN", authority=[SOA])

    with pytest.raises(TargetNotFound, match="no such name") as caught:
        world.resolve("a://gone.prod.local", server.policy())

    assert caught.value.ttl == 900
    assert server.address in str(caught.value)
    assert "a://gone.prod.local" in str(caught.value)
    assert caught.value.hint


def test_the_lesser_of_soa_ttl_and_minimum_is_the_negative_ttl(world: World, server: ScriptedDns) -> None:
    server.on("a://gone.prod.local", rcode="NXDOMAIN", authority=[SOA.replace("900 SOA", "15 SOA")])

    with pytest.raises(TargetNotFound) as caught:
        world.resolve("a://gone.prod.local", server.policy())

    assert caught.value.ttl == 15


def test_the_soa_of_another_zone_says_nothing(world: World, server: ScriptedDns) -> None:
    server.on("a://gone.prod.local", rcode="NXDOMAIN", authority=[SOA.replace("prod.local 900", "evil.example 900")])

    with pytest.raises(TargetNotFound) as caught:
        world.resolve("a://gone.prod.local", server.policy())

    assert caught.value.ttl is None


def test_no_data_is_no_endpoints(world: World, server: ScriptedDns) -> None:
    server.on("aaaa://orders.prod.local", authority=[SOA])

    with pytest.raises(NoEndpoints, match="no AAAA records") as caught:
        world.resolve("aaaa://orders.prod.local", server.policy())

    assert caught.value.ttl == 900


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED", "NOTIMP", "FORMERR"])
def test_a_failing_server_never_means_there_is_none(world: World, server: ScriptedDns, rcode: str) -> None:
    server.on("a://orders.prod.local", rcode=rcode)

    with pytest.raises(ResolutionError, match=rcode) as caught:
        world.resolve("a://orders.prod.local", server.policy())

    assert type(caught.value) is ResolutionError
    assert server.address in str(caught.value)
    assert caught.value.__cause__ is not None
    assert len(server.seen) <= 2  # once more without EDNS, but no storm


def test_a_failing_server_gives_way_to_the_next(world: World, server: ScriptedDns) -> None:
    server.on("a://orders.prod.local", "orders.prod.local 60 A 10.0.0.1")
    with ScriptedDns() as failing:
        failing.on("a://orders.prod.local", rcode="SERVFAIL")

        assert world.resolve("a://orders.prod.local", failing.policy(server.address)).endpoints

    assert len(failing.seen) == 1


def test_a_silent_server_gives_way_to_the_next(world: World, server: ScriptedDns) -> None:
    server.on("a://orders.prod.local", "orders.prod.local 60 A 10.0.0.1")
    with ScriptedDns() as silent:
        silent.lose = 100

        assert world.resolve("a://orders.prod.local", silent.policy(server.address, query_timeout=0.05)).endpoints


def test_a_closed_port_gives_way_to_the_next_server(world: World, server: ScriptedDns) -> None:
    server.on("a://orders.prod.local", "orders.prod.local 60 A 10.0.0.1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    # Not on an address where another program may be given the port meanwhile.
    policy = DnsPolicy(nameservers=(f"127.99.99.99:{port}", server.address), query_timeout=30, hosts_file="")

    assert world.resolve("a://orders.prod.local", policy).endpoints


def test_silence_is_a_timeout_within_the_hard_limit(world: World, server: ScriptedDns) -> None:
    server.lose = 1000
    began = time.monotonic()

    with pytest.raises(ResolutionTimeout) as caught:
        world.resolve("a://orders.prod.local", server.policy(query_timeout=0.1), timeout=0.35)

    assert 0.3 < time.monotonic() - began < 3
    assert isinstance(caught.value, TimeoutError)
    assert server.address in str(caught.value)
    assert 2 <= len(server.seen) <= 5


def test_no_time_at_all_is_a_timeout(world: World, server: ScriptedDns) -> None:
    with pytest.raises(ResolutionTimeout):
        world.resolve("a://orders.prod.local", server.policy(), timeout=0)


def test_one_lost_packet_costs_one_wait(world: World, server: ScriptedDns) -> None:
    server.on("a://orders.prod.local", "orders.prod.local 60 A 10.0.0.1")
    server.lose = 1

    assert world.resolve("a://orders.prod.local", server.policy(query_timeout=0.2)).endpoints
    assert len(server.seen) >= 2


def test_an_answer_that_comes_after_the_first_wait_still_counts(world: World, server: ScriptedDns) -> None:
    def late(response: object) -> list[bytes]:
        time.sleep(0.25)
        return [response.to_wire()]  # type: ignore[attr-defined]

    server.on("a://orders.prod.local", "orders.prod.local 60 A 10.0.0.1", shape=late)

    assert world.resolve("a://orders.prod.local", server.policy(query_timeout=0.1)).endpoints


def test_garbage_is_an_error(world: World, server: ScriptedDns) -> None:
    server.on("a://orders.prod.local", shape=lambda response: [response.to_wire()[:2] + b"\x81\x80garbage garbage"])

    with pytest.raises(ResolutionError) as caught:
        world.resolve("a://orders.prod.local", server.policy(), timeout=0.5)

    assert not isinstance(caught.value, NoEndpoints | TargetNotFound)


def test_an_answer_with_another_id_is_not_ours(world: World, server: ScriptedDns) -> None:
    def forged(response: object) -> list[bytes]:
        wire: bytes = response.to_wire()  # type: ignore[attr-defined]
        evil = wire.replace(b"\x0a\x00\x00\x01", b"\x06\x06\x06\x06")
        return [bytes([wire[0] ^ 1]) + evil[1:], wire]

    server.on("a://orders.prod.local", "orders.prod.local 60 A 10.0.0.1", shape=forged)

    assert _hosts(server, world) == ["10.0.0.1"]


def test_an_answer_to_another_question_is_not_ours(world: World, server: ScriptedDns) -> None:
    def forged(response: object) -> list[bytes]:
        wire: bytes = response.to_wire()  # type: ignore[attr-defined]
        return [wire.replace(b"\x06orders", b"\x06borders"[:7]), wire]

    server.on("a://orders.prod.local", "orders.prod.local 60 A 10.0.0.1", shape=forged)

    assert _hosts(server, world) == ["10.0.0.1"]


def test_records_of_other_names_and_kinds_are_not_accepted(world: World, server: ScriptedDns) -> None:
    server.on(
        "a://orders.prod.local",
        "evil.example 5 A 6.6.6.6",
        "orders.prod.local 60 AAAA fd00::6",
        "orders.prod.local 60 A 10.0.0.1",
        "other.prod.local 1 CNAME orders.prod.local.",
        additional=["orders.prod.local 3 A 6.6.6.7"],
    )

    answer = world.resolve("a://orders.prod.local", server.policy())

    assert [endpoint.host for endpoint in answer.endpoints] == ["10.0.0.1"]
    assert answer.ttl == 60


def test_addresses_nobody_can_have_are_dropped(world: World, server: ScriptedDns) -> None:
    bad = ["0.0.0.0", "224.0.0.1", "255.255.255.255"]
    lines = [f"orders.prod.local 60 A {address}" for address in (*bad, "10.0.0.1")]
    server.on("a://orders.prod.local", *lines)

    assert _hosts(server, world) == ["10.0.0.1"]


def test_only_unusable_addresses_are_no_endpoints(world: World, server: ScriptedDns) -> None:
    server.on("aaaa://orders.prod.local", *(f"orders.prod.local 9 AAAA {a}" for a in ("::", "ff02::1", "::ffff:0:0")))

    with pytest.raises(NoEndpoints, match="can be connected to") as caught:
        world.resolve("aaaa://orders.prod.local", server.policy())

    assert caught.value.ttl == 9


def test_no_more_than_2000_endpoints_are_taken(world: World, server: ScriptedDns) -> None:
    lines = [f"orders.prod.local 60 A 10.1.{i // 250}.{i % 250 + 1}" for i in range(2100)]
    server.on("a://orders.prod.local", *lines)

    answer = world.resolve("a://orders.prod.local", server.policy(), timeout=10)

    assert len(answer.endpoints) == 2000
    assert answer.partial


def test_questions_offer_a_payload_that_fits_every_path(world: World, server: ScriptedDns) -> None:
    server.on("a://orders.prod.local", "orders.prod.local 60 A 10.0.0.1")

    _hosts(server, world)

    assert [seen.payload for seen in server.seen] == [1232]


def test_a_server_without_edns_is_asked_without(world: World, server: ScriptedDns) -> None:
    server.knows_edns = False
    server.on("a://orders.prod.local", "orders.prod.local 60 A 10.0.0.1")

    assert _hosts(server, world) == ["10.0.0.1"]
    assert [seen.payload for seen in server.seen] == [1232, 0]


def test_every_look_up_really_asks(world: World, server: ScriptedDns) -> None:
    server.on("a://orders.prod.local", "orders.prod.local 300 A 10.0.0.1")

    assert _hosts(server, world) == ["10.0.0.1"]
    assert _hosts(server, world) == ["10.0.0.1"]
    assert server.asked() == ["orders.prod.local"] * 2


def test_a_name_that_appears_is_seen_at_once(world: World, server: ScriptedDns) -> None:
    server.on("a://orders.prod.local", rcode="NXDOMAIN", authority=[SOA])
    with pytest.raises(TargetNotFound):
        _hosts(server, world)
    server.on("a://orders.prod.local", "orders.prod.local 300 A 10.0.0.1")

    assert _hosts(server, world) == ["10.0.0.1"]


def test_a_name_that_is_none_is_an_error(world: World, server: ScriptedDns) -> None:
    with pytest.raises(ResolutionError):
        world.resolve("a://" + "x" * 70, server.policy(), timeout=0.5)


def test_other_schemes_are_refused(world: World, server: ScriptedDns) -> None:
    with pytest.raises(ConfigurationError, match="a, aaaa or srv"):
        world.resolve("mx://orders.prod.local", server.policy())


def test_without_nameservers_there_is_a_clear_error(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setattr("ecs_discovery.resolvers.dns.system._RESOLV_CONF", f"{tmp_path}/none")

    with pytest.raises(ResolutionError, match="no nameserver is configured") as caught:
        world.resolve("a://orders.prod.local", DnsPolicy(hosts_file=""))

    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_a_server_that_fails_over_tcp_means_an_error_and_not_an_absence(world: World, server: ScriptedDns) -> None:
    lines = [f"orders.prod.local 60 A 10.1.0.{i}" for i in range(1, 201)]
    server.on(
        "a://orders.prod.local",
        *lines,
        shape=lambda response: [] if server.seen[-1].tcp else [response.to_wire(max_size=65_535)],
    )

    with pytest.raises(ResolutionError) as caught:
        world.resolve("a://orders.prod.local", server.policy(query_timeout=0.3), timeout=1)

    assert not isinstance(caught.value, NoEndpoints | TargetNotFound)
    assert any(seen.tcp for seen in server.seen)


def test_a_second_server_answers_when_the_first_fails_over_tcp(world: World, server: ScriptedDns) -> None:
    lines = [f"orders.prod.local 60 A 10.1.0.{i}" for i in range(1, 201)]
    server.on("a://orders.prod.local", *lines)
    with ScriptedDns() as failing:
        failing.on(
            "a://orders.prod.local",
            *lines,
            shape=lambda response: [] if failing.seen[-1].tcp else [response.to_wire(max_size=65_535)],
        )

        answer = world.resolve("a://orders.prod.local", failing.policy(server.address, query_timeout=0.5))

    assert len(answer.endpoints) == 200
