"""A world in virtual time: tasks, a registry, DNS and clients, for histories of hours that play in seconds.

world = World(seed=1, ttl=10, lag=5)
orders = world.service("orders", tasks=6)
client = world.client("orders:8080")

async def history() -> None:
    load = world.load(client, rate=100, seconds=60)
    await orders.deploy(batch=2)
    await load

report = world.run(history)
"""

from __future__ import annotations

from ecs_discovery.testing.simulation.client import Client, Request
from ecs_discovery.testing.simulation.report import Report, buckets, percentile
from ecs_discovery.testing.simulation.service import SimulatedService
from ecs_discovery.testing.simulation.tasks import Port, ServiceTime, Task, lognormal, steady
from ecs_discovery.testing.simulation.world import World

__all__ = [
    "Client",
    "Port",
    "Report",
    "Request",
    "ServiceTime",
    "SimulatedService",
    "Task",
    "World",
    "buckets",
    "lognormal",
    "percentile",
    "steady",
]
