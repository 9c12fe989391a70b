"""The world: a network of tasks, where they are registered, the clients that call them, and what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from random import Random
from typing import Any

from ecs_discovery.config.policies import CloudMapPolicy, DnsPolicy
from ecs_discovery.config.settings import Settings
from ecs_discovery.config.targets import check_name
from ecs_discovery.testing.simulation import loop
from ecs_discovery.testing.simulation.client import Client, Records, Request, SimulatedNetwork
from ecs_discovery.testing.simulation.registry import CloudMap, Dns, Registry
from ecs_discovery.testing.simulation.report import Report, buckets, percentile
from ecs_discovery.testing.simulation.service import SimulatedService
from ecs_discovery.testing.simulation.tasks import ServiceTime, Task

__all__ = ["Client", "Report", "Request", "World", "buckets", "percentile"]


class World:
    """A world in virtual time. Everything is drawn from the seed; the same seed is the same history.

    `ttl`: of DNS records, in seconds. `lag`: seconds until DNS shows a change of the registry. `caches`: DNS resolvers
    that cache on their own (zones); clients take turns at them. The namespace of all services is `prod.local`.
    """

    namespace = "prod.local"

    def __init__(self, seed: int, *, ttl: float = 10.0, lag: float = 0.0, caches: int = 1) -> None:
        if caches < 1:
            raise ValueError(f"caches must be 1 or more, got {caches!r}")
        self.seed = seed
        self.rng = Random(seed)
        self.clock = loop.VirtualClock()
        """Seconds of the world; they begin at 1000."""
        self.network: dict[str, Task] = {}
        """Every task by its address."""
        self.services: dict[str, SimulatedService] = {}
        self._registries: dict[str, Registry] = {}
        self.dns = [
            Dns(self._registries, Random(self.rng.random()), self.clock, ttl=ttl, lag=lag) for _ in range(caches)
        ]
        self.cloud_map = CloudMap(self._registries, self.clock)
        self._records = Records()
        self.requests = self._records.requests
        """What became of each request, in the order in which they ended."""
        self.probes = self._records.probes
        """When a request that decides on an ejected endpoint began, and where."""
        self.connects = self._records.connects
        """When a connect began, of a request or of the background, and where to."""
        self.clients: list[Client] = []
        self._made: dict[tuple[tuple[str, Any], ...], Settings] = {}
        self._running: set[asyncio.Task[Any]] = set()

    def __repr__(self) -> str:
        return f"<World seed={self.seed} {len(self.services)} services, {len(self.clients)} clients, at {self.now:g}>"

    @property
    def now(self) -> float:
        """Seconds of the world."""
        return self.clock()

    def service(
        self,
        name: str = "orders",
        tasks: int = 0,
        service_time: ServiceTime | None = None,
        *,
        workers: int = 1000,
        queue: int | None = None,
    ) -> SimulatedService:
        """A service with `tasks` tasks that listen and that DNS shows already. Later tasks are as the first.

        `service_time` draws how long a request takes (default: 2 ms). A task works on `workers` requests at once;
        others queue, or are turned away with 503 where `queue` wait already. Raises `ValueError` for a name that is
        taken.
        """
        name = check_name("service", name)
        if name in self.services:
            raise ValueError(f"there is a service {name!r} already")
        registry = self._registries[name] = Registry()
        made = SimulatedService(
            name,
            registry,
            self.network,
            self.rng,
            self.clock,
            service_time=service_time,
            workers=workers,
            queue=queue,
        )
        self.services[name] = made
        if tasks:
            made.start(tasks, since=0.0)
        return made

    def client(self, target: str = "orders:8080", **policies: Any) -> Client:
        """A process that calls `target`: `orders:8080` through DNS, `cloudmap://prod/orders` through Cloud Map.

        `policies` are the policies of a `Discovery`: `retry=`, `outlier=`, `timeout=` and so on.
        """
        dns = self.dns[len(self.clients) % len(self.dns)]
        network = SimulatedNetwork(self.network, dns, self.clock, self.connects)
        seed = self.rng.getrandbits(64)
        made = Client(target, self._settings(policies), network, self.cloud_map, self.clock, self._records, seed)
        self.clients.append(made)
        return made

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run `work` beside the history. `run` waits for it; what it raises is raised there."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def load(self, clients: Client | Sequence[Client], rate: float, seconds: float) -> asyncio.Task[None]:
        """`rate` requests per second over all clients for so long, whether earlier requests are answered or not.

        It begins at once; `await` it to have it over.
        """
        return self.spawn(self._load([clients] if isinstance(clients, Client) else clients, rate, seconds))

    def run(self, history: Callable[[], Awaitable[object]]) -> Report:
        """Play `history()`, let requests end, and close the clients. What became of it is returned."""
        began = self.now

        async def main() -> None:
            await history()
            while self._running:
                for task in (await asyncio.wait(set(self._running), return_when=asyncio.FIRST_EXCEPTION))[0]:
                    task.result()
            for client in self.clients:
                await client.discovery.aclose()

        loop.run(main(), self.clock)
        return self.report(began)

    # What became of it

    def report(self, start: float | None = None, end: float | None = None) -> Report:
        """The report of the requests that began in these seconds; of all of them without bounds."""
        first = 1000.0 if start is None else start
        last = self.now if end is None else end
        served = [moment for task in self.network.values() for moment in task.served if first <= moment < last]
        asked = [*(source.asked for source in self.dns), self.cloud_map.asked]
        lookups = [moment for moments in asked for moment in moments if first <= moment < last]
        chosen = (
            self.between(first, last) if end is not None else [each for each in self.requests if each.began >= first]
        )
        return Report(chosen, served, lookups, first, last)

    def between(self, start: float, end: float) -> list[Request]:
        """Requests that began in these seconds of the world."""
        return [request for request in self.requests if start <= request.began < end]

    @property
    def failed(self) -> list[Request]:
        """Requests that ended in an error or an error status."""
        return [request for request in self.requests if not request.ok]

    def _settings(self, policies: dict[str, Any]) -> Settings:
        """The settings of these policies: one object for all clients that are given the same."""
        key = tuple(sorted(policies.items(), key=lambda each: each[0]))
        found = self._made.get(key)
        if found is None:
            given = {"dns": DnsPolicy(hosts_file=""), "cloud_map": CloudMapPolicy(), **policies}
            found = self._made[key] = Settings.make(namespace=self.namespace, environ={}, **given)
        return found

    async def _load(self, clients: Sequence[Client], rate: float, seconds: float) -> None:
        until = self.now + seconds
        while True:
            await asyncio.sleep(self.rng.expovariate(rate))
            if self.now >= until:
                return
            self.spawn(clients[int(self.rng.random() * len(clients))].get())

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled() or task.exception() is None:
            self._running.discard(task)  # what has raised stays until `run` raises it
