"""What the Cloud Map API knows of the services: their instances with attributes and health, and a revision."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from ecs_discovery.testing.lab.zone import Instance

__all__ = ["Listed", "Listing"]

ZONES = ("us-east-1a", "us-east-1b", "us-east-1c")
REGION = "us-east-1"


@dataclass(slots=True)
class Listed:
    """An instance as the API shows it."""

    attributes: dict[str, str]
    healthy: bool = True


class Listing:
    """The instances of one service. Everything here runs in the loop's thread."""

    def __init__(self, name: str, rng: Random, *, cluster: str, family: str, instance_port: bool) -> None:
        self.name = name
        self.instances: dict[str, Listed] = {}
        self.revision = rng.getrandbits(56) | 1 << 55
        """A large number that grows by leaps when an instance comes or goes, and not with its health."""
        self._cluster = cluster
        self._family = family
        self._instance_port = instance_port
        self._rng = rng
        self._registered = 0
        self._pending: dict[str, tuple[asyncio.TimerHandle, bool]] = {}

    def __repr__(self) -> str:
        return f"<Listing {self.name} {len(self.instances)} instances, revision {self.revision}>"

    def show(self, instance: Instance) -> None:
        """A task is registered: with the attributes that ECS gives it. An instance that is known already stays as it
        is."""
        if instance.id in self.instances:
            return
        attributes = {
            "AVAILABILITY_ZONE": ZONES[self._registered % len(ZONES)],
            "AWS_INSTANCE_IPV4": instance.address,
            "ECS_CLUSTER_NAME": self._cluster,
            "ECS_SERVICE_NAME": self.name,
            "ECS_TASK_DEFINITION_FAMILY": self._family,
            "REGION": REGION,
        }
        if self._instance_port:
            attributes["AWS_INSTANCE_PORT"] = str(instance.port)
        self.put(instance.id, attributes, healthy=instance.healthy)

    def put(self, instance_id: str, attributes: Mapping[str, str], *, healthy: bool = True) -> None:
        """Register an instance, or register it anew."""
        self._registered += 1
        self.instances[instance_id] = Listed(dict(attributes), healthy)
        self._turn()

    def drop(self, instance_id: str) -> None:
        """An instance is deregistered."""
        if self.instances.pop(instance_id, None) is not None:
            self._turn()

    def set_health(self, instance_id: str, healthy: bool, lag: float) -> None:
        """An instance's custom health changes; it is shown after `lag` seconds."""
        self._cancel(instance_id)
        if lag > 0:
            timer = asyncio.get_running_loop().call_later(lag, self._show_health, instance_id, healthy)
            self._pending[instance_id] = (timer, healthy)
        else:
            self._show_health(instance_id, healthy)

    def flush(self) -> None:
        """Show every change of health now."""
        for instance_id, (_, healthy) in list(self._pending.items()):
            self._cancel(instance_id)
            self._show_health(instance_id, healthy)

    def end(self) -> None:
        """Change nothing any more."""
        for instance_id in list(self._pending):
            self._cancel(instance_id)

    def _show_health(self, instance_id: str, healthy: bool) -> None:
        self._pending.pop(instance_id, None)
        listed = self.instances.get(instance_id)
        if listed is not None:
            listed.healthy = healthy

    def _cancel(self, instance_id: str) -> None:
        pending = self._pending.pop(instance_id, None)
        if pending is not None:
            pending[0].cancel()

    def _turn(self) -> None:
        self.revision += self._rng.randrange(1, 1_000_000)
