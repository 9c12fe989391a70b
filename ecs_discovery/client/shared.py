"""The default discoveries: one per distinct settings, for clients that are given none.

Programs make a session per call; the cache must survive that. These registries are the only global state.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import RLock
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

from ecs_discovery.config.settings import Settings
from ecs_discovery.runtime import fork

__all__ = ["DefaultDiscoveries"]

D = TypeVar("D")

_KEPT = 32  # default discoveries kept although no client has them any more


class DefaultDiscoveries(Generic[D]):
    """Clients keep the discovery that they use. So many are kept besides, for clients to come: settings may hold an
    object of the application's (a `tenacity.Retrying`) that is another one each time.

    `make` makes a discovery, `is_closed` tells whether it can still be used.
    """

    def __init__(self, make: Callable[[Settings], D], is_closed: Callable[[D], bool]) -> None:
        self._make = make
        self._is_closed = is_closed
        self._discoveries: WeakValueDictionary[Settings, D] = WeakValueDictionary()
        self._kept: OrderedDict[Settings, D] = OrderedDict()
        self._lock = RLock()
        fork.track(self)

    def get(self, settings: Settings) -> D:
        """The default discovery of these settings, made if there is none or it was closed."""
        with self._lock:
            found = self._discoveries.get(settings)
            if found is None or self._is_closed(found):
                found = self._discoveries[settings] = self._make(settings)
            self._kept[settings] = found
            self._kept.move_to_end(settings)
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
            return found

    def after_fork(self) -> None:
        self._lock = RLock()
