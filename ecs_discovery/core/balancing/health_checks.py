"""Health checks: whose is due, and what they say of a node.

No node is checked without use. A pick past `Checks.at` tells that the service is used. Nodes whose checks are due by
then are queued. The driver takes a few at once, and the next as those end. So a service in use is checked about every
interval, and a service out of use costs nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from math import inf

from ecs_discovery.config.policies import HealthCheckPolicy
from ecs_discovery.core.balancing import health
from ecs_discovery.core.balancing.health import HealthChange
from ecs_discovery.core.balancing.node import Checked, Node, Outcome

__all__ = ["Check", "Checks"]

_AT_ONCE = 4  # checks of one service in flight
_LOOKS = 50  # times in an interval that a pick looks whose check is due: that is linear in the nodes
_LOST = 10.0  # seconds beyond its time limit after which a check that was not reported is given up


class Check:
    """One check of a node, begun then."""

    __slots__ = ("began", "checked", "host", "node", "policy")

    def __init__(self, node: Node, checked: Checked, began: float, policy: HealthCheckPolicy, host: str) -> None:
        self.node = node
        self.checked = checked
        self.began = began
        self.policy = policy
        self.host = host
        """What it says in the Host header."""


class Checks:
    """The checks of one service. Guarded by its lock. `rng` returns a number in [0, 1).

    `host` is what they say in the Host header; if it is empty, the endpoint's address and port.
    """

    def __init__(self, policy: HealthCheckPolicy, host: str, rng: Callable[[], float]) -> None:
        self.at = inf if policy.kind == "off" else -inf
        """A pick from then on is to tell of itself with `use`; never if checks are off."""
        self.ready = False
        """`pop_due` has some."""
        self._policy = policy
        self._host = host
        self._rng = rng
        self._used = -inf
        self._queue: deque[tuple[Node, Checked]] = deque()
        self._running: dict[Node, Check] = {}

    def renew(self) -> None:
        """The nodes are others now: look at the next pick whose check is due."""
        if self._policy.kind != "off":
            self.at = -inf

    def use(self, nodes: Iterable[Node], now: float) -> None:
        """The service, which has these nodes, is used now: queue whose check is due, longest due first."""
        self._used = now
        interval, lost = self._policy.interval, now - self._policy.timeout - _LOST
        self._running = {node: check for node, check in self._running.items() if check.began > lost}
        due: list[tuple[float, int, Node, Checked]] = []
        earliest = inf
        for index, node in enumerate(nodes):
            if node.endpoint.proxied:
                continue  # it stands for all tasks: there is nothing to put in its place
            checked = node.checked
            if checked is None:
                checked = node.checked = Checked()
            if checked.due == inf:  # the first checks are spread over a whole interval
                checked.due = now + interval * self._rng()
            earliest = min(earliest, checked.due)
            if checked.due <= now and node not in self._running:
                due.append((checked.due, index, node, checked))
        self._queue = deque((node, checked) for _, _, node, checked in sorted(due))
        self.ready = bool(due) and len(self._running) < _AT_ONCE
        self.at = max(earliest, now + interval / _LOOKS)

    def pop_due(self, now: float) -> tuple[Check, ...]:
        """The checks to begin now, each once: report with `book`."""
        self.ready = False
        policy, taken = self._policy, []
        if now - self._used > policy.interval:
            self._queue.clear()  # the service was not used since: what is left waits for use
        while self._queue and len(self._running) < _AT_ONCE:
            node, checked = self._queue.popleft()
            if node.removed:
                continue
            # After a spell without use all are late together: draw anew when each comes next.
            late = now - checked.due > policy.interval
            share = self._rng() if late else 1 + policy.jitter * (2 * self._rng() - 1)
            checked.due = now + policy.interval * share
            check = self._running[node] = Check(node, checked, now, policy, self._host or str(node.endpoint))
            taken.append(check)
        return tuple(taken)

    def book(self, check: Check, outcome: Outcome, why: str, now: float) -> bool:
        """A check ended. True if that tells something of its node: NEUTRAL does not, nor one that was given up."""
        checked = check.checked
        if self._running.get(check.node) is not check:
            return False
        del self._running[check.node]
        if outcome is Outcome.NEUTRAL:
            return False
        checked.at, checked.result = now, why
        if outcome is Outcome.SUCCESS:
            checked.failures = 0
            checked.successes += 1
        else:
            checked.failures += 1
            checked.successes = 0
        return True

    def judge(
        self, check: Check, now: float, *, may_eject: bool, withheld: Callable[[str], object] | None = None
    ) -> HealthChange | None:
        """Take its node out of choice, or back, by what was booked. `withheld` is told of an ejection that may not
        be."""
        node, checked = check.node, check.checked
        failures = checked.failures
        if failures >= self._policy.unhealthy_after:
            times = "health check" if failures == 1 else "health checks"
            reason = f"{failures} {times} failed: {checked.result}"
            return health.checks_failed(node, reason, checked.due, now, may_eject=may_eject, withheld=withheld)
        return health.checks_passed(node, now) if checked.successes >= self._policy.healthy_after else None

    def after_fork(self, nodes: Iterable[Node]) -> None:
        """Checks in flight are the parent's; the child begins at times of its own."""
        self._running.clear()
        self._queue.clear()
        self.ready = False
        self.renew()
        for node in nodes:
            if node.checked is not None:
                node.checked.due = inf
