"""Whether the hosts of endpoints with RPCs in flight are still there.

gRPC shows nothing of its connections. An endpoint that took an RPC and vanished looks like an endpoint that works on
it. So a connect is tried beside an RPC that may be repeated and takes long. Where it meets silence, the RPC goes
elsewhere. That proves nothing of the endpoint, and is done only where the wait is unusual and another endpoint is left.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from math import inf

from ecs_discovery.client.engine import Engine
from ecs_discovery.config.targets import is_address
from ecs_discovery.core.balancing.node import Node, Outcome
from ecs_discovery.core.calls import liveness
from ecs_discovery.core.calls.race import probe_timeout
from ecs_discovery.core.lease import Lease
from ecs_discovery.core.service import Service
from ecs_discovery.models import Question
from ecs_discovery.runtime import sockets

__all__ = ["InFlight", "Watch", "given_up"]

_TICK = 0.05  # seconds between looks at a connect in flight
_TESTS_APART = 1.0  # seconds between connects to one endpoint, by whichever caller
_LONGEST_PAUSE = 15.0  # seconds between the tests of an endpoint on which one RPC takes very long
_UNUSUAL = 4  # times the usual latency of an endpoint


def given_up() -> None:
    """Stands for the end of an RPC that the watch has ended."""


class InFlight:
    """The RPCs in flight on one channel of gRPC's to `node`."""

    __slots__ = ("_pause", "_test", "_test_at", "_tested", "active", "node")

    def __init__(self, node: Node) -> None:
        self.node = node
        self.active: dict[Lease, Callable[[], object] | None] = {}
        """What ends each; None where it is not to be ended, `given_up` where it was."""
        self._test: socket.socket | None = None
        self._tested = 0.0
        self._test_at = -inf
        self._pause = 0.0

    def end_test(self) -> None:
        """No connect is tried any longer."""
        test, self._test = self._test, None
        if test is not None:
            test.close()

    def look(self, engine: Engine, service: Service, now: float) -> tuple[Question, ...]:
        """Look once. Questions to ask at once, if any."""
        node = self.node
        waiting = [lease for lease, end in list(self.active.items()) if end is not None and end is not given_up]
        if not waiting:
            self.end_test()
            return ()
        gone = [lease for lease in waiting if node.gone_at > lease.started_at]
        if gone:
            self._give_up(gone)
        if self._test is not None:
            return self._after_test(engine, service, waiting, now)
        hint = engine.settings.connection.ack_timeout
        oldest = min(lease.sent_at for lease in waiting)
        life = max(node.answered_at, node.accepted_at, oldest)
        if now < life + hint:
            self._test_at, self._pause = -inf, hint
            return ()
        if now < self._test_at or not self._usable(service, now - oldest):
            return ()
        if liveness.try_start_probe(node, now, _TESTS_APART):
            self._pause = min(_LONGEST_PAUSE, 2 * self._pause)
            self._test_at = now + self._pause
            try:
                self._test, self._tested = sockets.start_connect(node.endpoint), now
            except OSError:
                pass  # this side's, or refused at once: the host is there
        return ()

    def _usable(self, service: Service, waited: float) -> bool:
        """Would silence have any consequence?"""
        node = self.node
        if node.endpoint.proxied or not is_address(node.endpoint.host) or node.latency is None:
            return False
        return waited >= _UNUSUAL * node.latency and service.untried((node,)) > 0

    def _after_test(self, engine: Engine, service: Service, waiting: list[Lease], now: float) -> tuple[Question, ...]:
        test = self._test
        assert test is not None
        if sockets.connected(test):  # a refusal too shows a kernel that lives
            self.end_test()
            liveness.accepted(self.node, now)
            return ()
        if now < self._tested + probe_timeout(service.connect_time):
            return ()
        self.end_test()
        if self.node.answered_at >= self._tested:
            return ()
        late = [lease for lease in waiting if lease.sent_at <= self._tested]
        if late and service.budget.balance(now) >= len(late):
            self._give_up(late)
        if service.observe(self.node, Outcome.UNANSWERED, now):
            engine.emit(service)
        return service.force(now, engine.settings.dns.min_refresh)

    def _give_up(self, leases: list[Lease]) -> None:
        ends = set[Callable[[], object]]()
        for lease in leases:
            end = self.active.get(lease)
            if end is not None and end is not given_up:
                self.active[lease] = given_up
                ends.add(end)
        for end in ends:
            end()


class Watch:
    """Looks from time to time while RPCs are in flight. `set_alarm` has `tick` called after so many seconds."""

    def __init__(
        self,
        engine: Engine,
        service: Service,
        places: Callable[[], Iterable[InFlight]],
        set_alarm: Callable[[float, Callable[[], None]], object],
        force: Callable[[tuple[Question, ...]], object],
    ) -> None:
        self._engine = engine
        self._service = service
        self._places = places
        self._set_alarm = set_alarm
        self._force = force
        self.running = False
        """It will look. While False, an RPC that may be repeated starts it."""

    def start(self) -> None:
        """Begin to look."""
        self.running = True
        self._set_alarm(self._engine.settings.connection.ack_timeout, self.tick)

    def tick(self) -> None:
        """Look at all, and go on while there is something to look at."""
        engine, now = self._engine, self._engine.clock()
        going_on = testing = False
        for place in self._places():
            ask = place.look(engine, self._service, now)
            if ask:
                self._force(ask)
            going_on = going_on or bool(place.active)
            testing = testing or place._test is not None
        if not going_on or engine.closed:
            self.running = False
            return
        self._set_alarm(_TICK if testing else engine.settings.connection.ack_timeout, self.tick)
