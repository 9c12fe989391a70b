"""Search lists: which names are tried, what counts when they fail, and that glibc's `getaddrinfo` agrees."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import pytest

from ecs_discovery.config.policies import DnsPolicy
from ecs_discovery.errors import NoEndpoints, ResolutionError, ResolutionTimeout, TargetNotFound
from ecs_discovery.resolvers.dns import search
from ecs_discovery.resolvers.dns.search import SearchConfiguration, candidates, parse
from tests.resolvers.support import Script, ScriptedDns, World

LONG = ".".join(["x" * 60] * 4)


def in_turn(server: ScriptedDns) -> list[str]:
    """The names asked for, in their order: asyncio has "there is none" confirmed by a second query."""
    return [name for name, _ in groupby(server.asked())]


@pytest.mark.parametrize(
    ("name", "configuration", "expected"),
    [
        ("orders", SearchConfiguration(), ["orders"]),
        ("orders", SearchConfiguration(("a.local", "b.local")), ["orders.a.local", "orders.b.local", "orders"]),
        ("Orders.X", SearchConfiguration(("A.local.",)), ["orders.x", "orders.x.a.local"]),
        ("orders.x", SearchConfiguration(("a.local",), 2), ["orders.x.a.local", "orders.x"]),
        ("orders", SearchConfiguration(("a.local",), 0), ["orders", "orders.a.local"]),
        ("orders.", SearchConfiguration(("a.local",)), ["orders"]),
        ("a.b.c.", SearchConfiguration(("a.local",), 15), ["a.b.c"]),
        ("orders", SearchConfiguration((".", "a.local")), ["orders", "orders.a.local"]),
        ("orders", SearchConfiguration(("",)), ["orders"]),
        ("orders", SearchConfiguration((".a.local", "a.local")), ["orders.a.local", "orders"]),
        ("orders", SearchConfiguration(("a.local",), bare=False), ["orders.a.local"]),
        ("orders.x", SearchConfiguration(("a.local",), 2, bare=False), ["orders.x.a.local", "orders.x"]),
        ("orders", SearchConfiguration((), bare=False), ["orders"]),
        ("orders", SearchConfiguration((LONG + "xxxx", "a..b", "a\\.b", "a.local")), ["orders.a.local", "orders"]),
        (LONG, SearchConfiguration(("example.local",)), [LONG]),
    ],
)
def test_candidates(name: str, configuration: SearchConfiguration, expected: list[str]) -> None:
    assert list(candidates(name, configuration)) == expected


@pytest.mark.parametrize(
    ("text", "environ", "hostname", "expected"),
    [
        ("", {}, "", SearchConfiguration()),
        ("", {}, "task", SearchConfiguration()),
        ("", {}, "task.ec2.internal", SearchConfiguration(("ec2.internal",))),
        ("search a.local  b.local\n", {}, "task.ec2.internal", SearchConfiguration(("a.local", "b.local"))),
        ("search\ta.local\tb.local", {}, "", SearchConfiguration(("a.local", "b.local"))),
        ("search a.local\ndomain b.local c.local\n", {}, "", SearchConfiguration(("b.local",))),
        ("domain a.local\nsearch b.local c.local\n", {}, "", SearchConfiguration(("b.local", "c.local"))),
        ("search a.local\nsearch\nsearch \n", {}, "", SearchConfiguration(("a.local",))),
        (" search a.local\n# search b\n;search c\nsearches d\n", {}, "", SearchConfiguration()),
        (
            "search " + " ".join(f"d{i}" for i in range(9)),
            {},
            "",
            SearchConfiguration(tuple(f"d{i}" for i in range(9))),
        ),
        ("options ndots:2 timeout:1\n", {}, "", SearchConfiguration(ndots=2)),
        ("options ndots:99\n", {}, "", SearchConfiguration(ndots=15)),
        ("options ndots:\n", {}, "", SearchConfiguration(ndots=0)),
        ("options ndots:2\noptions ndots:3x\n", {}, "", SearchConfiguration(ndots=3)),
        ("options ndots:2\n", {"RES_OPTIONS": "rotate ndots:4"}, "", SearchConfiguration(ndots=4)),
        ("options no-tld-query\n", {}, "", SearchConfiguration(bare=False)),
        ("search a.local\n", {"LOCALDOMAIN": "c.local d.local "}, "", SearchConfiguration(("c.local", "d.local"))),
        ("search a.local\n", {"LOCALDOMAIN": ""}, "t.b.local", SearchConfiguration(("",))),
    ],
)
def test_configurations(text: str, environ: dict[str, str], hostname: str, expected: SearchConfiguration) -> None:
    assert parse(text, environ, hostname) == expected


@pytest.fixture
def resolv_conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "resolv.conf"
    path.write_text("search one.local two.local\n")
    monkeypatch.setattr(search, "_RESOLV_CONF", str(path))
    for variable in ("LOCALDOMAIN", "RES_OPTIONS"):
        monkeypatch.delenv(variable, raising=False)
    return path


@pytest.fixture
def policy(server: ScriptedDns, resolv_conf: Path) -> DnsPolicy:
    return replace(server.policy(families=("a",)), search=True)


def _hosts(world: World, text: str, policy: DnsPolicy, timeout: float = 5.0) -> list[str]:
    return [endpoint.host for endpoint in world.resolve(text, policy, timeout).endpoints]


def test_names_are_absolute_unless_asked_otherwise(world: World, server: ScriptedDns, policy: DnsPolicy) -> None:
    server.on("a://orders.one.local", "orders.one.local 60 A 10.0.0.1")

    with pytest.raises(TargetNotFound):
        world.resolve("a://orders", replace(policy, search=False))

    assert in_turn(server) == ["orders"]


def test_a_short_name_is_tried_with_each_domain(world: World, server: ScriptedDns, policy: DnsPolicy) -> None:
    server.on("a://orders.two.local", "orders.two.local 60 A 10.0.0.2")

    assert _hosts(world, "a://orders", policy) == ["10.0.0.2"]
    assert in_turn(server) == ["orders.one.local", "orders.two.local"]


def test_a_dotted_name_is_tried_as_it_is_first(world: World, server: ScriptedDns, policy: DnsPolicy) -> None:
    server.on("a://orders.prod", "orders.prod 60 A 10.0.0.3")

    assert _hosts(world, "a://orders.prod", policy) == ["10.0.0.3"]
    assert in_turn(server) == ["orders.prod"]


def test_a_written_dot_makes_a_question_absolute(world: World, server: ScriptedDns, policy: DnsPolicy) -> None:
    with pytest.raises(TargetNotFound):
        world.resolve("a://orders.", policy)

    assert in_turn(server) == ["orders"]


def test_the_file_is_read_for_each_look_up(
    world: World, server: ScriptedDns, policy: DnsPolicy, resolv_conf: Path
) -> None:
    server.on("a://orders.late.local", "orders.late.local 60 A 10.0.0.4")
    with pytest.raises(TargetNotFound):
        world.resolve("a://orders", policy)

    resolv_conf.write_text("domain late.local\n")
    assert _hosts(world, "a://orders", policy) == ["10.0.0.4"]

    resolv_conf.unlink()
    with pytest.raises(TargetNotFound):
        world.resolve("a://orders", policy)


def test_srv_records_are_searched_for_and_their_targets_are_absolute(
    world: World, server: ScriptedDns, policy: DnsPolicy
) -> None:
    server.on("srv://web.two.local", "web.two.local 60 SRV 1 1 8080 abc.web.two.local.")
    server.on("a://abc.web.two.local", "abc.web.two.local 60 A 10.0.0.5")

    [endpoint] = world.resolve("srv://web", policy).endpoints

    assert (endpoint.host, endpoint.port, endpoint.instance_id) == ("10.0.0.5", 8080, "abc")
    assert in_turn(server) == ["web.one.local", "web.two.local", "abc.web.two.local"]


def test_the_error_names_all_that_was_tried(world: World, policy: DnsPolicy) -> None:
    with pytest.raises(TargetNotFound, match=r"tried orders\.one\.local, orders\.two\.local, orders ") as caught:
        world.resolve("a://orders", policy)

    assert caught.value.target == "a://orders"


def test_a_name_without_records_is_passed_over_and_remembered(
    world: World, server: ScriptedDns, policy: DnsPolicy
) -> None:
    server.on("a://orders.one.local")
    with pytest.raises(NoEndpoints, match=r"no A records.*; tried orders\.one\.local, orders\.two\.local, orders "):
        world.resolve("a://orders", policy)

    server.on("a://orders.two.local", "orders.two.local 60 A 10.0.0.2")
    assert _hosts(world, "a://orders", policy) == ["10.0.0.2"]


def test_servfail_is_passed_over_and_outweighs_every_no(world: World, server: ScriptedDns, policy: DnsPolicy) -> None:
    server.on("a://orders.one.local", rcode="SERVFAIL")
    server.on("a://orders")
    with pytest.raises(ResolutionError, match=r"SERVFAIL.*; tried .*, orders ") as caught:
        world.resolve("a://orders", policy)
    assert type(caught.value) is ResolutionError

    server.on("a://orders.two.local", "orders.two.local 60 A 10.0.0.2")
    assert _hosts(world, "a://orders", policy) == ["10.0.0.2"]


def test_silence_ends_the_search_within_the_time_limit(world: World, server: ScriptedDns, policy: DnsPolicy) -> None:
    server.on("a://orders.one.local", shape=lambda response: [])
    server.on("a://orders.two.local", "orders.two.local 60 A 10.0.0.2")
    began = time.monotonic()

    with pytest.raises(ResolutionTimeout, match=r"tried orders\.one\.local \("):
        world.resolve("a://orders", policy, 0.4)

    assert time.monotonic() - began < 1
    assert set(server.asked()) == {"orders.one.local"}


def test_one_time_limit_holds_for_all_names(
    world: World, server: ScriptedDns, policy: DnsPolicy, resolv_conf: Path
) -> None:
    resolv_conf.write_text("search " + " ".join(f"d{i}.local" for i in range(20)))

    def slowly(response: object) -> list[bytes]:
        time.sleep(0.1)
        return Script().shape(response)  # type: ignore[arg-type]

    for i in range(20):
        server.on(f"a://orders.d{i}.local", rcode="NXDOMAIN", shape=slowly)
    began = time.monotonic()

    with pytest.raises(ResolutionTimeout, match=r"tried orders\.d0\.local, orders\.d1\.local"):
        world.resolve("a://orders", policy, 0.5)

    assert time.monotonic() - began < 1


@pytest.mark.parametrize("rcode", ["NOERROR", "SERVFAIL"])
def test_both_families_come_from_one_name(world: World, server: ScriptedDns, policy: DnsPolicy, rcode: str) -> None:
    both = replace(policy, families=("a", "aaaa"))
    server.on("a://orders.one.local", rcode=rcode)
    server.on("aaaa://orders.one.local", "orders.one.local 60 AAAA fd00::1")
    server.on("a://orders.two.local", "orders.two.local 60 A 10.0.0.2")

    assert _hosts(world, "aaaa://orders", both) == ["fd00::1"]
    with pytest.raises(NoEndpoints if rcode == "NOERROR" else ResolutionError) as caught:
        world.resolve("a://orders", both)

    assert caught.value.target == "a://orders.one.local"
    assert _hosts(world, "a://orders", policy) == ["10.0.0.2"]


def test_the_hosts_file_has_the_name_as_written(
    world: World, server: ScriptedDns, policy: DnsPolicy, tmp_path: Path
) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("10.0.0.8 orders\n10.0.0.9 users.one.local\n")
    server.on("a://users.one.local", "users.one.local 60 A 10.0.0.1")
    server.on("a://orders.one.local", "orders.one.local 60 A 10.0.0.1")
    with_hosts = replace(policy, hosts_file=str(hosts))

    assert _hosts(world, "a://orders", with_hosts) == ["10.0.0.8"]
    assert in_turn(server) == []
    assert _hosts(world, "a://users", with_hosts) == ["10.0.0.1"]


# What follows asks glibc itself, in a child whose /etc is ours.
# Not among the cases: SERVFAIL followed by "no such name", of which glibc believes the latter and we do not.

_CHILD = """
import asyncio, json, socket, sys
from ecs_discovery.errors import NoEndpoints, ResolutionError, TargetNotFound
from ecs_discovery.models import Question
from ecs_discovery.config.policies import DnsPolicy
from ecs_discovery.resolvers import AsyncDnsResolver, DnsResolver

