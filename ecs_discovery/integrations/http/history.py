"""What became of a request's attempts, on its response."""

from __future__ import annotations

from ecs_discovery.errors import AttemptReport
from ecs_discovery.models import Endpoint

__all__ = ["AttemptHistory"]


class AttemptHistory:
    """The attempts of a request: `response.ecs_discovery`."""

    __slots__ = ("_answered", "_number", "_reports", "_seconds", "_start", "endpoint")

    def __init__(
        self,
        endpoint: Endpoint,
        seconds: float,
        reports: tuple[AttemptReport, ...],
        answered: bool,
        number: int = 1,
        start: float = 0.0,
    ) -> None:
        self.endpoint = endpoint
        """The endpoint that answered."""
        self._seconds = seconds
        self._reports = reports
        self._answered = answered
        self._number = number
        self._start = start

    @property
    def attempts(self) -> tuple[AttemptReport, ...]:
        """Every attempt; the last attempt gave this answer."""
        if not self._answered:
            return self._reports
        return (
            *self._reports,
            AttemptReport(str(self.endpoint), "ok", self._seconds, number=self._number, start=self._start),
        )

    def __repr__(self) -> str:
        return f"<AttemptHistory {'; '.join(map(str, self.attempts))}>"
