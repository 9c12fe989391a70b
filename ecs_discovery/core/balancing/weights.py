"""SRV priorities and weights (RFC 2782): which endpoints are chosen from, and how often each.

Priorities are tiers. A tier takes all uses while it is healthy enough. As its healthy share falls below 1/1.4 (Envoy's
overprovisioning factor), the next tier takes over the rest. It gives uses back as the first recovers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = ["Draw", "shares"]

_OVERPROVISIONING = 1.4
_ZERO = 0.01  # weight 0 is legal and means: hardly ever, but not never (RFC 2782, page 3)


def shares(tiers: Sequence[tuple[int, int]]) -> list[float]:
    """The share of the load that each tier carries now; together 1, or 0 where no endpoint is healthy.

    Of each tier, lowest priority number first, it is told how many are healthy and how many there are.
    """
    found: list[float] = []
    left = 1.0
    for healthy, total in tiers:
        capacity = max(0.0, min(left, _OVERPROVISIONING * healthy / total))
        found.append(capacity)
        left -= capacity
    carried = 1.0 - left
    return [capacity / carried for capacity in found] if carried else found


class Draw:
    """Draws indexes in proportion to unequal weights in constant time (Walker 1977, Vose 1991)."""

    __slots__ = ("_alias", "_chance", "_count")

    def __init__(self, weights: Sequence[float]) -> None:
        self._count = len(weights)
        usable = [weight if weight > 0 else _ZERO for weight in weights]
        mean = sum(usable) / self._count
        scaled = [weight / mean for weight in usable]
        self._chance = [1.0] * self._count
        self._alias = list(range(self._count))
        small = [index for index, weight in enumerate(scaled) if weight < 1]
        large = [index for index, weight in enumerate(scaled) if weight >= 1]
        while small and large:
            low, high = small.pop(), large[-1]
            self._chance[low] = scaled[low]
            self._alias[low] = high
            scaled[high] -= 1 - scaled[low]
            if scaled[high] < 1:
                small.append(large.pop())

    def __call__(self, rng: Callable[[], float]) -> int:
        """One index; `rng` is in [0, 1)."""
        at = rng() * self._count
        index = int(at)
        return index if at - index < self._chance[index] else self._alias[index]
