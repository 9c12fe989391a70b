"""The one thread that everything in a lab runs in, and the ways to have something done there."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["LoopThread"]

T = TypeVar("T")

_PATIENCE = 10.0


class LoopThread:
    """An asyncio event loop in a daemon thread of its own."""

    def __init__(self, name: str) -> None:
        # The selector loop, because only that one has add_reader on every platform.
        self.loop: asyncio.AbstractEventLoop = asyncio.SelectorEventLoop()
        self._owner = os.getpid()
        self._closed = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<LoopThread {self._thread.name} {'closed' if self._closed else 'running'}>"

    def _main(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    @property
    def is_current(self) -> bool:
        """True if the caller is the loop's own thread."""
        return threading.get_ident() == self._thread.ident

    def call(self, function: Callable[[], T], *, timeout: float = _PATIENCE) -> T:
        """Run `function` in the loop's thread and return what it returns. Raises `RuntimeError` once closed."""
        if self.is_current:
            return function()

        async def step() -> T:
            return function()

        return self.run(step(), timeout=timeout)

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Start `coroutine` in the loop; the future tells how it ends. Raises `RuntimeError` once closed."""
        try:
            with self._lock:
                self._check_open_locked()
                return asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        except RuntimeError:
            coroutine.close()
            raise

    def run(self, coroutine: Coroutine[Any, Any, T], *, timeout: float = _PATIENCE) -> T:
        """Run `coroutine` to its end and return what it returns. Not to be called from the loop's own thread."""
        return self.spawn(coroutine).result(timeout)

    def close(self, last: Callable[[], None] = lambda: None) -> None:
        """Run `last`, end every task, join the thread. Twice is once; in a forked child it does nothing."""
        with self._lock:
            if self._closed or os.getpid() != self._owner:
                return
            self._closed = True
        try:
            asyncio.run_coroutine_threadsafe(self._wind_up(last), self.loop).result(_PATIENCE)
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(_PATIENCE)
            self.loop.close()

    async def _wind_up(self, last: Callable[[], None]) -> None:
        last()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # Aborted transports close their sockets in call_soon; two rounds let those run.
        for _ in range(2):
            await asyncio.sleep(0)
        await self.loop.shutdown_asyncgens()

    def _check_open_locked(self) -> None:
        if self._closed:
            raise RuntimeError("the lab is closed")
