"""What tests say of traffic: that it is spread, and that it is not multiplied."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol

__all__ = ["Attempted", "assert_attempts", "assert_spread"]


class Attempted(Protocol):
    """What knows calls and their attempts: a `Recorder`, or the `Report` of a world."""

    @property
    def began(self) -> int:
        """Calls that began."""
        ...

    @property
    def amplification(self) -> float:
        """Attempts per call."""
        ...


def assert_spread(counts: Mapping[Any, int] | Collection[int], *, within: float = 0.25) -> None:
    """Assert that each of `counts` is within this share of their mean, by default a quarter.

    `counts`: requests by endpoint, such as `recorder.by_endpoint("orders")`, or the numbers alone. Raises
    `AssertionError` with the counts, also where nothing was requested.
    """
    by_name = dict(counts) if isinstance(counts, Mapping) else dict(enumerate(counts))
    if not any(by_name.values()):
        raise AssertionError("there were no requests")
    mean = sum(by_name.values()) / len(by_name)
    off = {name: count for name, count in by_name.items() if abs(count - mean) > within * mean}
    if off:
        shown = ", ".join(f"{name}: {count}" for name, count in by_name.items())
        raise AssertionError(f"not within {within:.0%} of the mean of {mean:.3g}: {shown}")


def assert_attempts(of: Attempted | float, *, at_most: float) -> None:
    """Assert that there were at most so many attempts per call. Raises `AssertionError` with the number.

    `of`: a `Recorder`, the `Report` of a world, or the number itself.
    """
    if not isinstance(of, (int, float)) and not of.began:
        raise AssertionError("there were no calls")
    found = of if isinstance(of, (int, float)) else of.amplification
    if found > at_most:
        raise AssertionError(f"{found:.3g} attempts per call, over {at_most:g}")
