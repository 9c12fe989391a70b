"""What the resolvers make of SRV answers, in every world alike (RFC 2782)."""

from __future__ import annotations

import pytest

from ecs_discovery.errors import NoEndpoints, ResolutionError, ResolutionTimeout
from ecs_discovery.models import Endpoint
from tests.resolvers.support import ScriptedDns, World

WEB = "srv://web.prod.local"


def _srv(target: str, port: int = 8080, priority: int = 1, weight: int = 1, ttl: int = 60) -> str:
    return f"web.prod.local {ttl} SRV {priority} {weight} {port} {target}"


def test_addresses_that_came_along_are_used(world: World, server: ScriptedDns) -> None:
    server.on(
        WEB,
        _srv("t1.web.prod.local.", 8080),
        _srv("t2.web.prod.local.", 8081, priority=2, weight=5),
        additional=["t2.web.prod.local 60 A 10.0.0.2", "t1.web.prod.local 30 A 10.0.0.1"],
    )

    answer = world.resolve(WEB, server.policy())

    assert answer.endpoints == (
        Endpoint("10.0.0.1", 8080, 1, 1, instance_id="t1"),
        Endpoint("10.0.0.2", 8081, 2, 5, instance_id="t2"),
    )
    assert answer.ttl == 30
    assert server.asked() == ["web.prod.local"]


def test_targets_without_addresses_are_looked_up(world: World, server: ScriptedDns) -> None:
    server.on(WEB, _srv("t1.web.prod.local."), _srv("host.example.", 9090))
    server.on("a://t1.web.prod.local", "t1.web.prod.local 10 A 10.0.0.1")
    server.on("a://host.example", "host.example 25 A 10.0.0.2")
    server.on("aaaa://host.example", "host.example 5 AAAA fd00::2")

    answer = world.resolve(WEB, server.policy())

    assert answer.endpoints == (
        Endpoint("10.0.0.1", 8080, 1, 1, instance_id="t1"),
        Endpoint("10.0.0.2", 9090, 1, 1),
        Endpoint("fd00::2", 9090, 1, 1),
    )
    assert answer.ttl == 5
    assert not answer.partial


def test_only_the_missing_targets_are_looked_up(world: World, server: ScriptedDns) -> None:
    along = ["T1.web.PROD.local 60 A 10.0.0.1"]
    server.on(WEB, _srv("t1.web.prod.local."), _srv("t2.web.prod.local."), additional=along)
    server.on("a://t2.web.prod.local", "t2.web.prod.local 60 A 10.0.0.2")

    assert len(world.resolve(WEB, server.policy(families=("a",))).endpoints) == 2
    assert server.asked() == ["web.prod.local", "t2.web.prod.local"]


def test_addresses_of_other_names_that_came_along_are_not_accepted(world: World, server: ScriptedDns) -> None:
    server.on(WEB, _srv("t1.web.prod.local."), additional=["evil.web.prod.local 1 A 6.6.6.6"])
    server.on("a://t1.web.prod.local", "t1.web.prod.local 60 A 10.0.0.1")

    answer = world.resolve(WEB, server.policy())

    assert [endpoint.host for endpoint in answer.endpoints] == ["10.0.0.1"]
    assert answer.ttl == 60


def test_families_that_are_not_wanted_are_neither_taken_nor_asked(world: World, server: ScriptedDns) -> None:
    server.on(WEB, _srv("t1.web.prod.local."), additional=["t1.web.prod.local 60 AAAA fd00::1"])
    server.on("a://t1.web.prod.local", "t1.web.prod.local 60 A 10.0.0.1")

    answer = world.resolve(WEB, server.policy(families=("a",)))

    assert [endpoint.host for endpoint in answer.endpoints] == ["10.0.0.1"]
    assert server.asked("AAAA") == []