name, family, hostname = sys.argv[1:]
if hostname:
    socket.sethostname(hostname)
families = ("a",) if family == "a" else ("a", "aaaa")
policy = DnsPolicy(search=True, families=families)

def ours(ask):
    found, problems = set(), set()
    for scheme in families:
        try:
            found |= {endpoint.host for endpoint in ask(Question(scheme, name))}
        except (TargetNotFound, NoEndpoints):
            problems.add("none")
        except ResolutionError:
            problems.add("again")
    return sorted(found) or ("again" if "again" in problems else "none")

try:
    asked = socket.AF_INET if family == "a" else socket.AF_UNSPEC
    theirs = sorted({info[4][0] for info in socket.getaddrinfo(name, 80, asked, socket.SOCK_STREAM)})
except socket.gaierror as exc:
    theirs = "again" if exc.errno == socket.EAI_AGAIN else "none"

print(json.dumps([
    theirs,
    ours(lambda question: DnsResolver(policy).resolve(question, 5).endpoints),
    ours(lambda question: asyncio.run(AsyncDnsResolver(policy).resolve(question, 5)).endpoints),
]))
"""
_MOUNT = """
for file in resolv.conf hosts nsswitch.conf; do mount --bind "$0/$file" "/etc/$file" || exit 99; done
exec "$@"
"""
_HOSTS = "127.0.0.1 localhost\n10.7.0.1 fixed.prod.local fixed\n10.7.0.2 FIXED\n10.7.0.3 only.one.local\n"


@pytest.fixture(scope="module")
def port_53() -> Iterator[ScriptedDns]:
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("needs root on Linux, for mounts of its own and port 53")
    try:
        done = subprocess.run(["unshare", "--mount", "--uts", "true"], capture_output=True, text=True)
    except OSError as exc:
        pytest.skip(f"cannot run unshare: {exc}")
    if done.returncode:
        pytest.skip(f"may not have mounts of its own: {done.stderr.strip()}")
    try:
        server = ScriptedDns(f"127.53.{os.getpid() % 251}.{os.getpid() // 251 % 251 + 1}", 53)
    except OSError as exc:
        pytest.skip(f"port 53 is not to be had: {exc}")
    with server:
        server.on("a://orders.one.local", "orders.one.local 60 A 10.0.0.1", "orders.one.local 60 A 10.0.0.11")
        server.on("a://users.two.local", "users.two.local 60 A 10.0.0.2")
        server.on("a://both.one.local", "both.one.local 60 A 10.0.1.1")
        server.on("a://both.two.local", "both.two.local 60 A 10.0.1.2")
        server.on("a://api.v1", "api.v1 60 A 10.0.2.1")
        server.on("a://api.v1.one.local", "api.v1.one.local 60 A 10.0.2.2")
        server.on("a://deep.v1.two.local", "deep.v1.two.local 60 A 10.0.2.3")
        server.on("a://bare", "bare 60 A 10.0.3.1")
        server.on("a://empty.one.local")
        server.on("aaaa://empty.one.local")
        server.on("a://empty.two.local", "empty.two.local 60 A 10.0.4.1")
        server.on("a://void.one.local")
        server.on("aaaa://void.one.local")
        server.on("a://broken.one.local", rcode="SERVFAIL")
        server.on("aaaa://broken.one.local", rcode="SERVFAIL")
        server.on("a://broken.two.local", "broken.two.local 60 A 10.0.5.1")
        server.on("aaaa://broken.two.local")
        server.on("a://dangling.one.local", "dangling.one.local 60 CNAME nowhere.one.local.")
        server.on("a://dangling.two.local", "dangling.two.local 60 A 10.0.6.1")
        server.on("a://mixed.one.local")
        server.on("aaaa://mixed.one.local", "mixed.one.local 60 AAAA fd00::7")
        server.on("a://mixed.two.local", "mixed.two.local 60 A 10.0.7.1")
        server.on("aaaa://mixed.two.local")
        server.on("a://only.one.local", "only.one.local 60 A 10.0.8.1")
        yield server


ONE, TWO = "search one.local", "search one.local two.local"


@pytest.mark.parametrize(
    ("resolv_conf_text", "name", "expected", "environ", "hostname", "family"),
    [
        pytest.param(*case, *({}, "", "a")[len(case) - 3 :], id=f"{i}-{case[1]}")
        for i, case in enumerate(
            [
                (ONE, "orders", ["10.0.0.1", "10.0.0.11"]),
                (ONE, "ORDERS", ["10.0.0.1", "10.0.0.11"]),
                (ONE, "users", "none"),
                (TWO, "users", ["10.0.0.2"]),
                (TWO, "both", ["10.0.1.1"]),
                ("search two.local one.local", "both", ["10.0.1.2"]),
                (TWO, "api.v1", ["10.0.2.1"]),
                (TWO + "\noptions ndots:2", "api.v1", ["10.0.2.2"]),
                (TWO, "deep.v1", ["10.0.2.3"]),
                (TWO, "bare", ["10.0.3.1"]),
                (TWO + "\noptions no-tld-query", "bare", "none"),
                (TWO + "\noptions ndots:0", "bare", ["10.0.3.1"]),
                (TWO, "orders.", "none"),
                (TWO, "orders.one.local.", ["10.0.0.1", "10.0.0.11"]),
                (TWO, "fixed", ["10.7.0.1", "10.7.0.2"]),
                (TWO, "fixed.prod.local", ["10.7.0.1"]),
                (TWO, "only", ["10.0.8.1"]),
                (TWO, "nothing", "none"),
                (TWO, "nothing.at.all", "none"),
                (TWO, "empty", ["10.0.4.1"]),
                (TWO, "void", "none"),
                (TWO, "broken", ["10.0.5.1"]),
                (TWO, "dangling", "none"),
                ("domain one.local\ndomain two.local", "both", ["10.0.1.2"]),
                ("search one.local\ndomain two.local one.local", "orders", "none"),
                (" search one.local\n;search one.local", "orders", "none"),
                ("search . one.local", "bare", ["10.0.3.1"]),
                ("search a b c d e f g one.local", "orders", ["10.0.0.1", "10.0.0.11"]),
                (ONE, "both", ["10.0.1.2"], {"LOCALDOMAIN": "two.local"}),
                (ONE, "both", "none", {"LOCALDOMAIN": ""}),
                (ONE, "api.v1", ["10.0.2.2"], {"RES_OPTIONS": "ndots:3"}),
                ("", "both", ["10.0.1.2"], {}, "task.two.local"),
                (TWO, "both", ["10.0.1.1"], {}, "task.two.local"),
                (TWO, "mixed", ["10.0.7.1"]),
                (TWO, "mixed", ["fd00::7"], {}, "", "both"),
                (TWO, "broken", ["10.0.5.1"], {}, "", "both"),
                (TWO, "void", "none", {}, "", "both"),
            ]
        )
    ],
)
def test_glibc_agrees(
    port_53: ScriptedDns,
    tmp_path: Path,
    resolv_conf_text: str,
    name: str,
    expected: object,
    environ: dict[str, str],
    hostname: str,
    family: str,
) -> None:
    (tmp_path / "resolv.conf").write_text(f"nameserver {port_53.host}\n{resolv_conf_text}\n")
    (tmp_path / "hosts").write_text(_HOSTS)
    (tmp_path / "nsswitch.conf").write_text("hosts: files dns\n")
    child = [sys.executable, "-c", _CHILD, name, family, hostname or "task"]
    inherited = {key: value for key, value in os.environ.items() if key not in ("LOCALDOMAIN", "RES_OPTIONS")}
    root = str(Path(__file__).parents[2])

    done = subprocess.run(
        ["unshare", "--mount", "--uts", "sh", "-c", _MOUNT, str(tmp_path), *child],
        capture_output=True,
        text=True,
        timeout=50,
        env={**inherited, "PYTHONPATH": root, **environ},
    )

    if done.returncode == 99:
        pytest.skip(f"may not mount: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    glibc, threads, tasks = json.loads(done.stdout)
    assert glibc == expected
    assert (threads, tasks) == (glibc, glibc)
