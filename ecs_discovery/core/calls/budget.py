"""The retry budget: retries stay a share of the successes, plus a few per second.

A number of attempts per call multiplies the load on a service that is failing; a budget bounds it
whatever the number of callers. Deposits are made on success only, so that an outage earns nothing
(Finagle's RetryBudget, which deposits per request, was changed to this for its requeues).
"""

from __future__ import annotations

from math import exp
from threading import RLock

from ecs_discovery.config.policies import RetryPolicy

__all__ = ["RetryBudget"]

_WINDOW = 10.0  # seconds a deposit counts for


class RetryBudget:
    """Not more than `budget` times the successes of the last ten seconds, plus `budget_floor` per second."""

    def __init__(self, policy: RetryPolicy, now: float) -> None:
        self._share = policy.budget
        self._floor = policy.budget_floor
        self._earned = 0.0
        self._reserve = self._floor * _WINDOW
        self._at = now
        self._successes = 0
        self._lock = RLock()

    def deposit(self) -> None:
        """A call succeeded."""
        self._successes += 1  # counted roughly: a lost update under threads is a fifth of a retry less

    def withdraw(self, now: float) -> bool:
        """Take one retry out; False if there is none left."""
        with self._lock:
            self._decay_locked(now)
            if self._earned >= 1:
                self._earned -= 1
            elif self._reserve >= 1:
                self._reserve -= 1
            else:
                return False
            return True

    def balance(self, now: float) -> float:
        """Retries that could be made now."""
        with self._lock:
            self._decay_locked(now)
            return self._earned + self._reserve

    def reset_lock(self) -> None:
        """A fresh lock, for the child of a fork."""
        self._lock = RLock()

    def _decay_locked(self, now: float) -> None:
        successes, self._successes = self._successes, 0
        passed = max(0.0, now - self._at)
        self._at = now
        # What came in during the pause is taken as evenly spread over it.
        fade = exp(-passed / _WINDOW)
        fresh = _WINDOW / passed * (1 - fade) if passed > 1e-9 else 1.0
        self._earned = self._earned * fade + successes * self._share * fresh
        self._reserve = min(self._floor * _WINDOW, self._reserve + passed * self._floor)
