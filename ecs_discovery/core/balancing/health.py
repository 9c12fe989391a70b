"""The health of a node: one state machine. This module alone writes it; others ask, and get the change as a value.

| now | what happens | then |
|---|---|---|
| HEALTHY | failures that the others do not share, and the cap allows it | EJECTED, until a time |
| HEALTHY | health checks fail, and the cap allows it | EJECTED, until they succeed |
| EJECTED | its time is up, and no check keeps it out | PROBING |
| EJECTED | health checks succeed, and nothing else had taken it out | HEALTHY |
| EJECTED | a request succeeds or fails: it is from before, or was sent in panic | the same |
| PROBING | a request succeeds | HEALTHY |
| PROBING | a request fails | EJECTED, for longer |
| PROBING | health checks fail | EJECTED, until they succeed |
| PROBING | it comes back to the service, and its probe is lost | EJECTED, until now |
| any | a connect fails | DOWN, with a pause before the next connect; each failed one doubles the pause |
| DOWN | it connects | HEALTHY |
| DOWN | it connects, and its ejection lasts or its checks fail | EJECTED, as before |

Whether failures are its own is for `outlier` to say, and when a time is up for `recovery` to notice.
"""

from __future__ import annotations

from collections.abc import Callable

from ecs_discovery.config.policies import OutlierPolicy
from ecs_discovery.core.balancing import outlier
from ecs_discovery.core.balancing.node import Health, Node
from ecs_discovery.models import Value

__all__ = [
    "HealthChange",
    "after_fork",
    "answered",
    "checks_failed",
    "checks_passed",
    "failed",
    "refused",
    "returned",
    "shorten",
    "start_probe",
    "start_reconnect",
    "time_up",
]

_CALM = 30.0  # healthy for this many seconds takes off one ejection


class HealthChange(Value):
    """A node's health changed."""

    before: Health
    after: Health
    reason: str
    """Why it is not healthy, for people; "" if it is."""
    ends_at: float
    """When its ejection, or the pause before the next connect, ends."""
    cause: str = ""
    """The cause of its ejection: `consecutive_failures`, `success_rate`, `probe_failed`, `health_check`
    or `connect`; "" if it was not."""


def answered(node: Node, now: float) -> HealthChange | None:
    """It did well: a request succeeded, or a connect."""
    outlier.end_streak(node)
    node.connect_failures = 0
    node.reconnecting = False
    before = node.health
    if before is Health.HEALTHY or before is Health.EJECTED:
        return None  # a request from before the ejection, or one sent in panic: the probe decides
    if before is Health.DOWN and (now < node.ejection_ends_at or node.failed_checks):
        return _changed(node, Health.EJECTED, node.failed_checks or node.reason, node.ejection_ends_at)
    if node.ejections:
        node.ejections -= 1
    return _healthy(node, now)


def failed(
    node: Node,
    policy: OutlierPolicy,
    now: float,
    rng: Callable[[], float],
    *,
    good: int = 0,
    bad: int = 0,
    may_eject: bool = True,
    withheld: Callable[[str], object] | None = None,
) -> HealthChange | None:
    """A request failed, which is counted already.

    `good` and `bad` are the successes and failures of all nodes together. `may_eject` is whether one more may be taken
    out of choice; one that is out already stays out all the same. `withheld` is told the cause of an ejection that may
    not be.
    """
    alone = outlier.count_failure(node, good, bad)
    if node.health is Health.HEALTHY:
        cause, reason = outlier.reason_to_eject(node, policy, alone, good, bad)
        if not reason:
            return None
        if not may_eject:
            if withheld is not None:
                withheld(cause)
            return None
        calm = now - node.healthy_since
        node.ejections = max(0, node.ejections - int(min(calm / _CALM, 1e6)))
    elif node.health is Health.PROBING:
        cause, reason = "probe_failed", "failed again after an ejection"
        if not alone:
            node.ejections = max(0, node.ejections - 1)  # as do the others now: no reason to leave it out for longer
    else:
        return None
    span = min(policy.eject_max, policy.eject_min * 2.0 ** min(node.ejections, 30))
    # Half fixed, half drawn, so that clients do not come back together; never past the cap.
    node.ejection_ends_at = now + span * (0.5 + 0.5 * rng())
    node.ejections += 1
    return _changed(node, Health.EJECTED, reason, node.ejection_ends_at, cause)


