"""A simulated client: a process with an `AsyncDiscovery` of its own, which calls one service and keeps connections."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from ecs_discovery.client.aio import race
from ecs_discovery.client.aio.discovery import AsyncDiscovery
from ecs_discovery.client.aio.network import Network
from ecs_discovery.config.settings import Settings
from ecs_discovery.core.balancing.node import Health, Outcome
from ecs_discovery.core.calls.call import Call
from ecs_discovery.core.calls.failure_kinds import GOOD, FailureKind, Judgement
from ecs_discovery.core.lease import Lease
from ecs_discovery.core.service import Service
from ecs_discovery.errors import ConnectError, DiscoveryError
from ecs_discovery.models import Endpoint
from ecs_discovery.resolvers.base import AsyncResolver
from ecs_discovery.runtime.sockets import Tuning
from ecs_discovery.testing.simulation.tasks import Closed, Connection, Silent, Task

__all__ = ["Client", "Records", "Request", "SimulatedDiscovery", "SimulatedNetwork"]

OVERLOADED = (429, 503)
IDLE = 10  # connections kept per endpoint
FOREVER = 3600.0  # seconds: the caller has a limit of its own


class Request(NamedTuple):
    """What became of one request."""

    began: float
    """In seconds of the world, whose clock begins at 1000."""
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


class Records:
    """What the clients of a world did."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.probes: list[tuple[float, str]] = []
        self.connects: list[tuple[float, str]] = []


class SimulatedNetwork(Network):
    """The tasks of a world, in place of sockets. One of each client, because a client asks one DNS resolver."""

    def __init__(
        self, tasks: dict[str, Task], dns: AsyncResolver, clock: Callable[[], float], seen: list[tuple[float, str]]
    ) -> None:
        self.dns = dns
        self._tasks = tasks
        self._clock = clock
        self._seen = seen

    async def connect(self, endpoint: Endpoint, tuning: Tuning | None = None) -> Any:
        """A connection to a simulated task."""
        self._seen.append((self._clock(), endpoint.host))
        return await self._tasks[endpoint.host].connect(FOREVER)


class SimulatedDiscovery(AsyncDiscovery):
    """An `AsyncDiscovery` over a simulated network; all else of it is what applications run."""

    def __init__(self, network: Network, **given: Any) -> None:
        self._network = network
        super().__init__(**given)


class Client:
    """Made by `World.client`. A request goes as one through a wrapped requests session does."""

    def __init__(
        self,
        target: str,
        settings: Settings,
        network: SimulatedNetwork,
        cloud_map: AsyncResolver,
        clock: Callable[[], float],
        records: Records,
        seed: int,
    ) -> None:
        self.discovery: AsyncDiscovery = SimulatedDiscovery(
            network, settings=settings, resolvers={"cloudmap": cloud_map}, clock=clock, rng=Random(seed)
        )
        self._records = records
        self._driver = self.discovery._driver
        self._engine = self._driver.engine
        self.service: Service = self._engine.service(target)
        self._idle: dict[str, list[Connection]] = {}

    async def get(self, *, idempotent: bool = True) -> Request:
        """One request; what became of it is kept in the world too."""
        engine, service = self._engine, self.service
        began = engine.clock()
        call = engine.call(service, idempotent=idempotent)
        status, problem = 0, ""
        try:
            if began >= service.refresh_at:
                await self._driver.background.ready(service, call.connect_deadline_at)

            async def attempt(lease: Lease) -> int:
                return await self._attempt(call, lease)

            status = await self._driver.run(service, call, attempt, self._judge)
        except (DiscoveryError, OSError) as error:
            problem = f"{type(error).__name__}: {error}; {call.reason}"
        hosts = tuple(node.endpoint.host for node in call.tried)
        made = Request(began, engine.clock() - began, status, call.number, hosts, problem)
        self._records.requests.append(made)
        return made

    async def _attempt(self, call: Call, lease: Lease) -> int:
        if lease.node.health is Health.PROBING:
            self._records.probes.append((lease.started_at, lease.endpoint.host))
        idle = self._idle.setdefault(lease.endpoint.host, [])
        old = lease.started_at - self._engine.settings.connection.idle_timeout
        while idle:
            connection = idle.pop()
            if not connection.ended and connection.idle_since > old:
                break
        else:
            try:
                connection = await race.connect(self._driver.background, call, lease)  # type: ignore[assignment]
            except OSError as error:
                raise ConnectError(str(error)) from error
            idle = self._idle.setdefault(lease.endpoint.host, [])  # the winner's
        node, engine = lease.node, self._engine
        began = engine.clock()
        try:
            status = await connection.send(lambda: node.gone_at > began)
        except OSError as error:
            idle.clear()
            if isinstance(error, Silent):
                engine.vanished(node, engine.clock() - engine.settings.connection.ack_timeout)
            raise
        if status in OVERLOADED and self.service.push_back(node, engine.clock(), self.service.balancing.pushback):
            engine.emit(self.service)
        if len(idle) < IDLE:
            connection.idle_since = engine.clock()
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
        if not bad and again is None:
            return GOOD
        return Judgement(Outcome.FAILURE if bad else Outcome.SUCCESS, again, f"status {status}")
