"""A program that uses the whole of the public interface, for mypy: it is never run."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from typing import Any, assert_type

import aiohttp
import grpc
import grpc.aio
import requests
import tenacity
import urllib3

import ecs_discovery
from ecs_discovery import (
    AsyncAttempt,
    AsyncDiscovery,
    AsyncLeaseContext,
    Attempt,
    BalancingPolicy,
    CachePolicy,
    CloudMapPolicy,
    ConnectionPolicy,
    Discovery,
    DiscoveryError,
    DnsPolicy,
    Endpoint,
    Event,
    HealthCheckPolicy,
    HedgePolicy,
    LeaseContext,
    NotSent,
    OutlierPolicy,
    Question,
    Resolution,
    Resolver,
    RetryPolicy,
    ServiceConfig,
    ServiceSnapshot,
    Settings,
    TimeoutPolicy,
    ZonePolicy,
    options,
    unwrap_session,
    wrap_session,
)
from ecs_discovery.events import HealthChanged
from ecs_discovery.integrations.aiohttp import DiscoveryConnector, client_session
from ecs_discovery.integrations.grpc import aio, insecure_channel, secure_channel
from ecs_discovery.integrations.urllib3 import DiscoveryPoolManager
from ecs_discovery.testing import (
    Clock,
    EventLog,
    Recorder,
    Report,
    ResolverContract,
    Stub,
    World,
    assert_attempts,
    assert_spread,
    lognormal,
    no_waits,
)


class Own:
    """A resolver of the application's."""

    def resolve(self, question: Question, timeout: float) -> Resolution:
        return Resolution((Endpoint("10.0.0.1", 80),), ttl=timeout, source=question.scheme)


def heard(event: Event) -> None:
    raise RuntimeError(str(event))


def fetch(attempt: Attempt) -> bytes:
    if attempt.remaining < 1 or attempt.number > 2:
        raise NotSent("too late")
    return f"{attempt.host}:{attempt.port} {attempt.endpoint.zone}".encode()


async def fetch_soon(attempt: AsyncAttempt) -> str:
    reader, writer = await asyncio.open_connection(attempt.host, attempt.port)
    attempt.watch(writer)
    return (await reader.readline()).decode()


def settings() -> Settings:
    services: Mapping[str, str | list[str] | ServiceConfig] = {
        "orders": "srv://orders.prod.local",
        "users": ["cloudmap://prod/users", "users.prod.local:80"],
        "cache": ServiceConfig("cache:6379", tls_name="cache.prod.local", retry=RetryPolicy(attempts=2)),
    }
    return Settings.make(
        namespace="prod.local",
        services=services,
        nameservers=["10.0.0.2", "10.0.0.3:5353"],
        cache=CachePolicy(),
        dns=DnsPolicy(),
        cloud_map=CloudMapPolicy(),
        balancing=BalancingPolicy(),
        outlier=OutlierPolicy(is_failure=lambda error: isinstance(error, OSError)),
        retry=RetryPolicy(tenacity=tenacity.Retrying()),
        timeout=TimeoutPolicy(connect=1, deadline=20),
        connection=ConnectionPolicy(),
        zone=ZonePolicy(),
        hedge=HedgePolicy(enabled=True),
        health_check=HealthCheckPolicy(),
    )


def in_threads() -> None:
    own: Resolver = Own()
    with Discovery(settings=settings(), resolvers={"own": own}, on_event=heard) as discovery:
        assert_type(discovery.resolve("orders", timeout=1), Resolution)
        discovery.warm("orders", "users", timeout=5)
        assert_type(discovery.snapshot("orders"), ServiceSnapshot)
        assert_type(discovery.call("orders", fetch, idempotent=True, deadline=3, key=b"7"), bytes)
        with discovery.lease("cache", key="7") as lease:
            assert_type(lease, LeaseContext)
            assert_type((lease.host, lease.port, lease.endpoint), tuple[str, int, Endpoint])
            lease.fail()
        assert_type(discovery.connect("cache", timeout=1, ssl=True, server_hostname="cache"), socket.socket)
        with options(deadline=1, idempotent=False, key="7"):
            session = wrap_session(requests.Session(), discovery)
        assert_type(unwrap_session(session), requests.Session)
        with DiscoveryPoolManager(discovery, num_pools=20, timeout=urllib3.Timeout(read=5), retries=False) as manager:
            assert_type(manager.request("GET", "http://orders/").status, int)
        DiscoveryPoolManager(namespace="prod.local", services={"users": "srv://users.prod.local"}, maxsize=4)
        DiscoveryPoolManager(discovery, max_size=4)  # type: ignore[call-arg]


