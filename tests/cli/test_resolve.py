"""`ecs-discovery resolve`."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest
from rich.console import Console

from ecs_discovery.cli.resolve import as_dict, as_table, headline
from ecs_discovery.models import Endpoint, Resolution


@pytest.fixture
def orders(lab):
    return lab.service("orders", tasks=3, ttl=10, records="A+SRV")


@pytest.fixture
def ask(run, lab):
    """Resolves with the lab's name server."""
    return lambda *arguments: run("resolve", *arguments, "--namespace", "prod.local", "--nameserver", lab.nameserver)


def addresses(service):
    return sorted(task.address for task in service.tasks)


def test_a_name_is_shown_as_a_table_of_endpoints_with_source_and_ttl(ask, orders):
    status, out, err = ask("orders")
    assert (status, err) == (0, "")
    for task in orders.tasks:
        assert f"{task.address}:{task.port}" in out
        assert task.id in out
    assert "3 endpoints from dns, TTL 10 s" in out
    assert "\x1b" not in out


def test_a_port_that_the_name_has_otherwise_is_told(ask, lab):
    """Bridge mode: the tasks register SRV records, each with a port of its own, and no address records."""
    lab.service("bridge", tasks=2, records="SRV")
    status, out, _ = ask("bridge:1")
    assert status == 0
    assert "note: " in out
    assert json.loads(ask("bridge:1", "--json")[1])["notices"] != []
    assert json.loads(ask("bridge", "--json")[1])["notices"] == []


def test_columns_that_hold_defaults_only_are_left_out(ask, orders):
    _, out, _ = ask(f"orders:{orders.port}")
    header = out.splitlines()[1]
    assert header.split() == ["endpoint"]


@pytest.mark.parametrize("target", ["orders", "srv://orders", "srv://orders.prod.local", "orders.prod.local"])
def test_json_has_every_fact_of_an_srv_answer(ask, orders, target):
    status, out, err = ask(target, "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert {name: found[name] for name in ("target", "source", "ttl", "partial", "stale")} == {
        "target": target,
        "source": "dns",
        "ttl": 10.0,
        "partial": False,
        "stale": False,
    }
    assert sorted(endpoint["host"] for endpoint in found["endpoints"]) == addresses(orders)
    assert {endpoint["instance_id"] for endpoint in found["endpoints"]} == {task.id for task in orders.tasks}
    assert set(found["endpoints"][0]) == {"host", "port", "priority", "weight", "zone", "instance_id"}


def test_address_records_take_the_port_of_the_target(ask, orders):
    found = json.loads(ask("dns://orders:81", "--json").out)
    assert [(endpoint["host"], endpoint["port"]) for endpoint in sorted(found["endpoints"], key=str)] == [
        (address, 81) for address in addresses(orders)
    ]


def test_static_endpoints_need_no_server_and_have_no_ttl(run):
    assert "2 endpoints from static, no TTL" in run("resolve", "static://10.0.0.1:80,[::1]:81").out
    found = json.loads(run("resolve", "static://10.0.0.1:80,[::1]:81", "--json").out)
    assert found["ttl"] is None
    assert [endpoint["host"] for endpoint in found["endpoints"]] == ["10.0.0.1", "::1"]


def test_what_is_not_given_comes_from_the_environment(run, lab, orders, monkeypatch):
    monkeypatch.setenv("ECS_DISCOVERY_NAMESPACE", "prod.local")
    monkeypatch.setenv("ECS_DISCOVERY_NAMESERVERS", lab.nameserver)
    assert "3 endpoints" in run("resolve", "orders").out


def test_a_name_that_does_not_exist_is_one_line_and_status_1(ask, orders):
    status, out, err = ask("ordres")
    assert (status, out) == (1, "")
    assert err.startswith("ecs-discovery: ordres: ")
    assert err.count("\n") == 1


def test_a_name_with_neither_port_nor_srv_record_gets_the_hint(ask, lab):
    lab.service("bare", records="A")
    status, _, err = ask("bare")
    assert status == 1
    assert "'bare:8080'" in err
    assert err.count("\n") == 1


