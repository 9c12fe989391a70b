"""Where simulated tasks are found: a registry, Route 53 behind resolvers that cache, and the Cloud Map API."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Mapping
from math import ceil
from random import Random

from ecs_discovery.errors import NoEndpoints, TargetNotFound
from ecs_discovery.models import Endpoint, Question, Resolution

__all__ = ["PORT", "CloudMap", "Dns", "Registry", "service_of"]

LOOKUP = 0.001  # seconds
PORT = 8080  # of every task, as Cloud Map names it
RECORDS = 8  # in one answer of Route 53


def service_of(question: Question) -> str:
    """The short name of the service that a question is about: `orders` of `orders.prod.local` or `prod/orders`."""
    if question.scheme == "cloudmap":
        return question.name.partition("?")[0].rpartition("/")[2]
    return question.name.partition(".")[0]


class Registry:
    """Which addresses of one service are registered, now and lately. What DNS answers lags behind it."""

    def __init__(self) -> None:
        self._since = [0.0]
        self._hosts: list[tuple[str, ...]] = [()]
        self._ids: dict[str, str] = {}
        self._bare: dict[str, Endpoint] = {}
        self._full: dict[str, Endpoint] = {}

    def put(self, hosts: Mapping[str, str], now: float) -> None:
        """From now on these are registered: address → instance id."""
        self._ids.update(hosts)
        self._since.append(now)
        self._hosts.append(tuple(sorted(hosts)))

    def at(self, moment: float) -> tuple[str, ...]:
        """The addresses that were registered then, the very same tuple until that changes."""
        return self._hosts[max(0, bisect_right(self._since, moment) - 1)]

    def bare(self, host: str) -> Endpoint:
        """As DNS names it. One object for all who ask: ten thousand clients share it."""
        found = self._bare.get(host)
        if found is None:
            found = self._bare[host] = Endpoint(host, 0)
        return found

    def full(self, host: str) -> Endpoint:
        """As Cloud Map names it."""
        found = self._full.get(host)
        if found is None:
            found = self._full[host] = Endpoint(host, PORT, instance_id=self._ids[host])
        return found


class Dns:
    """Answers as Route 53 does for MULTIVALUE services, through the resolver of one zone, which caches.

    At most eight records, drawn at random; TTLs count down in the cache, in whole seconds.
    """

    def __init__(
        self, registries: Mapping[str, Registry], rng: Random, clock: Callable[[], float], *, ttl: float, lag: float
    ) -> None:
        self.ttl = ttl
        self.lag = lag
        """Seconds until a change of the registry is answered with."""
        self.asked: list[float] = []
        """When questions for addresses came."""
        self.packets: list[float] = []
        """When questions of any kind came."""
        self._registries = registries
        self._rng = rng
        self._clock = clock
        self._cached: dict[str, tuple[float, tuple[Endpoint, ...]]] = {}

    async def resolve(self, question: Question, timeout: float) -> Resolution:
        await asyncio.sleep(LOOKUP)
        now = self._clock()
        self.packets.append(now)
        name = service_of(question)
        registry = self._registries.get(name)
        if question.scheme != "a" or registry is None:
            raise (NoEndpoints if registry is not None else TargetNotFound)("no such record", target=str(question))
        self.asked.append(now)
        until, found = self._cached.get(name, (0.0, ()))
        if now >= until:
            hosts = registry.at(now - self.lag)
            drawn = self._rng.sample(hosts, RECORDS) if len(hosts) > RECORDS else hosts
            until, found = now + self.ttl, tuple(map(registry.bare, drawn))
            self._cached[name] = (until, found)
        if not found:
            raise TargetNotFound("no such name", target=str(question))
        return Resolution(found, float(ceil(until - now)), "dns")


class CloudMap:
    """Answers as DiscoverInstances does: all of them, with their ids. While nothing changes the answer is the very
    same object, as with the library's own resolver, which asks for the revision first."""

    def __init__(self, registries: Mapping[str, Registry], clock: Callable[[], float], *, poll: float = 5.0) -> None:
        self.asked: list[float] = []
        """When questions came."""
        self._registries = registries
        self._clock = clock
        self._poll = poll
        self._answers: dict[str, tuple[tuple[str, ...], Resolution]] = {}

    async def resolve(self, question: Question, timeout: float) -> Resolution:
        await asyncio.sleep(LOOKUP)
        now = self._clock()
        self.asked.append(now)
        name = service_of(question)
        registry = self._registries.get(name)
        hosts = registry.at(now) if registry is not None else ()
        if registry is None or not hosts:
            raise NoEndpoints("no instances", target=str(question))
        of, answer = self._answers.get(name, ((), None))
        if answer is None or of is not hosts:
            answer = Resolution(tuple(map(registry.full, hosts)), self._poll, "cloudmap")
            self._answers[name] = (hosts, answer)
        return answer
