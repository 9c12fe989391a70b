"""Fork: the only module that knows of it.

In the child of a fork locks may be held by threads that are not there, and sockets belong to the
parent. Everything that must start anew registers here; what is known stays.
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet

__all__ = ["track"]


class _Resettable(Protocol):
    def after_fork(self) -> None: ...


_tracked: WeakSet[_Resettable] = WeakSet()


def track(thing: _Resettable) -> None:
    """Call `thing.after_fork()` in every child while `thing` lives."""
    _tracked.add(thing)


def _in_child() -> None:
    for thing in list(_tracked):
        thing.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
