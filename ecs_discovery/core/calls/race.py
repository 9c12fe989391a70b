"""The connect race: when another endpoint starts, who is late, and who has had its time.

A connect to a task that has vanished meets silence. So another endpoint is
started soon after. The first to connect wins (RFC 8305 does so for the addresses of one name).
Whole zones vanish too. An entrant whose silence tells that it is gone holds no place, so that the
next need not wait for its end, and each such entrant halves the next head start.
"""

from __future__ import annotations

from math import inf
from typing import Generic, TypeVar

__all__ = ["Race", "head_start", "probe_timeout"]

E = TypeVar("E")

_LEAST_START = 0.02  # seconds; below it a busy machine would start races for nothing
_LEAST_PROBE_TIMEOUT = 0.1
_PROBE_TIMEOUT = 0.25
_LONGEST_PROBE_TIMEOUT = 2.0
_MOST = 16  # endpoints of one race: a fleet of hundreds that is down must not be walked through by every call


def head_start(learnt: float | None, delay: float) -> float:
    """Seconds that an endpoint has to connect before another is started beside it.

    Four times the service's `learnt` connect time, not under 20 ms, and never longer than `delay`.
    """
    return delay if learnt is None else min(delay, max(_LEAST_START, 4 * learnt))


def probe_timeout(learnt: float | None) -> float:
    """Seconds after which a connect that serves to find out whether an endpoint is there has met silence."""
    return _PROBE_TIMEOUT if learnt is None else min(_LONGEST_PROBE_TIMEOUT, max(_LEAST_PROBE_TIMEOUT, 8 * learnt))


class Race(Generic[E]):
    """One race of connects, at most `limit` at once of those that may still answer.

    An entrant has `share` seconds; all is over at `deadline_at`. After `silence` seconds without a word it has
    probably vanished. It may still win, and holds no place any more. Where there is no other endpoint to start, one is
    looked for again after as long: a deployment brings new ones. Times are monotonic seconds, given by the caller.
    """

    __slots__ = ("_deadline_at", "_delay", "_ends", "_limit", "_next", "_share", "_silence", "_started", "running")

    def __init__(self, *, limit: int, delay: float, share: float, deadline_at: float, silence: float) -> None:
        self._limit = limit
        self._delay = delay
        self._share = share
        self._deadline_at = deadline_at
        self._silence = silence
        self._next = -inf
        self._ends: dict[E, float] = {}  # when the head start of each ends
        self._started = 0
        self.running: dict[E, float] = {}
        """When each entrant in flight started."""

    def __repr__(self) -> str:
        return f"<Race {len(self.running)} of {self._started} running>"

    def due(self, now: float) -> bool:
        """Should another endpoint start now?"""
        return now >= self._next and self._started < _MOST and now < self._deadline_at and self._has_place(now)

    def start(self, entrant: E, now: float) -> None:
        """It started. The next one is due after the head start."""
        silent = len(self.running) - len(self._hopeful(now)) if self.running else 0
        self.running[entrant] = now
        self._started += 1
        delay = max(self._delay / 2**silent, min(self._delay, _LEAST_START)) if silent else self._delay
        self._next = self._ends[entrant] = now + delay

    def no_rival(self, now: float) -> None:
        """There is no other endpoint to start: look again later, or when one in flight has failed."""
        self._next = now + self._silence

    def fail(self, entrant: E) -> None:
        """It did not connect: the next one is due at once."""
        del self.running[entrant]
        self._next = -inf

    def overdue(self, now: float) -> tuple[E, ...]:
        """The entrants whose time is over."""
        return tuple(e for e, began in self.running.items() if now >= self._deadline_at or now >= began + self._share)

    def late(self, now: float) -> tuple[E, ...]:
        """The entrants that took longer than their head start: when another has won, they may well be gone."""
        return tuple(e for e in self.running if now >= self._ends[e])

    def pause(self, now: float) -> float:
        """Seconds until something is due, if no entrant connects or fails before."""
        then = min([self._deadline_at, *(began + self._share for began in self.running.values())])
        if self._started < _MOST:
            place = now if self._has_place(now) else min(self._hopeful(now)) + self._silence
            then = min(then, max(self._next, place))
        return max(0.0, then - now)

    def _has_place(self, now: float) -> bool:
        return len(self.running) < self._limit or len(self._hopeful(now)) < self._limit

    def _hopeful(self, now: float) -> list[float]:
        """When those started that may still answer."""
        return [began for began in self.running.values() if now < began + self._silence]
