"""Health checks: what is sent, how an answer is judged, and the report of it.

A task that is checked may be broken in any way: what is read of its answer, and for how long, is bounded.
"""

from __future__ import annotations

import os
import re

from ecs_discovery.client.engine import Engine
from ecs_discovery.config.fields import final_statuses
from ecs_discovery.core.balancing.health_checks import Check
from ecs_discovery.core.balancing.node import Outcome
from ecs_discovery.core.service import Service
from ecs_discovery.models import Question, Value
from ecs_discovery.runtime import sockets

__all__ = ["BLOCK", "GOOD", "INCONCLUSIVE", "Answer", "Result", "failed", "judged", "report", "request"]

BLOCK = 4096  # bytes read at once
_MOST = 16 * 1024  # bytes read of an answer

_STATUS_LINE = re.compile(rb"HTTP/1\.[0-9] ([0-9]{3})(?: .*)?\r?", re.DOTALL)


class Result(Value):
    """How a check ended."""

    outcome: Outcome
    """SUCCESS, FAILURE, CONNECT: it was not connected to, or NEUTRAL: nothing can be told."""
    why: str


INCONCLUSIVE = Result(Outcome.NEUTRAL, "")

GOOD = Result(Outcome.SUCCESS, "ok")

_UNREACHED = (Outcome.CONNECT, Outcome.UNANSWERED)


class Answer:
    """The status of an HTTP/1 answer, read from bytes as they come. Whatever else they are is a ValueError."""

    def __init__(self) -> None:
        self.status: int | None = None
        """None until the status line has come."""
        self._bytes = b""
        self._count = 0

    def feed(self, data: bytes) -> None:
        """More of it came; nothing: it has ended. Raises ValueError that says what is wrong, for people."""
        self._bytes += data
        self._count += len(data)
        while self.status is None:
            line, end, _ = self._bytes.partition(b"\n")
            if end or not b"HTTP/1.".startswith(line[:7]):
                match = _STATUS_LINE.fullmatch(line)
                if match is None:
                    raise ValueError("no HTTP/1 answer")
                if int(match[1]) >= 200:
                    self.status = int(match[1])
                    return
            _, end, rest = self._bytes.partition(b"\r\n\r\n")
            if not end:
                break
            self._bytes = rest  # after an interim answer (103 Early Hints) comes another
        if not data:
            raise ValueError("closed without an answer")
        if self._count >= _MOST:
            raise ValueError(f"no status within {_MOST} bytes")


def report(engine: Engine, service: Service, check: Check, result: Result) -> tuple[Question, ...]:
    """Tell the service how a check ended. Questions to ask at once, if any."""
    now = engine.clock()
    if not service.checked(check, result.outcome, result.why, now):
        return ()
    engine.emit(service)
    return service.force(now, engine.settings.dns.min_refresh) if result.outcome in _UNREACHED else ()


def request(check: Check) -> bytes:
    head = (f"GET {check.policy.path} HTTP/1.1", f"Host: {check.host}", "User-Agent: ecs_discovery", "Accept: */*")
    return "\r\n".join((*head, "Connection: close", "", "")).encode("ascii")


def judged(check: Check, status: int) -> Result:
    good = status in final_statuses(check.policy.statuses)
    return GOOD if good else Result(Outcome.FAILURE, f"status {status}")


def failed(check: Check, error: OSError | ValueError, connected: bool, late: float) -> Result:
    limit = check.policy.timeout
    if isinstance(error, TimeoutError) and late > limit / 2:
        return INCONCLUSIVE  # this process was held up: whether an answer came in time, it cannot tell
    if isinstance(error, OSError) and sockets.is_ours(error):
        return INCONCLUSIVE
    if isinstance(error, TimeoutError):
        missed = "no answer" if connected else "no connection"
        return Result(Outcome.FAILURE if connected else Outcome.UNANSWERED, f"{missed} within {limit:g} s")
    why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
    return Result(Outcome.FAILURE if connected else Outcome.CONNECT, why)
