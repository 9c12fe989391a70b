"""The TTL cache, on time that is passed in."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecs_discovery.config.policies import CachePolicy
from ecs_discovery.core.resolution.cache import Freshness, TtlCache

FAILURE = RuntimeError("SERVFAIL")
NEGATIVE = LookupError("NXDOMAIN")


def cache_of(**policy: float) -> TtlCache[str, str]:
    return TtlCache(CachePolicy(**{"jitter": 0.0, **policy}), lambda: 0.5)  # type: ignore[arg-type]


def test_an_unknown_name_is_missing_and_everybody_is_told_to_ask():
    cache = cache_of()
    for _ in range(2):
        look = cache.lookup("orders", 0.0, claim=3.0)
        assert (look.freshness, look.refresh) == (Freshness.MISSING, True)


@pytest.mark.parametrize(
    ("ttl", "refresh_at"),
    [(10.0, 10.0), (0.0, 5.0), (1.0, 5.0), (5.0, 5.0), (3600.0, 60.0)],
    ids=["as told", "ttl 0 to the floor", "to the floor", "at the floor", "to the cap"],
)
def test_an_answer_is_fresh_for_its_ttl_within_floor_and_cap(ttl: float, refresh_at: float):
    cache = cache_of()
    cache.store("orders", "A", ttl, 0.0)

    assert cache.lookup("orders", refresh_at - 0.01).freshness is Freshness.FRESH
    assert cache.lookup("orders", refresh_at).freshness is Freshness.STALE


def test_a_stale_answer_is_served_and_one_caller_is_told_to_refresh():
    cache = cache_of()
    cache.store("orders", "A", 10.0, 0.0)

    told = [cache.lookup("orders", 10.5, claim=3.0).refresh for _ in range(5)]

    assert told == [True, False, False, False, False]
    assert cache.lookup("orders", 10.6, claim=3.0).value == "A"


def test_a_refresh_that_never_reports_is_claimed_again():
    cache = cache_of()
    cache.store("orders", "A", 10.0, 0.0)
    assert cache.lookup("orders", 10.5, claim=3.0).refresh
    assert not cache.lookup("orders", 13.4, claim=3.0).refresh
    assert cache.lookup("orders", 13.5, claim=3.0).refresh


def test_an_answer_nobody_refreshed_for_long_makes_callers_wait():
    cache = cache_of()
    cache.store("orders", "A", 10.0, 0.0)
    assert cache.lookup("orders", 39.9).freshness is Freshness.STALE
    look = cache.lookup("orders", 40.0)
    assert (look.freshness, look.refresh, look.value) == (Freshness.EXPIRED, True, "A")


def test_an_expired_answer_whose_refresh_failed_is_served_stale():
    cache = cache_of()
    cache.store("orders", "A", 10.0, 0.0)
    cache.store_failure("orders", FAILURE, 50.0)
    look = cache.lookup("orders", 50.1)
    assert (look.freshness, look.value, look.refresh, look.error) == (Freshness.STALE, "A", False, FAILURE)


def test_an_answer_of_ttl_zero_without_a_floor_makes_each_later_caller_wait():
    cache = cache_of(min_ttl=0)
    cache.store("orders", "A", 0.0, 0.0)
    assert cache.lookup("orders", 0.0).freshness is Freshness.EXPIRED


def test_failures_in_a_row_double_the_pause_up_to_its_cap():
    cache = cache_of()
    cache.store("orders", "A", 10.0, 0.0)
    now, pauses = 20.0, []
    for _ in range(8):
        cache.store_failure("orders", FAILURE, now)
        until = cache.lookup("orders", now).changes_at
        pauses.append(until - now)
        now = until
    assert pauses == [1, 2, 4, 8, 16, 32, 32, 32]


def test_a_success_resets_the_pause():
    cache = cache_of()
    for now in (1.0, 2.0, 3.0):
        cache.store_failure("orders", FAILURE, now)
    cache.store("orders", "A", 10.0, 4.0)
    cache.store_failure("orders", FAILURE, 20.0)
    assert cache.lookup("orders", 20.0).changes_at == 21.0


def test_a_failure_with_nothing_to_serve_is_retried_within_the_negative_cap():
    cache = cache_of(negative_ttl=5)
    for now in range(10):
        cache.store_failure("orders", FAILURE, float(now))
    assert cache.lookup("orders", 9.0).changes_at == 14.0


@pytest.mark.parametrize(
    ("ttl", "held"),
    [(900.0, 5.0), (2.0, 2.0), (None, 5.0), (0.0, 1.0), (-1.0, 1.0)],
    ids=["SOA of 900 s", "short", "none", "zero", "odd"],
)
def test_a_negative_answer_is_held_no_longer_than_the_cap(ttl: float | None, held: float):
    cache = cache_of()
    cache.store_negative("orders", NEGATIVE, ttl, 0.0)
    look = cache.lookup("orders", held - 0.01)
    assert (look.freshness, look.error, look.refresh) == (Freshness.NEGATIVE, NEGATIVE, False)
    look = cache.lookup("orders", held)
    assert (look.freshness, look.error, look.refresh) == (Freshness.MISSING, NEGATIVE, True)


def test_a_negative_answer_replaces_a_positive_one_and_back():
    cache = cache_of()
    cache.store("orders", "A", 10.0, 0.0)
    cache.store_negative("orders", NEGATIVE, None, 1.0)
    assert cache.lookup("orders", 1.0).value is None
    cache.store("orders", "B", 10.0, 2.0)
    look = cache.lookup("orders", 2.0)
    assert (look.freshness, look.value, look.error) == (Freshness.FRESH, "B", None)


def test_jitter_only_ever_delays_a_refresh():
    cache: TtlCache[str, str] = TtlCache(CachePolicy(jitter=0.2), Random(3).random)
    ends = []
    for number in range(200):
        cache.store(str(number), "A", 10.0, 0.0)
        ends.append(cache.lookup(str(number), 0.0).changes_at)
    assert min(ends) >= 10.0
    assert max(ends) <= 12.0
    assert len(set(ends)) > 150


def test_the_least_recently_used_answer_goes_when_it_is_full():
    cache = cache_of(max_entries=2)
    cache.store("a", "A", 10.0, 0.0)
    cache.store("b", "B", 10.0, 0.0)
    cache.lookup("a", 1.0)
    cache.store("c", "C", 10.0, 1.0)
    assert [cache.lookup(key, 1.0).freshness for key in "abc"] == [
        Freshness.FRESH,
        Freshness.MISSING,
        Freshness.FRESH,
    ]
    assert len(cache) == 2
    assert repr(cache) == "<TtlCache 2 of 2 entries>"


def test_a_forgotten_answer_is_missing():
    cache = cache_of()
    cache.store("orders", "A", 10.0, 0.0)
    cache.forget("orders")
    cache.forget("never known")
    cache.reset_lock()
    assert cache.lookup("orders", 1.0).freshness is Freshness.MISSING


def test_a_later_report_has_a_higher_serial():
    cache = cache_of()
    cache.store("a", "A", 10.0, 0.0)
    first = cache.lookup("a", 0.0).serial
    cache.store_failure("a", FAILURE, 1.0)
    assert cache.lookup("a", 1.0).serial > first


EVENTS = st.lists(
    st.tuples(st.sampled_from(["answer", "negative", "failure", "look"]), st.floats(0, 100), st.floats(0, 1000)),
    max_size=60,
)


@given(EVENTS)
def test_whatever_happens_a_value_is_kept_through_failures_and_times_stay_in_bounds(events):
    policy = CachePolicy()
    cache: TtlCache[str, int] = TtlCache(policy, Random(1).random)
    now, value = 0.0, None
    for number, (kind, pause, ttl) in enumerate(events):
        now += pause
        if kind == "answer":
            cache.store("k", number, ttl, now)
            value = number
        elif kind == "negative":
            cache.store_negative("k", NEGATIVE, ttl, now)
            value = None
        elif kind == "failure":
            cache.store_failure("k", FAILURE, now)
        look = cache.lookup("k", now, claim=3.0)
        assert look.value == value
        assert look.changes_at - now <= policy.max_ttl * (1 + policy.jitter)
        if look.freshness is Freshness.NEGATIVE:
            assert look.changes_at - now <= policy.negative_ttl * (1 + policy.jitter)
        if look.freshness in (Freshness.MISSING, Freshness.EXPIRED):
            assert look.refresh
        if look.freshness is Freshness.FRESH:
            assert not look.refresh


def test_a_look_up_that_was_lost_is_begun_anew_once_its_answer_is_past_its_ttl():
    cache = cache_of()
    cache.lose("orders", 0.0)
    cache.store("orders", "first", 10.0, 0.0)
    assert cache.lookup("orders", 11.0, claim=9.0).refresh
    assert not cache.lookup("orders", 11.5, claim=9.0).refresh, "somebody is at it"
    cache.lose("orders", 12.0)
    look = cache.lookup("orders", 12.0, claim=9.0)
    assert (look.refresh, look.freshness) == (True, Freshness.EXPIRED)


def test_a_lost_look_up_leaves_a_fresh_answer_alone():
    cache = cache_of()
    cache.store("orders", "first", 10.0, 0.0)
    cache.lose("orders", 5.0)
    assert cache.lookup("orders", 5.0, claim=9.0).freshness is Freshness.FRESH
