"""A clock that stands still."""

from __future__ import annotations

__all__ = ["Clock"]


class Clock:
    """Monotonic seconds that pass only when they are told to: for `Discovery(clock=…, sleep=…)`."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        """Seconds now."""

    def __call__(self) -> float:
        return self.now

    def __repr__(self) -> str:
        return f"<Clock {self.now:g}>"

    def advance(self, seconds: float) -> float:
        """Let so many seconds pass. Returns the time then. Raises `ValueError` for less than 0: it is monotonic."""
        if not seconds >= 0:
            raise ValueError(f"seconds must be 0 or more, got {seconds!r}")
        self.now += seconds
        return self.now

    def sleep(self, seconds: float) -> None:
        """For `Discovery(sleep=clock.sleep)`: waits no time, and moves the clock."""
        self.now += seconds

    async def asleep(self, seconds: float) -> None:
        """The same for `AsyncDiscovery(sleep=clock.asleep)`."""
        self.now += seconds
