"""The parsers of foreign input, each with the judgement on what it makes of any bytes.

A `play` returns if all is well, with an answer or without. It fails with an `AssertionError` for an answer that the
input does not support, and with the parser's exception if that is no error of ours.
"""

from __future__ import annotations

import json
import math
import re
import socket
import tempfile
import threading
from collections.abc import Callable
from functools import cache
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, NamedTuple

from ecs_discovery import CloudMapPolicy, DnsPolicy
from ecs_discovery.config.policies import BalancingPolicy
from ecs_discovery.core.calls.http import asked_wait, keep_alive_timeout, pushback
from ecs_discovery.errors import NoEndpoints, ResolutionError
from ecs_discovery.models import MAX_ENDPOINTS, Endpoint, Question
from ecs_discovery.resolvers import HostsFile
from ecs_discovery.resolvers.cloud_map.instances import read
from ecs_discovery.resolvers.dns.records import AddressRecord, AliasRecord, Reply, SrvRecord
from ecs_discovery.resolvers.dns.replies import _Query
from ecs_discovery.resolvers.dns.search import candidates
from ecs_discovery.resolvers.dns.search import parse as parse_search
from ecs_discovery.resolvers.dns.servers import BadAnswer, Server
from ecs_discovery.resolvers.dns.steps import lookup_steps
from ecs_discovery.resolvers.dns.system import system_servers
from ecs_discovery.resolvers.dns.udp_client import NoEdns, Truncated
from ecs_discovery.runtime.task_metadata import _ask
from tests.fuzz import messages

__all__ = ["PARSERS", "Parser"]

_NAME = "orders.prod.local"
_REFUSED = [ip_network(each) for each in ("169.254.0.0/16", "fe80::/10", "fd00:ec2::/32", "224.0.0.0/4", "ff00::/8")]
_NUMBERS = (b"0", b"1", b"-1", b"65535", b"65536", b"9" * 40, b"1e400", b"\xd9\xa3", b"007")


class Parser(NamedTuple):
    """A parser, what is known to be of interest to it, and its judgement."""

    play: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    """What a corpus begins with."""
    words: tuple[bytes, ...]
    """Pieces that a mutation puts in."""


def _check_hosts(endpoints: tuple[Endpoint, ...]) -> None:
    """A task can have these addresses."""
    assert 0 < len(endpoints) <= MAX_ENDPOINTS
    for endpoint in endpoints:
        address = ip_address(endpoint.host)
        mapped = getattr(address, "ipv4_mapped", None) or address
        assert not any(mapped in network for network in _REFUSED), endpoint
        assert not mapped.is_unspecified, endpoint
        assert 0 <= endpoint.port <= 65_535


def _check_message(error: ResolutionError) -> None:
    """It is one short line."""
    assert str(error).isprintable()
    assert len(str(error)) < 1500


# DNS


def _play_dns(data: bytes) -> None:
    for kind in ("a", "aaaa", "srv"):
        question = Question(kind, _NAME)
        try:
            reply = _Query(question, 1).read(data, Server("127.0.0.1"))
        except (BadAnswer, NoEdns, Truncated):
            continue
        if reply is None:
            continue
        number, flags = data[:2], data[2]
        assert number == b"\0\1", "an answer to another query"
        assert flags & 0x80, "a query was taken for an answer"
        assert data[12 : 12 + len(messages.NAME)].lower() == messages.NAME, "an answer to another question"
        assert len(reply.answers) + len(reply.additional) <= len(data) / 11
        _look_up(question, reply)


def _look_up(question: Question, reply: Reply) -> None:
    """The whole lookup with this reply; what it asks besides does not exist."""
    steps = lookup_steps(question, DnsPolicy(families=("a", "aaaa")))
    asked = 0
    try:
        asking = next(steps)
        while True:
            asked += len(asking.questions)
            assert asked <= 241
            outcomes = {each: reply if each == question else Reply("?", exists=False) for each in asking.questions}
            asking = steps.send(outcomes)
    except StopIteration as end:
        found = end.value
    except ResolutionError as error:
        _check_message(error)
        return
    _check_hosts(found.endpoints)
    assert found.ttl >= 0
    owners = _led_to(reply, {question.name})
    if question.scheme == "srv":
        offers = [each for each in reply.answers if isinstance(each, SrvRecord) and each.name in owners]
        owners = {each.target for each in offers}
        assert {each.port for each in found.endpoints} <= {each.port for each in offers}
    records = (*reply.answers, *reply.additional)
    supported = {each.address for each in records if isinstance(each, AddressRecord) and each.name in owners}
    assert {each.host for each in found.endpoints} <= supported, "an address of a name that was not asked for"


