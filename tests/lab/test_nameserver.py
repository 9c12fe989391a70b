"""The name server answers as Route 53 does, counts, and fails on demand."""

from __future__ import annotations

import socket
import time

import dns.exception
import dns.flags
import dns.message
import dns.opcode
import dns.query
import dns.rcode
import dns.rdatatype
import pytest

from ecs_discovery.testing.lab import DnsFault, Lab
from tests.lab.wire import addresses, ask, records

NAME = "orders.prod.local."


def test_an_a_answer_has_the_addresses_and_the_ttl_of_the_service(lab):
    orders = lab.service("orders", tasks=3, ttl=7)
    answer = ask(lab, NAME, "A")
    assert set(records(answer)) == {task.address for task in orders.tasks}
    assert answer.answer[0].ttl == 7
    assert answer.flags & dns.flags.RA


def test_an_srv_answer_has_ports_and_brings_the_addresses_of_its_targets(lab):
    orders = lab.service("orders", tasks=2, records="SRV", dynamic_ports=True)
    answer = ask(lab, NAME, "SRV", payload=1232)
    assert set(records(answer)) == {f"1 1 {task.port} {task.id}.orders.prod.local." for task in orders.tasks}
    assert {str(rrset.name): rrset[0].to_text() for rrset in answer.additional} == {
        f"{task.id}.orders.prod.local.": task.address for task in orders.tasks
    }


def test_additional_addresses_can_be_left_out_and_asked_for(lab):
    orders = lab.service("orders", tasks=1, records="SRV")
    lab.dns.additional = False
    answer = ask(lab, NAME, "SRV")
    assert answer.additional == []
    target = answer.answer[0][0].target
    assert records(ask(lab, str(target), "A")) == [orders.tasks[0].address]


def test_a_service_with_both_kinds_answers_both(lab):
    lab.service("orders", tasks=2, records="A+SRV")
    assert len(records(ask(lab, NAME, "A"))) == len(records(ask(lab, NAME, "SRV"))) == 2


@pytest.mark.parametrize(("kind", "asked"), [("A", "SRV"), ("SRV", "A"), ("A+SRV", "AAAA")])
def test_a_type_the_service_lacks_is_an_empty_answer_with_the_soa(lab, kind, asked):
    lab.service("orders", records=kind)
    answer = ask(lab, NAME, asked)
    assert answer.rcode() == dns.rcode.NOERROR
    assert answer.answer == []
    assert answer.authority[0].rdtype == dns.rdatatype.SOA


def test_a_multivalue_answer_shows_eight_of_twenty_at_random_seed_1(lab):
    """Every one of 20 is seen in 40 draws of 8: one is missed with a chance of 20 * 0.6**40 = 3e-8."""
    orders = lab.service("orders", tasks=20)
    answers = [records(ask(lab, NAME, "A")) for _ in range(40)]
    assert {len(set(answer)) for answer in answers} == {8}
    assert set().union(*answers) == {task.address for task in orders.tasks}
    assert len({tuple(answer) for answer in answers}) > 30


def test_a_weighted_answer_shows_one(lab):
    orders = lab.service("orders", tasks=3, routing="WEIGHTED")
    answers = [records(ask(lab, NAME, "A")) for _ in range(40)]
    assert {len(answer) for answer in answers} == {1}
    assert set().union(*answers) == {task.address for task in orders.tasks}


def test_unhealthy_tasks_are_left_out_until_all_are_unhealthy(lab):
    orders = lab.service("orders", tasks=3)
    first, second, third = orders.tasks
    orders.set_health(first, False)
    assert addresses(lab, NAME) == {second.address, third.address}
    orders.set_health(second, False)
    orders.set_health(third, False)
    assert addresses(lab, NAME) == {first.address, second.address, third.address}
    orders.set_health(third, True)
    assert addresses(lab, NAME) == {third.address}


def test_an_unknown_name_is_nxdomain_with_a_soa_that_says_how_long(lab):
    lab.dns.negative_ttl = 9
    answer = ask(lab, "nothing.prod.local.", "A")
    assert answer.rcode() == dns.rcode.NXDOMAIN
    soa = answer.authority[0]
    assert min(soa.ttl, soa[0].minimum) == 9


