"""Warming: names resolved before they are needed."""

from __future__ import annotations

import pytest

from ecs_discovery import (
    CachePolicy,
    DnsPolicy,
    NoEndpoints,
    ResolutionError,
    TargetNotFound,
)
from tests.client.support import NXDOMAIN, dns_of
from tests.support import FakeClock, FakeResolver, a, aaaa, answer, srv
from tests.worlds import Worlds


def test_warming_more_names_than_may_be_asked_for_at_once_takes_its_time(world: Worlds):
    """100 names of two questions each, of which 20 may be asked for at once and 20 a second after that."""
    clock = FakeClock()
    names = [f"name{number}" for number in range(100)]
    dns = FakeResolver()
    for name in (*names, *(f"other{number}" for number in range(100))):
        dns.answers[a(name)], dns.answers[aaaa(name)] = answer("10.0.0.1"), NoEndpoints("none", target=name)

    async def scenario(w):
        targets = [f"dns://{name}:80" for name in names]
        await w.warm(*targets, timeout=60)
        assert 9 <= clock.now - 1000 <= 10
        clock.advance(1)
        with pytest.raises(ResolutionError, match="over the limit"):
            await w.warm(*(f"dns://other{number}:80" for number in range(100)), timeout=3)

    world.run(
        scenario,
        dns=dns,
        dnspolicy=DnsPolicy(max_queries=20),
        clock=clock,
        sleep=clock.asleep if world.name == "asyncio" else clock.sleep,
        cache=CachePolicy(min_ttl=3600, max_ttl=3600),
    )


def test_warming_resolves_several_targets_or_says_which_could_not_be(world: Worlds):
    dns = dns_of("10.0.0.1")
    dns.answers |= {a("gone"): NXDOMAIN, aaaa("gone"): NXDOMAIN, srv("gone"): NXDOMAIN}

    async def scenario(w):
        await w.warm("orders:80", "orders:81", timeout=5)
        assert dns.asked.count(a()) == 1
        with pytest.raises(TargetNotFound, match="gone:80"):
            await w.warm("orders:80", "gone:80")

    world.run(scenario, dns=dns)
