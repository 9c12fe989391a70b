"""Connect races on real sockets, in both worlds."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator

import pytest
import trustme

from ecs_discovery import (
    AsyncDiscovery,
    BalancingPolicy,
    CachePolicy,
    ConnectError,
    ConnectionPolicy,
    ConnectTimeout,
    DnsPolicy,
    OutlierPolicy,
    RetryPolicy,
    TimeoutPolicy,
)
from ecs_discovery.core.balancing.node import Health, Outcome
from ecs_discovery.models import Endpoint, Question, Resolution
from ecs_discovery.testing.lab import Lab
from tests.support import FakeClock
from tests.worlds import Worlds, world

__all__ = ["world"]

CALM = OutlierPolicy(connect_min=30)  # nothing that is down is tried again meanwhile


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(namespace="prod.local", seed=7) as lab:
        yield lab


def static(tasks) -> str:
    return "static://" + ",".join(f"{task.address}:{task.port}" for task in tasks)


def fleet(lab: Lab, count: int, vanished: int):
    """That many tasks, and the target that names them, vanished ones first: those are picked first."""
    tasks = lab.service("orders", tasks=count).tasks
    for task in tasks[:vanished]:
        task.vanish()
    return tasks, static(tasks)


def by_health(discovery, target: str) -> dict[Health, int]:
    nodes = discovery._driver.engine.service(target).nodes
    return {health: sum(node.health is health for node in nodes) for health in Health}


def test_a_silent_endpoint_costs_its_head_start_and_the_next_calls_nothing(lab: Lab, world: Worlds):
    tasks, target = fleet(lab, 3, 2)

    async def scenario(w):
        began = time.monotonic()
        assert (await w.connect(target, timeout=6))[0] == tasks[2].address
        assert time.monotonic() - began < 1.5  # two head starts; a third of the time limit each it was without a race
        while by_health(w.discovery, target)[Health.DOWN] < 2:
            await w.pause(0.01)
        began = time.monotonic()
        for _ in range(3):
            assert (await w.connect(target, timeout=6))[0] == tasks[2].address
        assert time.monotonic() - began < 1
        assert [node.pending for node in w.engine.service(target).nodes] == [0, 0, 0]

    world.run(scenario, outlier=CALM)


def test_a_lost_zone_costs_a_call_no_share_of_its_time_limit(lab: Lab, world: Worlds):
    """Eight of twelve are silent, and come first. Three of them would hold all places for a third of the limit."""
    tasks, target = fleet(lab, 12, 8)
    in_order = BalancingPolicy(full_scan=12)

    async def scenario(w):
        await w.resolve(target)
        w.engine.service(target).connected(0.001)
        began = time.monotonic()
        assert (await w.connect(target, timeout=15))[0] in {task.address for task in tasks[8:]}
        assert time.monotonic() - began < 4  # a third of the limit is 5 s

    world.run(scenario, outlier=CALM, balancing=in_order)


class Registry:
    """A resolver that hands on what it was told, unchecked."""

    def __init__(self, *found: Endpoint) -> None:
        self.found = found

    def resolve(self, question: Question, timeout: float) -> Resolution:
        return Resolution(self.found, 60.0, "registry")


def test_an_instance_whose_port_is_none_costs_no_call_and_is_set_aside(lab: Lab, world: Worlds):
    good = [Endpoint(task.address, task.port) for task in lab.service("orders", tasks=3).tasks]
    registry = Registry(Endpoint("127.0.0.1", 1234567), *good)

    async def scenario(w):
        for _ in range(20):
            await w.connect("registry://orders")
        assert by_health(w.discovery, "registry://orders")[Health.DOWN] == 1

    world.run(scenario, outlier=CALM, resolvers={"registry": registry})


def test_an_endpoint_that_was_only_late_stays_in_use(lab: Lab, world: Worlds):
    tasks, target = fleet(lab, 2, 1)

    async def scenario(w):
        w.engine.service(target).connected(2.0)  # looks are patient
        assert (await w.connect(target, timeout=6))[0] == tasks[1].address
        tasks[0].heal()  # a SYN sent again in a second will be answered
        while w.engine.service(target).nodes[0].suspect_again_at > 0:
            await w.pause(0.01)
        assert by_health(w.discovery, target)[Health.DOWN] == 0
        assert w.engine.service(target).nodes[0].gone_at < 0

    world.run(scenario)


def test_an_error_names_every_endpoint_that_refused(lab: Lab, world: Worlds):
    tasks, target = fleet(lab, 5, 0)
    for task in tasks:
        task.refuse()

    async def scenario(w):
        with pytest.raises(ConnectError) as caught:
            await w.connect(target, timeout=5)
        assert {f"{task.address}:{task.port}" for task in tasks} <= set(caught.value.endpoints)
        assert {attempt.outcome for attempt in caught.value.attempts} == {"connect"}
        assert by_health(w.discovery, target)[Health.DOWN] == 5

    world.run(scenario, outlier=CALM)


def test_a_race_is_one_attempt(lab: Lab, world: Worlds):
    tasks, target = fleet(lab, 3, 0)
    for task in tasks[:2]:
        task.refuse()

    async def scenario(w):
        assert (await w.connect(target, timeout=5))[0] == tasks[2].address

    world.run(scenario, retry=RetryPolicy(attempts=1))


def test_with_sixteen_of_twenty_refusing_one_attempt_is_enough(lab: Lab, world: Worlds):
    tasks, target = fleet(lab, 20, 0)
    for task in tasks[:16]:
        task.refuse()

    async def scenario(w):
        for _ in range(4):
            assert (await w.connect(target, timeout=5))[0] in {task.address for task in tasks[16:]}

    world.run(scenario, outlier=CALM, retry=RetryPolicy(attempts=2))


def test_four_unreachable_endpoints_are_an_error_within_a_fifth_over_the_limit(lab: Lab, world: Worlds):
    tasks, target = fleet(lab, 4, 4)

    async def scenario(w):
        await w.resolve(target)
        for _ in range(2):  # healthy, and then known to be down
            began = time.monotonic()
            with pytest.raises(ConnectTimeout) as caught:
                await w.connect(target, timeout=1)
            assert time.monotonic() - began < 1.2
            assert set(caught.value.endpoints) == {f"{task.address}:{task.port}" for task in tasks}

    world.run(scenario, outlier=CALM)


def test_one_endpoint_has_all_the_time_there_is(lab: Lab, world: Worlds):
    tasks, target = fleet(lab, 1, 1)

    async def scenario(w):
        with pytest.raises(ConnectTimeout) as caught:
            await w.connect(target, timeout=0.5)
        assert len(caught.value.attempts) == 1
        assert caught.value.attempts[0].seconds > 0.4
        tasks[0].heal()
        assert (await w.connect(target, timeout=5))[0] == tasks[0].address
        assert w.engine.service(target).connect_time > 0

    world.run(scenario)


def test_a_race_limit_of_one_connects_to_one_after_another(lab: Lab, world: Worlds):
    tasks, target = fleet(lab, 2, 1)

    async def scenario(w):
        began = time.monotonic()
        assert (await w.connect(target, timeout=1.6))[0] == tasks[1].address
        assert time.monotonic() - began > 0.7  # half of the time was the first one's

    world.run(scenario, connection=ConnectionPolicy(race_limit=1))


def test_only_an_endpoint_as_good_as_the_late_one_races_it(lab: Lab, world: Worlds):
    tasks, target = fleet(lab, 2, 0)

    async def scenario(w):
        await w.resolve(target)
        service = w.engine.service(target)
        bad, late = service.nodes
        for _ in range(5):
            w.engine.service(target).observe(bad, Outcome.FAILURE, w.engine.clock())
        assert bad.health is Health.EJECTED
        task = next(task for task in tasks if task.address == late.endpoint.host)
        task.vanish()
        healing = threading.Timer(0.5, task.heal)
        healing.start()
        assert (await w.connect(target, timeout=8))[0] == task.address
        healing.join()

    world.run(scenario, outlier=OutlierPolicy(max_ejected=1, panic_threshold=0))


def test_a_race_ends_by_a_clock_that_stands_still_too(lab: Lab, world: Worlds):
    _, target = fleet(lab, 2, 2)

    async def scenario(w):
        with pytest.raises(ConnectTimeout):
            await w.connect(target, timeout=0.3)

    world.run(scenario, clock=FakeClock(), retry=RetryPolicy(attempts=1))


def test_a_race_that_is_held_up_past_its_end_ends(lab: Lab, world: Worlds):
    """By a hook that takes long, a pause of the collector, or a machine that is short of processors."""
    service = lab.service("orders", tasks=4)
    for task in service.tasks:
        task.refuse()
    target = f"orders:{service.port}"

    def hold_up(event: object) -> None:
        time.sleep(0.2)

    async def scenario(w):
        await w.resolve(target)
        with pytest.raises(ConnectError):
            await w.connect(target, timeout=0.15)

    world.run(scenario, on_event=hold_up, namespace="prod.local", nameservers=[lab.nameserver])


def test_a_winner_whose_handshake_fails_is_passed_over(lab: Lab, world: Worlds):
    authority = trustme.CA()
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("orders.prod.local").configure_cert(server_side)
    client_side = ssl.create_default_context()
    authority.configure_trust(client_side)
    good = lab.service("orders", tasks=1, ssl_context=server_side).tasks[0]
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def hang_up() -> None:
            while True:
                try:
                    plain.accept()[0].close()
                except OSError:
                    return

        thread = threading.Thread(target=hang_up)
        thread.start()
        port = plain.getsockname()[1]
        target = f"static://127.0.0.1:{port},{good.address}:{good.port}"

        async def scenario(w):
            for _ in range(3):
                peer = await w.connect(target, ssl=client_side, server_hostname="orders.prod.local", timeout=10)
                assert peer[0] == good.address

        world.run(scenario)
        plain.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_cancelled_race_leaves_nothing(lab: Lab):
    _, target = fleet(lab, 3, 3)

    async def main() -> None:
        async with AsyncDiscovery(timeout=TimeoutPolicy(connect=20)) as discovery:
            await discovery.resolve(target)
            await asyncio.sleep(0.05)
            before = len(os.listdir("/proc/self/fd"))
            task = asyncio.create_task(discovery.open_connection(target))
            while sum(node.pending for node in discovery._driver.engine.service(target).nodes) < 3:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.sleep(0.05)
            assert [node.pending for node in discovery._driver.engine.service(target).nodes] == [0, 0, 0]
            assert by_health(discovery, target)[Health.DOWN] == 0
            assert len(os.listdir("/proc/self/fd")) == before

    asyncio.run(main())


def test_thirty_races_leave_no_socket_behind(lab: Lab, world: Worlds):
    _, target = fleet(lab, 3, 1)

    async def scenario(w):
        await w.connect(target)
        nodes = w.engine.service(target).nodes
        while nodes[0].suspect_again_at > 0:
            await w.pause(0.01)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(30):
            for node in nodes:  # as if all had been forgotten
                w.engine.service(target).observe(node, Outcome.SUCCESS, w.engine.clock())
            await w.connect(target, timeout=6)
        while any(node.suspect_again_at > 0 for node in nodes):
            await w.pause(0.01)
        await w.pause(0.05)
        assert len(os.listdir("/proc/self/fd")) <= before + 6
        assert [node.pending for node in nodes] == [0, 0, 0]

    world.run(scenario)


def test_a_race_looks_at_few_of_the_endpoints_that_are_known_to_be_down(world: Worlds):
    """Every call of an outage would walk through the whole fleet otherwise."""
    addresses = ",".join(f"127.88.88.{number}:1" for number in range(1, 9))

    async def scenario(w):
        with pytest.raises(ConnectError) as first:
            await w.connect(f"static://{addresses}", timeout=5)
        assert len(set(first.value.endpoints)) == 8
        with pytest.raises(ConnectError) as second:
            await w.connect(f"static://{addresses}", timeout=5)
        assert len(second.value.attempts) <= 4

    world.run(scenario, outlier=CALM, retry=RetryPolicy(attempts=1))


def test_endpoints_that_come_while_all_known_meet_silence_are_connected_to(lab: Lab, world: Worlds):
    """In a deployment the known tasks may all have gone by the time that DNS shows their successors."""
    service = lab.service("orders", tasks=4, ttl=1)
    target = f"orders.prod.local:{service.port}"
    gone = service.tasks

    async def scenario(w):
        await w.resolve(target)
        for task in gone:
            task.vanish()
        for node in w.engine.service(target).nodes[:3]:  # found out by earlier calls
            node.health, node.state_ends_at = Health.DOWN, float("inf")
        connected: list[float] = []
        began = time.monotonic()

        async def connect() -> None:
            address, _ = await w.connect(target, timeout=12)
            connected.append(time.monotonic() - began)
            assert address not in {task.address for task in gone}

        async def replace() -> None:
            await w.pause(0.6)
            service.add_task()
            for task in gone:
                service.deregister(task)
            service.flush()
            while not connected and time.monotonic() - began < 10:
                await w.resolve(target)
                await w.pause(0.05)

        works = iter([connect, replace])
        assert await w.many(2, lambda: next(works)()) == [None, None]
        assert connected[0] < 5  # half of the time limit it was: until the silent connects gave up

    asked = DnsPolicy(nameservers=(lab.nameserver,))
    world.run(
        scenario,
        namespace="prod.local",
        dnspolicy=asked,
        cache=CachePolicy(min_ttl=0.2),
        connection=ConnectionPolicy(race_limit=2),
    )
