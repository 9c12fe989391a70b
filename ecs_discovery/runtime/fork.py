"""Fork: the only module that knows of it.

Before a fork our threads are brought to an end, as far as that takes no time. In the child locks may be held by
threads that are not there, and sockets belong to the parent. Everything that must start anew registers here. What is
known stays.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from threading import RLock, Thread, get_ident, get_native_id
from time import monotonic, sleep
from typing import Any, Protocol, TypeVar
from weakref import ref

__all__ = ["coming", "load", "track", "track_threads"]

_LONGEST_IMPORT = 5.0  # seconds that a fork waits for an import of ours to end
_PATIENCE = 0.25  # seconds that a fork waits for threads with work to do: a lookup in flight may take longer


class _Resettable(Protocol):
    def after_fork(self) -> None: ...


class _Threaded(Protocol):
    def before_fork(self, patience: float) -> Sequence[Thread]: ...
    def after_fork_in_parent(self, patience: float) -> None: ...


R = TypeVar("R", _Resettable, _Threaded)

# Plain sets, because copying one is a single step that no other thread can come between.
_tracked: set[ref[_Resettable]] = set()
_threaded: set[ref[_Threaded]] = set()
_forking: list[int] = []
"""The threads that are about to fork, by their identifiers."""


def track(thing: _Resettable) -> None:
    """Call `thing.after_fork()` in every child while `thing` lives."""
    _tracked.add(ref(thing, _tracked.discard))


def track_threads(thing: _Threaded) -> None:
    """While `thing` lives, have it end its threads before a fork, and go on in the parent after it.

    `before_fork` tells its threads to end and gives those there are; `after_fork_in_parent` lets new ones start. Both
    wait for a lock for `patience` seconds at most, as the thread that forks may hold it itself.
    """
    _threaded.add(ref(thing, _threaded.discard))


_importing = RLock()


def load(module: str) -> Any:
    """A module that is imported when it is first needed. No fork comes meanwhile: in the child the import would never
    end, for the thread that makes it is not there."""
    found = sys.modules.get(module)
    if found is None or getattr(getattr(found, "__spec__", None), "_initializing", False):
        with _importing:
            found = import_module(module)
    return found


def coming(*, here: bool = False) -> bool:
    """Is a fork about to happen, so that no thread may start? With `here`: in this thread, which can wait for none."""
    return get_ident() in _forking if here else bool(_forking)


def _alive(tracked: set[ref[R]]) -> list[R]:
    return [thing for each in tracked.copy() if (thing := each()) is not None]


def _before() -> None:
    _importing.acquire(timeout=_LONGEST_IMPORT)
    _forking.append(get_ident())
    deadline_at = monotonic() + _PATIENCE
    threads = [thread for thing in _alive(_threaded) for thread in thing.before_fork(_left(deadline_at))]
    for thread in threads:
        _join(thread, deadline_at)


def _join(thread: Thread, deadline_at: float) -> None:
    """Wait until it has ended: for the system too, which may take a moment longer. Python 3.12 counts there."""
    try:
        thread.join(_left(deadline_at))
    except RuntimeError:
        return  # it is this one, or another thread is just starting it
    if thread.native_id == get_native_id():
        return  # a greenlet
    while not thread.is_alive() and os.path.exists(f"/proc/self/task/{thread.native_id}") and _left(deadline_at):
        sleep(0.0005)


def _left(deadline_at: float) -> float:
    return max(0.0, deadline_at - monotonic())


def _in_parent() -> None:
    with suppress(RuntimeError):  # it was not had in time
        _importing.release()
    try:
        _forking.remove(get_ident())
    except ValueError:
        return  # this module came while the fork was in flight
    if not _forking:
        deadline_at = monotonic() + _PATIENCE
        for thing in _alive(_threaded):
            thing.after_fork_in_parent(_left(deadline_at))


def _in_child() -> None:
    global _importing
    _importing = RLock()
    _forking.clear()
    for thing in _alive(_tracked):
        thing.after_fork()


def _hook_uwsgi() -> None:
    """uWSGI forks its workers without calling Python's hooks, unless it is told to; it has a hook of its own."""
    uwsgi = sys.modules.get("uwsgi")  # it is there wherever uWSGI runs the program
    if uwsgi is None:
        return
    try:
        from uwsgidecorators import postfork  # comes with uWSGI
    except Exception:  # noqa: BLE001  # it is not installed, or refuses because there is no master process
        earlier = getattr(uwsgi, "post_fork_hook", None)

        def hook() -> None:
            _in_child()
            if earlier is not None:
                earlier()

        uwsgi.post_fork_hook = hook  # type: ignore[attr-defined]
    else:
        postfork(_in_child)  # else a later import would take the hook from us


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
    _hook_uwsgi()
