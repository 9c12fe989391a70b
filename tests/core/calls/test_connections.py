"""Which idle connections are better not used."""

from __future__ import annotations

import pytest

from ecs_discovery.config.policies import ConnectionPolicy
from ecs_discovery.core.calls.connections import ConnectionState

POLICY = ConnectionPolicy(idle_timeout=30, unsafe_idle_timeout=5, max_age=100)


def state_of(*, opened: float = 1.0, idle_since: float = 1.0, keep_alive: float | None = None) -> ConnectionState:
    state = ConnectionState()
    state.opened(opened)
    state.idle_since, state.keep_alive_timeout = idle_since, keep_alive
    return state


@pytest.mark.parametrize(
    ("now", "replayable", "keep_alive", "rng", "expected"),
    [
        (2.0, False, None, 0.5, False),
        (7.0, False, None, 0.5, True),
        (7.0, True, None, 0.5, False),
        (32.0, True, None, 0.5, True),
        (7.0, True, 4.0, 0.5, True),
        (4.0, True, 4.0, 0.5, False),
    ],
)
def test_an_idle_connection_is_used_for_so_long(now, replayable, keep_alive, rng, expected):
    assert state_of(keep_alive=keep_alive).must_close(POLICY, now, lambda: rng, replayable=replayable) is expected


@pytest.mark.parametrize(
    ("age", "rng", "expected"), [(79, 0.0, False), (81, 0.0, True), (81, 0.9, False), (121, 0.9, True)]
)
def test_connections_that_were_opened_together_do_not_end_together(age, rng, expected):
    state = state_of(idle_since=age)
    assert state.must_close(POLICY, 1.0 + age, lambda: rng, replayable=True) is expected


def test_a_connection_that_was_closed_is_not_open():
    state = state_of()
    state.closed()
    assert state.opened_at == 0.0
