"""Asking: the lookups of an `AsyncDiscovery`, in tasks.

It stands in the same order as `sync/asking.py`; the two differ in awaits. Threads alone make lookups together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import cast

from ecs_discovery.client.aio.network import SYSTEM, Network
from ecs_discovery.client.aio.tasks import Tasks
from ecs_discovery.client.engine import Engine
from ecs_discovery.errors import ResolutionError
from ecs_discovery.models import DNS_SCHEMES, Question, Resolution
from ecs_discovery.resolvers.base import AsyncResolver, Queueing, Resolver
from ecs_discovery.resolvers.in_threads import for_asyncio
from ecs_discovery.resolvers.registry import load, standing_in
from ecs_discovery.resolvers.static import AsyncStaticResolver
from ecs_discovery.runtime.single_flight import Flight
from ecs_discovery.runtime.workers import Workers

__all__ = ["AsyncAsker"]


class AsyncAsker:
    """Makes lookups, each question once at a time, in tasks of the loop that asked."""

    def __init__(
        self,
        engine: Engine,
        tasks: Tasks,
        resolvers: Mapping[str, AsyncResolver | Resolver],
        network: Network = SYSTEM,
    ) -> None:
        self.engine = engine
        self.dns: AsyncResolver | None = network.dns
        """The resolver for DNS; made when first needed."""
        self._tasks = tasks
        self._own: dict[str, Workers] = {}  # per resolver that is not asynchronous: if it blocks, others go on
        self._closed = False
        self._resolvers = {scheme: for_asyncio(each, self._pool(scheme)) for scheme, each in resolvers.items()}

    def ask_all(
        self, questions: Sequence[Question], deadline_at: float | None, here: float
    ) -> Mapping[Question, Flight]:
        """As `ask`, several. A task can always be had: `here` is for threads."""
        return {question: self.ask(question, deadline_at=deadline_at) for question in questions}

    def ask(
        self, question: Question, *, force: bool = False, allowed: bool = False, deadline_at: float | None = None
    ) -> Flight:
        """As `Asker.ask`."""
        if force:  # before the flight is joined: one that is in flight must not answer from memory either
            self.engine.forget(self._resolver(question.scheme), question)
        flight, leads = self.engine.join(question, asyncio.get_running_loop(), deadline_at)
        if leads:
            task = self._tasks.spawn(self._fly(question, flight, force, allowed))
            # Also when it is cancelled before its first step.
            task.add_done_callback(partial(self._landed, question, flight))
        return flight

    def _pool(self, scheme: str) -> Workers:
        """The threads for lookups of a scheme whose resolver is not asynchronous."""
        found = self._own.get(scheme)
        if found is None:
            found = self._own.setdefault(scheme, Workers())  # all who come at once get the first
            if self._closed:
                found.close()
        return found

    def _landed(self, question: Question, flight: Flight, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            self.engine.lost(question)
        self.engine.flights.land(question, flight)

    def force(self, questions: Sequence[Question]) -> None:
        """As `Asker.force`."""
        for question in questions:
            self.ask(question, force=True)

    # In tasks

    async def _fly(self, question: Question, flight: Flight, force: bool, allowed: bool) -> None:
        engine = self.engine
        following: tuple[Question, ...] = ()
        if force or not engine.is_answered(question):
            outcome = await self._lookup(question, flight, allowed)
            if outcome is not None or not flight.done():  # None may be a resolver's answer too
                following = engine.landed(question, outcome, flight)  # type: ignore[arg-type]  # it looks what it is
        engine.flights.land(question, flight)  # whatever else ends it: see `_landed`
        for other in following:
            self.ask(other)

    async def _lookup(self, question: Question, flight: Flight, allowed: bool) -> Resolution | Exception | None:
        """None, and the flight has landed, if no caller waited for it any more when its turn came."""
        start_attempt = partial(self.engine.start_lookup, question, flight)
        refused = None if allowed else self.engine.refusal(question)
        if refused is not None:
            return refused
        try:
            resolver, limit = self._resolver(question.scheme), self.engine.limit(question)
            if hasattr(resolver, "resolve_in_turn"):  # it is `Queueing`; to ask that of a protocol takes longer
                return await cast(Queueing, resolver).resolve_in_turn(question, limit, start_attempt)
            return await resolver.resolve(question, limit) if start_attempt() else None
        except ResolutionError as error:
            return error
        except Exception as error:  # noqa: BLE001  # a resolver's fault is an answer too: callers wait for one
            return self.engine.unexpected(question, error)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return self.engine.unexpected(question, error)  # this task was not cancelled: it is the resolver's own
        except (KeyboardInterrupt, SystemExit) as error:  # without an answer it would be asked again at once
            self.engine.landed(question, self.engine.unexpected(question, error))
            raise

    def _resolver(self, scheme: str) -> AsyncResolver:
        if standing_in and scheme != "static":
            return for_asyncio(standing_in[-1], self._pool(scheme))
        given = self._resolvers.get(scheme)
        if given is not None:
            return given
        if scheme == "static":
            return AsyncStaticResolver()
        if scheme == "cloudmap":
            return self._make_cloud_map()
        if scheme not in DNS_SCHEMES:
            # What the Discovery whose state is shared was given, or has loaded, serves here too.
            found = self.engine.resolvers.get(scheme) or load(scheme)
            return self._resolvers.setdefault(scheme, for_asyncio(found, self._pool(scheme)))
        if self.dns is None:
            from ecs_discovery.resolvers.dns.aio import AsyncDnsResolver  # heavy: not before it is needed

            self.dns = AsyncDnsResolver(self.engine.settings.dns, may_ask=self.engine.may_query)
        return self.dns

    def _make_cloud_map(self) -> AsyncResolver:
        from ecs_discovery.resolvers.cloud_map.aio import AsyncCloudMapResolver
        from ecs_discovery.resolvers.cloud_map.sync import CloudMapResolver

        joined = self.engine.resolvers.get("cloudmap")  # what the Discovery whose state is shared was given
        if joined is not None and not isinstance(joined, CloudMapResolver):
            return self._resolvers.setdefault("cloudmap", for_asyncio(joined, self._pool("cloudmap")))
        found = joined if joined is not None else self.engine.cloud_map()
        return self._resolvers.setdefault("cloudmap", AsyncCloudMapResolver(share=found))

    # Life cycle

    def close(self) -> None:
        """As `Asker.close`."""
        self._closed = True
        for workers in self._own.copy().values():
            workers.close()
