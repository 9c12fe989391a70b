"""The TTL cache: what was answered, how fresh it is, and whether a caller should ask again.

It holds answers and failures of lookups by question. It never asks by itself; `Look.refresh`
tells exactly one caller per period to do so. The states follow RFC 8767 (serving stale data).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from enum import Enum
from math import inf
from threading import RLock
from typing import Generic, NamedTuple, TypeVar

from ecs_discovery.config.policies import CachePolicy

__all__ = ["Freshness", "Look", "TtlCache"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Freshness(Enum):
    FRESH = "fresh"
    """Within its TTL."""
    STALE = "stale"
    """Past its TTL and still served, while it is refreshed or cannot be."""
    EXPIRED = "expired"
    """Past its TTL, and no caller tried to refresh it for long: wait for an answer, serve it only if that fails."""
    MISSING = "missing"
    """Nothing known: wait for an answer."""
    NEGATIVE = "negative"
    """The last lookup failed and it is too early for the next; `Look.error` says how."""


class Look(NamedTuple, Generic[V]):
    """What the cache knows of a question at one moment."""

    freshness: Freshness
    value: V | None = None
    error: Exception | None = None
    """The failure of the last lookup, if it failed."""
    refresh: bool = False
    """True for the one caller that should ask again now."""
    changes_at: float = 0.0
    """When this changes by itself."""
    serial: int = 0
    """Grows with every report on any question: the higher one is the later."""


class _Entry(Generic[V]):
    __slots__ = ("error", "failures", "next_try", "refresh_at", "serial", "stored_at", "tried", "ttl", "value")

    def __init__(self) -> None:
        self.value: V | None = None
        self.error: Exception | None = None
        self.ttl = 0.0
        self.refresh_at = 0.0
        self.tried = 0.0  # when a lookup last began or ended
        self.next_try = 0.0  # not before this, after a failure or while one is in flight
        self.failures = 0
        self.serial = 0
        self.stored_at = 0.0  # when its value came


class TtlCache(Generic[K, V]):
    """Answers by question, bounded, least recently used out first.

    `rng` returns a number in [0, 1).
    """

    def __init__(self, policy: CachePolicy, rng: Callable[[], float]) -> None:
        self._policy = policy
        self._rng = rng
        self._entries: OrderedDict[K, _Entry[V]] = OrderedDict()
        self._serial = 0
        self._lock = RLock()

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<TtlCache {len(self._entries)} of {self._policy.max_entries} entries>"

    def lookup(self, key: K, now: float, claim: float = 0.0) -> Look[V]:
        """What is known of `key`.

        With `claim` above 0, a caller that is told to refresh has that many seconds to report
        before another one is told.
        """
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return Look(Freshness.MISSING, refresh=True, changes_at=now)
            self._entries.move_to_end(key)
            if entry.value is None:
                return self._without_value_locked(entry, now, claim)
            if now < entry.refresh_at:
                return Look(Freshness.FRESH, entry.value, None, False, entry.refresh_at, entry.serial)
            due = now >= entry.next_try
            # An answer of TTL 0 was for those who waited for it; later callers wait again.
            idle = entry.ttl == 0 or now >= entry.tried + entry.ttl + self._policy.idle_grace
            freshness = Freshness.EXPIRED if due and idle else Freshness.STALE
            if due:
                self._claim_locked(entry, now, claim)
            return Look(freshness, entry.value, entry.error, due, max(entry.next_try, now), entry.serial)

    def store(self, key: K, value: V, ttl: float, now: float, *, floor: float = inf) -> None:
        """Keep an answer for its TTL, within the policy's floor (or `floor`, if that is less) and cap, plus jitter."""
        policy = self._policy
        bounded = min(max(ttl, min(policy.min_ttl, floor)), policy.max_ttl)
        with self._lock:
            entry = self._entry_locked(key)
            entry.value, entry.error, entry.failures = value, None, 0
            entry.ttl = bounded
            entry.refresh_at = now + bounded * (1 + policy.jitter * self._rng())
            entry.tried = entry.next_try = entry.stored_at = now

    def age(self, key: K, now: float) -> float | None:
        """Seconds since the answer came that is served; None if there is none."""
        with self._lock:
            entry = self._entries.get(key)
            return None if entry is None or entry.value is None else now - entry.stored_at

    def store_negative(self, key: K, error: Exception, ttl: float | None, now: float) -> None:
        """Keep "there is none" for `ttl` seconds (the policy's cap if None), never longer than the cap.

        At least a second, or the cap if that is less: a TTL of 0 must not become a storm of questions.
        """
        cap = self._policy.negative_ttl
        least = min(1.0, cap)
        with self._lock:
            entry = self._entry_locked(key)
            entry.value, entry.error, entry.failures = None, error, 0
            entry.tried = now
            entry.next_try = now + (cap if ttl is None else min(max(ttl, least), cap))

    def store_failure(self, key: K, error: Exception, now: float) -> None:
        """Keep the value, if any, and pause before the next try, twice as long after each failure in a row."""
        policy = self._policy
        with self._lock:
            entry = self._entry_locked(key)
            pause = min(policy.retry_max, policy.retry_min * 2.0 ** min(entry.failures, 30))
            if entry.value is None:
                pause = min(pause, policy.negative_ttl)  # nothing to serve meanwhile: ask again soon
            entry.error = error
            entry.failures += 1
            entry.tried = now
            entry.next_try = now + pause * (1 + policy.jitter * self._rng())

    def lose(self, key: K, now: float) -> None:
        """A lookup that was begun will not report: its event loop has ended, say. What is past its TTL is expired.

        Where loops are so short that no lookup outlasts one, only a caller who waits for it gets an answer.
        """
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None and entry.value is not None and now >= entry.refresh_at:
                entry.tried = -inf
                entry.next_try = now

    def forget(self, key: K) -> None:
        """Drop what is known of `key`."""
        with self._lock:
            self._entries.pop(key, None)

    def clear(self) -> None:
        """Drop all that is known."""
        with self._lock:
            self._entries.clear()

    def reset_lock(self) -> None:
        """A fresh lock, for the child of a fork: another thread may have held the old one."""
        self._lock = RLock()

    def _without_value_locked(self, entry: _Entry[V], now: float, claim: float) -> Look[V]:
        if entry.error is not None and now < entry.next_try:
            return Look(Freshness.NEGATIVE, None, entry.error, False, entry.next_try, entry.serial)
        self._claim_locked(entry, now, claim)
        return Look(Freshness.MISSING, None, entry.error, True, now, entry.serial)

    def _claim_locked(self, entry: _Entry[V], now: float, claim: float) -> None:
        if claim > 0 and entry.value is not None:  # without a value every caller waits for the flight anyway
            entry.tried = now
            entry.next_try = now + claim

    def _entry_locked(self, key: K) -> _Entry[V]:
        self._serial += 1
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry()
            if len(self._entries) > self._policy.max_entries:
                self._entries.popitem(last=False)
        entry.serial = self._serial
        self._entries.move_to_end(key)
        return entry
