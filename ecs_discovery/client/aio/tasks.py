"""The background tasks, which no caller awaits, of all loops that one `AsyncDiscovery` is used in."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

__all__ = ["Tasks"]


class Tasks(set[asyncio.Task[None]]):
    """Held until they have ended: the loop itself would let them go."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin it in the loop that runs here."""
        for old in self.copy():  # in one step: loops in other threads add to it and take away
            if old.get_loop().is_closed():
                self.discard(old)
        return self.hold(asyncio.get_running_loop().create_task(work))

    def hold(self, task: asyncio.Task[None]) -> asyncio.Task[None]:
        """Hold one that runs already."""
        self.add(task)
        task.add_done_callback(self.discard)
        return task

    async def end(self) -> None:
        """Cancel what runs in this loop, and wait for its end."""
        loop = asyncio.get_running_loop()
        mine = [task for task in self.copy() if task.get_loop() is loop]
        for task in mine:
            task.cancel()
        await asyncio.gather(*mine, return_exceptions=True)
