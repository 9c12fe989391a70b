"""Sums of counters that do not shrink when a part that was counted is dropped.

What a part had counted when it was last read stays in the sum. What it counted after that and before it was dropped
is lost.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TypeVar
from weakref import ref

__all__ = ["Totals"]

_MOST = 10_000  # series whose parts are gone; attributes are few, and names of targets are bounded elsewhere
K = TypeVar("K", bound=Hashable)


class Totals:
    """The sums of one counter, by series. Guarded by its owner's lock."""

    def __init__(self) -> None:
        self._parts: dict[ref[object], dict[Hashable, float]] = {}
        self._gone: dict[Hashable, float] = {}

    def add(self, found: Iterable[tuple[object, K, float]]) -> dict[K, float]:
        """The sums, of what each part has counted by now: `found` has the part, its series and its number."""
        here: dict[ref[object], dict[Hashable, float]] = {}
        for part, key, value in found:
            counts = here.setdefault(ref(part), {})
            counts[key] = counts.get(key, 0) + value
        for each_ref, counts in self._parts.items():
            if each_ref in here:
                continue
            part = each_ref()  # asked once: it may be collected at any moment
            if part is not None:  # it is not read at the moment, or has counted nothing yet
                here[each_ref] = counts
                continue
            for series, value in counts.items():
                if series in self._gone or len(self._gone) < _MOST:
                    self._gone[series] = self._gone.get(series, 0) + value
        self._parts = here
        totals: dict[Hashable, float] = dict(self._gone)
        for counts in self._parts.values():
            for series, value in counts.items():
                totals[series] = totals.get(series, 0) + value
        return totals  # type: ignore[return-value]  # the keys are those that came in

    def clear(self) -> None:
        """Nothing was counted."""
        self._parts = {}
        self._gone = {}
