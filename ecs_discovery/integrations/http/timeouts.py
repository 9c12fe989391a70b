"""A library's time limits for one attempt, within the deadline of its call."""

from __future__ import annotations

from typing import Any

__all__ = ["LEAST", "read_limit"]

LEAST = 0.001
"""Seconds that are left at least: libraries take 0 for no limit, or refuse it."""


def read_limit(read: Any, deadline_at: float | None, now: float) -> Any:
    """The application's own limit for reading, or what is left of the deadline if that is less.

    A limit that is no number is passed on as it is, for the library to refuse or to understand.
    """
    if deadline_at is None:
        return read
    left = max(LEAST, deadline_at - now)
    return min(read, left) if isinstance(read, (int, float)) else left
