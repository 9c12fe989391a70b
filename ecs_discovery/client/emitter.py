"""Emitting: what changed goes to the log and to the hook, in the order in which it happened."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from threading import Lock

from ecs_discovery.core.service import Service
from ecs_discovery.errors import line
from ecs_discovery.events import Event, fields_of, level_of

__all__ = ["EventEmitter", "listening"]

logger = logging.getLogger("ecs_discovery")

listening: list[Callable[[Event], object]] = []
"""Each is told the events of every discovery of the process. For tests: empty otherwise."""


class EventEmitter:
    """One thread tells at a time: two would overtake each other, and a hook be told `healthy` before `down`.

    A thread that has something to tell meanwhile leaves it to that one, which goes on until all is told.
    """

    def __init__(self, on_event: Callable[[Event], object] | None) -> None:
        self._on_event = on_event
        self._services: deque[Service] = deque()  # they have something to tell
        self._lock = Lock()  # never waited for

    def emit(self, service: Service) -> None:
        """Log what changed at the service and hand it to the hook."""
        self._services.append(service)
        while self._services and self._lock.acquire(blocking=False):
            try:
                while self._services:
                    for event in self._services.popleft().pop_events():
                        self._deliver(event)
            finally:
                self._lock.release()

    def _deliver(self, event: Event) -> None:
        level = level_of(event)
        if logger.isEnabledFor(level):
            logger.log(level, "%s", line(event), extra=fields_of(event))
        for listener in listening:
            listener(event)
        if self._on_event is not None:
            try:
                self._on_event(event)
            except Exception:  # a hook's fault must not become the request's
                logger.exception("%s", line(f"on_event hook failed for {event!r}"))

    def after_fork(self) -> None:
        """In the child of a fork: the thread that was telling is not there."""
        self._lock = Lock()
        self._services.clear()
