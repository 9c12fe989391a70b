"""An event loop whose time passes only when every task waits, and then at once."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

__all__ = ["VirtualClock", "VirtualLoop", "run"]

T = TypeVar("T")


class VirtualClock:
    """Seconds that pass only when they are skipped. They begin at 1000."""

    def __init__(self) -> None:
        self._now = 1000.0

    def __call__(self) -> float:
        return self._now

    def skip(self, seconds: float) -> None:
        """So much time has passed."""
        self._now += max(0.0, seconds)


class _NoFiles(selectors.BaseSelector):
    """Stands where the loop waits for sockets: there are none, so the wait is time that has passed."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("every task waits and no timer is set: the simulation would stand still for ever")
        if timeout:
            self._clock.skip(timeout)
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, 0, None)

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        raise KeyError(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return {}


class VirtualLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop and its heap of timers, on a clock that skips every wait."""

    def __init__(self, clock: VirtualClock | None = None) -> None:
        self._clock = clock or VirtualClock()
        self.time = self._clock.__call__  # type: ignore[method-assign]  # a call less
        super().__init__(_NoFiles(self._clock))

    def _write_to_self(self) -> None:
        """There is one thread: nobody need be woken."""


def run(main: Coroutine[Any, Any, T], clock: VirtualClock | None = None) -> T:
    """Run to the end of `main`, in as little real time as its computing takes."""
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        return runner.run(main)
