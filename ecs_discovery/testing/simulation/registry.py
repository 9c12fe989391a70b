"""Where simulated tasks are found: a registry, Route 53 behind resolvers that cache, and the Cloud Map API."""

from __future__ import annotations

import asyncio
from math import ceil
from random import Random

from ecs_discovery.errors import NoEndpoints, TargetNotFound
from ecs_discovery.models import Endpoint, Question, Resolution

__all__ = ["CloudMap", "Dns", "Registry"]

LOOKUP = 0.001  # seconds


class Registry:
    """Which addresses are registered, now and lately. What DNS answers lags behind it."""

    def __init__(self) -> None:
        self._changes: list[tuple[float, dict[str, str]]] = [(0.0, {})]

    def put(self, hosts: dict[str, str], now: float) -> None:
        """From now on these are registered: address → instance id."""
        self._changes.append((now, dict(hosts)))

    def at(self, moment: float) -> dict[str, str]:
        return next(hosts for since, hosts in reversed(self._changes) if since <= moment)


class Dns:
    """Answers as Route 53 does for a MULTIVALUE service, through the resolver of one zone, which caches.

    At most eight records, drawn at random; TTLs count down in the cache, in whole seconds.
    """

    def __init__(self, registry: Registry, rng: Random, *, ttl: float = 10.0, lag: float = 0.0) -> None:
        self.registry = registry
        self.ttl = ttl
        self.lag = lag
        """Seconds until a change of the registry is answered with."""
        self.asked: list[float] = []
        """When questions for addresses came."""
        self._rng = rng
        self._until = 0.0
        self._cached: tuple[str, ...] = ()

    async def resolve(self, question: Question, timeout: float) -> Resolution:
        await asyncio.sleep(LOOKUP)
        if question.scheme != "a":
            raise NoEndpoints("no such record", target=str(question))
        now = asyncio.get_running_loop().time()
        self.asked.append(now)
        if now >= self._until:
            hosts = sorted(self.registry.at(now - self.lag))
            self._cached = tuple(self._rng.sample(hosts, 8) if len(hosts) > 8 else hosts)
            self._until = now + self.ttl
        if not self._cached:
            raise TargetNotFound("no such name", target=str(question))
        left = float(ceil(self._until - now))
        return Resolution(tuple(Endpoint(host, 0) for host in self._cached), left, "dns")


class CloudMap:
    """Answers as DiscoverInstances does: all of them, with their ids."""

    def __init__(self, registry: Registry, *, poll: float = 5.0) -> None:
        self.registry = registry
        self.asked: list[float] = []
        self._poll = poll

    async def resolve(self, question: Question, timeout: float) -> Resolution:
        await asyncio.sleep(LOOKUP)
        now = asyncio.get_running_loop().time()
        self.asked.append(now)
        hosts = self.registry.at(now)
        if not hosts:
            raise NoEndpoints("no instances", target=str(question))
        found = tuple(Endpoint(host, 8080, instance_id=instance) for host, instance in sorted(hosts.items()))
        return Resolution(found, self._poll, "cloudmap")
