"""What an `AsyncDiscovery` reaches the world by: the system's sockets, unless a simulated world stands there."""

from __future__ import annotations

import socket

from ecs_discovery.models import Endpoint
from ecs_discovery.resolvers.base import AsyncResolver
from ecs_discovery.runtime import sockets
from ecs_discovery.runtime.sockets import Tuning

__all__ = ["SYSTEM", "Network"]


class Network:
    """The network as it is. `testing.simulation` has another, of tasks in virtual time."""

    dns: AsyncResolver | None = None
    """What answers for DNS; None: the library's own resolver."""

    async def connect(self, endpoint: Endpoint, tuning: Tuning | None = None) -> socket.socket:
        """A connected, non-blocking socket. Raises `OSError`."""
        return await sockets.connect_async(endpoint, tuning)


SYSTEM = Network()
