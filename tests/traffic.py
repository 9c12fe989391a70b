"""Steady load on a service through one wrapped session, and what became of it."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import requests

from ecs_discovery import Discovery, wrap_session

__all__ = ["Traffic", "traffic"]

RATE, CALLERS = 200, 24


@dataclass
class Traffic:
    """What became of the requests: when each began, how long it took, and which failed."""

    sent: list[tuple[float, float]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    tasks: list[tuple[float, str]] = field(default_factory=list)
    """When each request that was answered began, and which task answered."""
    stall: float = 0.0
    """The longest that this machine kept a thread from running: bounds on time allow for a few of those."""

    def longest(self, since: float = 0.0) -> float:
        return max(seconds for began, seconds in self.sent if began >= since) - 3 * self.stall


@contextmanager
def traffic(url: str, discovery: Discovery, *, rate: float = RATE, timeout: float = 20) -> Iterator[Traffic]:
    """`rate` GETs per second from `CALLERS` threads with one session, while the block runs."""
    session = wrap_session(requests.Session(), discovery)
    found, over, slots, start = Traffic(), threading.Event(), itertools.count(), time.monotonic()

    def call() -> None:
        while not over.wait(max(0.0, start + next(slots) / rate - time.monotonic())):
            began = time.monotonic()
            try:
                response = session.get(url, timeout=timeout)
                found.tasks.append((began, response.headers["X-Task"]))
                response.raise_for_status()
            except Exception as error:  # noqa: BLE001  # whatever leaves a session fails somebody's request
                found.failures.append(repr(error))
            found.sent.append((began, time.monotonic() - began))

    def watch_the_machine() -> None:
        while not over.is_set():
            began = time.monotonic()
            time.sleep(0.005)
            late = time.monotonic() - began - 0.005
            found.stall = max(found.stall, late if late > 0.03 else 0.0)

    callers = [threading.Thread(target=call) for _ in range(CALLERS)]
    callers.append(threading.Thread(target=watch_the_machine))
    for caller in callers:
        caller.start()
    try:
        yield found
    finally:
        over.set()
        for caller in callers:
            caller.join()
        session.close()
