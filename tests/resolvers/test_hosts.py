"""The hosts file: how it is read, and that it comes before DNS."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from ecs_discovery.config.policies import DnsPolicy
from ecs_discovery.errors import NoEndpoints, ResolutionError
from ecs_discovery.models import Question
from ecs_discovery.resolvers import AsyncDnsResolver, DnsResolver, HostsFile
from ecs_discovery.resolvers import hosts as hosts_module
from ecs_discovery.resolvers.dns.search import parse, system_configuration
from ecs_discovery.resolvers.dns.system import configured_servers
from tests.fuzz.bounds import assert_cheap
from tests.resolvers.support import ScriptedDns, World

CONTENT = """
# comment
127.0.0.1\tlocalhost
10.0.0.1  Orders.prod.local orders  # two names
10.0.0.2 orders
fd00::1 orders
not-an-address broken
10.0.0.999 broken
10.0.0.3
0.0.0.0 blocked
10.0.0.1 orders
fe80::1%lo scoped
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "hosts"
    path.write_text(CONTENT)
    return path


def _lookup(path: Path, text: str) -> list[str] | None:
    scheme, _, name = text.partition("://")
    answer = HostsFile(str(path)).lookup(Question(scheme, name))
    return None if answer is None else [endpoint.host for endpoint in answer.endpoints]


@pytest.mark.parametrize(
    ("question", "addresses"),
    [
        ("a://localhost", ["127.0.0.1"]),
        ("a://orders.prod.local", ["10.0.0.1"]),
        ("a://ORDERS.", ["10.0.0.1", "10.0.0.2"]),
        ("aaaa://orders", ["fd00::1"]),
        ("aaaa://scoped", ["fe80::1%lo"]),
        ("a://broken", None),
        ("a://comment", None),
        ("srv://orders", None),
    ],
)
def test_names_are_found_as_glibc_finds_them(path: Path, question: str, addresses: list[str] | None) -> None:
    assert _lookup(path, question) == addresses


@pytest.mark.parametrize("question", ["aaaa://localhost", "a://scoped", "a://blocked"])
def test_a_name_without_a_usable_address_of_the_family_is_no_endpoints(path: Path, question: str) -> None:
    with pytest.raises(NoEndpoints, match="hosts has the name") as caught:
        _lookup(path, question)

    assert caught.value.ttl == 5


def test_the_answer_names_its_source_and_holds_shortly(path: Path) -> None:
    answer = HostsFile(str(path)).lookup(Question("a", "orders"))

    assert answer is not None
    assert (answer.source, answer.ttl, answer.endpoints[0].port) == ("hosts", 5, 0)


def test_a_missing_file_has_no_names(tmp_path: Path) -> None:
    assert _lookup(tmp_path / "none", "a://localhost") is None