async def in_tasks(shared: Discovery) -> None:
    async with AsyncDiscovery(share=shared) as discovery:
        assert_type(await discovery.resolve("orders"), Resolution)
        await discovery.warm("orders")
        assert_type(await discovery.call("orders", fetch_soon, deadline=3), str)
        async with discovery.lease("cache") as lease:
            assert_type(lease, AsyncLeaseContext)
        reader, writer = await discovery.open_connection("cache", ssl=True, limit=2**20)
        assert_type((reader, writer), tuple[asyncio.StreamReader, asyncio.StreamWriter])
        transport, protocol = await discovery.create_connection(asyncio.Protocol, "cache", timeout=1)
        assert_type((transport, protocol), tuple[asyncio.Transport, asyncio.Protocol])


async def with_aiohttp(discovery: AsyncDiscovery) -> None:
    connector = DiscoveryConnector(discovery, limit=10, local_addr=("127.0.0.1", 0))
    async with client_session(connector=connector, timeout=aiohttp.ClientTimeout(total=3)) as session:
        assert_type(session, aiohttp.ClientSession)
    async with client_session(namespace="prod.local", services={"orders": "srv://orders"}, trust_env=True) as session:
        assert_type(session, aiohttp.ClientSession)
    client_session(discovery, tiemout=3)  # type: ignore[call-arg]  # mypy sees a misspelt argument


def with_grpc(discovery: Discovery) -> None:
    channel = insecure_channel("orders:50051", discovery=discovery, idempotent={"/shop.Orders/Get"})
    assert_type(channel, grpc.Channel)
    with secure_channel("orders", grpc.ssl_channel_credentials(), namespace="prod.local", retry=RetryPolicy()) as safe:
        assert_type(safe, grpc.Channel)
    insecure_channel("orders", idempotent=lambda method: method.endswith("Get"), options=[("grpc.max_send", 1)])
    insecure_channel("orders", idempotnet=["/shop.Orders/Get"])  # type: ignore[call-arg]  # mypy sees a misspelt argument


async def with_grpc_aio(discovery: AsyncDiscovery) -> None:
    async with aio.insecure_channel("orders:50051", discovery=discovery, interceptors=[]) as channel:
        assert_type(channel, grpc.aio.Channel)
    aio.secure_channel("orders", grpc.ssl_channel_credentials(), services={"orders": "srv://orders.prod.local"})


class OwnContract(ResolverContract):
    scheme = "own"

    def make(self) -> Own:
        return Own()

    def answer(self, *endpoints: Endpoint) -> None:
        assert_type(endpoints, tuple[Endpoint, ...])


def with_the_kit(clock: Clock) -> None:
    with Stub(ttl=5) as stub, EventLog() as log, Recorder() as recorder, no_waits(connect=0.1):
        stub.service("orders", ["10.0.0.1:8080"])
        with Discovery(services=stub.services, clock=clock, sleep=clock.sleep) as discovery:
            discovery.resolve("orders")
        assert_type(stub.asked, list[str])
        assert_type(log.last(HealthChanged), HealthChanged)
        assert_spread(recorder.by_endpoint("orders"), within=0.1)
        assert_attempts(recorder, at_most=1.2)
    assert_type(clock.advance(5), float)


def in_a_world() -> None:
    world = World(1, ttl=10, lag=5)
    orders = world.service("orders", tasks=6, service_time=lognormal(0.02, 0.5))
    client = world.client("orders:8080", retry=RetryPolicy(attempts=2))

    async def history() -> None:
        load = world.load(client, rate=100, seconds=60)
        await orders.deploy(batch=2, boot=3, every=5, stop="kill")
        await orders.deploy(stop="melt")  # type: ignore[arg-type]
        await load

    report = world.run(history)
    assert_type(report, Report)
    assert_type((report.lost, report.p99, report.svg("it.svg")), tuple[int, float, str])
    assert_attempts(report, at_most=1.2)


def what_went_wrong(error: DiscoveryError) -> dict[str, Any]:
    assert_type(error.target, str | None)
    assert_type(error.hint, str | None)
    return {"version": ecs_discovery.__version__, "tried": [attempt.outcome for attempt in error.attempts]}
