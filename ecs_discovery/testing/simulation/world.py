"""The world: a network of tasks, where they are registered, the clients that call them, and what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from math import ceil
from random import Random
from typing import Any, NamedTuple

from ecs_discovery import AsyncDiscovery
from ecs_discovery.client.aio import race
from ecs_discovery.config.policies import CloudMapPolicy, DnsPolicy
from ecs_discovery.config.settings import Settings
from ecs_discovery.core.balancing.node import Health, Outcome
from ecs_discovery.core.calls.call import Call
from ecs_discovery.core.calls.failure_kinds import FailureKind, Judgement
from ecs_discovery.core.lease import Lease
from ecs_discovery.core.service import Service
from ecs_discovery.errors import ConnectError, DiscoveryError
from ecs_discovery.models import Endpoint
from ecs_discovery.runtime import sockets
from ecs_discovery.testing.simulation import loop
from ecs_discovery.testing.simulation.registry import CloudMap, Dns, Registry
from ecs_discovery.testing.simulation.tasks import Closed, Connection, Port, ServiceTime, Silent, Task, steady

__all__ = ["Client", "Request", "World", "buckets", "percentile"]

OVERLOADED = (429, 503)
IDLE = 10  # connections kept per endpoint


class Request(NamedTuple):
    """What became of one request."""

    began: float
    seconds: float
    status: int
    """0 if it ended in an error."""
    attempts: int
    """Attempts; a race of connects is part of an attempt."""
    hosts: tuple[str, ...]
    """Where they went, rivals of races included."""
    error: str

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 400


class World:
    """Everything is drawn from the seed; the same seed is the same history."""

    def __init__(self, seed: int, *, ttl: float = 10.0, lag: float = 0.0, caches: int = 1) -> None:
        self.rng = Random(seed)
        self.network: dict[str, Task] = {}
        self.registry = Registry()
        self.dns = [Dns(self.registry, Random(self.rng.random()), ttl=ttl, lag=lag) for _ in range(caches)]
        self.cloud_map = CloudMap(self.registry)
        self.requests: list[Request] = []
        self.probes: list[tuple[float, str]] = []
        """When a request that decides on an ejected endpoint began, and where."""
        self.connects: list[tuple[float, str]] = []
        """When a connect began, of a request or of the background, and where to."""
        self.clients: list[Client] = []
        self._registered: dict[str, str] = {}
        self._address = 0
        self._running: set[asyncio.Task[Any]] = set()

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    # The service

    def start(
        self,
        count: int = 1,
        service_time: ServiceTime | None = None,
        *,
        port: Port = Port.OPEN,
        workers: int = 1000,
        queue: int | None = None,
    ) -> list[Task]:
        """Start tasks and register them at once, as ECS does, whether they listen yet or not."""
        started = []
        for _ in range(count):
            self._address += 1
            host = f"10.{self._address // 65536}.{self._address // 256 % 256}.{self._address % 256}"
            work = service_time or steady(0.002)
            task = Task(host, Random(self.rng.random()), work, workers=workers, queue=queue, port=port)
            self.network[host] = task
            self._registered[host] = f"task-{self._address}"
            started.append(task)
        self.registry.put(self._registered, self.now)
        return started

    def deregister(self, *tasks: Task) -> None:
        for task in tasks:
            del self._registered[task.host]
        self.registry.put(self._registered, self.now)

    def stop(self, *tasks: Task) -> None:
        """What ECS does: taken from the registry and killed in one moment."""
        self.deregister(*tasks)
        for task in tasks:
            task.stop()

    # Clients

    def client(self, target: str = "orders:8080", **policies: Any) -> Client:
        made = Client(self, target, self.dns[len(self.clients) % len(self.dns)], self.rng.getrandbits(64), policies)
        self.clients.append(made)
        return made

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def load(self, clients: Sequence[Client], rate: float, seconds: float) -> None:
        """`rate` requests per second over all clients, whether earlier requests are answered or not."""
        until = self.now + seconds
        while True:
            await asyncio.sleep(self.rng.expovariate(rate))
            if self.now >= until:
                return
            client = clients[int(self.rng.random() * len(clients))]
            self.spawn(client.get())

    def run(self, scenario: Callable[[World], Awaitable[None]]) -> None:
        """Run `scenario(world)`, then let requests end and close the clients."""

        async def main() -> None:
            await scenario(self)
            while self._running:
                await asyncio.wait(set(self._running))
            for client in self.clients:
                await client.discovery.aclose()

        kept = sockets.connect_async
        sockets.connect_async = self._connect  # type: ignore[assignment]  # all I/O but the resolvers'
        try:
            loop.run(main())
        finally:
            sockets.connect_async = kept

    async def _connect(self, endpoint: Endpoint, tuning: object = None) -> Connection:
        self.connects.append((self.now, endpoint.host))
        return await self.network[endpoint.host].connect(3600.0)  # limited by its caller

    # What became of it

    def between(self, start: float, end: float) -> list[Request]:
        """Requests that began in these seconds of the simulation, which begins at 1000."""
        return [request for request in self.requests if start <= request.began < end]

    @property
    def failed(self) -> list[Request]:
        return [request for request in self.requests if not request.ok]


class Client:
    """A process with an `AsyncDiscovery` of its own, which calls one service and keeps connections.

    Everything of the library but its sockets and resolvers is what applications run; a request goes as
    the requests integration's does.
    """

    def __init__(self, world: World, target: str, dns: Dns, seed: int, policies: dict[str, Any]) -> None:
        policies = {
            "dns": DnsPolicy(hosts_file=""),
            "cloud_map": CloudMapPolicy(),
            **policies,
        }
        self.world = world
        self.discovery = AsyncDiscovery(
            settings=Settings.make(namespace="prod.local", environ={}, **policies),
            resolvers={"cloudmap": world.cloud_map},
            clock=asyncio.get_running_loop().time,
            rng=Random(seed),
        )
        self.discovery._driver.background.asker.dns = dns
        self.service: Service = self.discovery._driver.engine.service(target)
        self._idle: dict[str, list[Connection]] = {}

    async def get(self, *, idempotent: bool = True) -> Request:
        """One request; what became of it is kept in the world too."""
        engine, service = self.discovery._driver.engine, self.service
        began = engine.clock()
        call = engine.call(service, idempotent=idempotent)
        status, problem = 0, ""
        try:
            if began >= service.refresh_at:
                await self.discovery._driver.background.ready(service, call.connect_deadline_at)

            async def attempt(lease: Lease) -> int:
                return await self._attempt(call, lease)

            status = await self.discovery._driver.run(service, call, attempt, self._judge)
        except (DiscoveryError, OSError) as error:
            problem = f"{type(error).__name__}: {error}; {call.reason}"
        hosts = tuple(node.endpoint.host for node in call.tried)
        made = Request(began, engine.clock() - began, status, call.number, hosts, problem)
        self.world.requests.append(made)
        return made

    async def _attempt(self, call: Call, lease: Lease) -> int:
        background, service = self.discovery._driver.background, self.service
        if lease.node.health is Health.PROBING:
            self.world.probes.append((lease.started_at, lease.endpoint.host))
        idle = self._idle.setdefault(lease.endpoint.host, [])
        while idle:
            connection = idle.pop()
            if not connection.ended:
                break
        else:
            try:
                connection = await race.connect(background, call, lease)  # type: ignore[assignment]
            except OSError as error:
                raise ConnectError(str(error)) from error
            idle = self._idle.setdefault(lease.endpoint.host, [])  # of whoever won
        began, node = self.world.now, lease.node
        try:
            status = await connection.send(lambda: node.gone_at > began)
        except OSError as error:
            idle.clear()
            if isinstance(error, Silent):
                engine = self.discovery._driver.engine
                engine.vanished(node, engine.clock() - engine.settings.connection.ack_timeout)
            raise
        if status in OVERLOADED:
            engine = self.discovery._driver.engine
            if service.push_back(lease.node, engine.clock(), service.balancing.pushback):
                engine.emit(service)
        if len(idle) < IDLE:
            idle.append(connection)
        return status

    def _judge(self, status: int | None, error: Exception | None) -> Judgement:
        if isinstance(error, ConnectError):
            return Judgement(Outcome.CONNECT, FailureKind.NOT_SENT, "connect")
        if isinstance(error, Silent):
            return Judgement(Outcome.CONNECT, FailureKind.CLOSED, "silent")
        if isinstance(error, Closed):
            return Judgement(Outcome.FAILURE, FailureKind.CLOSED, "closed")
        if error is not None or status is None:
            return Judgement(Outcome.FAILURE, FailureKind.OTHER, type(error).__name__)
        bad = status in self.service.outlier.failure_statuses
        again = FailureKind.STATUS if status in self.service.retry.statuses else None
        return Judgement(Outcome.FAILURE if bad else Outcome.SUCCESS, again, f"status {status}")


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, ceil(share * len(ordered)) - 1)]


def buckets(moments: Sequence[float], start: float, end: float, width: float) -> list[int]:
    """How many of `moments` fall into each `width` seconds from `start` to `end`."""
    counts = [0] * round((end - start) / width)
    for moment in moments:
        if start <= moment < end:
            counts[min(len(counts) - 1, int((moment - start) / width))] += 1
    return counts
