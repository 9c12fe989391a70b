"""Probing: what a `Discovery` finds out about endpoints in worker threads: reconnects, doubts, health checks.

It stands in the same order as `aio/probing.py`; the two differ in awaits.
"""

from __future__ import annotations

from functools import partial

from ecs_discovery.client.engine import Engine
from ecs_discovery.client.health_check import INCONCLUSIVE, report
from ecs_discovery.client.sync.asking import Asker
from ecs_discovery.client.sync.health_check import examine
from ecs_discovery.core.balancing.health_checks import Check
from ecs_discovery.core.balancing.node import Node
from ecs_discovery.core.calls import liveness
from ecs_discovery.core.calls.race import probe_timeout
from ecs_discovery.core.service import Service
from ecs_discovery.models import Endpoint
from ecs_discovery.runtime import fork, sockets
from ecs_discovery.runtime.sockets import ConnectResult, sign_of
from ecs_discovery.runtime.workers import Workers

__all__ = ["Prober"]

_CHECKERS = 8  # health checks of all services in flight
_LONGEST = 5.0  # seconds after which a look at an endpoint has been lost, and another may begin


class Prober:
    """Looks at endpoints. Threads start when there is work and end when there is none."""

    def __init__(self, engine: Engine, asker: Asker) -> None:
        self.engine = engine
        self._asker = asker
        self._connects = Workers()  # of their own: endpoints that have vanished must not hold up lookups
        self._checkers = Workers(_CHECKERS)  # of their own: checks of tasks that hang must not hold up lookups

    def locate(self, service: Service) -> None:
        """Find out in which zone the process runs, if the service cares and no other caller has done so."""
        if self.engine.locating(service):
            self._connects.spawn(self._locate)  # only lookups wait for the others: there all may be dropped

    def work(self, service: Service) -> None:
        """Begin what is due: reconnects to endpoints that were down, and health checks."""
        for node in service.pop_reconnects():
            self._connects.spawn(partial(self._reconnect, service, node))
        for check in service.pop_checks(self.engine.clock()):
            if not self._checkers.spawn(partial(self._examine, service, check), inline=False):
                report(self.engine, service, check, INCONCLUSIVE)  # a check must not hold up a request

    def accepts(self, service: Service, endpoint: Endpoint) -> bool:
        """Does it accept a connection now?"""
        return self._look(service, endpoint) is ConnectResult.ACCEPTS

    def suspect(self, service: Service, node: Node) -> None:
        """A caller met a refused connection, or silence: find out in the background whether it is this endpoint's."""
        if liveness.try_start_probe(node, self.engine.clock(), _LONGEST):
            self._connects.spawn(partial(self._check, service, node))

    # In workers

    def _check(self, service: Service, node: Node) -> None:
        try:
            began = self.engine.clock()
            sign = self._look(service, node.endpoint)
        finally:
            liveness.end_probe(node)
        self._asker.force(self.engine.looked(service, node, sign, began))

    def _look(self, service: Service, endpoint: Endpoint) -> ConnectResult:
        try:
            sockets.connect(endpoint, probe_timeout(service.connect_time)).close()
        except OSError as error:
            return sign_of(error)
        return ConnectResult.ACCEPTS

    def _locate(self) -> None:
        metadata = fork.load("ecs_discovery.runtime.task_metadata")  # not before it is needed
        self.engine.located(metadata.own_zone())

    def _reconnect(self, service: Service, node: Node) -> None:
        try:
            sockets.connect(node.endpoint, self.engine.settings.timeout.connect).close()
        except OSError:
            self.engine.reconnected(service, node, False)
        else:
            self.engine.reconnected(service, node, True)

    def _examine(self, service: Service, check: Check) -> None:
        found = INCONCLUSIVE
        try:
            found = examine(check)
        finally:
            self._asker.force(report(self.engine, service, check, found))
        self.work(service)  # the next ones may begin

    # Life cycle

    def close(self) -> None:
        """Drop what has not begun."""
        self._connects.close()
        self._checkers.close()
