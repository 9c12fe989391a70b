"""Asking: the lookups of a `Discovery`, in worker threads.

It stands in the same order as `aio/asking.py`; the two differ in awaits. Threads alone make lookups together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import inf
from typing import Any

from ecs_discovery.client.engine import Engine
from ecs_discovery.client.sync.lookup_group import LookupGroup
from ecs_discovery.errors import ResolutionError
from ecs_discovery.models import DNS_SCHEMES, Question, Resolution
from ecs_discovery.resolvers.base import Resolver
from ecs_discovery.resolvers.registry import load, standing_in
from ecs_discovery.resolvers.static import StaticResolver
from ecs_discovery.runtime import fork
from ecs_discovery.runtime.single_flight import Flight
from ecs_discovery.runtime.workers import Workers

__all__ = ["Asker"]

_BRIEF = 0.25  # seconds for a lookup that no caller waits for, where no thread can be had


class Asker:
    """Makes lookups, each question once at a time. Threads start when there is work and end when there is none."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.dns: Resolver | None = None
        """The resolver for DNS; made when first needed."""
        self._workers = Workers()
        self._own: dict[str, Workers] = {}  # per scheme besides DNS: a resolver that blocks must not stop the others
        self._closed = False
        fork.track(self)

    def ask_all(
        self, questions: Sequence[Question], deadline_at: float | None, here: float
    ) -> Mapping[Question, Flight]:
        """As `ask`, several; where no thread can be had, the lookups are made at once and end by `here`."""
        begun = {} if deadline_at is None else self._ask_together(questions, deadline_at, here)
        return {
            question: begun.get(question) or self._ask(question, deadline_at=deadline_at, here=here)
            for question in questions
        }

    def _ask_together(
        self, questions: Sequence[Question], deadline_at: float, here: float
    ) -> Mapping[Question, Flight]:
        """Begin the lookups of these questions in one worker, by one client, unless they are in flight. Those begun.

        The caller waits until `deadline_at`. Where no thread can be had, lookups are made at once and end by `here`.
        """
        engine = self.engine
        mine: dict[Question, Flight] = {}
        if self._closed or not all(question.scheme in DNS_SCHEMES for question in questions):
            return mine
        if standing_in or (self.dns is not None and not hasattr(self.dns, "lookups")):
            return mine  # a resolver that answers one question at a time
        for question in questions:
            flight, leads = engine.join(question, wanted=deadline_at)
            if leads:
                mine[question] = flight
        if not mine:
            return mine

        def dropped() -> None:
            for question, flight in mine.items():
                engine.crowded_out(question, flight)

        if not self._workers.spawn(partial(self._fly_together, mine), inline=False, dropped=dropped):
            self._fly_together(mine, here)
        return mine

    def ask(
        self, question: Question, *, force: bool = False, allowed: bool = False, deadline_at: float | None = None
    ) -> Flight:
        """Look a question up in the background, unless a lookup of it is in flight. With `force`, whatever is cached;
        `allowed` if the right to that was taken with `Engine.delay`. The caller waits until `deadline_at`;
        None: it does not wait.
        """
        return self._ask(question, force, allowed, deadline_at, deadline_at)

    def _ask(
        self,
        question: Question,
        force: bool = False,
        allowed: bool = False,
        deadline_at: float | None = None,
        here: float | None = None,
    ) -> Flight:
        """As `ask`. Where no thread can be had, the lookup is made at once and ends by `here` (default: soon)."""
        engine = self.engine
        if force:  # before the flight is joined: one that is in flight must not answer from memory either
            engine.forget(self._resolver(question.scheme), question)
        flight, leads = engine.join(question, wanted=deadline_at)
        pool = self._pool(question.scheme)
        if not leads:
            if deadline_at is not None:
                pool.hasten(question)
            return flight
        job = partial(self._fly, question, flight, force, allowed)
        dropped = partial(engine.crowded_out, question, flight)
        if not pool.spawn(job, inline=False, key=question, dropped=dropped):
            if self._closed:
                engine.flights.land(question, flight)
            else:
                self._fly(question, flight, force, allowed, engine.clock() + _BRIEF if here is None else here)
        return flight

    def _pool(self, scheme: str) -> Workers:
        """The threads for lookups of a scheme."""
        if scheme in DNS_SCHEMES:
            return self._workers
        found = self._own.get(scheme)
        if found is None:
            found = self._own.setdefault(scheme, Workers())  # all who come at once get the first
            if self._closed:
                found.close()
        return found

    def force(self, questions: Sequence[Question]) -> None:
        """Ask these again now, whatever is cached."""
        here = self.engine.clock() + _BRIEF
        for question in questions:
            self._ask(question, force=True, here=here)

    # In workers

    def _fly_together(self, flights: Mapping[Question, Flight], deadline_at: float | None = None) -> None:
        """Make these lookups, which end by `deadline_at` at the latest."""
        engine = self.engine
        following: tuple[Question, ...] = ()
        try:
            if not self._closed:
                resolver: Any = self._resolver(next(iter(flights)).scheme)
                group = LookupGroup(engine, resolver.lookups())
                for question, flight in flights.items():
                    group.start(question, flight)
                following = group.finish(deadline_at)
        finally:
            for question, flight in flights.items():
                engine.flights.land(question, flight)  # again is as once
        for question in following:
            self._ask(question)

    def _fly(self, question: Question, flight: Flight, force: bool, allowed: bool, deadline_at: float = inf) -> None:
        engine = self.engine
        if not engine.start_lookup(question, flight):
            return
        limit = min(engine.limit(question), deadline_at - engine.clock())
        following: tuple[Question, ...] = ()
        try:
            if limit > 0 and (force or not engine.is_answered(question)):
                following = engine.landed(question, self._lookup(question, allowed, limit), flight)
        finally:
            engine.flights.land(question, flight)
        for other in following:
            self._ask(other, here=deadline_at if deadline_at < inf else None)

    def _lookup(self, question: Question, allowed: bool, limit: float) -> Resolution | Exception:
        refused = None if allowed else self.engine.refusal(question)
        if refused is not None:
            return refused
        try:
            return self._resolver(question.scheme).resolve(question, limit)
        except ResolutionError as error:
            return error
        except Exception as error:  # noqa: BLE001  # a resolver's fault is an answer too: callers wait for one
            return self.engine.unexpected(question, error)
        except (KeyboardInterrupt, SystemExit) as error:  # without an answer it would be asked again at once
            self.engine.landed(question, self.engine.unexpected(question, error))
            raise
        except BaseException as error:  # noqa: BLE001  # asyncio's CancelledError, say
            return self.engine.unexpected(question, error)

    def _resolver(self, scheme: str) -> Resolver:
        if standing_in and scheme != "static":
            return standing_in[-1]
        given: Resolver | None = self.engine.resolvers.get(scheme)
        if given is not None:
            return given
        if scheme == "static":
            return StaticResolver()
        if scheme == "cloudmap":
            return self.engine.cloud_map()
        if scheme not in DNS_SCHEMES:
            found: Resolver = self.engine.resolvers.setdefault(scheme, load(scheme))
            return found
        if self.dns is None:
            kind = fork.load("ecs_discovery.resolvers.dns.sync").DnsResolver  # not before it is needed
            self.dns = kind(self.engine.settings.dns, may_ask=self.engine.may_query)
        return self.dns

    # Life cycle

    def close(self) -> None:
        """Drop what has not begun."""
        self._closed = True
        for workers in (self._workers, *self._own.copy().values()):
            workers.close()

    def after_fork(self) -> None:
        """In the child of a fork there are no workers, and no sockets of its own."""
        self.dns = None