def test_thirty_records_are_all_found_over_tcp(world: World, server: ScriptedDns) -> None:
    names = [f"task{i:032d}.web.prod.local" for i in range(30)]
    server.on(
        WEB,
        *(_srv(f"{name}.", 8000 + i) for i, name in enumerate(names)),
        additional=[f"{name} 60 A 10.0.0.{i + 1}" for i, name in enumerate(names)],
    )

    answer = world.resolve(WEB, server.policy())

    assert answer.endpoints == tuple(
        Endpoint(f"10.0.0.{i + 1}", 8000 + i, 1, 1, instance_id=f"task{i:032d}") for i in range(30)
    )
    assert [seen.tcp for seen in server.seen] == [False, True]


def test_many_targets_are_looked_up_in_one_go(world: World, server: ScriptedDns) -> None:
    names = [f"t{i}.web.prod.local" for i in range(40)]
    server.on(WEB, *(_srv(f"{name}.") for name in names))
    for i, name in enumerate(names):
        server.on(f"a://{name}", f"{name} 60 A 10.0.0.{i + 1}")

    answer = world.resolve(WEB, server.policy(families=("a",)))

    assert [endpoint.host for endpoint in answer.endpoints] == [f"10.0.0.{i + 1}" for i in range(40)]


def test_a_dot_for_a_target_says_the_service_is_not_there(world: World, server: ScriptedDns) -> None:
    server.on(WEB, _srv(".", 0, ttl=42))

    with pytest.raises(NoEndpoints, match="declared absent") as caught:
        world.resolve(WEB, server.policy())

    assert caught.value.ttl == 42


def test_weight_zero_is_kept_and_port_zero_dropped(world: World, server: ScriptedDns) -> None:
    server.on(
        WEB,
        _srv("t1.web.prod.local.", 8080, weight=0),
        _srv("t2.web.prod.local.", 0),
        additional=["t1.web.prod.local 60 A 10.0.0.1", "t2.web.prod.local 60 A 10.0.0.2"],
    )

    answer = world.resolve(WEB, server.policy())

    assert answer.endpoints == (Endpoint("10.0.0.1", 8080, 1, 0, instance_id="t1"),)


def test_only_port_zero_is_no_endpoints(world: World, server: ScriptedDns) -> None:
    server.on(WEB, _srv("t1.web.prod.local.", 0), additional=["t1.web.prod.local 60 A 10.0.0.1"])

    with pytest.raises(NoEndpoints, match="can be connected to"):
        world.resolve(WEB, server.policy())


def test_instance_ids_are_read_through_an_alias_and_in_any_case(world: World, server: ScriptedDns) -> None:
    server.on(
        "srv://www.prod.local",
        "www.prod.local 5 CNAME web.prod.local.",
        _srv("T1.Web.prod.local."),
        _srv("a.b.web.prod.local."),
        additional=["t1.web.prod.local 60 A 10.0.0.1", "a.b.web.prod.local 60 A 10.0.0.2"],
    )

    answer = world.resolve("srv://www.prod.local", server.policy())

    assert [endpoint.instance_id for endpoint in answer.endpoints] == ["t1", None]
    assert answer.ttl == 5


def test_the_same_endpoint_is_named_once(world: World, server: ScriptedDns) -> None:
    server.on(
        WEB,
        _srv("t1.web.prod.local."),
        _srv("t1.web.prod.local.", weight=9),
        additional=["t1.web.prod.local 60 A 10.0.0.1"],
    )

    assert len(world.resolve(WEB, server.policy()).endpoints) == 1


def test_a_target_that_is_gone_does_not_lose_the_others(world: World, server: ScriptedDns) -> None:
    server.on(WEB, _srv("gone.web.prod.local."), _srv("t1.web.prod.local."))
    server.on("a://t1.web.prod.local", "t1.web.prod.local 60 A 10.0.0.1")

    answer = world.resolve(WEB, server.policy())

    assert [endpoint.host for endpoint in answer.endpoints] == ["10.0.0.1"]
    assert not answer.partial