def _led_to(reply: Reply, names: set[str]) -> set[str]:
    """The names and all that their CNAME records lead to."""
    aliases = [each for each in reply.answers if isinstance(each, AliasRecord)]
    while more := {each.target for each in aliases if each.name in names} - names:
        names = names | more
    return names


_DNS_SEEDS = (
    *(make()[:600] for make in messages.KINDS.values()),
    messages.message(messages.record(1, b"\x0a\0\0\1") + messages.record(1, b"\xa9\xfe\xa9\xfe"), 2),
    messages.message(messages.record(28, b"\xfd" + b"\0" * 14 + b"\1"), 1, kind=28),
    messages.message(messages.record(33, b"\0\1\0\1\x1f\x90\1a\xc0\x0c"), 1, kind=33),
    messages.message(messages.record(6, b"\2ns\xc0\x0c\4root\xc0\x0c" + b"\0\0\0\1" * 5), 1),
    messages.message(messages.record(5, b"\1a\xc0\x0c") + messages.record(1, b"\x0a\0\0\1", name=b"\1a\xc0\x0c"), 2),
    messages.message(b"\0\0\x29\4\xd0\1\0\0\0\0\0", 1),
    # The answer has the address of the name asked for, and beside it the address of another name.
    messages.message(messages.record(1, b"\x0a\0\0\2", name=b"\1b\xc0\x0c") + messages.record(1, b"\x0a\0\0\1"), 2),
    # An SRV record with the address of its target in the additional section.
    b"\0\1\x81\x80\0\1\0\1\0\0\0\1" + messages.NAME + b"\0\x21\0\1"
    + messages.record(33, b"\0\1\0\1\x1f\x90\1a\xc0\x0c") + messages.record(1, b"\x0a\0\0\1", name=b"\1a\xc0\x0c"),
)  # fmt: skip
_DNS_WORDS = (
    *(messages.record(kind, b"\x0a\0\0\1") for kind in (1, 5, 28, 33)),
    *(
        b"\xc0\x0c",
        b"\xc0\xff",
        b"\0\1\0\1",
        b"\0\x1c\0\1",
        b"\0\x21\0\1",
        b"\0\x29",
        b"\x3f",
        b"\0\0\0\0",
        b"\xff\xff",
    ),
    *(b"\x0a\0\0\1", b"\xa9\xfe\xa9\xfe", b"\x81\x80", b"\x83\x80", b"\x81\x83", messages.NAME),
)


# Cloud Map

_ORDERS = Question("cloudmap", "prod/orders")


def _play_cloud_map(data: bytes) -> None:
    answer = _json(data)
    if not isinstance(answer, dict):
        return  # boto3 lets nothing else through
    try:
        found = read(_ORDERS, answer, CloudMapPolicy())
    except ResolutionError as error:
        _check_message(error)
        return
    _check_hosts(found.endpoints)
    assert len(found.endpoints) <= len(answer["Instances"])
    given: dict[str, list[Any]] = {}
    for each in answer["Instances"]:
        if isinstance(each, dict) and isinstance(each.get("InstanceId"), str):
            given.setdefault(each["InstanceId"], []).append(each.get("Attributes"))
    for endpoint in found.endpoints:
        assert any(_says(attributes, endpoint) for attributes in given[endpoint.instance_id or ""]), endpoint
        assert len(endpoint.instance_id or "") <= 64
        assert all(len(value) <= 255 for _, value in endpoint.attributes)


def _says(attributes: Any, endpoint: Endpoint) -> bool:
    """The instance has this address and this port."""
    if not isinstance(attributes, dict):
        return False
    port = attributes.get("AWS_INSTANCE_PORT", "")
    if isinstance(port, str) and port and not (re.fullmatch(r"\d{1,5}", port, re.ASCII) and int(port) == endpoint.port):
        return False
    texts = [attributes.get(name) for name in ("AWS_INSTANCE_IPV4", "AWS_INSTANCE_IPV6")]
    return any(isinstance(text, str) and _address(text) == ip_address(endpoint.host) for text in texts)


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _page(*instances: Any) -> bytes:
    return json.dumps({"Instances": instances, "InstancesRevision": 1}).encode()


