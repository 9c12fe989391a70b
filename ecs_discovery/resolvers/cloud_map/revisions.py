"""Revisions: when a cheap look at a source's revision is enough, and when its whole answer must be asked for.

A source of this kind (AWS Cloud Map) has a number that changes when members come and go. While it stays the same
the last answer stands, for a while: changes of health do not change the number.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Hashable
from math import inf
from threading import RLock
from typing import Generic, TypeVar

from ecs_discovery.models import Value

__all__ = ["Asked", "Revisions"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_ENTRIES = 10_000  # answers remembered; beyond it the one used longest ago goes
_DENIED = 600.0  # seconds until a source that refused to tell its revision is asked for it again


class Asked(Value):
    """A lookup in flight."""

    check: bool
    """Is it enough to compare the revision?"""
    began: float
    invalidations: int
    """How often the remembered answer had been doubted when it began."""


class _Entry(Generic[V]):
    __slots__ = ("allowed_at", "answer", "full_at", "invalidations", "revisions")

    def __init__(self) -> None:
        self.answer: V | None = None
        self.revisions: frozenset[int] = frozenset()
        self.full_at = -inf  # when the answer was asked for
        self.allowed_at = -inf
        self.invalidations = 0


class Revisions(Generic[K, V]):
    """What is remembered per key: the last whole answer, when it was asked for, and the revision it had."""

    def __init__(self, full_after: float, size: int = _ENTRIES) -> None:
        """An answer older than `full_after` seconds is asked for as a whole, whatever the revision."""
        self._full_after = full_after
        self._size = size
        self._entries: OrderedDict[K, _Entry[V]] = OrderedDict()
        self._lock = RLock()

    def __repr__(self) -> str:
        return f"<Revisions of {len(self._entries)} answers>"

    def start(self, key: K, now: float) -> Asked:
        """A lookup begins: by the revision if there is an answer young enough, else as a whole."""
        with self._lock:
            entry = self._entry_locked(key)
            young = entry.answer is not None and now < entry.full_at + self._full_after
            return Asked(young and bool(entry.revisions) and now >= entry.allowed_at, now, entry.invalidations)

    def confirm(self, key: K, asked: Asked, revision: int | None) -> V | None:
        """The remembered answer if it still stands; None if the whole one must be asked for.

        Revisions are compared, not ordered: nothing says that they grow.
        """
        with self._lock:
            entry = self._entry_locked(key)
            if asked.invalidations != entry.invalidations or revision not in entry.revisions:
                return None
            return entry.answer

    def keep(self, key: K, asked: Asked, revisions: Collection[int | None], answer: V) -> None:
        """Remember a whole answer with the revisions that were told for it: in it, and just before it."""
        with self._lock:
            entry = self._entry_locked(key)
            if asked.invalidations != entry.invalidations or asked.began < entry.full_at:
                return  # late: another caller has doubted it since, or asked for a newer one
            entry.answer = answer
            entry.revisions = frozenset(revision for revision in revisions if revision is not None)
            entry.full_at = asked.began

    def invalidate(self, key: K) -> None:
        """Ask for the whole answer next time, whatever the revision says."""
        with self._lock:
            entry = self._entry_locked(key)
            entry.invalidations += 1
            entry.answer = None
            entry.full_at = -inf

    def deny(self, key: K, now: float) -> bool:
        """The source does not tell its revision: do without for ten minutes. True the first time."""
        with self._lock:
            entry = self._entry_locked(key)
            first = entry.allowed_at == -inf
            entry.allowed_at = now + _DENIED
            return first

    def reset_lock(self) -> None:
        """A fresh lock, for the child of a fork."""
        self._lock = RLock()

    def _entry_locked(self, key: K) -> _Entry[V]:
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry()
            if len(self._entries) > self._size:
                self._entries.popitem(last=False)
        self._entries.move_to_end(key)
        return entry
