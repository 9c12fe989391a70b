"""The default discoveries: one per distinct settings, for sessions that are given none.

Programs make a session per call; the cache must survive that. This registry is the only global state.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import RLock
from weakref import WeakValueDictionary

from ecs_discovery.client.sync.discovery import Discovery
from ecs_discovery.config.settings import Settings
from ecs_discovery.runtime import fork

__all__ = ["shared_discovery"]


_KEPT = 32  # default discoveries kept although no session has them any more


class _Registry:
    """Sessions keep the discovery that they use. So many are kept besides, for sessions to come: settings may hold an
    object of the application's (a `tenacity.Retrying`) that is another one each time."""

    def __init__(self) -> None:
        self._discoveries: WeakValueDictionary[Settings, Discovery] = WeakValueDictionary()
        self._kept: OrderedDict[Settings, Discovery] = OrderedDict()
        self._lock = RLock()

    def get(self, settings: Settings) -> Discovery:
        with self._lock:
            found = self._discoveries.get(settings)
            if found is None or found._engine.closed:
                found = self._discoveries[settings] = Discovery(settings=settings)
            self._kept[settings] = found
            self._kept.move_to_end(settings)
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
            return found

    def after_fork(self) -> None:
        self._lock = RLock()


_registry = _Registry()
fork.track(_registry)


def shared_discovery(settings: Settings) -> Discovery:
    """The default discovery of these settings, made if there is none or it was closed."""
    return _registry.get(settings)
