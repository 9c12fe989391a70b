"""Lookups that a thread makes itself because it waits for them, and what becomes of them when it leaves."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import dns.message
import pytest

from ecs_discovery import Discovery, DnsPolicy, Endpoint, Question, Resolution, ResolutionTimeout
from ecs_discovery.client.sync.lookup_group import LookupGroup
from ecs_discovery.runtime import workers
from tests.resolvers.support import ScriptedDns
from tests.support import eventually

ORDERS = "dns://orders.prod.local:80"


@pytest.fixture
def server() -> Iterator[ScriptedDns]:
    with ScriptedDns() as running:
        running.on("a://orders.prod.local", "orders.prod.local 60 A 10.0.0.1")
        running.on("aaaa://orders.prod.local", "orders.prod.local 60 AAAA fd00::1")
        yield running


def ours() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ecs_discovery"]


def test_the_questions_of_a_cold_name_take_one_thread(server: ScriptedDns):
    server.lose = 2  # they take a while
    with Discovery(dns=server.policy(query_timeout=0.3)) as discovery:
        found: list[Any] = []
        caller = threading.Thread(target=lambda: found.append(discovery.resolve(ORDERS, timeout=20)))
        before = len(ours())
        caller.start()
        eventually(lambda: len(server.seen) >= 2)
        assert len(ours()) - before == 1
        caller.join(20)
    assert found[0].endpoints


def test_a_name_whose_questions_are_answered_one_by_one_takes_no_second_thread(
    server: ScriptedDns, monkeypatch: pytest.MonkeyPatch
):
    hired: list[threading.Thread] = []

    def hire(**how: Any) -> threading.Thread:
        hired.append(threading.Thread(**how))
        return hired[-1]

    monkeypatch.setattr(workers, "Thread", hire)
    with Discovery(dns=server.policy()) as discovery:
        assert discovery.resolve(ORDERS).endpoints
        eventually(lambda: discovery._background.asker._workers._resting)  # the first has done all that it had to do
    assert len(hired) == 1


class SoftTimeLimit(Exception):
    """What a task queue's signal handler raises in the thread that works."""


@pytest.mark.parametrize("raised", [SoftTimeLimit, KeyboardInterrupt])
def test_what_a_signal_handler_raises_reaches_its_own_caller_and_no_other(
    server: ScriptedDns, raised: type[BaseException]
):
    def handler(*_: object) -> None:
        raise raised

    server.lose = 2
    before = signal.signal(signal.SIGALRM, handler)
    try:
        with Discovery(dns=server.policy(query_timeout=0.5)) as discovery:
            other: list[Any] = []
            caller = threading.Thread(target=lambda: other.append(discovery.resolve(ORDERS, timeout=20)))
            caller.start()
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(raised):
                discovery.resolve(ORDERS, timeout=20)
            caller.join(20)
            assert other[0].endpoints
            assert discovery.resolve(ORDERS).endpoints
            eventually(lambda: not len(discovery._driver.engine.flights))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_signal_handler_may_look_up_the_name_that_is_being_looked_up(server: ScriptedDns):
    found: list[Any] = []
    server.lose = 2
    with Discovery(dns=server.policy(query_timeout=0.4)) as discovery:
        before = signal.signal(signal.SIGALRM, lambda *_: found.append(discovery.resolve(ORDERS, timeout=20)))
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.15)
            found.append(discovery.resolve(ORDERS, timeout=20))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
    assert len(found) == 2


def test_the_questions_of_a_cold_name_leave_from_one_socket():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.settimeout(5)
        nameserver = f"127.0.0.1:{silent.getsockname()[1]}"
        with Discovery(dns=DnsPolicy(nameservers=(nameserver,), query_timeout=30, timeout=30)) as discovery:
            with pytest.raises(ResolutionTimeout):
                discovery.resolve("orders.prod.local:80", timeout=0.2)
            seen = [silent.recvfrom(4096) for _ in range(3)]
            ids = [dns.message.from_wire(wire).id for wire, _ in seen]
            for (_, peer), number in zip(seen, ids, strict=True):  # ends the lookups: refused
                silent.sendto(number.to_bytes(2, "big") + b"\x80\x05" + bytes(8), peer)
            eventually(lambda: not len(discovery._driver.engine.flights))
    assert len({peer for _, peer in seen}) == 1
    assert len(set(ids)) == 3