_INSTANCE = {
    "InstanceId": "t1",
    "HealthStatus": "HEALTHY",
    "Attributes": {"AWS_INSTANCE_IPV4": "10.0.0.1", "AWS_INSTANCE_PORT": "80", "AVAILABILITY_ZONE": "eu-west-1a"},
}
_CLOUD_MAP_WORDS = (
    *(b"null", b"true", b"{}", b"[]", b'""', b'"\\ud800"', b'"10.0.0.1"', b'"169.254.169.254"', b'"::ffff:a9fe:a9fe"'),
    *(b'"fe80::1%x"', b'"AWS_INSTANCE_IPV6"', b'"AWS_INSTANCE_PORT"', b'"InstanceId"', b"NaN", b",", b":", *_NUMBERS),
)


# Files of the system


@cache
def _scratch() -> Path:
    kept = tempfile.TemporaryDirectory(prefix="ecs-discovery-fuzz-")
    _KEPT.append(kept)  # until the interpreter ends
    return Path(kept.name)


_KEPT: list[Any] = []


def _play_hosts(data: bytes) -> None:
    path = _scratch() / "hosts"
    path.write_bytes(data)
    hosts = HostsFile(str(path))
    lines = [line.partition(b"#")[0].decode("utf-8", "replace").split() for line in data.split(b"\n")]
    named = {words[0] for words in lines if "orders" in [word.removesuffix(".").lower() for word in words[1:]]}
    for family in ("a", "aaaa", "srv"):
        try:
            found = hosts.lookup(Question(family, "orders"))
        except NoEndpoints as error:
            _check_message(error)
            continue
        if found is None:
            continue
        assert family != "srv"
        supported = {str(address) for text in named if (address := _address(text)) is not None}
        assert {each.host for each in found.endpoints} <= supported
        assert all(each.host.isprintable() for each in found.endpoints)


def _address(text: str) -> Any:
    try:
        return ip_address(text)
    except ValueError:
        return None


_HOSTS_WORDS = (
    *(b"orders", b"ORDERS.", b" ", b"\t", b"\n", b"\r", b"#", b"\0", b"\x0b", b"\xe2\x80\xa8", b"\xff", b"::1"),
    *(b"10.0.0.1", b"127.255.0.1", b"2600:f0f0::1", b"fe80::1%eth0", b"0.0.0.0", b"224.0.0.1", b"010.0.0.1"),
)


def _play_resolv_conf(data: bytes) -> None:
    """The file, and after a NUL each LOCALDOMAIN, RES_OPTIONS and the name of the host."""
    path = _scratch() / "resolv.conf"
    path.write_bytes(data)
    servers = system_servers(str(path))
    assert len(servers) <= 3
    words = data.decode("utf-8", "replace").split()
    for server in servers:
        assert server.host in words
        assert _address(server.host.partition("%")[0]) is not None
        assert server.host.isprintable()
    text, *rest = data.decode("utf-8", "replace").split("\0")
    environ = dict(zip(("LOCALDOMAIN", "RES_OPTIONS"), rest, strict=False))
    configuration = parse_search(text, environ, rest[2] if len(rest) > 2 else "")
    assert 0 <= configuration.ndots <= 15
    names = candidates("orders", configuration)
    assert 0 < len(names) <= 34
    for name in names:
        assert re.fullmatch(r"orders(\.[!-~]+)?", name)
        assert len(name) <= 253


_RESOLV_CONF_WORDS = (
    *(b"nameserver ", b"search ", b"domain ", b"options ", b"ndots:", b"no-tld-query", b"\n", b"\t", b"\0", b"#", b";"),
    *(b"10.0.0.2", b"fe80::1%eth0", b"::ffff:10.0.0.1", b"prod.local", b".", b"..", b"\\", b"\xff", *_NUMBERS),
)


# ECS task metadata


