"""Which servers are asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecs_discovery.errors import ResolutionError, ResolutionTimeout
from ecs_discovery.models import Question
from ecs_discovery.resolvers.dns.servers import BadAnswer, Server, Tries
from ecs_discovery.resolvers.dns.system import configured_servers, system_servers

ORDERS = Question("a", "orders")
FIRST, SECOND = Server("10.0.0.1"), Server("10.0.0.2")


def test_the_systems_servers_are_the_first_three_of_resolv_conf(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text(
        "# nameserver 1.1.1.1\nsearch prod.local\nnameserver 10.0.0.2 # VPC\nnameserver\nnameserver nonsense\n"
        "nameserver fd00::2\noptions ndots:5\nnameserver 10.0.0.4\nnameserver 10.0.0.5\n"
    )

    assert system_servers(str(path)) == (Server("10.0.0.2"), Server("fd00::2"), Server("10.0.0.4"))


def test_given_servers_may_name_a_port() -> None:
    servers = configured_servers(ORDERS, ("10.0.0.2", "127.0.0.1:5353", "[::1]:54", "fd00::2"))

    assert list(map(str, servers)) == ["10.0.0.2:53", "127.0.0.1:5353", "[::1]:54", "[fd00::2]:53"]


def test_an_empty_resolv_conf_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("")
    monkeypatch.setattr("ecs_discovery.resolvers.dns.system._RESOLV_CONF", str(path))

    with pytest.raises(ResolutionError, match="no nameserver"):
        configured_servers(ORDERS, ())


def test_servers_take_turns() -> None:
    tries = Tries(ORDERS, [FIRST, SECOND])

    assert [tries.next_server() for _ in range(4)] == [FIRST, SECOND, FIRST, SECOND]


def test_a_server_that_answered_badly_has_no_more_turns() -> None:
    tries = Tries(ORDERS, [FIRST, SECOND])
    tries.next_server()
    tries.drop(FIRST, BadAnswer("answered SERVFAIL"))

    assert [tries.next_server(), tries.next_server()] == [SECOND, SECOND]
    tries.drop(SECOND, BadAnswer("answered REFUSED"))
    assert tries.next_server() is None


def test_silence_and_bad_answers_are_told_apart() -> None:
    tries = Tries(ORDERS, [FIRST, SECOND])
    tries.next_server()
    assert type(tries.error(3.0)) is ResolutionTimeout

    tries.next_server()
    tries.drop(FIRST, BadAnswer("answered SERVFAIL"))
    error = tries.error(3.0)

    assert type(error) is ResolutionError
    assert "10.0.0.1:53 answered SERVFAIL; 10.0.0.2:53 did not answer" in str(error)
    assert isinstance(error.__cause__, BadAnswer)
