"""The state of one connect race that threads and asyncio share: who runs, who is next, what is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ecs_discovery.client.engine import Engine
from ecs_discovery.client.failures import judge_connect
from ecs_discovery.config.targets import is_address
from ecs_discovery.core.balancing.node import Health, Node
from ecs_discovery.core.calls.call import Call
from ecs_discovery.core.calls.race import Race, head_start, probe_timeout
from ecs_discovery.core.counters import Counted
from ecs_discovery.core.lease import Lease
from ecs_discovery.core.service import Service
from ecs_discovery.events import ConnectEnded
from ecs_discovery.models import Question
from ecs_discovery.runtime.sockets import ConnectResult, sign_of

__all__ = ["RaceState"]


class RaceBackground(Protocol):
    """What a race needs of the background of either world."""

    engine: Engine

    def suspect(self, service: Service, node: Node) -> None: ...

    def force(self, questions: Sequence[Question]) -> None: ...


class RaceState:
    """What both worlds keep of a race."""

    race: Race[Lease] | None = None
    """None where there is no other endpoint to race with."""

    def __init__(self, background: RaceBackground, call: Call, lease: Lease) -> None:
        self._background = background
        self._engine = engine = background.engine
        self._call = call
        self._lease = lease
        self._service = service = lease.service
        self._now = now = engine.clock()
        self._next: Lease | None = None
        self._hopeless = 0
        policy = engine.settings.connection
        rivals = service.untried(call.tried)
        if not rivals or policy.race_limit == 1 or lease.endpoint.proxied or not is_address(lease.endpoint.host):
            return
        left = call.connect_share(now, 0)
        delay = head_start(service.connect_time, policy.race_delay)
        rounds = min(-(-(rivals + 1) // policy.race_limit), service.retry.attempts)
        self.race = Race(
            limit=policy.race_limit,
            delay=delay,
            share=max(delay, left / rounds),
            deadline_at=now + left,
            silence=max(delay, probe_timeout(service.connect_time)),
        )
        self._next = lease.hand_over()

    # Without a race

    def limit(self) -> float:
        """Seconds that the only connect may take."""
        return self._engine.connect_limit(self._service, self._call)

    def connected(self) -> None:
        """The only endpoint there is has connected."""
        seconds = self._engine.clock() - self._now
        self._service.connected(seconds)
        self._record(self._lease, "ok", seconds)

    def refused(self, error: OSError) -> None:
        """The only endpoint there is has not connected."""
        self._record(self._lease, judge_connect(None, error).label, self._engine.clock() - self._now)
        self._doubt(self._lease, error)

    # With one

    def next(self) -> Lease | None:
        """The use of an endpoint to connect to now, if one is to start."""
        race, now = self._running, self._time()
        # One that was chosen while no connect runs starts, even if the time has ended meanwhile: it is all there is.
        if not race.due(now) and (race.running or self._next is None):
            return None
        entrant, self._next = self._next, None
        if entrant is None:
            entrant = self._rival(late=bool(race.running))
        if entrant is None:
            race.no_rival(now)
        else:
            race.start(entrant, now)
        return entrant

    def pause(self) -> float:
        """Seconds to wait for the connects in flight."""
        return self._running.pause(self._time())

    def overdue(self, waited: float) -> tuple[Lease, ...]:
        """Who has had its time, after that many seconds in which nothing happened."""
        self._now += waited  # a clock that stands still, as in tests, must not keep us
        return self._running.overdue(self._time())

    def won(self, winner: Lease) -> None:
        """It has connected. Those that are late are looked at, so that the next calls do not race them again."""
        race, now = self._running, self._time()
        late = race.late(now)
        del race.running[winner]
        self._service.connected(now - winner.started_at)
        self._record(winner, "ok", now - winner.started_at)
        self._lease.adopt(winner)
        for loser in race.running:
            self._record(loser, "overtaken", now - loser.started_at)
            self._call.report(loser.node, "overtaken", "overtaken", loser.started_at, now, number=self._lease.number)
            if loser in late:
                self._background.suspect(self._service, loser.node)

    def failed(self, entrant: Lease, error: OSError) -> None:
        """It did not connect. Raises `error` if it was the last there is."""
        race, engine, service = self._running, self._engine, self._service
        race.fail(entrant)
        self._doubt(entrant, error)
        judgement = judge_connect(None, error)
        now = self._time()
        self._record(entrant, judgement.label, now - entrant.started_at)
        if not race.running:
            if race.due(now):
                self._next = self._rival(late=False)
            if self._next is None:
                self._lease.adopt(entrant)
                raise error
        kind = "" if judgement.failure is None else judgement.failure.value
        self._call.report(
            entrant.node, judgement.label, kind, entrant.started_at, now, error, number=self._lease.number
        )
        if entrant.finish(judgement.outcome, now):
            engine.emit(service)
        self._background.force(service.force(now, engine.settings.dns.min_refresh))

    def close(self) -> None:
        """Let go of who is still in flight."""
        for entrant in self._running.running:
            entrant.release()
        if self._next is not None:
            self._next.release()

    def _rival(self, *, late: bool) -> Lease | None:
        """A use of another endpoint, one not tried yet; None if there is none.

        If it would start only because another is `late`, it must be no worse than that one.
        """
        now, call = self._time(), self._call
        if late and self._service.admission.crowded:
            return None  # others wait for that room
        lease = Lease(self._service, now)
        node = lease.pick(call.tried, call.key)
        if node is None:
            return None
        first = call.tried[-1]
        worse = node.health in (Health.DOWN, Health.EJECTED) and node.health is not first.health
        if node.endpoint.proxied or (late and (worse or node.endpoint.priority > first.endpoint.priority)):
            lease.release()
            return None
        if node.health is Health.DOWN:
            # Only such are left. Looking at a few is enough: every call of an outage would walk through the fleet.
            self._hopeless += 1
            if self._hopeless > self._engine.settings.connection.race_limit:
                lease.release()
                return None
        call.add_tried(node)
        return lease

    @property
    def _running(self) -> Race[Lease]:
        assert self.race is not None
        return self.race

    def _time(self) -> float:
        self._now = max(self._now, self._engine.clock())
        return self._now

    def _record(self, entrant: Lease, how: str, seconds: float) -> None:
        """A connect has ended."""
        service = self._service
        service.counters.add(Counted.CONNECTS, how)
        observers = self._engine.observers
        if observers is not None:
            observers.ended(ConnectEnded(service.target, entrant.node.endpoint, how, seconds))

    def _doubt(self, entrant: Lease, error: OSError) -> None:
        if sign_of(error) is ConnectResult.SILENT:
            self._background.suspect(self._service, entrant.node)
