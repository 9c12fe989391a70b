"""Both worlds against the lab: real DNS with faults, real tasks that die."""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from random import Random

import pytest

from ecs_discovery import (
    AsyncDiscovery,
    CachePolicy,
    ConnectError,
    ConnectTimeout,
    Discovery,
    DnsPolicy,
    NoEndpoints,
    ResolutionError,
    ResolutionTimeout,
    TargetNotFound,
)
from ecs_discovery.testing.lab import Lab
from tests.support import FakeClock, eventually
from tests.worlds import Worlds, world

__all__ = ["world"]


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(namespace="prod.local", seed=7) as lab:
        yield lab


def settings(lab: Lab, **more):
    return {"namespace": "prod.local", "nameservers": [lab.nameserver], **more}


def test_a_name_becomes_the_addresses_of_its_tasks(lab: Lab, world: Worlds):
    service = lab.service("orders", tasks=3, records="A+SRV", ttl=30)

    async def scenario(w):
        expected = {f"{task.address}:{task.port}" for task in service.tasks}
        for target in (f"orders:{service.port}", "orders", "srv://orders", f"dns://orders.prod.local:{service.port}"):
            found = await w.resolve(target)
            assert {str(endpoint) for endpoint in found.endpoints} == expected
            assert (found.source, found.ttl) == ("dns", 30.0)

    world.run(scenario, **settings(lab))


def test_a_thousand_callers_of_a_cold_name_send_one_query_per_record_type(lab: Lab, world: Worlds):
    service = lab.service("orders", tasks=3)

    async def scenario(w):
        results = await w.many(1000, lambda: w.resolve(f"orders:{service.port}", timeout=30))
        assert {type(result).__name__ for result in results} == {"Resolution"}

    world.run(scenario, **settings(lab))
    assert set(lab.dns.queries.values()) == {1}


def test_a_forced_refresh_sends_a_packet_although_the_ttl_is_not_over(lab: Lab, world: Worlds):
    service = lab.service("orders", tasks=3, ttl=60)

    async def scenario(w):
        target = f"orders:{service.port}"
        for _ in range(3):
            await w.connect(target)
        before = lab.dns.queries["orders.prod.local", "A"]
        dead = service.tasks[0]
        service.kill(dead)
        service.flush()
        for _ in range(3):
            peer = await w.connect(target)
            assert peer[0] != dead.address
        while len(w.discovery.snapshot(target).nodes) != 2:
            await w.pause(0.005)
        assert lab.dns.queries["orders.prod.local", "A"] == before + 1

    world.run(scenario, **settings(lab))


def test_connections_spread_and_pass_over_tasks_that_die_or_vanish(lab: Lab, world: Worlds):
    service = lab.service("orders", tasks=4, records="SRV", dynamic_ports=True)

    async def scenario(w):
        peers = Counter([await w.connect("srv://orders") for _ in range(12)])
        assert sorted(peers.values()) == [3, 3, 3, 3]
        service.tasks[0].kill()
        service.tasks[1].vanish()
        peers = Counter([await w.connect("srv://orders", timeout=3) for _ in range(12)])
        assert sorted(peers.values()) == [6, 6]

    world.run(scenario, **settings(lab))


def test_with_nobody_left_connecting_ends_at_its_timeout(lab: Lab, world: Worlds):
    service = lab.service("orders", tasks=4)
    for task in service.tasks:
        task.vanish()

    async def scenario(w):
        await w.resolve(f"orders:{service.port}")
        began = time.monotonic()
        with pytest.raises(ConnectTimeout) as caught:
            await w.connect(f"orders:{service.port}", timeout=0.8)
        assert isinstance(caught.value, TimeoutError)
        assert len(caught.value.attempts) >= 2
        assert time.monotonic() - began < 8  # four addresses do not take four timeouts; a loaded machine is slow

    world.run(scenario, **settings(lab))


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("servfail", ResolutionError),
        ("refused", ResolutionError),
        ("garbage", ResolutionError),
        ("silence", ResolutionTimeout),
    ],
)
def test_dns_trouble_at_the_first_look_is_an_error_that_says_so(lab: Lab, world: Worlds, fault: str, kind: type):
    lab.service("orders", tasks=1)
    lab.dns.fault = fault

    async def scenario(w):
        with pytest.raises(kind, match="orders:80") as caught:
            await w.resolve("orders:80", timeout=5)
        assert not isinstance(caught.value, (TargetNotFound, NoEndpoints))

    world.run(scenario, **settings(lab, dnspolicy=DnsPolicy(timeout=0.6, query_timeout=0.2)))


