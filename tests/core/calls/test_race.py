"""When another endpoint starts, who is late, who has had its time."""

from __future__ import annotations

from math import inf

import pytest

from ecs_discovery.core.calls.race import Race, head_start, probe_timeout
from ecs_discovery.core.lease import Lease
from tests.support import endpoints, service_of


def race(*, limit: int = 3, delay: float = 0.25, share: float = 1.0, deadline_at: float = 2.0) -> Race[str]:
    return Race(limit=limit, delay=delay, share=share, deadline_at=deadline_at, silence=0.3)


@pytest.mark.parametrize(
    ("learnt", "start"), [(None, 0.25), (0.0001, 0.02), (0.01, 0.04), (0.05, 0.2), (0.1, 0.25), (3.0, 0.25)]
)
def test_the_head_start_is_four_times_what_connects_took(learnt: float | None, start: float):
    assert head_start(learnt, 0.25) == pytest.approx(start)


def test_a_race_delay_below_the_least_head_start_holds():
    assert head_start(0.001, 0.01) == 0.01


@pytest.mark.parametrize(("learnt", "seconds"), [(None, 0.25), (0.001, 0.1), (0.05, 0.4), (1.0, 2.0)])
def test_a_look_takes_eight_times_what_connects_took(learnt: float | None, seconds: float):
    assert probe_timeout(learnt) == pytest.approx(seconds)


def test_the_next_starts_after_the_head_start():
    r = race()
    assert r.due(0.0)
    r.start("a", 0.0)
    assert (r.due(0.24), r.due(0.25)) == (False, True)
    assert r.pause(0.0) == pytest.approx(0.25)


def test_the_next_starts_at_once_when_one_has_failed():
    r = race()
    r.start("a", 0.0)
    r.fail("a")
    assert r.due(0.01)
    assert r.pause(0.01) == 0.0


def test_no_more_than_the_limit_run_at_once():
    r = race(limit=2)
    r.start("a", 0.0)
    r.start("b", 0.1)
    assert not r.due(0.29)
    assert r.pause(0.29) == pytest.approx(0.06)
    r.fail("a")
    assert r.due(0.29)


def test_an_entrant_that_has_met_silence_holds_no_place_and_may_still_win():
    r = race(limit=2, delay=0.05)
    r.start("a", 0.0)
    r.start("b", 0.1)
    assert (r.due(0.29), r.due(0.31)) == (False, True)
    assert r.pause(0.29) == pytest.approx(0.01)
    r.start("c", 0.31)
    assert not r.due(0.39)
    assert r.pause(0.39) == pytest.approx(0.01)
    assert r.due(0.41)
    assert set(r.running) == {"a", "b", "c"}
    assert r.overdue(0.41) == ()


def test_each_entrant_that_has_met_silence_halves_the_next_head_start():
    r = race(limit=3)
    for started, entrant, after in [
        (0.0, "a", 0.25),
        (0.25, "b", 0.25),
        (0.5, "c", 0.125),  # "a" is silent
        (0.625, "d", 0.0625),  # and "b"
        (0.85, "e", 0.03125),  # and "c"
        (1.2, "f", 0.02),  # all: never less than a busy machine needs
    ]:
        assert r.due(started)
        r.start(entrant, started)
        assert r.pause(started) >= 0
        assert (r.due(started + after - 0.001), r.due(started + after + 0.001)) == (False, True)


def test_a_head_start_below_the_least_is_not_made_longer_by_silence():
    r = race(delay=0.01)
    for started, entrant in [(0.0, "a"), (0.4, "b"), (0.8, "c")]:
        r.start(entrant, started)
        assert (r.due(started + 0.009), r.due(started + 0.011)) == (False, True)


@pytest.mark.parametrize("learnt", [None, 0.001, 0.03])
@pytest.mark.parametrize("limit", [3, 8])
def test_sixteen_silent_endpoints_are_met_within_two_seconds(learnt: float | None, limit: int):
    """In a lost zone a third of them, or more, is silent: a call must come to those that are there."""
    delay = head_start(learnt, 0.25)
    r: Race[int] = Race(limit=limit, delay=delay, share=2.0, deadline_at=2.0, silence=max(delay, probe_timeout(learnt)))
    now, begun = 0.0, []
    while now < 2.0 and len(begun) < 16:
        if r.due(now):
            r.start(len(begun), now)
            begun.append(now)
        else:
            assert r.pause(now) > 0
            now += r.pause(now)
    assert len(begun) == 16
    hopeful = [sum(at - max(delay, probe_timeout(learnt)) < other <= at for other in begun) for at in begun]
    assert max(hopeful) <= limit


def test_each_has_its_share_and_all_have_until_the_end():
    r = race()
    r.start("a", 0.0)
    r.start("b", 1.5)
    assert r.overdue(0.9) == ()
    assert r.overdue(1.0) == ("a",)
    r.fail("a")
    assert r.overdue(1.9) == ()
    assert r.overdue(2.0) == ("b",)
    assert not r.due(2.0)


def test_with_no_other_endpoint_to_start_one_is_looked_for_again_later_and_after_a_failure():
    r = race()
    r.start("a", 0.0)
    r.no_rival(0.1)
    assert not r.due(0.39)
    assert r.pause(0.39) == pytest.approx(0.01)
    assert r.due(0.4)
    r.no_rival(0.4)
    r.fail("a")
    assert r.due(0.41)


def test_those_over_their_head_start_are_late():
    r = race()
    r.start("a", 0.0)
    r.start("b", 0.25)
    assert r.late(0.3) == ("a",)
    assert r.late(0.5) == ("a", "b")
    assert repr(r) == "<Race 2 of 2 running>"


def test_one_over_a_head_start_that_silence_made_shorter_is_late_as_well():
    r = race()
    r.start("a", 0.0)
    r.start("b", 0.3)
    assert r.late(0.42) == ("a",)
    assert r.late(0.43) == ("a", "b")


def test_a_fleet_that_is_down_is_not_walked_through_by_one_race():
    r = race(deadline_at=inf)
    for number in range(16):
        assert r.due(0.0)
        r.start(str(number), 0.0)
        r.fail(str(number))
    assert not r.due(0.0)
    assert r.pause(0.0) == inf


def test_the_lease_of_a_winner_takes_the_place_of_the_first():
    service = service_of(static=endpoints(2))
    lease = Lease(service, 0.0)
    first = lease.pick()
    assert first is not None
    entrant = lease.hand_over()
    lease.release()
    assert first.pending == 1
    winner = Lease(service, 1.0)
    second = winner.pick((first,))
    entrant.release()
    lease.adopt(winner)
    winner.release()
    assert (lease.node, lease.started_at) == (second, 1.0)
    assert (first.pending, second.pending) == (0, 1)
    lease.release()
    assert second.pending == 0


def test_the_connect_time_is_learnt_as_a_moving_average():
    service = service_of(static=endpoints(2))
    assert service.connect_time is None
    service.connected(0.1)
    assert service.connect_time == 0.1
    service.connected(0.2)
    assert service.connect_time == pytest.approx(0.12)
