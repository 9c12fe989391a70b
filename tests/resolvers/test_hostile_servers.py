"""Servers that mean harm: what they can have us send, hold and believe."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dns.flags
import dns.message
import pytest

from ecs_discovery.config.policies import DnsPolicy
from ecs_discovery.errors import NoEndpoints, ResolutionError, ResolutionTimeout, TargetNotFound
from ecs_discovery.models import Question
from ecs_discovery.resolvers import AsyncDnsResolver, DnsResolver
from tests.fuzz.messages import services
from tests.resolvers.support import ScriptedDns, World

WEB = "srv://web.prod.local"
ORDERS = "a://orders.prod.local"


class Flood:
    """Answers each question about SRV records with thousands of targets and counts what is asked about those."""

    def __init__(self, *, silent: bool) -> None:
        self.policy = DnsPolicy(hosts_file="", query_timeout=0.1)
        self.queries = 0
        self.names: Counter[bytes] = Counter()
        self._silent = silent
        self._answer = services()

    @contextmanager
    def running(self) -> Iterator[Flood]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            self.policy = DnsPolicy(
                nameservers=(f"127.0.0.1:{sock.getsockname()[1]}",), hosts_file="", query_timeout=0.1
            )
            thread = threading.Thread(target=self._serve, args=(sock,))
            thread.start()
            try:
                yield self
            finally:
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wake:
                    wake.sendto(b"", sock.getsockname())
                thread.join()

    def _serve(self, sock: socket.socket) -> None:
        while True:
            wire, peer = sock.recvfrom(65_535)
            if not wire:
                return
            self.queries += 1
            self.names[wire[12:-15]] += 1
            if wire[12:19] == b"\x06orders":
                # As much of the flood as one datagram takes.
                sock.sendto(wire[:2] + self._answer[2:6] + (2000).to_bytes(2, "big") + self._answer[8:50_100], peer)
            elif not self._silent:
                sock.sendto(wire[:2] + b"\x81\x83" + wire[4:6] + b"\0" * 6 + wire[12:-11], peer)


@pytest.mark.parametrize("silent", [True, False], ids=["silent", "gone"])
def test_one_answer_has_us_send_256_queries_at_most(world: World, silent: bool) -> None:
    with Flood(silent=silent).running() as flood, pytest.raises(ResolutionError) as caught:
        world.resolve("srv://orders.prod.local", flood.policy, timeout=2)

    assert not isinstance(caught.value, NoEndpoints)
    assert flood.queries <= 256


def test_targets_beyond_what_one_look_up_may_ask_make_the_answer_partial(world: World, server: ScriptedDns) -> None:
    targets = [f"t{n}.web.prod.local" for n in range(300)]
    server.on(WEB, *(f"web.prod.local 60 SRV 0 0 80 {target}." for target in targets))
    for number, target in enumerate(targets):
        server.on(f"a://{target}", f"{target} 60 A 10.0.{number // 250}.{number % 250 + 1}")

    answer = world.resolve(WEB, server.policy(), timeout=10)

    assert answer.partial
    assert len(answer.endpoints) == 240
    assert len(server.seen) <= 256


def test_questions_that_follow_from_an_answer_wait_for_their_turn(world: World, server: ScriptedDns) -> None:
    server.on(WEB, *(f"web.prod.local 60 SRV 0 0 80 t{n}.web.prod.local." for n in range(3)))
    for number in range(3):
        server.on(f"a://t{number}.web.prod.local", f"t{number}.web.prod.local 60 A 10.0.0.{number + 1}")
    turns = [True, False, False, True, False, True]
    asked: list[bool] = []

    def may_ask() -> bool:
        asked.append(turns.pop(0) if turns else True)
        return asked[-1]

    answer = resolve(world, WEB, server.policy(families=("a",)), may_ask)

    assert len(answer.endpoints) == 3
    assert asked == [True, False, False, True, False, True]


def test_a_question_whose_turn_does_not_come_makes_the_answer_partial(world: World, server: ScriptedDns) -> None:
    server.on(WEB, *(f"web.prod.local 60 SRV 0 0 80 t{n}.web.prod.local." for n in range(2)))
    server.on("a://t0.web.prod.local", "t0.web.prod.local 60 A 10.0.0.1")
    turns = [True]

    answer = resolve(world, WEB, server.policy(families=("a",)), lambda: bool(turns and turns.pop()), timeout=0.5)

    assert answer.partial
    assert len(server.seen) == 2


def resolve(world: World, text: str, policy: DnsPolicy, may_ask: Callable[[], bool], timeout: float = 5.0):
    scheme, _, name = text.partition("://")
    question = Question(scheme, name)
    if world.name == "threads":
        return DnsResolver(policy, may_ask=may_ask).resolve(question, timeout)
    return asyncio.run(AsyncDnsResolver(policy, may_ask=may_ask).resolve(question, timeout))


def _echoed(response: dns.message.Message) -> list[bytes]:
    response.flags &= ~dns.flags.QR
    return [response.to_wire()]


def _truncated(response: dns.message.Message) -> list[bytes]:
    response.flags |= dns.flags.TC
    return [response.to_wire()]


@pytest.mark.parametrize("shape", [_echoed, _truncated], ids=["echoed", "truncated over TCP too"])
def test_what_is_no_answer_is_never_there_is_none(
    world: World, server: ScriptedDns, shape: Callable[[dns.message.Message], list[bytes]]
) -> None:
    server.on(ORDERS, shape=shape)

    with pytest.raises(ResolutionError) as caught:
        world.resolve(ORDERS, server.policy(query_timeout=0.2), timeout=1)

    assert not isinstance(caught.value, NoEndpoints | TargetNotFound)


@pytest.mark.parametrize("rcode", ["YXDOMAIN", "YXRRSET", "NXRRSET", "NOTAUTH", "NOTZONE", "RESERVED11"])
def test_an_unusual_rcode_is_never_there_is_none(world: World, server: ScriptedDns, rcode: str) -> None:
    server.on(ORDERS, rcode=rcode.replace("RESERVED", ""))

    with pytest.raises(ResolutionError, match="answered") as caught:
        world.resolve(ORDERS, server.policy(), timeout=1)

    assert not isinstance(caught.value, NoEndpoints | TargetNotFound)


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
@pytest.mark.parametrize("kind", ["asyncio", "asyncio-transports"])
def test_look_ups_of_hundreds_of_names_at_a_silent_server_hold_few_descriptors(
    server: ScriptedDns, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ecs_discovery.resolvers.dns import aio as dns_async
    from tests.resolvers.conftest import _Everything

    if kind == "asyncio-transports":
        monkeypatch.setattr(dns_async, "_loops_without_readers", _Everything())
    server.lose = 1_000_000
    resolver = AsyncDnsResolver(server.policy(query_timeout=0.2))
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, len(os.listdir("/proc/self/fd")))
            await asyncio.sleep(0.05)

    async def many() -> None:
        watcher = asyncio.create_task(watch())
        found = await asyncio.gather(
            *(resolver.resolve(Question("a", f"n{n}.prod.local"), 1) for n in range(500)), return_exceptions=True
        )
        watcher.cancel()
        assert {type(each) for each in found} == {ResolutionTimeout}

    before = len(os.listdir("/proc/self/fd"))
    asyncio.run(many())
    assert most - before < 64 * 6 + 50


def test_a_look_up_that_gives_up_its_place_in_the_queue_holds_up_nobody(server: ScriptedDns) -> None:
    from ecs_discovery.resolvers.dns import aio as dns_async

    server.on(ORDERS, "orders.prod.local 60 A 10.0.0.1")
    turns = dns_async._Turns(1)

    async def hold(entered: asyncio.Event, leave: asyncio.Event) -> None:
        await turns.acquire()
        entered.set()
        await leave.wait()
        turns.give()

    async def main() -> None:
        leave, inside = asyncio.Event(), [asyncio.Event() for _ in range(4)]
        tasks = [asyncio.create_task(hold(each, leave)) for each in inside]
        await asyncio.sleep(0)
        assert [each.is_set() for each in inside] == [True, False, False, False]
        tasks[3].cancel()  # waiting
        await asyncio.sleep(0)
        leave.set()
        await tasks[0]
        tasks[2].cancel()  # given its turn just now: the newest of those who wait
        await asyncio.gather(*tasks, return_exceptions=True)
        assert inside[1].is_set()
        await turns.acquire()

    asyncio.run(asyncio.wait_for(main(), 5))


def test_a_server_that_can_answer_is_not_asked_twice_about_what_is_not_there(server: ScriptedDns) -> None:
    server.on(ORDERS, "orders.prod.local 60 A 10.0.0.1")
    server.on("aaaa://orders.prod.local")
    resolver = AsyncDnsResolver(server.policy())

    async def main() -> None:
        questions = [Question(kind, "orders.prod.local") for kind in ("a", "aaaa", "srv")]
        for _ in range(2):
            await asyncio.gather(*(resolver.resolve(each, 5) for each in questions), return_exceptions=True)

    asyncio.run(main())
    assert Counter(seen.kind for seen in server.seen) == {"A": 2, "AAAA": 2, "SRV": 2}
