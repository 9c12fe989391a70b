"""One health check in a task."""

from __future__ import annotations

import asyncio
import socket

from ecs_discovery.client.aio.network import SYSTEM, Network
from ecs_discovery.client.health_check import BLOCK, GOOD, Answer, Result, failed, judged, request
from ecs_discovery.core.balancing.health_checks import Check

__all__ = ["examine"]


async def examine(check: Check, network: Network = SYSTEM) -> Result:
    """Check an endpoint, within the policy's time limit."""
    loop = asyncio.get_running_loop()
    deadline_at = loop.time() + check.policy.timeout
    sock: socket.socket | None = None
    try:
        async with asyncio.timeout_at(deadline_at):
            sock = await network.connect(check.node.endpoint)
            if check.policy.kind == "tcp":
                return GOOD
            answer = Answer()
            await loop.sock_sendall(sock, request(check))
            while answer.status is None:
                answer.feed(await loop.sock_recv(sock, BLOCK))
        return judged(check, answer.status)
    except (OSError, ValueError) as error:
        return failed(check, error, sock is not None, loop.time() - deadline_at)
    finally:
        if sock is not None:
            sock.close()