def test_a_lookup_goes_on_when_its_caller_has_no_more_time(server: ScriptedDns):
    server.lose = 2
    with Discovery(dns=server.policy(query_timeout=0.4)) as discovery:
        with pytest.raises(ResolutionTimeout):
            discovery.resolve(ORDERS, timeout=0.1)
        eventually(lambda: len(server.seen) == 4 and not len(discovery._driver.engine.flights))
        assert len(discovery.resolve(ORDERS).endpoints) == 2
    assert len(server.seen) == 4, "the second caller has the answer that the first did not wait for"


def test_a_caller_with_more_time_than_the_one_who_asks_gets_the_answer(server: ScriptedDns):
    server.lose = 2
    found: list[Any] = []
    with Discovery(dns=server.policy(query_timeout=0.4)) as discovery:

        def hurried() -> None:
            with pytest.raises(ResolutionTimeout):
                discovery.resolve(ORDERS, timeout=0.2)

        first = threading.Thread(target=hurried)
        first.start()
        eventually(lambda: len(server.seen) >= 2)
        found.append(discovery.resolve(ORDERS, timeout=20))
        first.join(20)
    assert found[0].endpoints
    assert len(server.seen) <= 4, "no caller asks a second time"


def test_a_family_that_is_silent_holds_up_no_caller(server: ScriptedDns):
    server.on("aaaa://orders.prod.local", shape=lambda response: [])
    with Discovery(dns=server.policy(query_timeout=0.2)) as discovery:
        assert [str(each) for each in discovery.resolve(ORDERS, timeout=20).endpoints] == ["10.0.0.1:80"]
        assert len(discovery._driver.engine.flights) == 1, "a worker waits for the other"
        eventually(lambda: server.asked("AAAA") == ["orders.prod.local"] * 2)


def test_a_silent_server_over_tcp_holds_up_no_other_question(server: ScriptedDns):
    """Two questions share their sockets; what does not fit is asked over a connection of its own."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
    ):
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        udp.bind(tcp.getsockname())
        udp.settimeout(10)

        def serve() -> None:
            asked = [udp.recvfrom(4096) for _ in range(2)]
            for wire, peer in sorted(asked, key=lambda each: b"\x00\x1c" in each[0][-20:], reverse=True):
                response = dns.message.make_response(dns.message.from_wire(wire))
                if response.question[0].rdtype == dns.rdatatype.AAAA:
                    response.flags |= dns.flags.TC
                else:
                    response.answer.append(dns.rrset.from_text("orders.prod.local.", 60, "IN", "A", "10.0.0.1"))
                udp.sendto(response.to_wire(), peer)

        thread = threading.Thread(target=serve)
        thread.start()
        policy = DnsPolicy(nameservers=(f"127.0.0.1:{udp.getsockname()[1]}",), query_timeout=20, timeout=0.8)
        with Discovery(dns=policy) as discovery:
            assert discovery.resolve(ORDERS, timeout=0.7).endpoints
            thread.join(10)
            eventually(lambda: not len(discovery._driver.engine.flights))


class Scripted:
    """Lookups whose answers come when the test says so."""

    broken = False
    pending = True

    def __init__(self) -> None:
        self.answers: list[tuple[Question, Resolution]] = []

    def add(self, question: Question, limit: float) -> None:
        """Nothing is sent."""

    def run(self, seconds: float) -> list[tuple[Question, Resolution]]:
        answers, self.answers = self.answers, []
        return answers

    def close(self) -> None:
        """Nothing is open."""


def test_a_lookup_that_was_forgotten_brings_no_answer_however_late_it_comes():
    question, lookups = Question("a", "orders.prod.local"), Scripted()
    with Discovery(namespace="prod.local") as discovery:
        engine = discovery._engine
        group = LookupGroup(engine, lookups)
        group.start(question, engine.join(question)[0])
        engine.start_over()
        group.run(0.0)  # the group no longer waits for it
        lookups.answers = [(question, Resolution((Endpoint("203.0.113.9", 80),), 60.0, "dns"))]
        group.run(0.0)
        assert len(engine.directory.cache) == 0
