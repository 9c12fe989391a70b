"""The state of one hedged call that threads and asyncio share."""

from __future__ import annotations

from math import inf

from ecs_discovery.client.engine import Engine
from ecs_discovery.core.balancing.node import Health
from ecs_discovery.core.calls.call import Call
from ecs_discovery.core.calls.hedge import Hedging
from ecs_discovery.core.counters import Counted
from ecs_discovery.core.lease import Lease

__all__ = ["Hedge"]


class Hedge:
    """The books of one call that may be hedged, for threads and asyncio. `lease` is that of its first attempt."""

    def __init__(self, engine: Engine, hedging: Hedging, call: Call, lease: Lease) -> None:
        self._engine = engine
        self._hedging = hedging
        self._call = call
        self._service = lease.service
        self._began = lease.started_at
        self._rival: Lease | None = None
        self._is_won = False
        self.delay: float | None = None
        """Seconds after which another attempt is to begin; None: the call is not hedged."""
        if lease.service.untried(call.tried):
            self.delay = hedging.delay(call.deadline_at - engine.clock())

    def start_rival(self) -> Lease | None:
        """The time has come: a use of another endpoint; None without an endpoint as good, or without allowance."""
        service, call, first = self._service, self._call, self._call.tried[0].endpoint
        now = self._engine.clock()
        # Where others wait for room, a second attempt would take it from them.
        lease = Lease(service, now)
        node = lease.pick(call.tried, call.key) if not service.admission.crowded else None
        if node is None:
            return None
        worse = node.health in (Health.DOWN, Health.EJECTED) or node.endpoint.priority > first.priority
        if worse or node.endpoint.proxied or not self._hedging.try_acquire(now):
            lease.release()
            return None
        call.start_hedge(node)
        lease.number = call.number
        self._rival = lease
        return lease

    def alone(self) -> None:
        """One of the two has failed: the other is as any attempt."""
        self._call.hedged = False

    def won(self, winner: Lease) -> None:
        """This attempt's result counts. Learn from it."""
        self._is_won = True
        if winner is not self._rival:
            self._hedging.learn(self._engine.clock() - self._began)
            return
        self._service.counters.add(Counted.HEDGES_WON)
        if self._call.hedged:
            self._hedging.learn(inf)  # the first one was slower than this, by how much is unknown

    def lost(self, loser: Lease) -> None:
        """This attempt is of no more use: that is no judgement of its endpoint."""
        call = self._call
        now = self._engine.clock()
        call.report(loser.node, "overtaken", "overtaken", loser.started_at, now, number=loser.number)
        if call.observed is not None:
            how = "overtaken" if self._is_won else "cancelled"  # the call ended, by its deadline say
            call.observed.attempt_ended(loser, how, how)
