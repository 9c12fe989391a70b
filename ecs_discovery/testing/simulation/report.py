"""What became of a history in a simulated world."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path

from ecs_discovery.testing.simulation.client import Request

__all__ = ["Report", "buckets", "percentile"]


class Report:
    """The requests of a history, and what they add up to. Times are seconds of the world, which begin at 1000."""

    def __init__(
        self,
        requests: Sequence[Request],
        served: Sequence[float],
        lookups: Sequence[float],
        start: float,
        end: float,
    ) -> None:
        self.requests = tuple(sorted(requests, key=lambda each: each.began))
        """All of them, in the order in which they began."""
        self.served = sorted(served)
        """When requests reached tasks."""
        self.lookups = sorted(lookups)
        """When DNS or Cloud Map was asked."""
        self.start = start
        self.end = end

    def __repr__(self) -> str:
        return (
            f"<Report {len(self.requests)} requests, {self.lost} lost, p50 {self.p50 * 1000:.3g} ms, "
            f"p99 {self.p99 * 1000:.3g} ms, longest {self.longest * 1000:.3g} ms, "
            f"amplification {self.amplification:.3g}>"
        )

    @property
    def failed(self) -> tuple[Request, ...]:
        """Requests that ended in an error or an error status. Each says what it met."""
        return tuple(request for request in self.requests if not request.ok)

    @property
    def lost(self) -> int:
        """How many those are."""
        return len(self.failed)

    @property
    def p50(self) -> float:
        """Half of the requests took at most so many seconds, lost requests included. 0 without requests."""
        return self.percentile(0.5)

    @property
    def p99(self) -> float:
        """99 % of the requests took at most so many seconds."""
        return self.percentile(0.99)

    @property
    def longest(self) -> float:
        """Seconds that the longest request took."""
        return self.percentile(1.0)

    @property
    def began(self) -> int:
        """How many requests there were."""
        return len(self.requests)

    @property
    def amplification(self) -> float:
        """Requests that reached tasks, per request of the application. 1 without requests."""
        return len(self.served) / len(self.requests) if self.requests else 1.0

    def percentile(self, share: float) -> float:
        """Seconds that this share of the requests (0 to 1) took at most."""
        return percentile([request.seconds for request in self.requests], share) if self.requests else 0.0

    def between(self, start: float, end: float) -> Report:
        """The same of a part of it: of what began in these seconds."""
        return Report(
            [request for request in self.requests if start <= request.began < end],
            [moment for moment in self.served if start <= moment < end],
            [moment for moment in self.lookups if start <= moment < end],
            start,
            end,
        )

    def svg(self, path: str | Path | None = None, *, width: int = 760) -> str:
        """Draw it: requests, lost requests and what reached tasks, per second. Written to `path` if given."""
        from ecs_discovery.testing.simulation.pictures import Curve, picture  # for a look at it only

        seconds = max(1, ceil(self.end - self.start))
        end = self.start + seconds
        drawn = picture(
            "Requests per second",
            [
                Curve("reached tasks", "#b58900", buckets(self.served, self.start, end, 1.0)),
                Curve("requests", "#268bd2", buckets([each.began for each in self.requests], self.start, end, 1.0)),
                Curve("lost", "#dc322f", buckets([each.began for each in self.failed], self.start, end, 1.0)),
            ],
            seconds,
            width=width,
        )
        if path is not None:
            Path(path).write_text(drawn, encoding="utf-8")
        return drawn


def percentile(values: Sequence[float], share: float) -> float:
    """The least of `values` that at least this share of them (0 to 1) does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, ceil(share * len(ordered)) - 1))]


def buckets(moments: Sequence[float], start: float, end: float, width: float) -> list[int]:
    """How many of `moments` fall into each `width` seconds from `start` to `end`."""
    counts = [0] * max(1, round((end - start) / width))
    for moment in moments:
        if start <= moment < end:
            counts[min(len(counts) - 1, int((moment - start) / width))] += 1
    return counts
