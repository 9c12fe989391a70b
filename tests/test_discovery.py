"""`Discovery` and `AsyncDiscovery`: the same scenarios in both worlds, with answers made up by the test."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import traceback
import weakref
from random import Random

import pytest

from ecs_discovery import (
    AsyncDiscovery,
    CachePolicy,
    ClosedError,
    ConfigurationError,
    ConnectError,
    DeadlineExceeded,
    Discovery,
    DiscoveryError,
    DnsPolicy,
    NoEndpoints,
    ResolutionError,
    RetryPolicy,
    TargetNotFound,
    options,
)
from ecs_discovery.events import EndpointsChanged, HealthChanged, LookupFailed
from ecs_discovery.models import Endpoint, Question, Resolution
from tests.support import FakeClock, FakeResolver, a, aaaa, answer, eventually, srv
from tests.worlds import Worlds, refused_port, world

__all__ = ["refused_port", "world"]

NODATA = NoEndpoints("no such record")
NXDOMAIN = TargetNotFound("no such name")


def dns_of(*hosts: str, ttl: float = 10.0) -> FakeResolver:
    return FakeResolver({a(): answer(*hosts, ttl=ttl), aaaa(): NODATA, srv(): NODATA})


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


def test_an_outage_of_dns_changes_nothing_and_is_told_once(world: Worlds):
    clock, dns, events = FakeClock(), dns_of("10.0.0.1"), []

    async def scenario(w):
        await w.resolve("orders:80")
        dns.answers[a()] = ResolutionError("SERVFAIL")
        for _ in range(50):
            clock.advance(7)
            assert (await w.resolve("orders:80")).endpoints[0].host == "10.0.0.1"
            await w.pause(0.001)
        assert [type(event) for event in events] == [EndpointsChanged, LookupFailed]

    world.run(scenario, dns=dns, clock=clock, on_event=events.append)


@pytest.mark.parametrize(
    ("error", "kind"),
    [(NXDOMAIN, TargetNotFound), (ResolutionError("garbage"), ResolutionError), (OSError("bug"), ResolutionError)],
    ids=["nxdomain", "garbage", "a resolver's bug"],
)
def test_a_cold_name_that_cannot_be_resolved_is_an_error_that_names_it(world: Worlds, error, kind):
    dns = FakeResolver({a(): error, aaaa(): error, srv(): error})

    async def scenario(w):
        with pytest.raises(kind, match="orders:80") as caught:
            await w.resolve("orders:80")
        assert caught.value.target == "orders:80"
        assert caught.value.__cause__ is not None
        before = len(dns.asked)
        with pytest.raises(kind):
            await w.resolve("orders:80")
        assert len(dns.asked) == before  # held for a moment: no storm of questions

    world.run(scenario, dns=dns)


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


def test_an_interrupt_or_the_deadline_ends_a_call_that_was_being_retried(world: Worlds):
    clock = FakeClock()

    async def scenario(w):
        tried = []

        def fetch(attempt):
            tried.append(attempt.port)
            if len(tried) == 2:
                raise KeyboardInterrupt
            raise ConnectionResetError(104, "reset")

        with pytest.raises(KeyboardInterrupt):
            await w.call(THREE, fetch, idempotent=True)
        assert len(tried) == 2

        def overrun(attempt):
            tried.append(attempt.port)
            raise ConnectionResetError(104, "reset")

        begin = w.engine.start_attempt
        w.engine.start_attempt = lambda *args, **options: (clock.advance(1), begin(*args, **options))[1]
        tried.clear()
        with pytest.raises(DeadlineExceeded):
            await w.call(THREE, overrun, idempotent=True, deadline=1.5)
        assert len(tried) == 1

    world.run(scenario, clock=clock)


def test_a_refusal_that_was_not_the_endpoints_is_not_repeated_as_if_nothing_was_sent(world: Worlds):
    with socket.create_server(("127.0.0.1", 0)) as server:
        target = f"static://127.0.0.1:{server.getsockname()[1]}"

        async def scenario(w):
            tried = []

            def fetch(attempt):
                tried.append(attempt.port)
                raise ConnectionRefusedError(111, "somebody else's")

            with pytest.raises(ConnectionRefusedError):
                await w.call(target, fetch)
            assert len(tried) == 1
            with pytest.raises(ConnectionRefusedError):
                async with w.lease(target):
                    raise ConnectionRefusedError(111, "somebody else's")
            await w.pause(0.05)
            assert w.discovery.snapshot(target).nodes[0].health == "healthy"

        world.run(scenario)


@pytest.mark.parametrize("nonsense", [None, "10.0.0.1", Resolution((), 5.0, "mine")])
def test_a_resolver_that_gives_nonsense_is_an_error_and_is_not_asked_without_end(world: Worlds, nonsense):
    class Broken:
        asked = 0

        def resolve(self, question, timeout):
            self.asked += 1
            return nonsense

    async def scenario(w):
        for _ in range(20):
            with pytest.raises(ResolutionError, match="its resolver failed"):
                await w.resolve("broken://orders", timeout=5)
        assert broken.asked == 1

    broken = Broken()
    world.run(scenario, resolvers={"broken": broken})


def test_one_family_that_goes_empty_keeps_its_endpoints_for_a_while(world: Worlds):
    clock = FakeClock()
    dns = FakeResolver({a(): answer("10.0.0.1"), aaaa(): answer("::1"), srv(): NODATA})

    async def scenario(w):
        async def known():
            clock.advance(12)
            await w.resolve("orders:80")
            await w.pause(0.01)
            return {endpoint.host for endpoint in (await w.resolve("orders:80")).endpoints}

        assert await known() == {"10.0.0.1", "::1"}
        dns.answers[a()] = NODATA
        assert await known() == {"10.0.0.1", "::1"}
        for _ in range(5):
            found = await known()
        assert found == {"::1"}

    world.run(scenario, dns=dns, clock=clock)


def test_events_reach_the_hook_in_the_order_in_which_they_happened():
    """A hook is slow with the first, and another thread has the second to tell meanwhile."""
    told: list[str] = []
    first, second = threading.Event(), threading.Event()

    def hook(event: object) -> None:
        if isinstance(event, HealthChanged):
            if event.health == "down":
                first.set()
                second.wait(5)
            told.append(event.health)

    with Discovery(services={"orders": "static://127.0.0.1:1,127.0.0.1:2"}, on_event=hook) as discovery:
        engine, service = discovery._driver.engine, discovery._driver.engine.service("orders")
        node = service.nodes[0]
        failing = threading.Thread(target=engine.reconnected, args=(service, node, False))
        failing.start()
        assert first.wait(10)
        engine.reconnected(service, node, True)
        second.set()
        failing.join(10)
    assert told == ["down", "healthy"]


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


def test_leases_go_round_and_an_exception_is_a_failure(world: Worlds):
    async def scenario(w):
        ports = []
        for _ in range(6):
            async with w.lease("static://127.0.0.1:1,127.0.0.1:2,127.0.0.1:3") as lease:
                ports.append(lease.port)
                assert lease.host == "127.0.0.1"
        assert sorted(ports) == [1, 1, 2, 2, 3, 3]
        target = "static://127.0.0.1:1"
        with pytest.raises(ValueError, match="mine"):
            async with w.lease(target):
                raise ValueError("mine")
        async with w.lease(target) as lease:
            lease.fail()
        with pytest.raises(KeyboardInterrupt):
            async with w.lease(target):
                raise KeyboardInterrupt
        (node,) = w.discovery.snapshot(target).nodes
        assert (node.uses, node.failures, node.pending) == (3, 2, 0)
        with pytest.raises(ClosedError, match="outside"):
            lease.port

    world.run(scenario)


def test_a_key_sticks_to_an_endpoint(world: Worlds):
    async def scenario(w):
        target = "static://" + ",".join(f"127.0.0.1:{port}" for port in range(1, 9))
        seen = set()
        for _ in range(5):
            async with w.lease(target, key="ann") as lease:
                seen.add(lease.port)
            seen.add(await w.call(target, lambda attempt: attempt.port, key="ann"))
        assert len(seen) == 1

    world.run(scenario)


def test_options_give_a_key_and_what_is_written_at_the_call_goes_first(world: Worlds):
    target = "static://" + ",".join(f"127.0.0.1:{port}" for port in range(1, 9))

    async def scenario(w):
        seen = set()
        with options(key="ann"):
            for _ in range(5):
                async with w.lease(target) as lease:
                    seen.add(lease.port)
                seen.add(await w.call(target, lambda attempt: attempt.port))
        assert len(seen) == 1
        tried = []

        def fetch(attempt):
            tried.append(attempt.port)
            raise ConnectionResetError(104, "reset")

        with options(idempotent=True), pytest.raises(ConnectionResetError):
            await w.call(target, fetch, idempotent=False)
        assert len(tried) == 1
        with options(idempotent=False), pytest.raises(ConnectionResetError):
            await w.call(target, fetch, idempotent=True)
        assert len(tried) == 4

    world.run(scenario)


def test_a_row_of_sources_falls_back_on_addresses(world: Worlds):
    dns = FakeResolver({srv(): NXDOMAIN})

    async def scenario(w):
        found = await w.resolve("orders")
        assert ([str(endpoint) for endpoint in found.endpoints], found.source) == (["10.0.0.9:80"], "static")
        dns.answers[srv()] = ResolutionError("SERVFAIL")

    world.run(scenario, dns=dns, services={"orders": ["srv://orders", "static://10.0.0.9:80"]})


def test_a_services_own_policies_replace_the_discoverys(world: Worlds):
    from ecs_discovery import OutlierPolicy, ServiceConfig

    lenient = OutlierPolicy(is_failure=lambda error: False)

    async def scenario(w):
        for name, failures in (("strict", 1), ("lenient", 0)):
            with pytest.raises(ValueError, match="bad"):
                async with w.lease(name):
                    raise ValueError("bad")
            assert w.discovery.snapshot(name).nodes[0].failures == failures

    world.run(
        scenario,
        services={"strict": "static://127.0.0.1:1", "lenient": ServiceConfig("static://127.0.0.1:2", outlier=lenient)},
    )


def test_the_callers_idea_of_a_failure_decides(world: Worlds):
    from ecs_discovery import OutlierPolicy

    async def scenario(w):
        for _ in range(10):
            with pytest.raises(ValueError, match="bad input"):
                async with w.lease("static://127.0.0.1:1"):
                    raise ValueError("bad input")
        (node,) = w.discovery.snapshot("static://127.0.0.1:1").nodes
        assert node.failures == 0

    world.run(scenario, outlier=OutlierPolicy(is_failure=lambda error: not isinstance(error, ValueError)))


THREE = "static://127.0.0.1:1,127.0.0.1:2,127.0.0.1:3"


def test_a_call_whose_endpoint_refuses_goes_on_with_another(world: Worlds):
    async def scenario(w):
        tried = []

        def fetch(attempt):
            tried.append(attempt.port)
            assert attempt.number == len(tried)
            if len(tried) < 3:
                socket.create_connection((attempt.host, attempt.port), timeout=5)  # refused
            return "answer"

        assert await w.call(THREE, fetch) == "answer"
        assert sorted(tried) == [1, 2, 3]
        states = {node.endpoint: node.health for node in w.discovery.snapshot(THREE).nodes}
        assert sorted(states.values()) == ["down", "down", "healthy"]

    world.run(scenario)


def test_a_broken_call_is_repeated_only_if_idempotent_and_keeps_the_callers_exception(world: Worlds):
    async def scenario(w):
        tried = []

        def fetch(attempt):
            tried.append(attempt.port)
            raise ConnectionResetError(104, "reset")

        with pytest.raises(ConnectionResetError) as caught:
            await w.call(THREE, fetch)
        assert len(tried) == 1
        assert "not idempotent" in caught.value.__notes__[0]

        tried.clear()
        with pytest.raises(ConnectionResetError) as caught:
            await w.call(THREE, fetch, idempotent=True)
        assert sorted(tried) == [1, 2, 3]
        assert caught.value.__notes__[-1].count(" after ") == 3

        tried.clear()
        with options(idempotent=True), pytest.raises(ConnectionResetError):
            await w.call(THREE, fetch)
        assert len(tried) == 3

    world.run(scenario)


def test_an_exception_that_is_no_broken_connection_is_never_repeated(world: Worlds):
    async def scenario(w):
        tried = []

        def fetch(attempt):
            tried.append(attempt.port)
            raise ValueError("a bug")

        with pytest.raises(ValueError, match="a bug"):
            await w.call(THREE, fetch, idempotent=True)
        assert len(tried) == 1

    world.run(scenario)


def test_an_interrupted_call_says_nothing_of_the_endpoint(world: Worlds):
    async def scenario(w):
        def fetch(attempt):
            assert repr(attempt) == "<Attempt 1 on 127.0.0.1:1>"
            assert attempt.host == "127.0.0.1"
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            await w.call("static://127.0.0.1:1", fetch, idempotent=True)
        (node,) = w.discovery.snapshot("static://127.0.0.1:1").nodes
        assert (node.uses, node.failures, node.pending) == (1, 0, 0)

    world.run(scenario)


def test_a_lease_of_what_refuses_sets_it_aside_and_asks_again(world: Worlds, refused_port: int):
    dns = dns_of("127.0.0.1", ttl=60)

    async def scenario(w):
        target = f"orders:{refused_port}"
        with pytest.raises(ConnectionRefusedError):
            async with w.lease(target) as lease:
                socket.create_connection((lease.host, lease.port), timeout=5)
        while w.discovery.snapshot(target).nodes[0].health != "down":  # it is looked at in the background
            await w.pause(0.001)
        while dns.asked.count(a()) < 2:
            await w.pause(0.001)

    world.run(scenario, dns=dns)


def test_a_lease_of_an_unknown_name_says_why(world: Worlds):
    dns = FakeResolver({a(): NXDOMAIN, aaaa(): NXDOMAIN, srv(): NXDOMAIN})

    async def scenario(w):
        with pytest.raises(TargetNotFound, match="orders:80"):
            async with w.lease("orders:80"):
                raise AssertionError("not reached")

    world.run(scenario, dns=dns)


def test_a_client_librarys_exception_is_read_by_what_caused_it(world: Worlds):
    class LibraryError(Exception):
        pass

    async def scenario(w):
        tried = []

        def fetch(attempt):
            tried.append(attempt.port)
            try:
                raise ConnectionRefusedError(111, "refused")
            except OSError as error:
                raise LibraryError("cannot connect") from error

        with pytest.raises(LibraryError):
            await w.call(THREE, fetch)
        assert len(tried) == 4

    world.run(scenario)


def test_no_attempt_begins_after_the_deadline(world: Worlds):
    clock = FakeClock()

    async def scenario(w):
        tried = []

        def fetch(attempt):
            tried.append(attempt.remaining)
            clock.advance(2)
            raise ConnectionResetError(104, "reset")

        with pytest.raises(ConnectionResetError):
            await w.call(THREE, fetch, idempotent=True, deadline=3)
        assert tried == [3, 1]

    world.run(scenario, clock=clock)


def test_connect_passes_over_what_refuses(world: Worlds, refused_port: int):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        peers = []

        def serve() -> None:
            for _ in range(4):
                conn, _ = server.accept()
                conn.recv(1000)
                conn.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                conn.close()

        thread = threading.Thread(target=serve)
        thread.start()

        async def scenario(w):
            target = f"static://127.0.0.1:{refused_port},127.0.0.1:{port}"
            peers.extend([await w.connect(target, timeout=5) for _ in range(4)])

        world.run(scenario)
        thread.join()
    assert peers == [("127.0.0.1", port)] * 4


def test_connect_that_finds_nobody_is_also_an_os_error_and_names_what_was_tried(world: Worlds, refused_port: int):
    async def scenario(w):
        with pytest.raises(OSError, match="no connection") as caught:
            await w.connect(f"static://127.0.0.1:{refused_port}")
        assert isinstance(caught.value, ConnectError)
        assert set(caught.value.endpoints) == {f"127.0.0.1:{refused_port}"}
        assert isinstance(caught.value.__cause__, ConnectionRefusedError)

    world.run(scenario)


def test_connect_to_an_unknown_name_is_also_an_os_error(world: Worlds):
    dns = FakeResolver({a(): NXDOMAIN, aaaa(): NXDOMAIN, srv(): NXDOMAIN})

    async def scenario(w):
        with pytest.raises(OSError, match="orders:80") as caught:
            await w.connect("orders:80")
        assert isinstance(caught.value, TargetNotFound)

    world.run(scenario, dns=dns)


def test_a_failed_connect_forces_one_question_that_is_not_answered_from_the_cache(world: Worlds, refused_port: int):
    dns = dns_of("127.0.0.1", ttl=60)

    async def scenario(w):
        for _ in range(3):
            with pytest.raises(ConnectError):
                await w.connect(f"orders:{refused_port}")
        while dns.asked.count(a()) < 2:
            await w.pause(0.001)
        assert dns.asked.count(a()) == 2

    world.run(scenario, dns=dns)


def test_an_endpoint_that_was_down_is_used_again_once_it_accepts_connections(world: Worlds):
    clock, events = FakeClock(), []
    spare = socket.create_server(("127.0.0.1", 0))
    late = socket.socket()
    late.bind(("127.0.0.1", 0))
    target = f"static://127.0.0.1:{late.getsockname()[1]},127.0.0.1:{spare.getsockname()[1]}"

    async def scenario(w):
        def fetch(attempt):
            socket.create_connection((attempt.host, attempt.port), timeout=5).close()

        for _ in range(4):
            await w.call(target, fetch)
        assert [event.health for event in events if isinstance(event, HealthChanged)] == ["down"]
        late.listen()
        clock.advance(1.5)
        while [event.health for event in events if isinstance(event, HealthChanged)] != ["down", "healthy"]:
            await w.call(target, fetch)
            await w.pause(0.001)

    try:
        world.run(scenario, clock=clock, on_event=events.append)
    finally:
        spare.close()
        late.close()


def test_a_reconnect_that_fails_leaves_it_down(world: Worlds, refused_port: int):
    clock = FakeClock()
    spare = socket.create_server(("127.0.0.1", 0))
    target = f"static://127.0.0.1:{refused_port},127.0.0.1:{spare.getsockname()[1]}"

    async def scenario(w):
        def fetch(attempt):
            socket.create_connection((attempt.host, attempt.port), timeout=5).close()

        def down():
            return next(node for node in w.discovery.snapshot(target).nodes if node.health == "down")

        for _ in range(2):
            await w.call(target, fetch)
        clock.advance(1.5)
        while down().failures < 2:
            await w.call(target, fetch)
            await w.pause(0.001)
        assert down().reason == "2 failed connects"

    try:
        world.run(scenario, clock=clock)
    finally:
        spare.close()


def test_a_scheme_of_ones_own_is_resolved_by_the_resolver_given(world: Worlds):
    class File:
        def resolve(self, question, timeout):
            assert (question.scheme, question.name) == ("file", "orders.json")
            return Resolution((Endpoint("10.1.1.1", 9000),), 30.0, "file")

    async def scenario(w):
        found = await w.resolve("file://orders.json")
        assert (str(found.endpoints[0]), found.source) == ("10.1.1.1:9000", "file")

    world.run(scenario, resolvers={"file": File()})


def test_a_built_in_scheme_cannot_be_replaced(world: Worlds):
    async def scenario(w):
        raise AssertionError("not reached")

    with pytest.raises(ConfigurationError, match="'srv'"):
        world.run(scenario, resolvers={"srv": FakeResolver()})


def test_a_closed_discovery_says_so(world: Worlds):
    async def scenario(w):
        await w.close()
        for use in (w.resolve, w.warm, w.connect):
            with pytest.raises(ClosedError, match="closed"):
                await use("orders:80")
        with pytest.raises(ClosedError):
            w.discovery.snapshot("orders:80")

    world.run(scenario)


def test_bad_input_is_told_at_construction(world: Worlds):
    async def scenario(w):
        raise AssertionError("not reached")

    for settings, text in [
        ({"namespace": "prod..local"}, "namespace"),
        ({"services": {"orders": "consul://x"}}, "consul"),
        ({"services": {"or ders": "orders"}}, "services"),
        ({"nameservers": ["dns.example:53"]}, "nameserver"),
        ({"nameservers": "127.0.0.1:53"}, "a list of them"),
        ({"retry": 3}, "RetryPolicy"),
    ]:
        with pytest.raises(ConfigurationError, match=text):
            world.run(scenario, **settings)


def test_a_certificate_for_bare_addresses_needs_a_name(world: Worlds):
    async def scenario(w):
        with pytest.raises(ConfigurationError, match="server_hostname"):
            await w.connect("static://127.0.0.1:1", ssl=True)

    world.run(scenario, namespace="prod.local")


def test_bad_targets_are_told_at_once(world: Worlds):
    async def scenario(w):
        for target in ("", "or ders", "orders:0", "orders:99999", "srv://orders:80", "http://orders", "a" * 64, 5):
            with pytest.raises(ConfigurationError, match="target"):
                await w.resolve(target)

    world.run(scenario)


def test_a_hook_that_fails_does_not_break_the_request(world: Worlds, caplog: pytest.LogCaptureFixture):
    def hook(event):
        raise RuntimeError("broken hook")

    async def scenario(w):
        await w.resolve("orders:80")
        while "on_event hook failed" not in caplog.text:  # whoever lands the answer tells the hook
            await w.pause(0.001)

    world.run(scenario, dns=dns_of("10.0.0.1"), on_event=hook)


def test_retries_stop_when_the_budget_is_used_up(world: Worlds):
    async def scenario(w):
        attempts = 0

        def fetch(attempt):
            nonlocal attempts
            attempts += 1
            raise ConnectionResetError(104, "reset")

        for _ in range(100):
            with pytest.raises(ConnectionResetError):
                await w.call(THREE, fetch, idempotent=True)
        assert attempts <= 100 + 10

    world.run(scenario, clock=FakeClock(), rng=Random(1), retry=RetryPolicy())


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


def test_a_deadline_that_is_given_is_hard_in_asyncio():
    import asyncio

    from ecs_discovery import AsyncDiscovery

    async def main():
        async with AsyncDiscovery() as discovery:

            async def fetch(attempt):
                await asyncio.sleep(30)

            with pytest.raises(DeadlineExceeded, match=r"not done within 0\.05 s"):
                await discovery.call("static://127.0.0.1:1", fetch, deadline=0.05)
            (node,) = discovery.snapshot("static://127.0.0.1:1").nodes
            assert (node.pending, node.failures) == (0, 0)

    asyncio.run(main())


def test_asyncio_and_threads_can_share_what_is_known():
    import asyncio

    from ecs_discovery import AsyncDiscovery, Discovery

    dns = dns_of("10.0.0.1")
    with Discovery() as discovery:
        discovery._driver.background.dns = dns
        discovery.resolve("orders:80")

        async def main():
            async with AsyncDiscovery(share=discovery) as shared:
                assert (await shared.resolve("orders:80")).endpoints[0].host == "10.0.0.1"
                async with shared.lease("orders:80"):
                    assert discovery.snapshot("orders:80").nodes[0].pending == 1
            with pytest.raises(ClosedError):
                await shared.resolve("orders:80")

        asyncio.run(main())
        assert dns.asked.count(a()) == 1
        discovery.resolve("orders:80")
        with pytest.raises(ConfigurationError, match="share"):
            AsyncDiscovery(share=discovery, namespace="prod.local")


@pytest.mark.parametrize("scheme", ["inventory", "cloudmap"])
def test_what_is_shared_is_looked_up_by_the_resolvers_of_the_shared_discovery(scheme: str):
    class Inventory:
        def __init__(self) -> None:
            self.asked: list[str] = []
            self.forgotten: list[str] = []

        def resolve(self, question: Question, timeout: float) -> Resolution:
            self.asked.append(question.name)
            return answer("10.0.0.1", port=80)

        def forget(self, question: Question) -> None:
            self.forgotten.append(question.name)

    inventory, own = Inventory(), Inventory()
    target = f"{scheme}://prod/orders"
    question = Question(scheme, "prod/orders")

    async def main(discovery: Discovery) -> None:
        async with AsyncDiscovery(share=discovery) as shared:
            assert (await shared.resolve(target)).endpoints[0].host == "10.0.0.1"
            shared._driver.background.ask(question, force=True)
            while len(inventory.asked) < 2:
                await asyncio.sleep(0.01)
        async with AsyncDiscovery(share=discovery, resolvers={scheme: own}) as shared:
            shared._driver.background.ask(question, force=True)
            while not own.asked:
                await asyncio.sleep(0.01)

    with Discovery(resolvers={scheme: inventory}) as discovery:
        asyncio.run(asyncio.wait_for(main(discovery), 10))
    assert (inventory.asked, inventory.forgotten) == (["prod/orders"] * 2, ["prod/orders"])
    assert (own.asked, own.forgotten) == (["prod/orders"], ["prod/orders"])


def test_one_async_discovery_serves_several_loops_one_after_another():
    import asyncio

    from ecs_discovery import AsyncDiscovery
    from tests.worlds import AsyncResolverOf

    clock, dns = FakeClock(), dns_of("10.0.0.1")
    discovery = AsyncDiscovery(clock=clock)
    discovery._driver.background.dns = AsyncResolverOf(dns)
    for _ in range(3):
        found = asyncio.run(discovery.resolve("orders:80"))
        assert found.endpoints[0].host == "10.0.0.1"
        clock.advance(100)
    assert dns.asked.count(a()) == 3


def test_a_lookup_whose_leader_is_cancelled_is_started_again_by_whoever_waits():
    import asyncio

    from ecs_discovery import AsyncDiscovery

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


@pytest.mark.parametrize("kind", ["Discovery", "AsyncDiscovery"])
def test_a_discovery_cannot_be_pickled_and_says_what_to_do(kind: str):
    import pickle

    import ecs_discovery

    made = getattr(ecs_discovery, kind)(namespace="prod.local")
    with pytest.raises(TypeError, match="one per process"):
        pickle.dumps(made)
    assert "prod.local" in repr(made)


def test_snapshots_read_well_and_become_json():
    import json

    from ecs_discovery import Discovery

    with Discovery() as discovery:
        with pytest.raises(ConnectError):
            discovery.connect("static://127.0.0.1:1", timeout=1)
        snapshot = discovery.snapshot("static://127.0.0.1:1")
        assert "127.0.0.1:1 down (1 failed connect," in str(snapshot)
        assert json.loads(json.dumps(snapshot.as_dict()))["nodes"][0]["health"] == "down"
        eventually(lambda: not snapshot.panic)


def test_dns_is_not_asked_more_often_than_allowed_and_what_is_known_stays(world: Worlds):
    clock = FakeClock()
    dns = FakeResolver({a(name): answer("10.0.0.1") for name in (f"n{number}" for number in range(20))})

    async def scenario(w):
        refused = 0
        for number in range(20):
            try:
                await w.resolve(f"dns://n{number}:80")
            except ResolutionError as error:
                refused += "look-ups per second" in str(error)
        assert refused == 15
        assert len(dns.asked) == 5
        clock.advance(12)
        for _ in range(3):
            assert (await w.resolve("dns://n0:80")).endpoints[0].host == "10.0.0.1"

    world.run(scenario, dns=dns, clock=clock, dnspolicy=DnsPolicy(max_queries=5, families=("a",)))


def test_a_coroutine_function_is_no_fetch_for_threads():
    from ecs_discovery import Discovery

    async def fetch(attempt):
        raise AssertionError("not reached")

    with Discovery() as discovery, pytest.raises(ConfigurationError, match="AsyncDiscovery"):
        discovery.call("static://127.0.0.1:1", fetch)


def test_a_short_name_without_a_namespace_hints_at_it(world: Worlds):
    dns = FakeResolver({a(): NXDOMAIN, aaaa(): NXDOMAIN, srv(): NXDOMAIN})

    async def scenario(w):
        with pytest.raises(TargetNotFound, match="no namespace is set"):
            await w.resolve("orders:80")

    world.run(scenario, dns=dns)


@pytest.mark.parametrize("kind", [ResolutionError, TargetNotFound, ValueError])
def test_an_error_that_is_kept_keeps_nothing_of_its_look_up_alive(kind: type[Exception], world: Worlds):
    class Held:
        pass

    held: list[weakref.ref[Held]] = []

    class Failing:
        def resolve(self, question: Question, timeout: float) -> Resolution:
            mine = Held()
            held.append(weakref.ref(mine))
            try:
                raise OSError("the deeper reason")
            except OSError as error:
                raise kind("it failed") from error

    async def scenario(w):
        with pytest.raises(ResolutionError):
            await w.resolve("failing://orders")
        gc.collect()
        assert held[0]() is None
        with pytest.raises(ResolutionError, match="it failed") as caught:
            await w.resolve("failing://orders")
        assert len(held) == 1
        assert "the deeper reason" in "".join(traceback.format_exception(caught.value))

    world.run(scenario, resolvers={"failing": Failing()})
