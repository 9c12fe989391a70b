"""A name that appears late, behind servers that remember it was not there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ecs_discovery import NoEndpoints, TargetNotFound
from ecs_discovery.config.policies import CloudMapPolicy
from ecs_discovery.resolvers.cloud_map.sync import CloudMapResolver
from ecs_discovery.testing.lab import Lab
from tests.cloud_map import client_for
from tests.servers import UnboundServer, required
from tests.support import FakeClock, a
from tests.worlds import Worlds, world

__all__ = ["world"]


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(namespace="prod.local", seed=7) as lab:
        lab.dns.negative_ttl = 900
        yield lab


@pytest.fixture
def unbound(lab: Lab, tmp_path: Path) -> Iterator[UnboundServer]:
    with UnboundServer(required("unbound", "unbound"), tmp_path, "prod.local", lab.nameserver) as running:
        yield running


async def found_within(w, clock: FakeClock, target: str, seconds: float) -> bool:
    """Does a call that is made every half second get an answer in that time?"""
    until = clock() + seconds
    while clock() < until:
        clock.advance(0.5)
        try:
            await w.resolve(target)
        except (TargetNotFound, NoEndpoints):
            continue
        return True
    return False


def test_a_record_that_appears_is_found_within_six_seconds_whatever_the_soa_says(lab: Lab, world: Worlds):
    clock = FakeClock()

    async def scenario(w):
        with pytest.raises(TargetNotFound):
            await w.resolve("orders:80")
        lab.service("orders", tasks=2)
        assert await found_within(w, clock, "orders:80", 6)

    world.run(scenario, clock=clock, namespace="prod.local", nameservers=[lab.nameserver])


def test_behind_a_resolver_that_remembers_it_cloud_map_in_the_row_knows(
    lab: Lab, unbound: UnboundServer, world: Worlds
):
    clock = FakeClock()
    client = client_for(lab.cloud_map.endpoint_url)

    async def scenario(w):
        with pytest.raises((TargetNotFound, NoEndpoints)):
            await w.resolve("plain")
        with pytest.raises((TargetNotFound, NoEndpoints)):
            await w.resolve("orders")
        service = lab.service("orders", tasks=2)
        asked = lab.dns.queries["orders.prod.local", "A"]
        assert not await found_within(w, clock, "plain", 12)  # unbound holds its NXDOMAIN for 900 s
        assert lab.dns.queries["orders.prod.local", "A"] == asked
        assert await found_within(w, clock, "orders", 6)
        found = await w.resolve("orders")
        assert {endpoint.host for endpoint in found.endpoints} == {task.address for task in service.tasks}
        assert found.source == "cloudmap"

    world.run(
        scenario,
        clock=clock,
        namespace="prod.local",
        nameservers=[unbound.address],
        services={
            "plain": "dns://orders.prod.local:80",
            "orders": ["dns://orders.prod.local:80", "cloudmap://prod.local/orders"],
        },
        resolvers={"cloudmap": CloudMapResolver(CloudMapPolicy(), client=client, clock=clock)},
    )


def test_the_same_eight_for_ever_make_cloud_map_be_asked(lab: Lab, world: Worlds):
    service = lab.service("orders", tasks=20, ttl=1)
    lab.dns.add("pinned.prod.local", "A", *(task.address for task in service.tasks[:8]), ttl=1)
    clock = FakeClock()
    client = client_for(lab.cloud_map.endpoint_url)

    async def scenario(w):
        for _ in range(6):
            clock.advance(2)
            await w.resolve("alone")
            while len(w.engine.flights):
                await w.pause(0.001)
        alone = w.discovery.snapshot("alone")
        assert (len(alone.nodes), alone.partial, alone.estimate, alone.coverage) == (8, True, None, None)
        await w.resolve("orders")
        while len((await w.resolve("orders")).endpoints) < 20:
            await w.pause(0.001)
        assert w.discovery.snapshot("orders").coverage == 1.0
        while len(w.engine.flights):
            await w.pause(0.001)
        assert w.engine.service("orders").wanted() != (a("pinned.prod.local"),)

    world.run(
        scenario,
        clock=clock,
        namespace="prod.local",
        nameservers=[lab.nameserver],
        services={
            "alone": f"dns://pinned.prod.local:{service.port}",
            "orders": [f"dns://pinned.prod.local:{service.port}", "cloudmap://prod.local/orders"],
        },
        resolvers={"cloudmap": CloudMapResolver(CloudMapPolicy(), client=client, clock=clock)},
    )
