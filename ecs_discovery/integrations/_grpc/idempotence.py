"""Which methods may be repeated: those that the application names, and those that protobuf's options name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from typing import Any

from ecs_discovery.errors import ConfigurationError

__all__ = ["Idempotent", "Methods"]

Idempotent = Collection[str] | Callable[[str], bool | None]
_ALLOWED = (
    "a set of method names ('/shop.Orders/Get', or 'shop.Orders' for all of a service's), or a function of a name"
)
_LEVELS = (1, 2)  # NO_SIDE_EFFECTS, IDEMPOTENT (descriptor.proto)


class Methods:
    """Knows the idempotent methods of one channel. Raises `ConfigurationError` for what names no methods."""

    def __init__(self, given: Idempotent | None) -> None:
        self._function = given if callable(given) else None
        self._names: frozenset[str] = frozenset()
        if given is None or callable(given):
            return
        if isinstance(given, (str, bytes)) or not isinstance(given, Collection):
            raise ConfigurationError("idempotent", given, _ALLOWED)
        for each in given:
            if not isinstance(each, str) or not each.strip("/"):
                raise ConfigurationError("idempotent", each, _ALLOWED)
        self._names = frozenset(each.strip("/") for each in given)

    def includes(self, method: str) -> bool:
        """May an RPC of this method (`/shop.Orders/Get`) be repeated?"""
        name = method.strip("/")
        if self._function is not None:
            said = self._function(method)
            if said is not None:
                return bool(said)
        return name in self._names or name.rpartition("/")[0] in self._names or _by_protobuf(name)


def _by_protobuf(name: str) -> bool:
    """What the method's `idempotency_level` says, if protobuf knows the method."""
    pools: Any = sys.modules.get("google.protobuf.descriptor_pool")  # generated code has it loaded
    if pools is None:
        return False
    service, _, method = name.rpartition("/")
    try:
        found = pools.Default().FindServiceByName(service).methods_by_name[method]
        return found.GetOptions().idempotency_level in _LEVELS
    except Exception:  # noqa: BLE001  # unknown there, or another version: it says nothing
        return False