def test_a_service_without_tasks_does_not_exist(lab):
    orders = lab.service("orders", tasks=1)
    orders.scale(0, stop="kill")
    assert ask(lab, NAME, "A").rcode() == dns.rcode.NXDOMAIN
    orders.scale(1)
    assert ask(lab, NAME, "A").rcode() == dns.rcode.NOERROR


def test_a_name_above_others_exists_and_is_empty(lab):
    lab.dns.add("a.b.prod.local", "A", "192.0.2.1")
    answer = ask(lab, "b.prod.local.", "A")
    assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])


def test_names_outside_the_namespace_are_refused(lab):
    assert ask(lab, "example.com.", "A").rcode() == dns.rcode.REFUSED
    assert ask(lab, "notprod.local.", "A").rcode() == dns.rcode.REFUSED


def test_names_ignore_case_and_come_back_as_they_were_asked(lab):
    lab.service("orders")
    answer = ask(lab, "oRdErs.PROD.local.", "A")
    assert str(answer.question[0].name) == str(answer.answer[0].name) == "oRdErs.PROD.local."


def test_a_cname_is_followed_inside_and_handed_out_outside(lab):
    orders = lab.service("orders")
    lab.dns.add("alias", "CNAME", NAME, ttl=3)
    lab.dns.add("away", "CNAME", "example.com.")
    lab.dns.add("circle", "CNAME", "circle.prod.local.")
    assert records(ask(lab, "alias.prod.local.", "A")) == [NAME, orders.tasks[0].address]
    assert records(ask(lab, "alias.prod.local.", "CNAME")) == [NAME]
    outside = ask(lab, "away.prod.local.", "A")
    assert (outside.rcode(), records(outside)) == (dns.rcode.NOERROR, ["example.com."])
    assert ask(lab, "circle.prod.local.", "A").rcode() == dns.rcode.SERVFAIL


def test_records_of_any_type_can_be_added_and_removed(lab):
    lab.dns.add("v6", "AAAA", "2001:db8::1", "2001:db8::2")
    lab.dns.add("other.example", "A", "192.0.2.1")
    lab.dns.add("srv", "SRV", "1 1 80 v4.prod.local.")
    lab.dns.add("v4", "A", "192.0.2.2")
    assert len(records(ask(lab, "v6.prod.local.", "AAAA"))) == 2
    assert records(ask(lab, "other.example.", "A")) == ["192.0.2.1"]
    assert ask(lab, "srv.prod.local.", "SRV").additional[0][0].to_text() == "192.0.2.2"
    lab.dns.remove("v6")
    assert ask(lab, "v6.prod.local.", "AAAA").rcode() == dns.rcode.NXDOMAIN
    with pytest.raises(dns.exception.DNSException):
        lab.dns.add("bad", "A", "no address")


def test_an_answer_too_long_for_udp_comes_empty_with_tc_and_whole_over_tcp(lab):
    lab.service("orders", tasks=8, records="SRV")
    short = ask(lab, NAME, "SRV")
    assert short.flags & dns.flags.TC
    assert (short.answer, short.additional) == ([], [])
    whole = ask(lab, NAME, "SRV", tcp=True)
    assert not whole.flags & dns.flags.TC
    assert (len(whole.answer[0]), len(whole.additional)) == (8, 8)


@pytest.mark.parametrize(("payload", "truncated"), [(512, True), (530, True), (1232, False), (65535, False)])
def test_edns_says_how_long_an_answer_over_udp_may_be(lab, payload, truncated):
    lab.service("orders", tasks=8, records="SRV")
    answer = ask(lab, NAME, "SRV", payload=payload)
    assert bool(answer.flags & dns.flags.TC) is truncated
    assert answer.edns == 0


def test_no_answer_over_udp_is_longer_than_4096_bytes(lab):
    lab.dns.add("many", "TXT", *(f'"{number:0>250}"' for number in range(17)))
    assert ask(lab, "many.prod.local.", "TXT", payload=65535).flags & dns.flags.TC


def test_several_queries_use_one_tcp_connection(lab):
    lab.service("orders")
    host, _, port = lab.nameserver.partition(":")
    query = dns.message.make_query(NAME, "A")
    with socket.create_connection((host, int(port)), 2) as sock:
        for _ in range(3):
            dns.query.send_tcp(sock, query)
            answer, _ = dns.query.receive_tcp(sock, time.time() + 2)
            assert len(answer.answer) == 1
    assert lab.dns.tcp_total == 3