def test_a_target_that_could_not_be_found_out_makes_the_answer_partial(world: World, server: ScriptedDns) -> None:
    server.on(WEB, _srv("broken.web.prod.local."), _srv("t1.web.prod.local."))
    server.on("a://broken.web.prod.local", rcode="SERVFAIL")
    server.on("a://t1.web.prod.local", "t1.web.prod.local 60 A 10.0.0.1")

    answer = world.resolve(WEB, server.policy())

    assert [endpoint.host for endpoint in answer.endpoints] == ["10.0.0.1"]
    assert answer.partial


def test_a_target_about_which_the_server_is_silent_makes_the_answer_partial(world: World, server: ScriptedDns) -> None:
    server.on(WEB, _srv("silent.web.prod.local."), _srv("t1.web.prod.local."))
    server.on("a://silent.web.prod.local", shape=lambda response: [])
    server.on("a://t1.web.prod.local", "t1.web.prod.local 60 A 10.0.0.1")

    answer = world.resolve(WEB, server.policy(families=("a",)), timeout=0.6)

    assert [endpoint.host for endpoint in answer.endpoints] == ["10.0.0.1"]
    assert answer.partial


def test_silence_about_the_second_family_costs_only_one_wait(world: World, server: ScriptedDns) -> None:
    server.on(WEB, _srv("t1.web.prod.local."))
    server.on("a://t1.web.prod.local", "t1.web.prod.local 60 A 10.0.0.1")
    server.on("aaaa://t1.web.prod.local", shape=lambda response: [])

    answer = world.resolve(WEB, server.policy(query_timeout=0.1), timeout=60)

    assert [endpoint.host for endpoint in answer.endpoints] == ["10.0.0.1"]


def test_a_lost_packet_about_a_target_does_not_lose_it(world: World, server: ScriptedDns) -> None:
    lost = iter([True, False])
    server.on(WEB, _srv("t1.web.prod.local."))
    server.on(
        "a://t1.web.prod.local",
        "t1.web.prod.local 60 A 10.0.0.1",
        shape=lambda response: [] if next(lost) else [response.to_wire()],
    )

    answer = world.resolve(WEB, server.policy(families=("a",), query_timeout=0.4))

    assert [endpoint.host for endpoint in answer.endpoints] == ["10.0.0.1"]
    assert not answer.partial


def test_no_target_with_an_address_is_no_endpoints(world: World, server: ScriptedDns) -> None:
    server.on(WEB, _srv("gone.web.prod.local.", ttl=33))

    with pytest.raises(NoEndpoints, match="no target") as caught:
        world.resolve(WEB, server.policy())

    assert caught.value.ttl == 33


def test_targets_that_all_fail_are_an_error_and_not_an_absence(world: World, server: ScriptedDns) -> None:
    server.on(WEB, _srv("broken.web.prod.local."))
    server.on("a://broken.web.prod.local", rcode="SERVFAIL")

    with pytest.raises(ResolutionError, match="SERVFAIL") as caught:
        world.resolve(WEB, server.policy())

    assert not isinstance(caught.value, NoEndpoints)


def test_silence_about_every_target_is_a_timeout(world: World, server: ScriptedDns) -> None:
    server.on(WEB, _srv("t1.web.prod.local."))
    server.on("a://t1.web.prod.local", shape=lambda response: [])
    server.on("aaaa://t1.web.prod.local", shape=lambda response: [])

    with pytest.raises(ResolutionTimeout):
        world.resolve(WEB, server.policy(), timeout=0.5)


def test_every_look_up_of_a_service_really_asks(world: World, server: ScriptedDns) -> None:
    server.on(WEB, _srv("t1.web.prod.local."))
    server.on("a://t1.web.prod.local", "t1.web.prod.local 60 A 10.0.0.1")
    policy = server.policy(families=("a",))

    world.resolve(WEB, policy)
    world.resolve(WEB, policy)

    assert server.asked() == ["web.prod.local", "t1.web.prod.local"] * 2
