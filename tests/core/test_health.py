"""The state machine of a node's health, through any history."""

from __future__ import annotations

import re
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from ecs_discovery.config.policies import OutlierPolicy
from ecs_discovery.core.balancing import health
from ecs_discovery.core.balancing.health import HealthChange
from ecs_discovery.core.balancing.node import Health, Node
from tests.support import nodes

POLICY = OutlierPolicy()
EVENTS: dict[str, Callable[[Node, float], HealthChange | None]] = {
    "answered": health.answered,
    "failed": lambda node, now: health.failed(node, POLICY, now, lambda: 0.5),
    "failed under the cap": lambda node, now: health.failed(node, POLICY, now, lambda: 0.5, may_eject=False),
    "refused": lambda node, now: health.refused(node, POLICY, now),
    "time up": health.time_up,
    "checks failed": lambda node, now: health.checks_failed(node, "3 failed", now + 10, now, may_eject=True),
    "checks failed under the cap": lambda node, now: health.checks_failed(node, "3", now + 10, now, may_eject=False),
    "checks passed": health.checks_passed,
    "returned": health.returned,
}


def table() -> set[tuple[str, str]]:
    """The changes in the module's own table."""
    rows = re.findall(r"^\| (\w+) \| [^|]+ \| (\w+)", health.__doc__ or "", re.MULTILINE)
    states = {state.name for state in Health}
    found = {(before, after) for before, after in rows if before in states and after in states}
    return found | {(state, after) for before, after in rows if before == "any" for state in states - {after}}


@given(st.lists(st.tuples(st.sampled_from([*EVENTS, *["failed"] * 6]), st.sampled_from([0.0, 0.5, 5.0, 400.0]))))
def test_every_change_is_a_row_of_the_table_and_is_told(steps: list[tuple[str, float]]):
    (node,) = nodes(1)
    now = 1000.0
    for event, seconds in steps:
        now += seconds
        before = node.health
        change = EVENTS[event](node, now)
        if change is None:
            assert node.health is before
            continue
        assert (change.before, change.after) == (before, node.health)
        assert (before.name, node.health.name) in table()
        assert (change.reason, change.ends_at) == (node.reason, node.state_ends_at)
        assert bool(node.reason) is (node.health is not Health.HEALTHY)
        assert not node.failed_checks or node.health in (Health.EJECTED, Health.DOWN)


def test_the_table_says_what_there_is():
    """Not more, either: each of its changes happens."""
    happened: set[tuple[str, str]] = set()
    pending: list[tuple[str, ...]] = [()]
    for trail in pending:
        for event in ("answered", "fail", "refused", "time up", "checks failed", "checks passed", "returned"):
            (node,) = nodes(1)
            for number, each in enumerate((*trail, event)):
                for _ in range(5 if each == "fail" else 1):
                    before = node.health.name
                    if EVENTS["failed" if each == "fail" else each](node, 1000.0 + 1000.0 * number) is not None:
                        happened.add((before, node.health.name))
            if len(trail) < 2:
                pending.append((*trail, event))
    assert happened == table()