def test_a_silent_server_holds_a_caller_no_longer_than_its_timeout(lab: Lab, world: Worlds):
    lab.dns.fault = "silence"

    async def scenario(w):
        with pytest.raises(ResolutionTimeout):
            await w.resolve("orders:80", timeout=0.1)

    world.run(scenario, **settings(lab))


def test_a_name_that_appears_is_found_within_the_negative_cap(lab: Lab, world: Worlds):
    lab.dns.negative_ttl = 900

    async def scenario(w):
        with pytest.raises(TargetNotFound):
            await w.resolve("orders:80")
        lab.service("orders", tasks=2)
        while True:
            try:
                found = await w.resolve("orders:80")
            except (TargetNotFound, NoEndpoints):  # the second while one kind of record is there and another asked
                await w.pause(0.01)
            else:
                break
        assert len(found.endpoints) == 2

    world.run(scenario, **settings(lab, cache=CachePolicy(negative_ttl=0.2)))


def test_when_every_known_task_is_gone_the_answer_under_way_is_waited_for(lab: Lab, world: Worlds):
    service = lab.service("orders", tasks=1, ttl=60)

    async def scenario(w):
        target = f"orders:{service.port}"
        for _ in range(3):
            await w.connect(target)
            old = service.tasks[0]
            service.add_task()
            service.kill(old)
            service.flush()
            w.engine.service(target)._forced = 0.0  # as if that had been a while ago
            lab.dns.delay = 0.1

    world.run(scenario, **settings(lab))


def test_scaling_out_and_in_is_followed(lab: Lab, world: Worlds):
    service = lab.service("orders", tasks=2, ttl=1)

    async def scenario(w):
        target = f"orders:{service.port}"
        await w.resolve(target)
        for count in (5, 1):
            service.scale(count, stop="kill")
            service.flush()
            while len((await w.resolve(target)).endpoints) != count:
                await w.pause(0.005)

    world.run(scenario, **settings(lab, cache=CachePolicy(min_ttl=0.05, max_ttl=1)))


def test_a_single_endpoint_that_is_down_is_still_tried(lab: Lab, world: Worlds):
    service = lab.service("orders", tasks=1)

    async def scenario(w):
        target = f"orders:{service.port}"
        service.tasks[0].refuse()
        with pytest.raises(ConnectError):
            await w.connect(target)
        service.tasks[0].heal()
        assert (await w.connect(target))[1] == service.port

    world.run(scenario, **settings(lab))


def test_tls_is_verified_for_the_services_name(lab: Lab, world: Worlds):
    import trustme

    authority = trustme.CA()
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("orders.prod.local").configure_cert(server_side)
    client_side = ssl.create_default_context()
    authority.configure_trust(client_side)
    service = lab.service("orders", tasks=2, ssl_context=server_side)

    async def scenario(w):
        target = f"orders:{service.port}"
        assert (await w.connect(target, ssl=client_side, timeout=10))[1] == service.port
        with pytest.raises(ssl.SSLError) as caught:
            await w.connect(target, ssl=client_side, server_hostname="other.prod.local", timeout=10)
        assert isinstance(caught.value, ConnectError)
        with pytest.raises(ssl.SSLError):
            await w.connect(target, ssl=True, timeout=10)

    world.run(scenario, **settings(lab))