def test_a_silent_server_is_one_line_within_the_timeout(ask, lab, orders):
    lab.dns.fault = "silence"
    status, _, err = ask("orders", "--timeout", "0.2")
    assert status == 1
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("http://orders/",),
        ("srv://orders:80",),
        ("static://nowhere",),
        ("orders:99999",),
        ("orders:80", "--namespace", "no good"),
        ("orders:80", "--nameserver", "dns.example:port"),
    ],
)
def test_input_that_makes_no_sense_is_one_line_and_status_2(run, arguments):
    status, out, err = run("resolve", *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("ecs-discovery: ")
    assert err.count("\n") == 1


def test_nothing_else_is_on_standard_error_of_a_process_of_its_own(lab):
    command = [sys.executable, "-m", "ecs_discovery.cli", "resolve", "nope:80", "--nameserver", lab.nameserver]
    done = subprocess.run([*command, "--namespace", "prod.local"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("resolution", "text"),
    [
        (Resolution((Endpoint("10.0.0.1", 80),), 10, "dns"), "1 endpoint from dns, TTL 10 s"),
        (Resolution((), 0.5, "dns"), "0 endpoints from dns, TTL 0.5 s"),
        (Resolution((), 1, "dns", partial=True), "0 endpoints from dns, TTL 1 s, there may be more endpoints"),
        (
            Resolution((), 1, "dns", stale=True),
            "0 endpoints from dns, TTL 1 s, older than its TTL: the source could not be asked again",
        ),
        (Resolution((), float("inf"), "static"), "0 endpoints from static, no TTL"),
    ],
)
def test_the_headline_says_how_good_the_answer_is(resolution, text):
    assert headline(resolution) == text


def test_json_knows_no_infinity():
    json.dumps(as_dict("x", Resolution((), float("inf"), "static")), allow_nan=False)


def test_what_a_registry_says_does_not_steer_the_terminal():
    endpoint = Endpoint("10.0.0.1", 80, zone="a\x1b[2J", instance_id="x\r\nfine")
    console = Console(record=True, width=200, force_terminal=False, file=io.StringIO())
    console.print(as_table([endpoint]))
    console.print(headline(Resolution((endpoint,), 5.0, "\x1b]0;owned\x07")))
    text = console.export_text()
    assert "a\\x1b[2J" in text
    assert all(line.isprintable() for line in text.split("\n"))


def test_refused_addresses_are_shown():
    resolution = Resolution((Endpoint("10.0.0.1", 80),), 5.0, "dns", refused=("169.254.169.254",) * 5)
    assert "refused: 169.254.169.254, 169.254.169.254, 169.254.169.254" in headline(resolution)
    assert as_dict("orders", resolution)["refused"] == ["169.254.169.254"] * 5


def test_a_trace_shows_how_the_name_was_completed_and_each_question_with_server_and_answer(ask, lab, orders):
    status, out, err = ask(f"orders:{orders.port}", "--trace")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "orders is asked for as orders.prod.local: the namespace is prod.local"
    for kind in ("A", "AAAA"):
        (line,) = [each for each in lines if each.startswith(f"{kind} orders.prod.local -> {lab.nameserver}: ")]
        assert ("TTL 10 s" if kind == "A" else "no records of this kind") in line
    assert all(address in out for address in addresses(orders))


def test_a_trace_of_a_name_that_is_not_there_shows_who_said_so(ask, lab, orders):
    status, out, err = ask("ordres", "--trace")
    assert status == 1
    assert f"SRV ordres.prod.local -> {lab.nameserver}: no such name" in out
    assert err.count("\n") == 1


def test_json_has_the_trace_and_an_error_where_it_failed(ask, lab, orders):
    status, out, err = ask("ordres", "--trace", "--json")
    found = json.loads(out)
    assert (status, err) == (1, "")
    assert (found["target"], found["error"]["type"]) == ("ordres", "TargetNotFound")
    assert "no such name" in found["error"]["message"]
    assert found["trace"]["queries"][0]["server"] == lab.nameserver
    assert json.loads(ask("orders", "--trace", "--json").out)["trace"]["queries"]


def test_json_of_an_input_that_makes_no_sense_says_what_is_allowed(run):
    status, out, err = run("resolve", "10.0.0.1", "--json")
    assert (status, err) == (2, "")
    assert "static://10.0.0.1:80" in json.loads(out)["error"]["message"]


def test_a_name_without_a_namespace_and_without_a_port_gets_each_advice_once(run, lab):
    _, _, err = run("resolve", "orders", "--nameserver", lab.nameserver)
    assert err.count("no namespace is set") == 1
    assert "port" not in err
