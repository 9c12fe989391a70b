"""Idle connections: which of them are better not used any more."""

from __future__ import annotations

from collections.abc import Callable

from ecs_discovery.config.policies import ConnectionPolicy

__all__ = ["ConnectionState"]


class ConnectionState:
    """What is remembered of a connection. Times are monotonic seconds."""

    __slots__ = ("idle_since", "keep_alive_timeout", "opened_at")

    def __init__(self) -> None:
        self.opened_at = 0.0
        """0 while it is not open."""
        self.idle_since = 0.0
        self.keep_alive_timeout: float | None = None
        """Seconds that the server said it keeps it open while idle; None before its first answer."""

    def opened(self, now: float) -> None:
        """It was connected, or connected anew."""
        self.opened_at = now
        self.keep_alive_timeout = None

    def closed(self) -> None:
        """It is not open."""
        self.opened_at = 0.0

    def must_close(self, policy: ConnectionPolicy, now: float, rng: Callable[[], float], replayable: bool) -> bool:
        """Is it better not used, idle as it is, for a request that may be sent again if `replayable`?"""
        idle = now - self.idle_since
        if idle >= policy.idle_timeout or (not replayable and idle >= policy.unsafe_idle_timeout):
            return True
        if self.keep_alive_timeout is not None and idle >= self.keep_alive_timeout:
            return True
        age = now - self.opened_at
        # A fifth either way, so that connections which were opened together do not end together.
        return age >= policy.max_age * 0.8 and age >= policy.max_age * (0.8 + 0.4 * rng())
