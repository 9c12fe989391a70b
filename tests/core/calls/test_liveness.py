"""When a waiter has its endpoint looked at."""

from __future__ import annotations

import pytest

from ecs_discovery.core.calls.liveness import LivenessTimer, accepted, end_probe, try_start_probe, vanished
from tests.support import nodes


def looks(node, until: float, *, patience: float = 0.25, start: float = 100.0) -> list[float]:
    """When looks are due for a wait that looks every 50 ms."""
    doubt = LivenessTimer(node, start, patience)
    times = [start + 0.05 * step for step in range(int((until - start) / 0.05) + 1)]
    return [round(now - start, 2) for now in times if doubt.due(now + 1e-9)]


def test_a_closer_look_is_due_once_after_the_patience():
    (node,) = nodes(1)
    assert looks(node, 110.0) == [0.25]


@pytest.mark.parametrize("sign", ["answered_at", "accepted_at"])
def test_a_sign_of_life_puts_it_off(sign: str):
    (node,) = nodes(1)
    setattr(node, sign, 100.2)
    assert looks(node, 101.5)[0] == 0.45


def test_while_others_are_answered_no_look_is_due():
    (node,) = nodes(1)
    doubt = LivenessTimer(node, 100.0, 0.25)
    for step in range(100):
        node.answered_at = now = 100.0 + 0.05 * step
        assert not doubt.due(now)


def test_only_what_was_found_since_the_wait_began_counts():
    (node,) = nodes(1)
    node.gone_at = 99.0
    doubt = LivenessTimer(node, 100.0, 0.25)
    assert not doubt.gone
    node.gone_at = 100.5
    assert doubt.gone


def test_one_caller_looks_at_a_time_until_it_reports_or_is_late():
    (node,) = nodes(1)
    assert try_start_probe(node, 100.0, 5.0)
    assert not try_start_probe(node, 104.9, 5.0)
    assert try_start_probe(node, 105.0, 5.0)
    end_probe(node)
    assert try_start_probe(node, 105.1, 5.0)


def test_silence_since_an_answer_says_that_the_host_is_gone_and_silence_before_it_does_not():
    (node,) = nodes(1)
    node.answered_at = 100.0
    doubt = LivenessTimer(node, 90.0, 0.25)
    vanished(node, 99.0, 101.0)
    assert not doubt.gone
    vanished(node, 100.5, 101.0)
    assert doubt.gone


def test_a_look_that_finds_a_listener_puts_the_next_one_off():
    (node,) = nodes(1)
    accepted(node, 100.2)
    assert looks(node, 101.5)[0] == 0.45