def test_a_file_of_other_bytes_does_no_harm(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00\n10.0.0.9 bytes\n" + b"\x80" * 100)

    assert _lookup(path, "a://bytes") == ["10.0.0.9"]


def test_changes_are_seen(path: Path) -> None:
    hosts = HostsFile(str(path))
    assert hosts.lookup(Question("a", "late")) is None

    path.write_text(CONTENT + "10.0.0.7 late\n")
    assert hosts.lookup(Question("a", "late")) is not None

    path.unlink()
    assert hosts.lookup(Question("a", "late")) is None


def test_the_hosts_file_comes_before_dns(world: World, server: ScriptedDns, path: Path) -> None:
    server.on("a://orders.prod.local", "orders.prod.local 60 A 10.9.9.9")
    policy = replace(server.policy(), hosts_file=str(path))

    assert world.resolve("a://orders.prod.local", policy).source == "hosts"
    assert server.seen == []


def test_a_name_in_the_hosts_file_is_not_asked_for_in_the_other_family(
    world: World, server: ScriptedDns, path: Path
) -> None:
    with pytest.raises(NoEndpoints):
        world.resolve("aaaa://orders.prod.local", replace(server.policy(), hosts_file=str(path)))

    assert server.seen == []


def test_what_the_hosts_file_does_not_have_is_asked_for_in_dns(world: World, server: ScriptedDns, path: Path) -> None:
    server.on("a://web.prod.local", "web.prod.local 60 A 10.0.0.1")

    assert world.resolve("a://web.prod.local", replace(server.policy(), hosts_file=str(path))).source == "dns"


@pytest.mark.parametrize(
    ("line", "scheme", "address"),
    [
        ("127.255.0.3 orders.prod.local", "a", "127.255.0.3"),
        ("2600:f0f0:0:0:0:0:0:3 orders.prod.local", "aaaa", "2600:f0f0::3"),
    ],
)
def test_a_service_connect_alias_is_recognised(tmp_path: Path, line: str, scheme: str, address: str) -> None:
    path = tmp_path / "hosts"
    path.write_text(f"{line}\n127.0.0.1 localhost\n")
    hosts = HostsFile(str(path))
    found = hosts.lookup(Question(scheme, "orders.prod.local"))
    assert found is not None
    assert (found.source, [endpoint.host for endpoint in found.endpoints]) == ("service-connect", [address])
    assert found.endpoints[0].proxied
    with pytest.raises(NoEndpoints, match="Service Connect"):
        hosts.lookup(Question("srv", "orders.prod.local"))
    assert hosts.lookup(Question("srv", "localhost")) is None


def test_what_is_no_file_holds_up_nobody(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    os.mkfifo(path)

    assert _lookup(path, "a://orders") is None
    assert not HostsFile(str(path)).has_alias("orders")
    assert _lookup(tmp_path, "a://orders") is None
    assert HostsFile("a\0b").lookup(Question("a", "orders")) is None


@pytest.mark.parametrize("nameservers", [(), ("127.0.0.1",)])
def test_a_pipe_in_place_of_resolv_conf_is_an_error_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nameservers: tuple[str, ...]
) -> None:
    path = tmp_path / "resolv.conf"
    os.mkfifo(path)
    monkeypatch.setattr("ecs_discovery.resolvers.dns.system._RESOLV_CONF", str(path))
    monkeypatch.setattr("ecs_discovery.resolvers.dns.search._RESOLV_CONF", str(path))

    assert system_configuration().domains == parse("", os.environ, socket.gethostname()).domains
    if not nameservers:
        with pytest.raises(ResolutionError, match="no nameserver"):
            configured_servers(Question("a", "orders"), nameservers)


def _block_list(path: Path, line: str) -> None:
    path.write_bytes(b"10.0.0.1 orders\n" + line.encode() * (4_200_000 // len(line)))


@pytest.mark.parametrize(
    "line",
    [
        "0.0.0.0 advertising.example tracker.example\n",
        "10.0.0.9 orders\n",
        "10.0.0.9 ordersorders # orders\n",
        "orders ",
        "o",
        "10.0.0.9" + " orders" * 500 + "\n",
    ],
    ids=["block list", "the name", "nearly", "one line", "one word", "the name over and over"],
)
def test_a_file_of_four_megabytes_is_searched_in_no_time_and_little_memory(tmp_path: Path, line: str) -> None:
    path = tmp_path / "hosts"
    _block_list(path, line)

    assert_cheap(lambda: HostsFile(str(path)).lookup(Question("a", "orders")))
    found = HostsFile(str(path)).lookup(Question("a", "orders"))
    assert found is not None
    assert found.endpoints[0].host == "10.0.0.1"
    assert len(found.endpoints) <= 1000


def test_all_who_ask_share_what_was_found(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[str] = []
    search = hosts_module._search
    monkeypatch.setattr(hosts_module, "_search", lambda file, name: searched.append(name) or search(file, name))
    policy = DnsPolicy(hosts_file=str(path))
    kept = [DnsResolver(policy), AsyncDnsResolver(policy)]
    for resolver in (*kept, DnsResolver(policy)):
        assert resolver._hosts is HostsFile.shared(str(path))
        for family in ("a", "aaaa", "a"):
            resolver._hosts.lookup(Question(family, "orders"))
    assert searched == ["orders"]


def test_names_that_were_looked_for_are_remembered_in_bounded_number(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts_module, "_MAX_NAMES", 5)
    hosts = HostsFile(str(path))
    for number in range(20):
        assert hosts.lookup(Question("a", f"n{number}")) is None
        assert hosts.lookup(Question("a", "orders")) is not None
        assert len(hosts._found[1]) <= 5


def test_a_scope_that_would_steer_a_terminal_is_no_address(path: Path) -> None:
    path.write_text("fe80::1%\x1b[2Jx evil\nfe80::1%Eth0 good\n")

    assert _lookup(path, "aaaa://evil") is None
    assert _lookup(path, "aaaa://good") == ["fe80::1%Eth0"]


def test_a_very_long_line_is_passed_over_and_the_next_counts(path: Path) -> None:
    path.write_text("10.0.0.1 " + "x" * 200_000 + " orders\n10.0.0.2 orders\n10.0.0.3 " + "y " * 3000 + "orders\n")

    assert _lookup(path, "a://orders") == ["10.0.0.2"]


def test_a_name_with_more_addresses_than_are_read_is_partial(path: Path) -> None:
    path.write_text("".join(f"10.0.{n // 250}.{n % 250 + 1} many\n" for n in range(1200)))
    found = HostsFile(str(path)).lookup(Question("a", "many"))
    assert found is not None
    assert (len(found.endpoints), found.partial) == (1000, True)


def test_an_answer_of_an_older_file_is_not_kept_for_a_newer_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = HostsFile(str(path))
    hosts.lookup(Question("a", "orders"))
    search = hosts_module._search

    def meanwhile(file: int, name: str) -> object:
        monkeypatch.setattr(hosts_module, "_search", search)
        path.write_text("10.0.0.8 other\n10.0.0.9 orders\n")
        hosts.lookup(Question("a", "other"))  # another thread meets the newer file first
        return search(file, name)

    monkeypatch.setattr(hosts_module, "_search", meanwhile)
    hosts.lookup(Question("a", "late"))
    found = hosts.lookup(Question("a", "orders"))
    assert found is not None
    assert [endpoint.host for endpoint in found.endpoints] == ["10.0.0.9"]
