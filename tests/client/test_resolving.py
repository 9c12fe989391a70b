"""Resolving: the cache, TTLs, and how often DNS is asked."""

from __future__ import annotations

import asyncio
import threading

import pytest

from ecs_discovery import (
    AsyncDiscovery,
    CachePolicy,
    DiscoveryError,
    DnsPolicy,
    ResolutionError,
    TargetNotFound,
)
from ecs_discovery.models import Endpoint, Resolution
from tests.client.support import NODATA, NXDOMAIN, dns_of
from tests.support import FakeClock, FakeResolver, a, aaaa, answer, srv
from tests.worlds import Worlds


def test_a_name_is_resolved_once_per_ttl_and_type(world: Worlds):
    dns = dns_of("10.0.0.1", "10.0.0.2")

    async def scenario(w):
        for _ in range(100):
            found = await w.resolve("orders:80")
        assert [str(endpoint) for endpoint in found.endpoints] == ["10.0.0.1:80", "10.0.0.2:80"]
        eventually_asked = {a(), aaaa(), srv()}
        assert set(dns.asked) <= eventually_asked
        assert dns.asked.count(a()) == 1

    world.run(scenario, dns=dns)


def test_a_thousand_callers_of_a_cold_name_ask_once_per_record_type(world: Worlds):
    dns = dns_of("10.0.0.1")
    gate = threading.Event()

    def slow() -> Resolution:
        gate.wait(0.3 if world.name == "threads" else 0)
        return answer("10.0.0.1")

    dns.answers[a()] = slow

    async def scenario(w):
        results = await w.many(1000, lambda: w.resolve("orders:80", timeout=30))
        assert {type(result) for result in results} == {Resolution}
        assert len(results) == 1000
        assert sorted(map(str, dns.asked)) == ["a://orders", "aaaa://orders", "srv://orders"]

    world.run(scenario, dns=dns)


def test_a_stale_answer_is_served_at_once_and_refreshed_in_the_background(world: Worlds):
    clock, dns = FakeClock(), dns_of("10.0.0.1")

    async def scenario(w):
        await w.resolve("orders:80")
        gate = threading.Event()
        dns.answers[a()] = lambda: gate.wait(10) and answer("10.0.0.2")
        clock.advance(15)
        assert (await w.resolve("orders:80")).endpoints[0].host == "10.0.0.1"
        gate.set()
        while (await w.resolve("orders:80")).endpoints[0].host != "10.0.0.2":
            await w.pause(0.001)
        assert dns.asked.count(a()) == 2

    world.run(scenario, dns=dns, clock=clock)


def test_after_an_idle_spell_a_call_waits_for_the_answer(world: Worlds):
    clock, dns = FakeClock(), dns_of("10.0.0.1")

    async def scenario(w):
        await w.resolve("orders:80")
        dns.answers[a()] = answer("10.0.0.2")
        clock.advance(100)
        assert (await w.resolve("orders:80")).endpoints[0].host == "10.0.0.2"
        dns.answers[a()] = ResolutionError("SERVFAIL")
        clock.advance(100)
        found = await w.resolve("orders:80")
        assert (found.endpoints[0].host, found.stale) == ("10.0.0.2", True)

    world.run(scenario, dns=dns, clock=clock)


def test_an_answer_of_ttl_zero_serves_those_who_waited_for_it_and_no_floor_means_none(world: Worlds):
    dns = dns_of("10.0.0.1", ttl=0)

    async def scenario(w):
        for number in range(1, 6):
            assert (await w.resolve("orders:80")).endpoints[0].host == "10.0.0.1"
            assert dns.asked.count(a()) == number

    world.run(scenario, dns=dns, cache=CachePolicy(min_ttl=0, jitter=0))


def test_a_negative_ttl_of_zero_is_no_storm_of_questions(world: Worlds):
    clock, gone = FakeClock(), TargetNotFound("no such name", ttl=0.0)
    dns = FakeResolver({a(): answer("10.0.0.1"), aaaa(): answer("::1"), srv(): NODATA})

    async def scenario(w):
        await w.resolve("orders:80")
        dns.answers |= {a(): gone, aaaa(): gone}
        clock.advance(12)
        for _ in range(200):
            await w.resolve("orders:80")
            await w.pause(0.0005)
        assert len(dns.asked) <= 9
        clock.advance(2)
        for _ in range(200):
            await w.resolve("orders:80")
        assert len(dns.asked) <= 12

    world.run(scenario, dns=dns, clock=clock)


