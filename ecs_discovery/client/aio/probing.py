"""Probing: what an `AsyncDiscovery` finds out about endpoints in tasks: reconnects, doubts, health checks.

It stands in the same order as `sync/probing.py`; the two differ in awaits.
"""

from __future__ import annotations

import asyncio

from ecs_discovery.client.aio.asking import AsyncAsker
from ecs_discovery.client.aio.health_check import examine
from ecs_discovery.client.aio.network import SYSTEM, Network
from ecs_discovery.client.aio.tasks import Tasks
from ecs_discovery.client.engine import Engine
from ecs_discovery.client.health_check import INCONCLUSIVE, report
from ecs_discovery.core.balancing.health_checks import Check
from ecs_discovery.core.balancing.node import Node
from ecs_discovery.core.calls import liveness
from ecs_discovery.core.calls.race import probe_timeout
from ecs_discovery.core.service import Service
from ecs_discovery.models import Endpoint
from ecs_discovery.runtime import fork
from ecs_discovery.runtime.sockets import ConnectResult, sign_of
from ecs_discovery.runtime.workers import Workers

__all__ = ["AsyncProber"]

_LONGEST = 5.0  # seconds after which a look at an endpoint has been lost, and another may begin


class AsyncProber:
    """Looks at endpoints, in tasks of the loop that asked for it."""

    def __init__(self, engine: Engine, asker: AsyncAsker, tasks: Tasks, network: Network = SYSTEM) -> None:
        self.engine = engine
        self._asker = asker
        self._tasks = tasks
        self._network = network
        self._workers = Workers()

    def locate(self, service: Service) -> None:
        """As `Prober.locate`."""
        if self.engine.locating(service):
            self._workers.spawn(self._locate)

    def work(self, service: Service) -> None:
        """As `Prober.work`."""
        for node in service.pop_reconnects():
            self._tasks.spawn(self._reconnect(service, node))
        for check in service.pop_checks(self.engine.clock()):
            self._tasks.spawn(self._examine(service, check))

    async def accepts(self, service: Service, endpoint: Endpoint) -> bool:
        """As `Prober.accepts`."""
        return await self._look(service, endpoint) is ConnectResult.ACCEPTS

    def suspect(self, service: Service, node: Node) -> None:
        """As `Prober.suspect`."""
        if liveness.try_start_probe(node, self.engine.clock(), _LONGEST):
            self._tasks.spawn(self._check(service, node))

    # In tasks

    async def _check(self, service: Service, node: Node) -> None:
        try:
            began = self.engine.clock()
            sign = await self._look(service, node.endpoint)
        finally:
            liveness.end_probe(node)
        self._asker.force(self.engine.looked(service, node, sign, began))

    async def _look(self, service: Service, endpoint: Endpoint) -> ConnectResult:
        limit, loop = probe_timeout(service.connect_time), asyncio.get_running_loop()
        while True:
            deadline_at = loop.time() + limit
            try:
                async with asyncio.timeout(limit):
                    (await self._network.connect(endpoint)).close()
            except OSError as error:
                if isinstance(error, TimeoutError) and loop.time() > deadline_at + limit / 2:
                    continue  # the loop was held up: whether an answer came in time, it cannot tell
                return sign_of(error)
            return ConnectResult.ACCEPTS

    def _locate(self) -> None:
        metadata = fork.load("ecs_discovery.runtime.task_metadata")  # not before it is needed
        self.engine.located(metadata.own_zone())

    async def _reconnect(self, service: Service, node: Node) -> None:
        try:
            async with asyncio.timeout(self.engine.settings.timeout.connect):
                (await self._network.connect(node.endpoint)).close()
        except OSError:
            self.engine.reconnected(service, node, False)
        else:
            self.engine.reconnected(service, node, True)

    async def _examine(self, service: Service, check: Check) -> None:
        found = INCONCLUSIVE
        try:
            found = await examine(check, self._network)
        finally:
            self._asker.force(report(self.engine, service, check, found))
        self.work(service)

    # Life cycle

    def close(self) -> None:
        """As `Prober.close`."""
        self._workers.close()