def test_a_client_of_any_kind_survives_a_deployment_through_call(lab: Lab, world: Worlds):
    from http.client import HTTPConnection

    service = lab.service("orders", tasks=3, ttl=1, registration_lag=0.05, deregistration_lag=0.4)

    def fetch(attempt):
        connection = HTTPConnection(attempt.host, attempt.port, timeout=min(5, attempt.remaining))
        try:
            connection.request("GET", "/")
            response = connection.getresponse()
            response.read()
            return response.status
        finally:
            connection.close()

    async def scenario(w):
        target = f"orders:{service.port}"
        await w.warm(target)
        deployment = service.deploy(interval=0.2, background=True)
        while not deployment.done:
            assert await w.call(target, fetch, idempotent=True) == 200
            await w.pause(0.001)

    world.run(scenario, **settings(lab, cache=CachePolicy(min_ttl=0.2)))


def test_the_default_executor_is_never_used(lab: Lab):
    """A blocked executor must not hold up a lookup or a connection."""
    service = lab.service("orders", tasks=1)

    async def main():
        gate = threading.Event()
        loop = asyncio.get_running_loop()
        blocked = [loop.run_in_executor(None, gate.wait, 20) for _ in range(40)]
        try:
            async with AsyncDiscovery(**settings(lab)) as discovery:
                _, writer = await discovery.open_connection(f"orders:{service.port}", timeout=5)
                writer.close()
                await writer.wait_closed()
        finally:
            gate.set()
            await asyncio.gather(*blocked)

    asyncio.run(main())


def test_protocols_connect_too(lab: Lab):
    service = lab.service("orders", tasks=1)

    async def main():
        async with AsyncDiscovery(**settings(lab)) as discovery:
            made = []

            class Mine(asyncio.Protocol):
                def connection_made(self, transport):
                    made.append(transport)

            transport, protocol = await discovery.create_connection(Mine, f"orders:{service.port}")
            assert isinstance(protocol, Mine)
            assert made == [transport]
            transport.close()
            await asyncio.sleep(0)

    asyncio.run(main())


def test_uvloop_works_as_asyncio_does(lab: Lab):
    uvloop = pytest.importorskip("uvloop")
    service = lab.service("orders", tasks=2)

    async def main():
        async with AsyncDiscovery(**settings(lab)) as discovery:
            service.tasks[0].kill()
            for _ in range(4):
                _, writer = await discovery.open_connection(f"orders:{service.port}")
                assert writer.get_extra_info("peername")[0] == service.tasks[0].address
                writer.close()
                await writer.wait_closed()

    uvloop.run(main())


def test_nothing_is_left_open_after_closing(lab: Lab, world: Worlds):
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("counting descriptors needs /proc")
    service = lab.service("orders", tasks=3)

    async def scenario(w):
        for _ in range(10):
            await w.connect(f"orders:{service.port}")

    world.run(scenario, **settings(lab))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        world.run(scenario, **settings(lab))
    eventually(lambda: len(os.listdir("/proc/self/fd")) <= before)
    eventually(lambda: not any(thread.name == "ecs_discovery" for thread in threading.enumerate()))


def test_a_discovery_that_is_used_in_one_thread_serves_asyncio_too(lab: Lab):
    service = lab.service("orders", tasks=2, ttl=60)
    with Discovery(**settings(lab)) as discovery:
        discovery.resolve(f"orders:{service.port}")

        async def main():
            async with AsyncDiscovery(share=discovery) as shared:
                _, writer = await shared.open_connection(f"orders:{service.port}")
                writer.close()
                await writer.wait_closed()

        asyncio.run(main())
    assert lab.dns.queries["orders.prod.local", "A"] == 1


def test_a_look_up_whose_loop_ended_is_made_again_by_the_next_who_asks(lab: Lab):
    service = lab.service("orders", tasks=1, ttl=1)
    target = f"orders:{service.port}"
    with Discovery(**settings(lab, cache=CachePolicy(min_ttl=0.05, max_ttl=1))) as discovery:
        discovery.resolve(target)
        lab.dns.delay = 0.05

        async def main():
            async with AsyncDiscovery(share=discovery) as shared:
                shared._driver.background.ask(discovery._driver.engine.service(target).wanted()[0], force=True)

        asyncio.run(main())  # closed before the lookup's first step
        eventually(lambda: len(discovery._driver.engine.flights) == 0)
        total = lab.dns.total
        eventually(lambda: discovery.resolve(target) and lab.dns.total > total)


