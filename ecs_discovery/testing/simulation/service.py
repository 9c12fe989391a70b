"""A simulated service: its tasks, where they are registered, and what ECS does with them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Literal

from ecs_discovery.testing.simulation.registry import Registry
from ecs_discovery.testing.simulation.tasks import Port, ServiceTime, Task, steady

__all__ = ["SimulatedService"]


class SimulatedService:
    """Made by `World.service`. Its methods take effect at once; `deploy` and `scale` take virtual time."""

    def __init__(
        self,
        name: str,
        registry: Registry,
        network: dict[str, Task],
        rng: Random,
        clock: Callable[[], float],
        *,
        service_time: ServiceTime | None,
        workers: int,
        queue: int | None,
    ) -> None:
        self.name = name
        self.all_tasks: list[Task] = []
        """Every task there ever was, oldest first: what they served outlives them."""
        self._registry = registry
        self._network = network
        self._rng = rng
        self._clock = clock
        self._service_time = service_time or steady(0.002)
        self._workers = workers
        self._queue = queue
        self._registered: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<SimulatedService {self.name} {len(self._registered)} tasks>"

    @property
    def tasks(self) -> list[Task]:
        """The tasks that are registered, oldest first."""
        return [task for task in self.all_tasks if task.host in self._registered]

    @property
    def answering(self) -> bool:
        """Is there a task that listens and answers well?"""
        return any(task.port is Port.OPEN and task.status < 400 for task in self.tasks)

    def start(
        self,
        count: int = 1,
        service_time: ServiceTime | None = None,
        *,
        port: Port = Port.OPEN,
        since: float | None = None,
    ) -> list[Task]:
        """Start tasks and register them at once, as ECS does, whether they listen yet (`port`) or not.

        `since`: they were registered then, so that DNS may show them already.
        """
        started = []
        for _ in range(count):
            number = len(self._network) + 1
            host = f"10.{number // 65536}.{number // 256 % 256}.{number % 256}"
            work = service_time or self._service_time
            task = Task(host, Random(self._rng.random()), work, workers=self._workers, queue=self._queue, port=port)
            self._network[host] = task
            self._registered[host] = f"task-{number}"
            self.all_tasks.append(task)
            started.append(task)
        self._registry.put(self._registered, self._clock() if since is None else since)
        return started

    def deregister(self, *tasks: Task) -> None:
        """Take tasks out of the registry. DNS shows them for its lag more."""
        for task in tasks:
            del self._registered[task.host]
        self._registry.put(self._registered, self._clock())

    def stop(self, *tasks: Task, how: Literal["kill", "vanish"] = "kill") -> None:
        """What ECS does: deregister tasks and end them in one moment. `kill`: connects are refused and requests in
        flight are reset. `vanish`: the interface is gone, and no packet is answered."""
        self.deregister(*tasks)
        for task in tasks:
            if how == "kill":
                task.stop()
            else:
                task.vanish()

    async def deploy(
        self, *, batch: int = 1, boot: float = 3.0, every: float = 5.0, stop: Literal["kill", "vanish"] = "kill"
    ) -> None:
        """Replace all tasks, `batch` at a time, as a rolling deployment does: new tasks first, then old tasks stop.

        A new task is registered at once and listens after `boot` seconds; `every` seconds later the old tasks of its
        batch stop.
        """
        if batch < 1:
            raise ValueError(f"batch must be 1 or more, got {batch!r}")
        old = self.tasks
        while old:
            leaving, old = old[:batch], old[batch:]
            coming = self.start(len(leaving), port=Port.CLOSED)
            await asyncio.sleep(boot)
            for task in coming:
                task.listen()
            await asyncio.sleep(every)
            self.stop(*leaving, how=stop)

    async def scale(self, tasks: int, *, boot: float = 0.0) -> None:
        """Start or stop tasks until there are that many; the oldest stop first. New tasks listen after
        `boot` seconds."""
        here = self.tasks
        coming = self.start(tasks - len(here), port=Port.CLOSED) if tasks > len(here) else []
        if len(here) > tasks:
            self.stop(*here[: len(here) - tasks])
        await asyncio.sleep(boot)
        for task in coming:
            task.listen()
