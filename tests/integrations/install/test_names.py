"""`--getaddrinfo`: names of our services for programs that only resolve names."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import dns.message
import dns.rdatatype
import pytest

from ecs_discovery.testing.lab import Lab
from tests.integrations.install.test_run import launcher, ran


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(namespace="prod.local", seed=7) as lab:
        yield lab


ASK = """
import json, socket
def asked(*args, **options):
    try:
        return sorted(socket.getaddrinfo(*args, type=socket.SOCK_STREAM, **options))
    except OSError as error:
        return type(error).__name__
"""


def found(lab: Lab, *calls: str) -> list[Any]:
    """What each call of `asked` in a program gives."""
    code = f"{ASK}print(json.dumps([{', '.join(calls)}]))"
    result = ran([*launcher(lab, "--getaddrinfo"), sys.executable, "-c", code])
    assert result.returncode == 0, result.stderr
    told: list[Any] = json.loads(result.stdout.splitlines()[-1])
    return told


def addresses(infos: Any) -> list[list[Any]]:
    return sorted(info[4][:2] for info in infos)


@pytest.mark.parametrize("port", ["0", "None"])
def test_without_a_port_the_srv_records_name_it(lab: Lab, port: str):
    service = lab.service("orders", tasks=2, records="SRV", dynamic_ports=True)
    (told,) = found(lab, f"asked('orders', {port})")
    assert addresses(told) == sorted([task.address, task.port] for task in service.tasks)


@pytest.mark.parametrize("port", ["0", "None"])
def test_without_a_port_and_srv_records_there_are_addresses_alone(lab: Lab, port: str):
    service = lab.service("orders", tasks=2)
    (told,) = found(lab, f"asked('orders', {port})")
    assert addresses(told) == sorted([task.address, 0] for task in service.tasks)


def test_a_port_is_a_number_a_text_or_the_name_of_a_protocol(lab: Lab):
    lab.dns.add("orders.prod.local", "A", "127.9.7.1")
    told = found(lab, "asked('orders', 8080)", "asked(b'orders', '8080')", "asked('orders.prod.local', 'http')")
    assert [addresses(each) for each in told] == [[["127.9.7.1", 8080]], [["127.9.7.1", 8080]], [["127.9.7.1", 80]]]


def test_a_service_with_addresses_of_ipv6_alone_is_found_where_these_are_wanted(lab: Lab):
    lab.dns.add("orders.prod.local", "AAAA", "fd00::1", "fd00::2")
    any_family, six, four = found(
        lab,
        "asked('orders', 8080, socket.AF_UNSPEC)",
        "asked('orders', 8080, family=socket.AF_INET6)",
        "asked('orders', 8080, socket.AF_INET)",
    )
    assert addresses(any_family) == addresses(six) == [["fd00::1", 8080], ["fd00::2", 8080]]
    assert four == "gaierror"


def test_a_service_with_both_kinds_of_addresses_gives_the_kind_that_is_wanted(lab: Lab):
    lab.dns.add("orders.prod.local", "A", "127.9.7.1")
    lab.dns.add("orders.prod.local", "AAAA", "fd00::1")
    four, six = found(lab, "asked('orders', 8080, socket.AF_INET)", "asked('orders', 8080, socket.AF_INET6)")
    assert addresses(four) == [["127.9.7.1", 8080]]
    assert addresses(six) == [["fd00::1", 8080]]


@pytest.mark.parametrize(("late", "family"), [("A", "AF_INET"), ("AAAA", "AF_INET6")])
def test_addresses_of_the_kind_that_is_wanted_are_waited_for(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, late: str, family: str
):
    lab.dns.add("orders.prod.local", "A", "127.9.7.1")
    lab.dns.add("orders.prod.local", "AAAA", "fd00::1")
    reply = lab.dns._reply

    def one_is_late(data: bytes, *, udp: bool) -> bytes | None:
        kind = dns.rdatatype.to_text(dns.message.from_wire(data).question[0].rdtype)
        lab.dns.delay = 0.5 if kind == late else 0.0
        return reply(data, udp=udp)

    monkeypatch.setattr(lab.dns, "_reply", one_is_late)
    (told,) = found(lab, f"asked('orders', 8080, socket.{family})")
    assert [address for address, _ in addresses(told)] == [{"A": "127.9.7.1", "AAAA": "fd00::1"}[late]]


def test_flags_hold(lab: Lab):
    lab.dns.add("orders.prod.local", "A", "127.9.7.1")
    named, numeric, mapped = found(
        lab,
        "asked('orders', 8080, flags=socket.AI_CANONNAME)",
        "asked('orders', 8080, flags=socket.AI_NUMERICHOST)",
        "asked('orders', 8080, socket.AF_INET6, flags=socket.AI_V4MAPPED)",
    )
    assert named[0][3] == "orders"
    assert numeric == "gaierror"
    assert addresses(mapped) == [["::ffff:127.9.7.1", 8080]]
