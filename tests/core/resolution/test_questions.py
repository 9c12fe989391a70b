"""How a target becomes questions."""

from __future__ import annotations

import pytest

from ecs_discovery.config.targets import parse_target
from ecs_discovery.core.resolution.questions import Group, Ported, plan
from ecs_discovery.errors import ConfigurationError
from ecs_discovery.models import Endpoint

BOTH = ("a", "aaaa")


def asked(*targets: str, default_port: int | None = None, schemes: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    parsed = [parse_target(target) for target in targets]
    groups = plan(parsed, port=parsed[0].port, default_port=default_port, families=BOTH, schemes=schemes)
    return [(*map(str, group.questions), str(group.port)) for group in groups]


@pytest.mark.parametrize(
    ("target", "default_port", "groups"),
    [
        ("orders:8080", 80, [("a://orders", "aaaa://orders", "8080"), ("srv://orders", "None")]),
        ("orders", 80, [("srv://orders", "None"), ("a://orders", "aaaa://orders", "80")]),
        ("orders", None, [("srv://orders", "None")]),
        ("srv://orders", 80, [("srv://orders", "None")]),
        ("dns://orders:9", 80, [("a://orders", "aaaa://orders", "9")]),
        ("dns://orders", 80, [("a://orders", "aaaa://orders", "80")]),
        ("static://127.0.0.1:80", None, [("static://127.0.0.1:80", "None")]),
    ],
)
def test_the_network_mode_table(target: str, default_port: int | None, groups: list[tuple[str, ...]]):
    assert asked(target, default_port=default_port) == groups


def test_a_registered_scheme_is_asked_with_its_query():
    assert asked("file://a/b?x=1&y=2", schemes=("file",)) == [("file://a/b?x=1&y=2", "None")]
    assert asked("file://a/b", schemes=("file",)) == [("file://a/b", "None")]


def test_an_unknown_scheme_names_those_that_are_known():
    with pytest.raises(ConfigurationError, match="dns://, file://, srv://, static://"):
        asked("consul://orders", schemes=("file",))


def test_several_sources_follow_each_other_and_keep_their_number():
    groups = plan(
        [parse_target("srv://orders"), parse_target("dns://orders")], port=80, default_port=None, families=("a",)
    )
    assert [group.source for group in groups] == [0, 1]
    assert groups[1].port == 80


def test_endpoints_without_a_port_get_the_groups_and_duplicates_go():
    found = [Endpoint("10.0.0.1", 0), Endpoint("10.0.0.1", 0), Endpoint("10.0.0.2", 9000)]
    assert Group((), 80, 0).endpoints(found) == (Endpoint("10.0.0.1", 80), Endpoint("10.0.0.2", 9000))
    assert Group((), None, 0).endpoints(found) == (Endpoint("10.0.0.2", 9000),)


def test_what_is_kept_of_answers_that_differ_is_bounded():
    group = Group((), 8080, 0)
    known: Ported = {}
    for number in range(1000):
        group.endpoints([Endpoint(f"10.0.{number // 200}.{number % 200 + last}", 0) for last in range(4)], known)
    assert len(known) <= 16


def test_an_endpoint_that_is_as_it_was_stays_the_same_object():
    group = Group((), 8080, 0)
    known: Ported = {}
    before = group.endpoints([Endpoint("10.0.0.1", 0), Endpoint("10.0.0.2", 0)], known)
    after = group.endpoints([Endpoint("10.0.0.1", 0), Endpoint("10.0.0.2", 0, zone="eu-west-1a")], known)
    assert after[0] is before[0]
    assert after[1] == Endpoint("10.0.0.2", 8080, zone="eu-west-1a")
    same = [Endpoint("10.0.0.1", 0)]
    assert group.endpoints(same, known) == (Endpoint("10.0.0.1", 8080),)
    other = Group((), 9090, 0).endpoints(same, {})
    assert other == (Endpoint("10.0.0.1", 9090),)
