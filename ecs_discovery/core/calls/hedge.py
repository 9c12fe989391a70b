"""Hedging: when a second endpoint is asked as well, and how often at most.

A call that has taken longer than most is likely to take much longer (Dean and Barroso, The Tail at Scale). It met a
pause, a lost segment or a slow endpoint. What hedges cost is bounded twice: by a share of the calls, and by the retry
budget. So a service in trouble is not asked more often.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from math import inf
from threading import RLock

from ecs_discovery.config.policies import HedgePolicy
from ecs_discovery.core.calls.budget import RetryBudget

__all__ = ["Hedging"]

_RECENT = 500  # first attempts remembered
_ENOUGH = 20  # of them, before any call is hedged
_SAVED = 10.0  # hedges that calls without one can save up


class Hedging:
    """What one service has learnt of the latency of first attempts, and its allowance of hedges."""

    def __init__(self, policy: HedgePolicy, budget: RetryBudget) -> None:
        self._policy = policy
        self._budget = budget
        self._recent: deque[float] = deque()
        self._ranked: list[float] = []  # the same, in order
        self._allowance = 0.0
        self._lock = RLock()

    def __repr__(self) -> str:
        return f"<Hedging {self._allowance:.2f} allowed, {len(self._recent)} latencies>"

    def delay(self, left: float) -> float | None:
        """A call that may be hedged begins, with `left` seconds to its deadline: after how long it may be.

        None if it may not be: too little is known, the allowance is used up, or another attempt would hardly end in
        time.
        """
        policy, ranked = self._policy, self._ranked
        with self._lock:
            self._allowance = min(_SAVED, self._allowance + policy.max_extra)
            count = len(ranked)
            if count < _ENOUGH or not self._allowed_locked():
                return None
            delay = max(policy.min_delay, ranked[int(policy.percentile * count)])
            # Where too many were cut short to tell, it is infinite.
            return delay if delay < inf and delay + ranked[count // 2] <= left else None

    def try_acquire(self, now: float) -> bool:
        """Take one hedge out of the allowance and of the retry budget; False if there is none left."""
        with self._lock:
            if not self._allowed_locked():
                return False
            self._allowance -= 1
        if self._budget.withdraw(now):
            return True
        with self._lock:
            self._allowance += 1
        return False

    def learn(self, seconds: float) -> None:
        """A first attempt took this long; infinity if it was cut short because its hedge was faster.

        Were those left out, or taken for the time until they were cut, the next hedges would start ever sooner.
        """
        recent, ranked = self._recent, self._ranked
        with self._lock:
            if len(recent) >= _RECENT:
                del ranked[bisect_left(ranked, recent.popleft())]
            recent.append(seconds)
            insort(ranked, seconds)

    def reset_lock(self) -> None:
        """A fresh lock, for the child of a fork."""
        self._lock = RLock()

    def _allowed_locked(self) -> bool:
        return self._allowance > 1 - 1e-9  # twenty times 0.05 is one, more or less