class _Endpoint:
    """A metadata endpoint on loopback that says what it is told to, one connection after the other."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.uri = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v4"
        self.says = b""
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection:
                try:
                    connection.recv(4096)
                    connection.sendall(self.says)
                except OSError:
                    pass  # the client had enough


@cache
def _endpoint() -> _Endpoint:
    return _Endpoint()


def _play_task_metadata(data: bytes) -> None:
    endpoint = _endpoint()
    endpoint.says = data
    found = _ask(endpoint.uri, 5.0)
    if found is None:
        return
    assert re.match(rb"HTTP/\S+ +200\b", data[data.rfind(b"HTTP/") :]) or b" 200" in data, "no answer of success"
    for fact in found:
        assert fact is None or (0 < len(fact) <= 255 and fact.isprintable())


def _described(**changes: Any) -> bytes:
    task = {
        "Cluster": "arn:aws:ecs:eu-west-1:111122223333:cluster/default",
        "TaskARN": "arn:aws:ecs:eu-west-1:111122223333:task/default/158d1c8083dd49d6b527399fd6414f5c",
        "Family": "orders",
        "ServiceName": "orders",
        "AvailabilityZone": "eu-west-1a",
        "Containers": [
            {"Type": "CNI_PAUSE"},
            {"Type": "NORMAL", "Networks": [{"NetworkMode": "awsvpc", "IPv4Addresses": ["10.0.0.1"]}]},
        ],
    }
    return b"HTTP/1.1 200 OK\r\n\r\n" + json.dumps({**task, **changes}).encode()


_METADATA_WORDS = (
    *(b"HTTP/1.1 100 x\r\n\r\n", b"HTTP/1.1 302 x\r\n", b"HTTP/0.9", b"Content-Length: ", b"\r\n", b"\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"ffffffff\r\n", b"0\r\n\r\n", b"null", b"{}", b"[]", b"/", b'"\\ud800"'),
    *(b'"Containers"', b'"Networks"', b'"IPv4Addresses"', b'"\\u0000"', b'"x"', *_NUMBERS),
)


# Fields of HTTP


def _play_retry_after(data: bytes) -> None:
    text = data.decode("latin-1")
    found = asked_wait(text, 1.7e9)
    if found is None:
        return
    assert 0 <= found < math.inf
    assert re.search(r"\d", text), "seconds out of no number"
    told = pushback(503, found, BalancingPolicy())
    assert told is not None
    assert 0 <= told <= 300


def _play_keep_alive(data: bytes) -> None:
    text = data.decode("latin-1")
    found = keep_alive_timeout(text)
    assert found >= 0
    if found < math.inf:
        said = [float(each) for each in re.findall(r"timeout\s*=\s*\"*(\d+)", text, re.IGNORECASE)]
        assert any(found <= seconds for seconds in said), "a time that the field does not name"


_DATES = (b"Mon, 01 Jan 2024 00:00:00 GMT", b"Fri, 31 Dec 9999 23:59:59 -9999", b"Sunday, 06-Nov-94 08:49:37 GMT")

PARSERS: dict[str, Parser] = {
    "dns": Parser(_play_dns, _DNS_SEEDS, _DNS_WORDS),
    "cloud-map": Parser(_play_cloud_map, (_page(), _page(_INSTANCE), _page(_INSTANCE, _INSTANCE)), _CLOUD_MAP_WORDS),
    "hosts": Parser(_play_hosts, (b"10.0.0.1 orders # a\n::1 orders\n", b"127.255.0.1 orders\n"), _HOSTS_WORDS),
    "resolv-conf": Parser(
        _play_resolv_conf,
        (b"nameserver 10.0.0.2\nsearch prod.local\noptions ndots:5\n", b"domain a\0b c\0ndots:2\0host.example"),
        _RESOLV_CONF_WORDS,
    ),
    "task-metadata": Parser(
        _play_task_metadata,
        (_described(), _described(Containers=[{"Networks": [{"IPv4Addresses": [5]}]}])),
        _METADATA_WORDS,
    ),
    "retry-after": Parser(
        _play_retry_after,
        (b"120", b"-1", *_DATES),
        (*_NUMBERS, *_DATES, b" ", b",", b":", b"+2400", b"GMT", b"(", b"Jan", b"\xa0"),
    ),
    "keep-alive": Parser(
        _play_keep_alive,
        (b"timeout=5, max=100", b'max=1, Timeout = "0"'),
        (*_NUMBERS, b"timeout", b"=", b",", b'"', b" ", b"\xb2", b"TIMEOUT=", b"\0"),
    ),
}
