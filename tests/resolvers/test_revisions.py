"""When a look at the revision is enough."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecs_discovery.resolvers.cloud_map.revisions import Revisions


def known(*revisions: int, full_after: float = 25.0) -> Revisions[str, str]:
    found: Revisions[str, str] = Revisions(full_after)
    found.keep("orders", found.start("orders", 0.0), revisions, "three tasks")
    return found


def test_at_first_everything_is_asked_for():
    assert not Revisions[str, str](25.0).start("orders", 0.0).check


def test_an_unchanged_revision_confirms_the_answer():
    revisions = known(7)
    asked = revisions.start("orders", 5.0)
    assert asked.check
    assert revisions.confirm("orders", asked, 7) == "three tasks"


@pytest.mark.parametrize("revision", [6, 8, None])
def test_any_other_revision_does_not_be_it_higher_lower_or_none(revision: int | None):
    revisions = known(7)
    assert revisions.confirm("orders", revisions.start("orders", 5.0), revision) is None


def test_both_the_revision_before_and_that_inside_an_answer_confirm_it():
    revisions = known(7, 154)
    asked = revisions.start("orders", 5.0)
    assert revisions.confirm("orders", asked, 7) == revisions.confirm("orders", asked, 154) == "three tasks"


@pytest.mark.parametrize(("now", "check"), [(0.0, True), (24.9, True), (25.0, False), (1e9, False)])
def test_an_old_answer_is_asked_for_anew(now: float, check: bool):
    assert known(7).start("orders", now).check is check


def test_confirming_does_not_make_an_answer_younger():
    revisions = known(7)
    revisions.confirm("orders", revisions.start("orders", 20.0), 7)
    assert not revisions.start("orders", 25.0).check


def test_an_answer_without_a_revision_is_asked_for_each_time():
    assert not known().start("orders", 1.0).check


def test_a_doubted_answer_is_asked_for_anew_once():
    revisions = known(7)
    revisions.invalidate("orders")
    asked = revisions.start("orders", 5.0)
    assert not asked.check
    revisions.keep("orders", asked, [7], "two tasks")
    assert revisions.start("orders", 5.0).check


def test_a_doubt_reaches_a_look_up_under_way():
    revisions = known(7)
    asked = revisions.start("orders", 5.0)
    revisions.invalidate("orders")
    assert revisions.confirm("orders", asked, 7) is None
    revisions.keep("orders", asked, [7], "from before the doubt")
    assert not revisions.start("orders", 5.0).check


def test_a_late_answer_does_not_replace_a_newer_one():
    revisions = known(7)
    slow, fast = revisions.start("orders", 30.0), revisions.start("orders", 31.0)
    revisions.keep("orders", fast, [8], "new")
    revisions.keep("orders", slow, [7], "old")
    assert revisions.confirm("orders", revisions.start("orders", 32.0), 8) == "new"


def test_a_source_that_refuses_its_revision_is_left_in_peace_for_ten_minutes():
    revisions = known(7, full_after=10_000)
    assert revisions.deny("orders", 5.0)
    assert not revisions.start("orders", 604.9).check
    assert revisions.start("orders", 605.0).check
    assert not revisions.deny("orders", 605.0), "told once"


def test_what_was_used_longest_ago_is_forgotten_first():
    revisions: Revisions[str, str] = Revisions(25.0, size=2)
    for name in ("a", "b", "a", "c"):
        revisions.keep(name, revisions.start(name, 0.0), [1], name)
    assert [revisions.start(name, 1.0).check for name in ("a", "c", "b")] == [True, True, False]
    assert repr(revisions) == "<Revisions of 2 answers>"


def test_a_fork_gets_a_fresh_lock():
    revisions = known(7)
    revisions._lock.acquire()
    revisions.reset_lock()
    assert revisions.start("orders", 1.0).check


@given(st.lists(st.tuples(st.sampled_from(["join", "health", "doubt", "poll"]), st.floats(0, 20)), max_size=60))
def test_no_answer_is_older_than_allowed_and_none_outlives_a_change_it_was_told_of(steps: list[tuple[str, float]]):
    """A source whose revision changes with every join and never with health, polled in any rhythm."""
    revisions: Revisions[str, tuple[int, int]] = Revisions(25.0)
    now, joins, health, changed, doubted = 0.0, 0, 0, 0.0, False
    for step, pause in steps:
        now += pause
        if step == "join":
            joins += 1
        elif step == "health":
            health, changed = health + 1, now
        elif step == "doubt":
            revisions.invalidate("orders")
            doubted = True
        else:
            asked = revisions.start("orders", now)
            answer: Any = revisions.confirm("orders", asked, joins) if asked.check else None
            if answer is None:
                answer = (joins, health)
                revisions.keep("orders", asked, [joins], answer)
            assert answer[0] == joins
            assert answer[1] == health or (now - changed < 25 and not doubted)
            doubted = False
