"""Counters: how often what is out of the ordinary has happened, in whole numbers that only grow.

A first attempt that succeeds counts nothing here: what is usual is free. Totals belong to a service, so that they do
not shrink when an endpoint leaves. In the child of a fork they begin at zero: the parent reports its own.
"""

from __future__ import annotations

from enum import Enum
from threading import RLock

__all__ = ["Counted", "Counters"]

_MOST = 64  # kinds of one thing; what comes after is "other"


class Counted(Enum):
    """What is counted, and by what."""

    RETRIES = "retries"
    """Attempts that repeat one: by what was wrong with that (`connect`, `closed`, `status`), or `policy` where the
    application's own policy repeats a good one."""
    REPLAYS = "replays"
    """Attempts that replace one of which nothing was sent. They take nothing from the budget, one a call."""
    RETRIES_DENIED = "retries_denied"
    """Failed attempts after which no other follows: by `budget`, `deadline`, `attempts`, `not_idempotent`, `body` or
    `policy`."""
    HEDGES = "hedges"
    """Attempts begun beside one that takes long."""
    HEDGES_WON = "hedges_won"
    EJECTIONS = "ejections"
    """By `consecutive_failures`, `success_rate`, `probe_failed`, `health_check` or `connect`."""
    EJECTIONS_WITHHELD = "ejections_withheld"
    """Ejections that the limit prevented: by `consecutive_failures`, `success_rate` or `health_check`."""
    REVIVALS = "revivals"
    """Endpoints that came back, by what they were: `ejected`, `probing` or `down`."""
    MEMBERS = "members"
    """Endpoints `added` and `removed`."""
    PANICS = "panics"
    """Times that too few endpoints were healthy, and health was ignored."""
    PUSHBACKS = "pushbacks"
    """Times that an endpoint began to ask to be spared."""
    HEALTH_CHECKS = "health_checks"
    """Health checks that told something: by `ok` or `failed`."""
    CONNECTS = "connects"
    """Connects by how they ended: `ok`, `overtaken`, or what was wrong."""
    FORCED_LOOKUPS = "forced_lookups"
    """Times that names were asked for again before their time, because an endpoint failed."""
    LOOKUPS = "lookups"
    """Lookups by scheme, and by `ok` or the class of the error."""


class Counters:
    """Safe for threads. Its lock is held for one addition."""

    __slots__ = ("_counts", "_lock")

    def __init__(self) -> None:
        self._counts: dict[Counted, dict[tuple[str, ...], int]] = {}
        self._lock = RLock()  # a handler of a signal may count while its thread does

    def add(self, what: Counted, *kinds: str, number: int = 1) -> None:
        """It has happened, `number` times."""
        with self._lock:
            found = self._counts.setdefault(what, {})
            if kinds not in found and len(found) >= _MOST:
                kinds = ("other",)
            found[kinds] = found.get(kinds, 0) + number

    def total(self, what: Counted, *kinds: str) -> int:
        """How often it has happened: of these kinds, or in all."""
        with self._lock:
            found = self._counts.get(what, {})
            return found.get(kinds, 0) if kinds else sum(found.values())

    def read(self) -> dict[str, dict[str, int]]:
        """All that was counted: by name, and by kind (`dns ok`), or `total` where there are no kinds."""
        with self._lock:
            return {
                what.value: {" ".join(kinds) or "total": number for kinds, number in found.items()}
                for what, found in self._counts.items()
            }

    def after_fork(self) -> None:
        """In the child of a fork: a fresh lock, and nothing counted."""
        self._lock = RLock()
        self._counts = {}
