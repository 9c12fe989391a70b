"""The rate limiter: a token bucket that keeps a process under a rate of calls.

Quotas of an API are shared by all programs of the account: one process that runs wild must not use them up.
"""

from __future__ import annotations

from threading import RLock

__all__ = ["RateLimiter"]


class RateLimiter:
    """At most `rate` calls per second on average, and after a pause `burst` of them at once."""

    def __init__(self, rate: float, burst: float) -> None:
        self.rate = rate
        self._burst = max(burst, 1.0)
        self._tokens = self._burst
        self._at: float | None = None
        self._lock = RLock()

    def __repr__(self) -> str:
        return f"<RateLimiter {self._tokens:.1f} of {self._burst:g} calls, {self.rate:g} per second>"

    def try_acquire(self, now: float) -> bool:
        """Take the right to one call; False if there is none left."""
        return not self.delay(now)

    def delay(self, now: float) -> float:
        """Take the right to one call; if there is none left, the seconds until there is one."""
        with self._lock:
            if self._at is not None:
                self._tokens = min(self._burst, self._tokens + max(0.0, now - self._at) * self.rate)
            self._at = now
            if self._tokens < 1:
                return max(0.001, (1 - self._tokens) / self.rate)
            self._tokens -= 1
            return 0.0

    def reset_lock(self) -> None:
        """A fresh lock, for the child of a fork."""
        self._lock = RLock()
