"""The plain client's name resolution."""

from __future__ import annotations

import socket

import pytest

from ecs_discovery.cli.demo.plain_dns import PlainDns


@pytest.fixture
def plain(lab):
    with PlainDns("prod.local", lab.dns.address, lab.dns.port).installed() as plain:
        yield plain


def test_getaddrinfo_answers_names_of_the_namespace(lab, plain):
    orders = lab.service("orders", tasks=3)
    found = socket.getaddrinfo("orders.prod.local", 81, type=socket.SOCK_STREAM)
    assert sorted(entry[4] for entry in found) == sorted((task.address, 81) for task in orders.tasks)


def test_an_answer_is_not_asked_for_again_within_its_ttl(lab, plain):
    lab.service("orders", ttl=60)
    for _ in range(5):
        socket.getaddrinfo("orders.prod.local", 81)
    assert plain.queries == lab.dns.total == 2  # A and AAAA


def test_an_answer_is_asked_for_again_after_its_ttl(lab, plain):
    lab.service("orders", ttl=0)
    socket.getaddrinfo("orders.prod.local", 81, socket.AF_INET)
    socket.getaddrinfo("orders.prod.local", 81, socket.AF_INET)
    assert plain.queries == 2


@pytest.mark.parametrize("name", ["nope.prod.local", b"nope.prod.local", "NOPE.prod.local."])
def test_a_name_that_does_not_exist_is_the_usual_error(lab, plain, name):
    with pytest.raises(socket.gaierror) as raised:
        socket.getaddrinfo(name, 80)
    assert raised.value.errno == socket.EAI_NONAME


def test_other_names_and_addresses_are_answered_as_before(lab, plain):
    assert socket.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)[0][4] == ("127.0.0.1", 80)
    assert plain.queries == 0


def test_afterwards_everything_is_as_it_was(lab):
    before = socket.getaddrinfo
    with PlainDns("prod.local", lab.dns.address, lab.dns.port).installed():
        assert socket.getaddrinfo is not before
    assert socket.getaddrinfo is before
