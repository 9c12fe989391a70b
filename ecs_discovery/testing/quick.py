"""No waits: for tests in which something fails on purpose.

    nothing open ──first block──> quick ──more blocks, in any order──> quick ──last block ends──> as declared

A directory knows how each service was declared, so nothing has to be remembered of what a block changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from threading import RLock

from ecs_discovery.client.engine import Engine, attach_everywhere, detach_everywhere, engines
from ecs_discovery.config.policies import RetryPolicy, TimeoutPolicy

__all__ = ["no_waits"]

CONNECT, DEADLINE = 0.2, 2.0  # seconds


@contextmanager
def no_waits(*, connect: float = CONNECT, deadline: float = DEADLINE) -> Iterator[None]:
    """In the block no retry of any discovery of the process waits, and time limits are short.

    `connect` and `deadline` are seconds. They take the place of longer times in every `TimeoutPolicy`.
    The block changes the discoveries that are there, and the discoveries that are made in it. At its end all of them
    have the policies that they were given.
    While several blocks are open, the shortest times hold, until the last block ends.
    A `tenacity` policy of the application's keeps its own waits.
    """
    block = TimeoutPolicy(connect=connect, deadline=deadline)
    _quick.begin(block)
    try:
        yield
    finally:
        _quick.end(block)


class _Quick:
    """The open blocks of the process, which need not nest: threads and fixtures open and end theirs in any order."""

    def __init__(self) -> None:
        self._blocks: list[TimeoutPolicy] = []
        self._lock = RLock()  # attaching calls back

    def begin(self, block: TimeoutPolicy) -> None:
        with self._lock:
            self._blocks.append(block)
            if len(self._blocks) == 1:
                attach_everywhere(self)
            else:
                self._treat_all()

    def end(self, block: TimeoutPolicy) -> None:
        with self._lock:
            self._blocks[:] = [each for each in self._blocks if each is not block]
            if not self._blocks:
                detach_everywhere(self)
            self._treat_all()

    def attach(self, engine: Engine) -> None:
        """Called for each engine of the process. A new engine may come here when the last block has just ended."""
        with self._lock:
            engine.directory.treat(self._adjusted if self._blocks else None)

    def _treat_all(self) -> None:
        for engine in engines():
            self.attach(engine)

    def _adjusted(self, retry: RetryPolicy, timeout: TimeoutPolicy) -> tuple[RetryPolicy, TimeoutPolicy]:
        limits = (timeout, *self._blocks)
        short = TimeoutPolicy(
            connect=min(each.connect for each in limits), deadline=min(each.deadline for each in limits)
        )
        return replace(retry, backoff_min=0.0, backoff_max=0.0), short


_quick = _Quick()