def test_queries_are_counted_by_name_and_type_and_tcp_apart(lab):
    lab.service("orders")
    ask(lab, "ORDERS.prod.local.", "A")
    ask(lab, NAME, "A", tcp=True)
    ask(lab, NAME, "SRV")
    assert lab.dns.queries == {("orders.prod.local", "A"): 2, ("orders.prod.local", "SRV"): 1}
    assert lab.dns.tcp_queries == {("orders.prod.local", "A"): 1}
    assert (lab.dns.total, lab.dns.tcp_total) == (3, 1)
    lab.dns.reset_counts()
    assert lab.dns.total == 0


@pytest.mark.parametrize(
    ("fault", "rcode"),
    [("servfail", dns.rcode.SERVFAIL), ("refused", dns.rcode.REFUSED), ("nxdomain", dns.rcode.NXDOMAIN)],
)
def test_a_fault_can_be_an_error_code(lab, fault, rcode):
    lab.service("orders")
    lab.dns.fault = fault
    assert lab.dns.fault is DnsFault(fault)
    assert ask(lab, NAME, "A").rcode() == rcode
    lab.dns.fault = None
    assert ask(lab, NAME, "A").rcode() == dns.rcode.NOERROR


def test_a_fault_can_be_an_empty_answer(lab):
    lab.service("orders")
    lab.dns.fault = DnsFault.EMPTY
    answer = ask(lab, NAME, "A")
    assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])


@pytest.mark.parametrize("tcp", [False, True])
def test_silence_is_silence_and_counts(lab, tcp):
    lab.dns.fault = DnsFault.SILENCE
    with pytest.raises(dns.exception.Timeout):
        ask(lab, NAME, "A", tcp=tcp, timeout=0.1)
    assert lab.dns.total == 1


@pytest.mark.parametrize("tcp", [False, True])
def test_garbage_is_no_dns_message(lab, tcp):
    lab.dns.fault = DnsFault.GARBAGE
    with pytest.raises((dns.exception.DNSException, ValueError)):
        ask(lab, NAME, "A", tcp=tcp)


def test_a_delay_delays_answers(lab):
    lab.service("orders")
    lab.dns.delay = 0.1
    began = time.monotonic()
    ask(lab, NAME, "A")
    ask(lab, NAME, "A", tcp=True)
    assert time.monotonic() - began >= 0.2


def test_lost_queries_get_no_answer(lab):
    lab.dns.loss = 1.0
    with pytest.raises(dns.exception.Timeout):
        ask(lab, NAME, "A", timeout=0.05)
    lab.dns.heal()
    assert ask(lab, NAME, "A").rcode() == dns.rcode.NXDOMAIN


def test_one_name_can_fail_alone(lab):
    lab.service("orders")
    lab.service("users")
    lab.dns.fail("orders", DnsFault.SERVFAIL)
    assert ask(lab, NAME, "A").rcode() == dns.rcode.SERVFAIL
    assert ask(lab, "users.prod.local.", "A").rcode() == dns.rcode.NOERROR
    lab.dns.fail("orders", None)
    assert ask(lab, NAME, "A").rcode() == dns.rcode.NOERROR


def test_what_is_no_query_gets_an_error_or_nothing(lab):
    host, _, port = lab.nameserver.partition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.1)
        sock.connect((host, int(port)))
        sock.send(b"\x12\x34" + b"\x01\x00" + b"\xff" * 20)
        assert sock.recv(512)[:4] == b"\x12\x34\x80\x01"
        sock.send(b"short")
        sock.send(b"\x12\x34\x81\x80" + b"\x00" * 8)
        with pytest.raises(TimeoutError):
            sock.recv(512)
    update = dns.message.make_query("prod.local.", "A")
    update.set_opcode(dns.opcode.NOTIFY)
    assert dns.query.udp(update, host, port=int(port), timeout=2).rcode() == dns.rcode.NOTIMP
    assert lab.dns.total == 0


def test_equal_seeds_draw_equal_records():
    def draws() -> list[list[str]]:
        with Lab(seed=5) as lab:
            tasks = lab.service("orders", tasks=12, records="SRV").tasks
            order = [task.id for task in tasks]
            return [
                [str(order.index(text.split()[3][:32])) for text in records(ask(lab, NAME, "SRV", tcp=True))]
                for _ in range(5)
            ]

    assert draws() == draws()
