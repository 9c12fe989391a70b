"""Both worlds against the lab's Cloud Map: from a declared service to connections."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ecs_discovery import (
    AsyncDiscovery,
    CachePolicy,
    CloudMapPolicy,
    ConfigurationError,
    Discovery,
    DnsPolicy,
    ZonePolicy,
)
from ecs_discovery.errors import NoEndpoints, ResolutionError, TargetNotFound
from ecs_discovery.resolvers import CloudMapResolver
from ecs_discovery.testing.lab import Lab
from tests.cloud_map import FakeClient, client_for, instance
from tests.support import FakeClock
from tests.traffic import traffic
from tests.worlds import Worlds, world

__all__ = ["world"]

SERVICES = {"orders": "cloudmap://prod.local/orders"}


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(namespace="prod.local", seed=7) as lab:
        yield lab


def settings(lab: Lab, **more: Any) -> dict[str, Any]:
    clock = {"clock": more["clock"]} if "clock" in more else {}
    resolver = CloudMapResolver(
        more.get("cloud_map"), client=client_for(lab.cloud_map.endpoint_url, read_timeout=0.5), **clock
    )
    return {"services": SERVICES, "resolvers": {"cloudmap": resolver}, **more}


async def landed(w: Any) -> None:
    """Wait until no lookup is in flight."""
    while len(w.engine.flights):
        await w.pause(0.002)


def addresses(resolution: Any) -> set[str]:
    return {str(endpoint) for endpoint in resolution.endpoints}


def test_a_declared_service_is_found_and_connected_to(lab: Lab, world: Worlds):
    """A task is one of the two drawn for a sixth of the connects: all 150 miss one of twelve once in 10^10 runs."""
    service = lab.service("orders", tasks=12)

    async def scenario(w):
        expected = {f"{task.address}:{task.port}" for task in service.tasks}
        for target in ("orders", "cloudmap://prod.local/orders"):
            found = await w.resolve(target)
            assert addresses(found) == expected
            assert (found.source, found.ttl, found.partial) == ("cloudmap", 5.0, False)
        peers = {await w.connect("orders") for _ in range(150)}
        assert {f"{host}:{port}" for host, port in peers} == expected, "all twelve, where DNS shows eight at a time"

    world.run(scenario, **settings(lab))
    assert lab.dns.total == 0


def test_a_resolver_of_ones_own_takes_the_place_of_the_built_in(world: Worlds):
    client = FakeClient(instance(AWS_INSTANCE_IPV4="10.0.0.1"))

    async def scenario(w):
        assert addresses(await w.resolve("orders:8080")) == {"10.0.0.1:8080"}

    world.run(scenario, services=SERVICES, resolvers={"cloudmap": CloudMapResolver(client=client)})
    assert client.operations == ["full"]


def test_the_built_in_asks_with_its_policy(lab: Lab, world: Worlds, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    service = lab.service("orders", tasks=2, instance_port=False)
    policy = CloudMapPolicy(
        endpoint_url=lab.cloud_map.endpoint_url, region="us-east-1", default_port=service.port, timeout=30
    )

    async def scenario(w):
        found = await w.resolve("orders", timeout=30)
        assert addresses(found) == {f"{task.address}:{service.port}" for task in service.tasks}

    world.run(scenario, services=SERVICES, cloud_map=policy)


@pytest.mark.parametrize(
    ("declared", "target", "port"),
    [
        ("cloudmap://prod.local/orders", "orders:81", 81),
        ("cloudmap://prod.local/orders?port=82", "orders", 82),
        ("cloudmap://prod.local/orders?port=82", "orders:81", 82),
        ("cloudmap://prod.local/orders?port=82", "cloudmap://prod.local/orders?port=83", 83),
    ],
)
def test_where_instances_have_no_port_the_target_gives_it(world: Worlds, declared: str, target: str, port: int):
    client = FakeClient(instance(AWS_INSTANCE_IPV4="10.0.0.1"))

    async def scenario(w):
        assert addresses(await w.resolve(target)) == {f"10.0.0.1:{port}"}

    world.run(scenario, services={"orders": declared}, resolvers={"cloudmap": CloudMapResolver(client=client)})


def test_without_any_port_the_error_says_where_to_name_one(world: Worlds):
    client = FakeClient(instance(AWS_INSTANCE_IPV4="10.0.0.1"))

    async def scenario(w):
        with pytest.raises(NoEndpoints, match=r"carry no port.*cloudmap://prod\.local/orders\?port=8080") as caught:
            await w.resolve("orders")
        assert "SRV" not in str(caught.value)

    world.run(scenario, services=SERVICES, resolvers={"cloudmap": CloudMapResolver(client=client)})


def test_errors_name_the_target_and_the_cause(lab: Lab, world: Worlds):
    async def scenario(w):
        with pytest.raises(TargetNotFound, match=r"orders: .*no such service") as caught:
            await w.resolve("orders")
        assert isinstance(caught.value.__cause__, TargetNotFound)

    world.run(scenario, **settings(lab))


def test_fifty_callers_of_a_cold_target_make_one_call(lab: Lab, world: Worlds):
    lab.service("orders", tasks=3)

    async def scenario(w):
        results = await w.many(50, lambda: w.resolve("orders", timeout=20))
        assert {type(result).__name__ for result in results} == {"Resolution"}

    world.run(scenario, **settings(lab))
    assert lab.cloud_map.calls == {"DiscoverInstances": 1}


def test_a_target_in_use_is_polled_every_five_seconds(lab: Lab, world: Worlds, clock: FakeClock):
    lab.service("orders", tasks=3)

    async def scenario(w):
        for _ in range(60):
            await w.resolve("orders")
            await landed(w)
            clock.advance(1)

    world.run(scenario, **settings(lab, clock=clock, cache=CachePolicy(jitter=0)))
    assert lab.cloud_map.calls == {"DiscoverInstances": 3, "DiscoverInstancesRevision": 9}


def test_a_deployment_is_followed(lab: Lab, world: Worlds, clock: FakeClock):
    service = lab.service("orders", tasks=3)

    async def scenario(w):
        await w.resolve("orders")
        service.deploy(interval=0, stop="kill")
        clock.advance(6)
        await w.resolve("orders")
        await landed(w)
        assert addresses(await w.resolve("orders")) == {f"{task.address}:{task.port}" for task in service.tasks}

    world.run(scenario, **settings(lab, clock=clock))


@pytest.mark.parametrize("fault", ["throttled", "denied", "error", "silence", "garbage"])
def test_trouble_keeps_the_set_and_backs_off(lab: Lab, world: Worlds, clock: FakeClock, fault: str):
    service = lab.service("orders", tasks=3)

    async def scenario(w):
        expected = addresses(await w.resolve("orders"))
        lab.cloud_map.reset_counts()
        lab.cloud_map.fault = fault
        for _ in range(40):
            clock.advance(1)
            await w.resolve("orders")
            await landed(w)
        found = await w.resolve("orders")
        assert addresses(found) == expected
        assert found.stale
        # At 6, 7, 9, 13, 21 and 38 seconds; what is denied is tried both ways at first.
        assert lab.cloud_map.total <= 8
        lab.cloud_map.heal()
        service.scale(4)
        clock.advance(36)
        await w.resolve("orders")
        await landed(w)
        assert len((await w.resolve("orders")).endpoints) == 4

    world.run(scenario, **settings(lab, clock=clock))


def test_a_process_over_its_own_limit_keeps_the_set(lab: Lab, world: Worlds, clock: FakeClock):
    lab.service("orders", tasks=3)

    async def scenario(w):
        expected = addresses(await w.resolve("orders"))
        for _ in range(8):
            clock.advance(1)
            await w.resolve("orders")
            await landed(w)
        assert addresses(await w.resolve("orders")) == expected
        assert any("own limit" in str(error) for error in troubles)

    troubles: list[Any] = []
    world.run(scenario, **settings(lab, clock=clock, cloud_map=CloudMapPolicy(max_calls=0.1), on_event=troubles.append))
    assert lab.cloud_map.total == 1


def test_a_failed_connect_forces_a_full_call(lab: Lab, world: Worlds):
    service = lab.service("orders", tasks=3)

    async def scenario(w):
        await w.connect("orders")
        lab.cloud_map.reset_counts()
        service.tasks[0].refuse()
        for _ in range(3):
            await w.connect("orders")
        await landed(w)

    world.run(scenario, **settings(lab))
    assert lab.cloud_map.calls == {"DiscoverInstances": 1}


def test_cloud_map_knows_what_a_negative_answer_of_dns_hides(lab: Lab, world: Worlds):
    """The row of sources: DNS first, and Cloud Map when DNS says that there is no such name."""
    service = lab.service("orders", tasks=2)
    lab.dns.fault = "nxdomain"

    async def scenario(w):
        found = await w.resolve(f"orders:{service.port}")
        assert len(found.endpoints) == 2
        assert found.source == "cloudmap"

    row = {"orders": ["dns://orders.prod.local", "cloudmap://prod.local/orders"]}
    world.run(scenario, **settings(lab, services=row, nameservers=[lab.nameserver]))


def test_a_shared_discovery_shares_its_client_its_memory_and_its_flights(lab: Lab):
    lab.service("orders", tasks=3)
    with Discovery(**settings(lab)) as discovery:

        async def main() -> None:
            shared = AsyncDiscovery(share=discovery)
            results = await asyncio.gather(*(shared.resolve("orders", timeout=20) for _ in range(20)))
            assert len({len(result.endpoints) for result in results}) == 1
            shared._driver.background.force(shared._driver.engine.service("orders").questions)
            while len(shared._driver.engine.flights):
                await asyncio.sleep(0.002)
            await shared.aclose()

        asyncio.run(main())
        assert len(discovery.resolve("orders").endpoints) == 3
    assert lab.cloud_map.calls == {"DiscoverInstances": 2}


def test_both_drivers_of_one_engine_ask_through_one_built_in_resolver():
    made: list[Any] = []
    with Discovery(services=SERVICES) as discovery:
        threads = [
            threading.Thread(target=lambda: made.append(discovery._driver.engine.cloud_map())) for _ in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        joined: Any = AsyncDiscovery(share=discovery)._driver.background.asker._resolver("cloudmap")
        assert {*made, joined._resolver} == {discovery._driver.engine.cloud_map()}
    with pytest.raises(ResolutionError, match="closed"):
        made[0].resolve(discovery._driver.engine.directory.service("orders", None, 0.0).questions[0], 1)


def test_a_look_up_has_the_time_limit_of_its_own_policy():
    with Discovery(services=SERVICES, cloud_map=CloudMapPolicy(timeout=7), dns=DnsPolicy(timeout=1)) as discovery:
        service = discovery._driver.engine.service("orders")
        assert discovery._driver.engine.limit(service.questions[0]) == 7
        assert discovery._driver.engine.limit(discovery._driver.engine.service("x:1").questions[0]) == 1


def test_a_direct_target_is_verified_under_its_dns_name():
    with Discovery(namespace="prod.local") as discovery:
        assert discovery._driver.engine.service("cloudmap://prod.local/orders").tls_name == "orders.prod.local"


def test_a_wrong_declaration_is_told_at_construction():
    with pytest.raises(ConfigurationError, match="namespace/service"):
        Discovery(services={"orders": "cloudmap://orders"})


def test_a_flip_of_health_and_a_change_of_zone_under_load_fail_no_request_and_move_the_traffic(
    lab: Lab, unmeasured: None
):
    """Two of six tasks become unhealthy and healthy again, and then one that is in use moves to another zone."""
    service = lab.service("orders", tasks=6)
    lab.cloud_map.health_lag = 0.0
    tasks = service.tasks

    def place(number: int, zone: str) -> None:
        task = tasks[number]
        lab.cloud_map.add(
            "orders",
            task.id,
            {"AWS_INSTANCE_IPV4": task.address, "AWS_INSTANCE_PORT": str(task.port), "AVAILABILITY_ZONE": zone},
        )

    for number in range(6):
        place(number, "a" if number < 4 else "b")
    policy = CloudMapPolicy(poll=0.1, full_interval=0.1)
    made = settings(lab, cloud_map=policy, zone=ZonePolicy(prefer=True, own="a", min_endpoints=2))

    def reached(seen: list[tuple[float, str]], expected: set[int]) -> None:
        """Within 20 seconds requests go to all of these tasks and to no other.

        Two looks at Cloud Map may be needed, and a task that was slow for a moment is left out for some time.
        """
        wanted = {tasks[number].id for number in expected}
        used: set[str] = set()
        limit = time.monotonic() + 20
        while time.monotonic() < limit:
            began = time.monotonic()
            time.sleep(0.5)
            now = {name for when, name in seen if when >= began}
            used = used | now if now <= wanted else set()
            if used == wanted:
                return
        raise AssertionError((expected, used))

    with Discovery(**made) as discovery, traffic("http://orders/", discovery) as load:
        reached(load.tasks, {0, 1, 2, 3})
        for number in (0, 1):
            service.set_health(tasks[number], False)
        reached(load.tasks, {2, 3})
        for number in (0, 1):
            service.set_health(tasks[number], True)
        reached(load.tasks, {0, 1, 2, 3})
        place(3, "b")
        place(4, "a")
        reached(load.tasks, {0, 1, 2, 4})
    assert load.failures == []
    assert len(load.sent) > 200
