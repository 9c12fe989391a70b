"""Lookups that wait for a thread or a turn: whose names may hold up whose, for how long, and how many wait."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ecs_discovery import AsyncDiscovery, Discovery, DnsPolicy, ResolutionError, TimeoutPolicy
from ecs_discovery.models import Question, Resolution
from ecs_discovery.resolvers.dns import aio as dns_async
from ecs_discovery.resolvers.in_threads import InThreads
from ecs_discovery.runtime import sockets, workers
from ecs_discovery.runtime.single_flight import Flights
from ecs_discovery.runtime.workers import Workers
from tests.support import FakeClock, a, answer, eventually
from tests.worlds import Worlds, world

__all__ = ["world"]

PATIENT = TimeoutPolicy(connect=30)


class Gated:
    """A source that answers nobody before its gate opens, and notes what it is asked."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.later = threading.Event()
        self.slow: set[str] = set()  # the names that wait for the later gate too
        self.asked: Counter[Question] = Counter()

    def resolve(self, question: Question, timeout: float) -> Resolution:
        self.asked[question] += 1
        self.gate.wait(30)
        if question.name in self.slow:
            self.later.wait(30)
        return answer("10.0.0.1", port=80)


class Quick:
    def resolve(self, question: Question, timeout: float) -> Resolution:
        return answer("10.0.0.2", port=80)


@contextmanager
def gated(**settings: Any) -> Iterator[tuple[Discovery, Gated, Callable[[str], None]]]:
    """A discovery whose source is silent and whose threads are all busy with it, and a function that asks for a name
    as a caller who waits for 2 s."""
    source = Gated()
    with Discovery(resolvers={"own": source}, **settings) as discovery:

        def ask(name: str) -> None:
            discovery._driver.background.ask(Question("own", name), deadline_at=discovery._driver.engine.clock() + 2)

        for number in range(32):
            ask(f"busy{number}")
        eventually(lambda: len(source.asked) == 32)
        try:
            yield discovery, source, ask
        finally:
            source.gate.set()
            source.later.set()


def test_endpoints_that_have_vanished_hold_up_no_lookup(world: Worlds, monkeypatch: pytest.MonkeyPatch):
    over = threading.Event()
    begun: list[str] = []

    def silent(endpoint: Any, timeout: float) -> Any:
        begun.append(endpoint.host)
        over.wait(30)
        raise TimeoutError

    async def silent_async(endpoint: Any, tuning: object = None) -> Any:
        begun.append(endpoint.host)
        await asyncio.sleep(30)

    monkeypatch.setattr(sockets, "connect", silent)
    monkeypatch.setattr(sockets, "connect_async", silent_async)
    many = "static://" + ",".join(f"10.0.0.{number}:80" for number in range(1, 119))

    async def scenario(w: Any) -> None:
        engine, background = w.engine, w.discovery._driver.background
        for node in engine.service(many).nodes:
            background.suspect(engine.service(many), node)
        while len(begun) < 32:
            await w.pause(0.005)
        assert (await w.resolve("dns://orders:80", timeout=10)).endpoints
        over.set()

    world.run(scenario, dns=Quick())


@pytest.mark.parametrize("kind", ["threads", "asyncio"])
def test_a_resolver_that_blocks_stops_no_other_resolver(kind: str):
    """It blocks on more names than there are threads for it."""
    blocking = Gated()
    resolvers: Any = {"slow": blocking, "quick": Quick()}
    names = [Question("slow", f"name{number}") for number in range(40)]
    try:
        if kind == "threads":
            with Discovery(resolvers=resolvers) as discovery:
                for each in names:
                    discovery._driver.background.ask(each)
                assert discovery.resolve("quick://orders", timeout=10).endpoints
            return

        async def main() -> None:
            async with AsyncDiscovery(resolvers=resolvers) as discovery:
                for each in names:
                    discovery._driver.background.ask(each)
                while len(blocking.asked) < 32:
                    await asyncio.sleep(0.005)
                assert (await discovery.resolve("quick://orders", timeout=10)).endpoints

        asyncio.run(main())
    finally:
        blocking.gate.set()


def test_the_limit_of_a_flight_counts_from_when_it_starts():
    flights = Flights()
    flight, _ = flights.join(a(), 0.0, 7.0, wanted=20.0)
    assert flights.start(a(), flight, 6.0, 7.0)
    assert flights.join(a(), 12.9, 7.0) == (flight, False)
    assert flights.join(a(), 13.0, 7.0)[1]


def test_a_lookup_that_nobody_waits_for_any_more_is_not_begun():
    flights = Flights()
    flight, _ = flights.join(a(), 0.0, 7.0, wanted=2.0)
    assert flights.join(a(), 1.0, 7.0, wanted=3.0) == (flight, False), "another caller waits for longer"
    assert not flights.start(a(), flight, 3.0, 7.0)
    assert flight.done()
    assert len(flights) == 0


def test_a_caller_with_hardly_any_time_begins_a_lookup_all_the_same():
    """Its answer is for the next caller."""
    flights = Flights()
    flight, _ = flights.join(a(), 0.0, 7.0, wanted=0.0)
    assert flights.start(a(), flight, 0.1, 7.0)


