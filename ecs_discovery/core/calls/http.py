"""The rules of HTTP: which methods may be repeated, and what a status says of the endpoint and of the call."""

from __future__ import annotations

from email.utils import mktime_tz, parsedate_tz
from math import inf

from ecs_discovery.config.policies import BalancingPolicy, OutlierPolicy, RetryPolicy
from ecs_discovery.core.balancing.node import Outcome
from ecs_discovery.core.calls.failure_kinds import GOOD, FailureKind, Judgement

__all__ = ["IDEMPOTENT", "SAFE", "asked_wait", "judge_status", "keep_alive_timeout", "pushback"]

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""RFC 9110, section 9.2.2."""
SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""RFC 9110, section 9.2.1."""
_OVERLOADED = frozenset({429, 503})
_LONGEST_PUSHBACK = 300.0  # seconds that an answer's Retry-After can keep an endpoint out of the first choice
_A_DAY = 86_400
_LONGEST_HINT = 200  # characters of a Keep-Alive field that are looked at


def judge_status(
    status: int,
    outlier: OutlierPolicy,
    retry: RetryPolicy,
    *,
    asked: float | None,
    patience: float | None,
    alone: bool,
) -> Judgement:
    """What an answer says. `asked` is the wait of its Retry-After in seconds.

    A wait longer than `patience`, the time that the application gives an answer, ends the call. The wait counts only
    where no other endpoint is left (`alone`): a task speaks for itself.
    """
    if status < 400:
        return GOOD
    good = status not in outlier.failure_statuses
    failure = FailureKind.STATUS if status in retry.statuses else None
    if good and failure is None:
        return GOOD
    wait = asked if failure is not None and alone else None
    if wait is not None and patience is not None and wait > patience:
        wait = inf
    return Judgement(Outcome.SUCCESS if good else Outcome.FAILURE, failure, f"status {status}", wait)


def pushback(status: int, asked: float | None, policy: BalancingPolicy) -> float | None:
    """Seconds for which the endpoint asks to be spared; None if it does not."""
    if status not in _OVERLOADED:
        return None
    return policy.pushback if asked is None else min(asked, _LONGEST_PUSHBACK)


def asked_wait(text: str | None, now: float) -> float | None:
    """Seconds that a `Retry-After` field asks to wait (RFC 9110, section 10.2.3); None if it is not understood.

    `now` is the time of day, in seconds since 1970, that a date in it is compared with.
    """
    text = (text or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        date = parsedate_tz(text)
        if date is None or abs(date[9] or 0) > _A_DAY:  # a zone that there is not
            return None
        return max(0.0, mktime_tz(date) - now)
    except (ValueError, TypeError, OverflowError):
        return None


def keep_alive_timeout(hint: str | None) -> float:
    """Seconds for which an idle connection can be relied on after this `Keep-Alive` field; infinity if it says none.

    The server counts from when it sent its answer and we from when we read it: a second less, or half of a short time.
    """
    for part in (hint or "")[:_LONGEST_HINT].split(","):
        name, _, value = part.partition("=")
        seconds = value.strip().strip('"')
        if name.strip().lower() == "timeout" and seconds.isascii() and seconds.isdigit():
            return max(float(seconds) - 1, float(seconds) / 2)
    return inf
