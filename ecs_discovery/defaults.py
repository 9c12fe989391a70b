"""The default discoveries: one per distinct settings, for sessions that are given none.

Programs make a session per call; the cache must survive that. This registry is the only global state.
"""

from __future__ import annotations

from threading import RLock

from ecs_discovery import _fork
from ecs_discovery.client import Discovery
from ecs_discovery.settings import Settings

__all__ = ["shared_discovery"]


class _Registry:
    def __init__(self) -> None:
        self._discoveries: dict[Settings, Discovery] = {}
        self._lock = RLock()

    def get(self, settings: Settings) -> Discovery:
        with self._lock:
            found = self._discoveries.get(settings)
            if found is None or found.engine.closed:
                found = self._discoveries[settings] = Discovery(settings=settings)
            return found

    def after_fork(self) -> None:
        self._lock = RLock()


_registry = _Registry()
_fork.track(_registry)


def shared_discovery(settings: Settings) -> Discovery:
    """The default discovery of these settings, made if there is none or it was closed."""
    return _registry.get(settings)