def refused(node: Node, policy: OutlierPolicy, now: float) -> HealthChange | None:
    """A connect failed: it is down until a connect succeeds, and the next may be tried after a pause."""
    down = node.health is Health.DOWN
    ends_at = node.state_ends_at
    if not down or node.reconnecting or now >= ends_at:  # connects that began together are one piece of news
        node.reconnecting = False
        ends_at = now + min(policy.connect_max, policy.connect_min * 2.0 ** min(node.connect_failures, 30))
        node.connect_failures += 1
    reason = f"{node.connect_failures} failed connect{'s' if node.connect_failures > 1 else ''}"
    change = _changed(node, Health.DOWN, reason, ends_at, "connect")
    return None if down else change


def time_up(node: Node, now: float) -> HealthChange | None:
    """If its ejection is over, and no health check keeps it out, one request decides."""
    if node.health is not Health.EJECTED or now < node.state_ends_at or node.failed_checks:
        return None
    return _changed(node, Health.PROBING, node.reason, node.state_ends_at)


def start_probe(node: Node) -> None:
    """The next use of it is its probe."""
    node.probe = node.pending + 1


def start_reconnect(node: Node, policy: OutlierPolicy, now: float) -> None:
    """It is down, and the driver is to try whether it accepts connections again."""
    node.reconnecting = True
    node.state_ends_at = now + policy.connect_max  # in case the driver never reports


def shorten(node: Node, policy: OutlierPolicy, now: float) -> bool:
    """A node that is down waits no longer than after its first failed connect. True if that changed something."""
    if node.reconnecting or node.connect_failures <= 1:
        return False
    pause = min(policy.connect_max, policy.connect_min * 2.0 ** min(node.connect_failures - 1, 30))
    node.connect_failures = 1
    node.state_ends_at = min(node.state_ends_at, max(now, node.state_ends_at - pause + policy.connect_min))
    return True


def checks_failed(
    node: Node,
    reason: str,
    ends_at: float,
    now: float,
    *,
    may_eject: bool,
    withheld: Callable[[str], object] | None = None,
) -> HealthChange | None:
    """So many health checks failed that it must not be used, for this reason. The next check is `until` then.

    Where it `may_eject` no more, a healthy one stays: the next failed check asks again.
    """
    if node.health is Health.HEALTHY and not may_eject:
        if withheld is not None:
            withheld("health_check")
        return None
    if not node.failed_checks:
        down = node.health is Health.DOWN and now >= node.ejection_ends_at
        node.out_by_checks = down or node.health is Health.HEALTHY
    node.failed_checks = reason
    if node.health in (Health.DOWN, Health.EJECTED):
        return None  # it is out already; now only good checks bring it back
    return _changed(node, Health.EJECTED, reason, ends_at, "health_check")


def checks_passed(node: Node, now: float) -> HealthChange | None:
    """So many health checks succeeded that they keep it out no longer."""
    if not node.failed_checks:
        return None
    node.failed_checks = ""
    if node.health is not Health.EJECTED or not node.out_by_checks:
        return None
    outlier.end_streak(node)
    return _healthy(node, now)


def returned(node: Node, now: float) -> HealthChange | None:
    """It is a choice again, after it had left. A probe of before is lost: a new one decides."""
    return _changed(node, Health.EJECTED, node.reason, now) if node.health is Health.PROBING else None


def after_fork(node: Node) -> None:
    """In the child of a fork: no thread here tries whether it connects."""
    node.reconnecting = False


def _healthy(node: Node, now: float) -> HealthChange:
    node.healthy_since = now
    outlier.forgive(node)
    return _changed(node, Health.HEALTHY, "", node.state_ends_at)


def _changed(node: Node, after: Health, reason: str, ends_at: float, cause: str = "") -> HealthChange:
    change = HealthChange(node.health, after, reason, ends_at, cause)
    node.health, node.reason, node.state_ends_at = after, reason, ends_at
    return change
