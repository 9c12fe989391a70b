"""What large services go through, each as one history of five minutes, for any number of clients and tasks.

A history says when something changed (`marks`) and from when until when no task answered (`dark`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ecs_discovery.testing.simulation.client import Client
from ecs_discovery.testing.simulation.service import SimulatedService
from ecs_discovery.testing.simulation.tasks import Port
from ecs_discovery.testing.simulation.world import World

__all__ = ["HISTORIES", "RATE", "SECONDS", "START", "Played"]

SECONDS = 300.0
RATE = 0.1  # requests per second of each client
START = 1000.0  # where the clock of a world begins
OVERLOADED = 503


@dataclass(frozen=True, slots=True)
class Played:
    """One history. Times are seconds from its beginning."""

    title: str
    play: Callable[[World, SimulatedService, list[Client]], Awaitable[None]]
    marks: tuple[tuple[float, str], ...]
    dark: tuple[float, float] | None = None
    """No task answers a request that begins in these seconds."""
    source: str = "dns"
    """How services are found: `dns` or `cloudmap`."""


def _load(world: World, clients: list[Client], seconds: float) -> asyncio.Task[None]:
    return world.load(clients, RATE * len(clients), seconds)


async def _deployment(world: World, orders: SimulatedService, clients: list[Client]) -> None:
    """All tasks are replaced, a tenth at a time. DNS lags; a new task is registered 3 s before it listens."""
    load = _load(world, clients, SECONDS)
    await asyncio.sleep(60)
    await orders.deploy(batch=max(1, len(orders.tasks) // 10), boot=3, every=15)
    await load


async def _outage(world: World, orders: SimulatedService, clients: list[Client]) -> None:
    """Every task answers 503 for a minute."""
    load = _load(world, clients, SECONDS)
    await asyncio.sleep(100)
    for task in orders.tasks:
        task.status = OVERLOADED
    await asyncio.sleep(60)
    for task in orders.tasks:
        task.status = 200
    await load


async def _lost_zone(world: World, orders: SimulatedService, clients: list[Client]) -> None:
    """A third of the tasks vanish at once. ECS notices after 30 s, and starts as many elsewhere."""
    load = _load(world, clients, SECONDS)
    await asyncio.sleep(100)
    gone = orders.tasks[::3]
    for task in gone:
        task.vanish()
    await asyncio.sleep(30)
    orders.deregister(*gone)
    coming = orders.start(len(gone), port=Port.CLOSED)
    await asyncio.sleep(10)
    for task in coming:
        task.listen()
    await load


async def _start_up(world: World, orders: SimulatedService, clients: list[Client]) -> None:
    """All clients start within 30 s. Each makes its first request at once, with nothing known."""

    async def start(client: Client) -> None:
        await asyncio.sleep(world.rng.random() * 30)
        await client.get()
        while world.now < START + SECONDS:
            await asyncio.sleep(world.rng.expovariate(RATE))
            if world.now < START + SECONDS:
                await client.get()

    for client in clients:
        world.spawn(start(client))
    await asyncio.sleep(SECONDS)


HISTORIES = {
    "deployment": Played(
        "A rolling deployment", _deployment, ((60.0, "first new tasks"), (240.0, "last old tasks stop"))
    ),
    "outage": Played("An outage of 503", _outage, ((100.0, "503"), (160.0, "200")), (100.0, 160.0)),
    "lost-zone": Played(
        "A lost zone", _lost_zone, ((100.0, "a third vanishes"), (130.0, "deregistered"), (140.0, "replaced"))
    ),
    "start-up": Played("A start-up storm", _start_up, ((30.0, "all have started"),)),
    "start-up-cloud-map": Played(
        "A start-up storm, with Cloud Map", _start_up, ((30.0, "all have started"),), source="cloudmap"
    ),
}
