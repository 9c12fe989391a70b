"""Whether a call is tried again, after how long, and why not.

The class of the failure decides, not the error's name. What was never sent may go elsewhere, whatever the method. What
may have been processed is repeated only if that is harmless (RFC 9110, section 9.2.2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ecs_discovery.config.policies import RetryPolicy
from ecs_discovery.core.balancing.node import Node
from ecs_discovery.core.calls.budget import RetryBudget
from ecs_discovery.core.calls.failure_kinds import NOT_REPEATED, Decision, FailureKind, Retry, Stop
from ecs_discovery.core.counters import Counted, Counters
from ecs_discovery.errors import AttemptReport, foreign

__all__ = ["Call"]

_LEAST_CONNECT = 0.1  # seconds; an attempt that was begun may connect


class Call:
    """One call over all its attempts. Used by one thread or task at a time."""

    __slots__ = (
        "_backoff",
        "_budget",
        "_choices",
        "_counters",
        "_free",
        "_harmless",
        "_next",
        "_policy",
        "_retry_after",
        "_seconds",
        "connect_deadline_at",
        "deadline_at",
        "default_port",
        "failure",
        "hard",
        "hedged",
        "idempotent",
        "key",
        "number",
        "observed",
        "reason",
        "replayable",
        "reports",
        "started_at",
        "target",
        "tried",
    )

    def __init__(
        self,
        target: str,
        policy: RetryPolicy,
        budget: RetryBudget,
        deadline_at: float,
        connect_deadline_at: float,
        idempotent: bool,
        key: str | bytes | None = None,
        hard: bool = False,
        counters: Counters | None = None,
        started_at: float = 0.0,
    ) -> None:
        self.target = target
        self.started_at = started_at
        """When it began (monotonic)."""
        self._policy = policy
        self._budget = budget
        self.deadline_at = deadline_at
        """No attempt and no wait begins after this (monotonic)."""
        self.connect_deadline_at = connect_deadline_at
        """End of the time for lookup, connecting and TLS of all attempts (monotonic). It moves on by the time that
        sent requests and pauses take: that is not spent on connecting."""
        self.idempotent = idempotent
        self.key = key
        """Calls with one key go to one endpoint while it is usable."""
        self.hard = hard
        """The caller gave the deadline: nothing may go on beyond it, waiting for an answer included."""
        self.replayable = True
        """False once a body was sent that cannot be sent again."""
        self.hedged = False
        """True while two attempts are in flight: then the failure of one decides nothing."""
        self.number = 0
        """Attempts begun."""
        self.tried: tuple[Node, ...] = ()
        self.reports: tuple[AttemptReport, ...] = ()
        self.default_port: int | None = None
        """For people, once it has failed: the port that its endpoints have only because none was named."""
        self.reason = ""
        """Why no attempt follows the last failure."""
        self.failure: FailureKind | None = None
        """What the last failure was; None after an attempt that was good, if the policy is the application's own."""
        self.observed: Any = None
        """What tells observers of it (`client.observing.ObservedCall`), if they are interested."""
        self._free = True
        self._harmless = False  # no task works on what failed last
        self._backoff = 0
        self._counters = counters
        self._next: tuple[Counted, str] | None = None  # what the next attempt counts as

    @property
    def own_policy(self) -> Any:
        """The application's tenacity object that decides what follows an attempt, if it gave one."""
        return self._policy.tenacity

    def start_attempt(self, node: Node) -> None:
        """An attempt on `node` begins."""
        if self.number:
            self._count(*(self._next or (Counted.RETRIES, "policy")))
            self._next = None
        self.number += 1
        self.tried = (*self.tried, node)

    def start_hedge(self, node: Node) -> None:
        """An attempt on `node` begins beside the one that is in flight."""
        self._next = Counted.HEDGES, ""
        self.start_attempt(node)
        self.hedged = True

    def add_tried(self, node: Node) -> None:
        """The attempt has connected to `node` as well, or has tried to."""
        self.tried = (*self.tried, node)

    def report(
        self,
        node: Node,
        outcome: str,
        kind: str,
        started_at: float,
        now: float,
        error: object = "",
        *,
        number: int | None = None,
    ) -> None:
        """Keep what became of the attempt, for people. `number` is its own, where it is not the last one begun."""
        start = max(0.0, started_at - self.started_at)
        number = self.number if number is None else number
        made = AttemptReport(
            foreign(node.endpoint), outcome, now - started_at, foreign(error), kind, max(1, number), start
        )
        self.reports = (*self.reports, made)

    def connect_share(self, now: float, choices: int) -> float:
        """Seconds the connect of the attempt just begun may take, so that those after it still have their share.

        `choices` is how many endpoints have not been tried.
        """
        left = max(1, min(self._policy.attempts - self.number, choices) + 1)
        return max(_LEAST_CONNECT, (min(self.connect_deadline_at, self.deadline_at) - now) / left)

    def failed(
        self,
        failure: FailureKind,
        now: float,
        rng: Callable[[], float],
        *,
        retry_after: float | None = None,
        choices: int = 1,
        seconds: float = 0.0,
        gone: bool = False,
    ) -> Decision | None:
        """What follows a failed attempt that took `seconds`.

        `choices` is how many endpoints are untried. `gone` is whether the endpoint's host was found to be gone.

        None while another attempt is in flight, and with a policy of the application's own: its loop asks `objection`,
        `pause` and `schedule`.
        """
        if self.hedged:
            return None
        self.failure = failure
        self._harmless = failure is FailureKind.NOT_SENT or gone
        self._retry_after = retry_after
        self._choices = choices
        self._seconds = seconds
        if self._policy.tenacity is not None:
            return None
        if failure is FailureKind.OTHER:
            return self.stop(NOT_REPEATED)
        if why := self.objection():
            return self.stop(why, self.objects_to)
        if why := self.exhausted():
            return self.stop(why, "attempts")
        return self.schedule(self.pause(rng), now)

    def stop(self, reason: str, denied_by: str = "") -> Stop:
        """The call is over after a failure. `denied_by` is what denies it an attempt that might help."""
        self.reason = reason
        if denied_by:
            self._count(Counted.RETRIES_DENIED, denied_by)
        return Stop(reason)

    def objection(self, *, begun: bool = True) -> str:
        """Why the last attempt must not be repeated, however much one would like to; "" if it may.

        An attempt that was not even `begun` did no harm.
        """
        if self.failure is FailureKind.NOT_SENT or not begun:
            return ""
        if not self.idempotent:
            return "it may have been processed and is not idempotent"
        return "" if self.replayable else "its body cannot be sent again"

    @property
    def objects_to(self) -> str:
        """What an `objection` is to, in a word."""
        return "body" if self.idempotent else "not_idempotent"

    def exhausted(self) -> str:
        """Why there is no attempt left; "" if there is one."""
        limit = attempts = self._policy.attempts
        if limit > 1 and (self._harmless or not self._free):
            limit += 1  # one replay of what no task works on does not count
        if self.number < limit:
            return ""
        used = "the only attempt" if attempts == 1 else f"all {attempts} attempts"
        return f"{used} of RetryPolicy {'is' if attempts == 1 else 'are'} used" + (
            ", and one more because no task had received it" if limit > attempts else ""
        )

    def pause(self, rng: Callable[[], float], wait: Callable[[], float] | None = None) -> float:
        """Seconds until the next attempt. `wait` takes the place of the policy's backoff."""
        if self.failure is None:
            return 0.0 if wait is None else wait()
        if self.failure is FailureKind.NOT_SENT and self._choices > 0:
            return 0.0  # another endpoint is not the one that failed: no reason to be slow
        if wait is not None:
            pause = wait()
        elif self.failure is not FailureKind.STATUS and self._choices > 0:
            return 0.0
        else:
            bound = min(self._policy.backoff_max, self._policy.backoff_min * 2.0 ** min(self._backoff, 30))
            self._backoff += 1
            pause = bound * rng()
        return pause if self._retry_after is None else max(pause, self._retry_after)

    def schedule(self, wait: float, now: float) -> Decision:
        """Another attempt is wanted after `wait` seconds: it follows unless time or budget forbid it."""
        unsent = self.failure is FailureKind.NOT_SENT
        if not unsent and self.failure is not None:
            self.connect_deadline_at += self._seconds + wait
        if now + wait >= (min(self.connect_deadline_at, self.deadline_at) if unsent else self.deadline_at):
            return self.stop("no time left", "deadline")
        if self._harmless and self._free:
            self._free = False  # no task works on it, so nothing is multiplied
            self._next = (Counted.REPLAYS, "") if unsent else (Counted.RETRIES, FailureKind.CLOSED.value)
        elif not self._budget.withdraw(now):
            return self.stop("the retry budget is used up", "budget")
        else:
            self._next = Counted.RETRIES, self.failure.value if self.failure is not None else "policy"
        return Retry(wait)

    def answered(self, seconds: float) -> None:
        """An attempt of that many seconds was good, and another follows: its time was not spent on connecting."""
        self.connect_deadline_at += seconds

    def _count(self, what: Counted, kind: str) -> None:
        if self._counters is not None:
            self._counters.add(what, *([kind] if kind else ()))