def test_closing_wakes_those_who_wait(lab: Lab):
    from ecs_discovery import ClosedError

    lab.dns.fault = "silence"
    discovery = Discovery(**settings(lab))
    errors: list[Exception] = []

    def wait() -> None:
        try:
            discovery.resolve("orders:80", timeout=30)
        except Exception as error:  # noqa: BLE001  # looked at below
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    eventually(lambda: len(discovery._driver.engine.flights) > 0)
    discovery.close()
    thread.join(10)
    assert [type(error) for error in errors] == [ClosedError]


@pytest.mark.parametrize("records", ["A", "SRV"])
def test_fifty_tasks_behind_answers_of_eight_are_nearly_all_used_after_twenty_answers(
    lab: Lab, world: Worlds, records: str
):
    service = lab.service("orders", tasks=50, ttl=1, records=records)
    clock = FakeClock()

    async def scenario(w):
        target = f"orders:{service.port}" if records == "A" else "srv://orders"
        kind = "A" if records == "A" else "SRV"
        await w.resolve(target)
        for answers in range(2, 21):
            clock.advance(1.2)
            await w.resolve(target)
            while lab.dns.queries["orders.prod.local", kind] < answers:
                await w.pause(0.001)
            while len(w.engine.flights):
                await w.pause(0.001)
        found = await w.resolve(target)
        assert len(found.endpoints) >= 45
        assert found.partial
        used = set()
        for _ in range(200):
            async with w.lease(target) as lease:
                used.add(lease.host)
        assert len(used) >= 45
        snapshot = w.discovery.snapshot(target)
        assert snapshot.coverage is not None
        assert snapshot.coverage > 0.8

    world.run(scenario, clock=clock, **settings(lab))


def test_thirty_srv_records_in_a_truncated_answer_are_all_found(lab: Lab, world: Worlds):
    lab.dns.add("many.prod.local", "SRV", *(f"1 1 {8000 + n} t{n}.many.prod.local." for n in range(30)), ttl=30)
    for number in range(30):
        lab.dns.add(f"t{number}.many.prod.local", "A", f"127.99.0.{number + 1}", ttl=30)

    async def scenario(w):
        found = await w.resolve("srv://many")
        assert {endpoint.port for endpoint in found.endpoints} == set(range(8000, 8030))
        assert not found.partial

    world.run(scenario, **settings(lab))


MIXED = [(1, 1, 81), (1, 3, 82), (2, 1, 83)]


def test_weights_and_priorities_of_srv_records_are_followed(lab: Lab, world: Worlds):
    records = [f"{priority} {weight} {port} a.mixed.prod.local." for priority, weight, port in MIXED]
    lab.dns.add("mixed.prod.local", "SRV", *records, ttl=30)
    lab.dns.add("a.mixed.prod.local", "A", "127.0.0.1", ttl=30)

    async def scenario(w):
        counts: Counter[int] = Counter()
        for _ in range(4000):
            async with w.lease("srv://mixed") as lease:
                counts[lease.port] += 1
        assert set(counts) == {81, 82}
        assert 2.6 < counts[82] / counts[81] < 3.4

    world.run(scenario, rng=Random(5), **settings(lab))


def test_a_service_connect_alias_is_passed_through(lab: Lab, world: Worlds, tmp_path):
    hosts = tmp_path / "hosts"
    hosts.write_text("127.255.0.3 orders.prod.local\n2600:f0f0:0:0:0:0:0:3 orders.prod.local\n127.255.0.4 short\n")

    async def scenario(w):
        found = await w.resolve("orders:8080")
        assert ([str(e) for e in found.endpoints], found.source) == (["127.255.0.3:8080"], "service-connect")
        found = await w.resolve("short:8080")
        assert [str(e) for e in found.endpoints] == ["127.255.0.4:8080"]
        assert lab.dns.total == 0

    world.run(scenario, dnspolicy=DnsPolicy(hosts_file=str(hosts), families=("a",)), **settings(lab))
