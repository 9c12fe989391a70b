"""Racing: one connected socket for an attempt, over as many endpoints as that takes. For asyncio.

What is decided is in `core.calls.race`.
"""

from __future__ import annotations

import asyncio
import socket

from ecs_discovery.client.aio.background import AsyncBackground
from ecs_discovery.client.race import RaceState
from ecs_discovery.core.calls.call import Call
from ecs_discovery.core.lease import Lease
from ecs_discovery.runtime.sockets import Tuning

__all__ = ["connect"]


async def connect(background: AsyncBackground, call: Call, lease: Lease, tuning: Tuning | None = None) -> socket.socket:
    """As `connect`, with a non-blocking socket."""
    state = RaceState(background, call, lease)
    if state.race is None:
        return await _alone(background, state, lease, tuning)
    pending: dict[Lease, asyncio.Task[socket.socket]] = {}
    try:
        while True:
            while (entrant := state.next()) is not None:
                pending[entrant] = asyncio.create_task(background.network.connect(entrant.endpoint, tuning))
            pause = state.pause()
            done, _ = await asyncio.wait(pending.values(), timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            for entrant in [each for each, task in pending.items() if task in done]:
                try:
                    sock = pending[entrant].result()
                except OSError as error:
                    del pending[entrant]
                    state.failed(entrant, error)
                else:
                    del pending[entrant]
                    state.won(entrant)
                    return sock
            for entrant in state.overdue(0.0 if done else pause):
                _end(pending.pop(entrant))
                state.failed(entrant, TimeoutError("timed out"))
    finally:
        for task in pending.values():
            _end(task)
        state.close()


def _end(task: asyncio.Task[socket.socket]) -> None:
    """Have it over, and its socket closed should it just have connected."""
    task.cancel()
    task.add_done_callback(_close)


def _close(task: asyncio.Task[socket.socket]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()


async def _alone(background: AsyncBackground, state: RaceState, lease: Lease, tuning: Tuning | None) -> socket.socket:
    try:
        async with asyncio.timeout(state.limit()):
            sock = await background.network.connect(lease.endpoint, tuning)
    except OSError as error:
        state.refused(error)
        raise
    state.connected()
    return sock
