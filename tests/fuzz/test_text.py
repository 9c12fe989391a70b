"""Files, headers and names of all kinds: no stray exception, a bounded result, bounded time and memory."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ecs_discovery.client.health_check import Answer
from ecs_discovery.config.targets import parse_target
from ecs_discovery.core.calls.http import asked_wait, keep_alive_timeout
from ecs_discovery.errors import ConfigurationError, NoEndpoints
from ecs_discovery.models import Question
from ecs_discovery.resolvers import HostsFile
from ecs_discovery.resolvers.dns.search import candidates
from ecs_discovery.resolvers.dns.search import parse as parse_search
from ecs_discovery.resolvers.dns.system import system_servers
from ecs_discovery.runtime.task_metadata import TaskMetadata, parse
from tests.fuzz.bounds import assert_cheap, unhurried
from tests.fuzz.test_cloud_map import JSON

WORDS = ("10.0.0.1", "fe80::1%eth0", "orders", "ORDERS.", "#", "\\", "\0", "\x1b[2J", "nameserver", "x" * 300)
WORD = st.sampled_from(WORDS)
LINE = st.lists(WORD | st.text(max_size=8), max_size=6).map(" ".join)


TEXT = st.lists(LINE, max_size=8).map("\n".join)


@unhurried
@given(TEXT.map(lambda text: text.encode("utf-8", "replace")) | st.binary(max_size=300))
def test_hosts_files_of_any_kind(tmp_path: Path, content: bytes):
    path = tmp_path / "hosts"
    path.write_bytes(content)
    for family in ("a", "aaaa", "srv"):
        try:
            found = HostsFile(str(path)).lookup(Question(family, "orders"))
        except NoEndpoints:
            continue
        assert found is None or all(each.host.isprintable() for each in found.endpoints)


@unhurried
@given(TEXT, st.text(max_size=30), st.text(max_size=30))
def test_resolv_confs_of_any_kind(tmp_path: Path, content: str, override: str, options: str):
    path = tmp_path / "resolv.conf"
    path.write_text(content, encoding="utf-8", errors="replace")
    assert len(system_servers(str(path))) <= 3
    found = parse_search(content, {"LOCALDOMAIN": override, "RES_OPTIONS": options}, "host.example")
    assert len(candidates("orders", found)) <= 34


@unhurried
@given(JSON)
@example({"Containers": [{"Networks": [{"IPv4Addresses": [5]}]}]})
def test_task_descriptions_of_any_kind(task: Any):
    found = parse(task)
    assert found is None or isinstance(found, TaskMetadata)


@unhurried
@given(st.text(max_size=60) | st.datetimes().map(lambda at: at.strftime("%a, %d %b %Y %H:%M:%S GMT")))
@example("0" * 100)
@example("9" * 100)
@example("Fri, 31 Dec 9999 23:59:59 -9999")
@example("Mon, 01 Jan 0001 00:00:00 +2400")
@example("Mon, 01 Jan 99999999999999999999 00:00:00 GMT")
def test_retry_after_fields_of_any_kind(text: str):
    found = asked_wait(text, 1.7e9)
    assert found is None or 0 <= found < math.inf


@unhurried
@given(st.text(max_size=60))
@example("timeout=" + "9" * 500)
@example('timeout="5", max=100')
@example("timeout=0")
def test_keep_alive_fields_of_any_kind(text: str):
    assert keep_alive_timeout(text) >= 0


@unhurried
@given(st.text(max_size=80))
@example("http://u:secret@x")
@example("cloudmap://a/b?port=000001234567")
@example("static://[::1]:1")
def test_targets_of_any_kind(text: str):
    told = ""
    try:
        target = parse_target(text)
        assert target.port is None or 0 < target.port < 65_536
    except ConfigurationError as error:
        told = str(error)
    assert told.isprintable()
    assert "secret" not in told


@unhurried
@given(st.lists(st.binary(max_size=40), max_size=8))
@example([b"HTTP/1.1 103 x\r\n\r\n"] * 8)
def test_answers_to_health_checks_of_any_kind(parts: list[bytes]):
    answer, told = Answer(), ""
    try:
        for part in parts:
            if answer.status is None:
                answer.feed(part)
    except ValueError as error:
        told = str(error)
    assert told.isprintable()
    assert answer.status is None or 200 <= answer.status <= 999


SLOW: dict[str, Any] = {
    "Retry-After of 60 KB of digits": lambda: _field("1" * 60_000),
    "Retry-After of 60 KB of words": lambda: _field("Mon, " * 12_000),
    "Retry-After of 60 KB of parentheses": lambda: _field("(" * 60_000),
    "Keep-Alive of 60 KB": lambda: keep_alive_timeout("timeout=," * 7000),
    "a target of a megabyte": lambda: parse_target("a" * 1_000_000),
    "a port of a megabyte": lambda: parse_target("a:" + "1" * 1_000_000),
    "a description of the task as deep as can be": lambda: parse(json.loads("[" * 900 + "]" * 900)),
    "a description of the task of 256 KiB": lambda: parse(json.loads(("{}," * 87_000).join("[]").replace(",]", "]"))),
    "a search list of 64 KiB": lambda: candidates("orders", parse_search("search " + "a." * 3 + " b" * 32_000, {}, "")),
    "an endless head": lambda: Answer().feed(b"HTTP/1.1 103 x\r\n\r\n" * 900),
}


def _field(text: str) -> float | None:
    return asked_wait(text, 1.7e9)


@pytest.mark.parametrize("kind", SLOW)
def test_a_text_made_to_be_slow_costs_little(kind: str):
    assert_cheap(SLOW[kind])