def test_a_lookup_that_waited_for_a_thread_is_not_made_twice():
    """It began a moment ago, however long ago it was asked for."""
    clock, question = FakeClock(), Question("own", "orders")
    with gated(clock=clock) as (discovery, source, _):
        flight = discovery._driver.background.ask(question, deadline_at=clock() + 30)
        clock.advance(4)
        source.slow.add("orders")
        source.gate.set()
        eventually(lambda: source.asked[question])
        clock.advance(4)
        assert discovery._driver.background.ask(question, deadline_at=clock() + 30) is flight
        source.later.set()
        assert flight.result(10) is None
    assert source.asked[question] == 1


def test_a_silent_source_is_not_asked_for_names_that_nobody_waits_for_any_more():
    clock = FakeClock()
    with gated(clock=clock) as (discovery, source, ask):
        for _ in range(6):
            for number in range(500):
                ask(f"name{number}")
            clock.advance(4)  # the callers have gone, and come again
            assert len(discovery._driver.background.asker._pool("own").queued()) <= 500
        ask("wanted")
        wanted = Question("own", "wanted")
        source.gate.set()
        eventually(lambda: source.asked[wanted])
        eventually(lambda: not discovery._driver.background.asker._pool("own").queued())
        assert len(source.asked) <= 34


def test_of_lookups_that_wait_for_a_thread_the_one_asked_for_last_begins_first():
    with gated() as (discovery, _, ask):
        for number in range(100):
            ask(f"name{number}")
        ask("name7")
        assert list(discovery._driver.background.asker._pool("own").queued())[-1] == Question("own", "name7")


def test_when_too_many_lookups_wait_the_oldest_fails_and_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(workers, "_QUEUE", 10)
    with gated(timeout=PATIENT) as (discovery, _, ask):
        failed: list[Exception] = []

        def wait() -> None:
            try:
                discovery.resolve("own://oldest", timeout=20)
            except ResolutionError as error:
                failed.append(error)

        waiter = threading.Thread(target=wait)
        waiter.start()
        eventually(lambda: Question("own", "oldest") in discovery._driver.background.asker._pool("own").queued())
        for number in range(50):
            ask(f"name{number}")
        waiter.join(10)
        assert not waiter.is_alive()
        assert "other lookups wait" in str(failed[0])
        assert len(discovery._driver.background.asker._pool("own").queued()) <= 10


def test_a_lookup_of_a_resolver_in_threads_has_its_whole_time_once_it_starts():
    async def main() -> None:
        pool, gate, order = Workers(limit=1), threading.Event(), list[str]()

        class Slow:
            def resolve(self, question: Question, timeout: float) -> Resolution:
                order.append(question.name)
                time.sleep(0.6)
                return answer("10.0.0.1")

        pool.spawn(lambda: gate.wait(10))
        slow = InThreads(Slow(), pool)
        asyncio.get_running_loop().call_later(0.6, gate.set)
        assert (await slow.resolve_in_turn(Question("slow", "orders"), 1.0, lambda: True)).endpoints  # type: ignore[union-attr]
        assert order == ["orders"]

    asyncio.run(main())


def test_a_lookup_that_waited_in_vain_for_a_thread_is_never_made():
    async def main() -> None:
        pool, gate, source = Workers(limit=1), threading.Event(), Gated()
        source.gate.set()
        pool.spawn(lambda: gate.wait(10))
        slow = InThreads(source, pool)
        for _ in range(5):
            with pytest.raises(ResolutionError, match="no thread was free"):
                await slow.resolve(Question("slow", "orders"), 0.02)
        assert not pool.queued()
        gate.set()
        assert (await slow.resolve(Question("slow", "other"), 10)).endpoints
        assert list(source.asked) == [Question("slow", "other")]

    asyncio.run(main())


def test_a_lookup_of_asyncio_whose_turn_comes_when_nobody_waits_is_not_made(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dns_async, "_MAX_LOOKUPS", 1)
    asked: list[float] = []

    async def main() -> None:
        resolver = dns_async.AsyncDnsResolver(DnsPolicy(nameservers=("127.0.0.1",), hosts_file=""))
        free = asyncio.Event()
        loop = asyncio.get_running_loop()

        async def ask(question: Question, servers: Any, deadline: float) -> Resolution:
            asked.append(deadline - loop.time())
            await free.wait()
            return answer("10.0.0.1")

        monkeypatch.setattr(resolver, "_ask", ask)
        first = asyncio.create_task(resolver.resolve_in_turn(a("one"), 5.0, lambda: True))
        second = asyncio.create_task(resolver.resolve_in_turn(a("two"), 5.0, lambda: False))
        third = asyncio.create_task(resolver.resolve_in_turn(a("three"), 5.0, lambda: True))
        await asyncio.sleep(0.3)
        free.set()
        await asyncio.gather(first, third)
        assert await second is None

    asyncio.run(main())
    assert len(asked) == 2
    assert min(asked) > 4.9, "the time limit counts from the turn"