def test_a_row_of_sources_falls_back_on_addresses(world: Worlds):
    dns = FakeResolver({srv(): NXDOMAIN})

    async def scenario(w):
        found = await w.resolve("orders")
        assert ([str(endpoint) for endpoint in found.endpoints], found.source) == (["10.0.0.9:80"], "static")
        dns.answers[srv()] = ResolutionError("SERVFAIL")

    world.run(scenario, dns=dns, services={"orders": ["srv://orders", "static://10.0.0.9:80"]})


def test_a_scheme_of_ones_own_is_resolved_by_the_resolver_given(world: Worlds):
    class File:
        def resolve(self, question, timeout):
            assert (question.scheme, question.name) == ("file", "orders.json")
            return Resolution((Endpoint("10.1.1.1", 9000),), 30.0, "file")

    async def scenario(w):
        found = await w.resolve("file://orders.json")
        assert (str(found.endpoints[0]), found.source) == ("10.1.1.1:9000", "file")

    world.run(scenario, resolvers={"file": File()})


def test_everything_drained_says_so(world: Worlds):
    clock, dns = FakeClock(), dns_of("10.0.0.1")

    async def scenario(w):
        await w.resolve("orders:80")
        dns.answers |= {a(): NXDOMAIN, aaaa(): NXDOMAIN, srv(): NXDOMAIN}
        for _ in range(30):
            clock.advance(6)
            try:
                await w.resolve("orders:80")
            except TargetNotFound:
                break
            await w.pause(0.002)
        else:
            raise AssertionError("never drained")
        with pytest.raises(DiscoveryError, match="no such name"):
            async with w.lease("orders:80"):
                raise AssertionError("not reached")
        dns.answers[a()] = answer("10.0.0.9")
        clock.advance(6)
        assert (await w.resolve("orders:80")).endpoints[0].host == "10.0.0.9"

    world.run(scenario, dns=dns, clock=clock)


def test_a_lookup_whose_leader_is_cancelled_is_started_again_by_whoever_waits():

    class Slow:
        def __init__(self) -> None:
            self.asked = 0

        async def resolve(self, question, timeout):
            self.asked += 1
            await asyncio.sleep(30 if self.asked == 1 else 0)
            return Resolution((Endpoint("10.1.1.1", 9000),), 30.0, "slow")

    async def main():
        slow = Slow()
        async with AsyncDiscovery(resolvers={"slow": slow}) as discovery:
            first = asyncio.create_task(discovery.resolve("slow://orders", timeout=20))
            second = asyncio.create_task(discovery.resolve("slow://orders", timeout=20))
            await asyncio.sleep(0.01)
            assert slow.asked == 1
            first.cancel()
            await asyncio.sleep(0.01)
            assert slow.asked == 1  # a waiter that gives up does not end the flight
            for task in list(discovery._driver.background.tasks):
                task.cancel()
            assert (await second).endpoints[0].host == "10.1.1.1"
            assert slow.asked == 2

    asyncio.run(main())


def test_dns_is_not_asked_more_often_than_allowed_and_what_is_known_stays(world: Worlds):
    clock = FakeClock()
    dns = FakeResolver({a(name): answer("10.0.0.1") for name in (f"n{number}" for number in range(20))})

    async def scenario(w):
        refused = 0
        for number in range(20):
            try:
                await w.resolve(f"dns://n{number}:80")
            except ResolutionError as error:
                refused += "lookups per second" in str(error)
        assert refused == 15
        assert len(dns.asked) == 5
        clock.advance(12)
        for _ in range(3):
            assert (await w.resolve("dns://n0:80")).endpoints[0].host == "10.0.0.1"

    world.run(scenario, dns=dns, clock=clock, dnspolicy=DnsPolicy(max_queries=5, families=("a",)))
