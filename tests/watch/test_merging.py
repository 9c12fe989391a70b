"""The workers of one program put together, the shares of picks, and what has changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ecs_discovery.cli.watch.changes import changes
from ecs_discovery.cli.watch.document import Count, EndpointSeen, Process, ServiceSeen, StateCount
from ecs_discovery.cli.watch.frame import Frame, Shares
from ecs_discovery.cli.watch.merge import Program, merge


def endpoint(number: int, **values: Any) -> EndpointSeen:
    return EndpointSeen(f"10.0.0.{number}:80", **{"state": "healthy", **values})


def service(*endpoints: EndpointSeen, **values: Any) -> ServiceSeen:
    given = {
        "target": "orders",
        "source": "dns",
        "idle_for": 0.1,
        "total": len(endpoints),
        "uses": sum(each.uses for each in endpoints),
        **values,
    }
    return ServiceSeen(**given, endpoints=endpoints)


def process(pid: int, *services: ServiceSeen, program: str = "gunicorn", group: str = "a", **values: Any) -> Process:
    return Process(1, pid, program, group, services=services, **values)


def test_numbers_of_workers_are_summed_and_the_worst_state_counts():
    one = service(
        endpoint(1, uses=10, pending=1, failures=1, latency=0.010, cost=0.01),
        endpoint(2, uses=5, state="ejected", reason="5 failures in a row", returns_in=3.0, ejections=1),
        ttl=10.0,
        fresh_for=3.0,
        age=7.0,
        coverage=1.0,
        retries_left=9.0,
        counts=(Count("retries", "closed", 2),),
    )
    two = service(
        endpoint(1, uses=30, pending=2, latency=0.030, cost=0.05),
        endpoint(2, uses=5),
        endpoint(3, state="down", reason="connect refused"),
        ttl=10.0,
        fresh_for=5.0,
        age=5.0,
        coverage=0.5,
        estimate=6,
        partial=True,
        panic=True,
        retries_left=2.0,
        counts=(Count("retries", "closed", 1), Count("retries", "connect", 4)),
    )
    (program,) = merge(
        [process(12, one, lookups=(Count("lookups", "ok", 3),)), process(13, two, lookups=(Count("lookups", "ok", 2),))]
    )
    assert (program.name, program.pids, program.lookups) == ("gunicorn", (12, 13), {"ok": 5})
    (found,) = program.services
    by_name = {each.seen.endpoint: each for each in found.endpoints}
    first, second = by_name["10.0.0.1:80"], by_name["10.0.0.2:80"]
    assert (first.seen.uses, first.seen.pending, first.seen.failures, first.known_by) == (40, 3, 1, 2)
    assert (first.seen.latency, first.seen.cost) == (pytest.approx(0.025), 0.05)
    assert (second.seen.state, second.seen.reason, second.troubled_in) == ("ejected", "5 failures in a row", 1)
    assert found.states == {"healthy": 1, "probing": 0, "ejected": 1, "down": 1}
    assert found.counts == {"retries": {"closed": 3, "connect": 4}}
    seen = found.seen
    assert (seen.total, seen.uses, seen.panic, seen.partial, seen.estimate) == (3, 50, True, True, 6)
    assert (seen.age, seen.fresh_for, seen.coverage, seen.retries_left) == (7.0, 3.0, 0.5, 2.0)


def test_a_latency_that_no_endpoint_has_makes_no_number_that_json_lacks():
    one, two = (service(endpoint(1, uses=10, latency=1e308)) for _ in range(2))
    (program,) = merge([process(1, one), process(2, two)])
    (merged,) = program.services
    assert merged.endpoints[0].seen.latency == 1e308


def test_down_is_worse_than_ejected_however_long_that_lasts():
    one = service(endpoint(1, state="down", reason="connect refused", returns_in=1.0))
    two = service(endpoint(1, state="ejected", reason="5 failures in a row", returns_in=9.0))
    for processes in ([process(12, one), process(13, two)], [process(12, two), process(13, one)]):
        (found,) = merge(processes)[0].services[0].endpoints
        assert (found.seen.state, found.seen.reason, found.troubled_in) == ("down", "connect refused", 2)


def test_a_worker_that_does_not_use_the_service_is_left_out():
    used = service(endpoint(1), idle_for=1.0)
    old = service(endpoint(9), idle_for=600.0, stale=True)
    never = service(idle_for=None)
    (program,) = merge([process(12, old), process(13, used), process(14, never)])
    (found,) = program.services
    assert [each.seen.endpoint for each in found.endpoints] == ["10.0.0.1:80"]
    assert (found.workers, found.idle, found.seen.stale) == (1, 2, False)
    (program,) = merge([process(12, old)])
    assert program.services[0].idle == 0  # it is all there is


def test_programs_that_were_started_otherwise_stay_apart():
    found = merge([process(12), process(13, group="b"), process(14), process(15, program="celery")])
    assert [(each.name, each.pids) for each in found] == [
        ("celery", (15,)),
        ("gunicorn", (12, 14)),
        ("gunicorn", (13,)),
    ]


def test_one_target_twice_in_a_process_is_one_service():
    (program,) = merge([process(12, service(endpoint(1, uses=2)), service(endpoint(1, uses=3), endpoint(2)))])
    (found,) = program.services
    assert (len(found.endpoints), found.seen.uses, found.workers) == (2, 5, 1)


def test_endpoints_that_were_not_told_of_are_counted_as_healthy():
    cut = service(endpoint(1, state="down"), total=10_000, states=(StateCount("down", 1),))
    (program,) = merge([process(12, cut)])
    (found,) = program.services
    assert found.left_out == 9_999
    assert found.states == {"healthy": 9_999, "probing": 0, "ejected": 0, "down": 1}


def used(*uses: int) -> tuple[Program, ...]:
    return merge([process(12, service(*(endpoint(n, uses=number) for n, number in enumerate(uses, 1))))])


def shares_of(programs: tuple[Program, ...]) -> list[float | None]:
    return [each.share for each in programs[0].services[0].endpoints]


def test_shares_are_of_the_last_ten_seconds_and_at_first_of_all():
    shares = Shares()
    assert shares_of(shares.add(used(90, 10), 0.0)) == [0.9, 0.1]
    assert shares_of(shares.add(used(90, 10), 1.0)) == [None, None]  # none was picked
    found = shares.add(used(91, 13), 2.0)
    assert shares_of(found) == [0.25, 0.75]
    assert found[0].services[0].rate == 2.0
    for second in range(3, 20):
        found = shares.add(used(91, 13 + second), float(second))
    assert shares_of(found) == [0.0, 1.0]
    assert found[0].services[0].rate == 1.0


def test_a_worker_that_has_ended_makes_no_negative_share():
    shares = Shares()
    shares.add(used(90, 10), 0.0)
    assert shares_of(shares.add(used(40, 12), 1.0)) == [0.0, 1.0]


# Changes


def frame(*processes: Process, **values: Any) -> Frame:
    return Frame(0.0, "orders", merge(processes), **values)


def test_at_first_it_is_said_what_there_is():
    now = frame(process(12, service(endpoint(1), endpoint(2, state="down", reason="connect refused"))))
    assert list(changes(None, now)) == [
        "gunicorn: process 12",
        "orders: 2 endpoints from dns: 1 healthy, 1 down",
        "orders: 10.0.0.2:80 is down: connect refused",
    ]
    assert list(changes(now, now)) == []


def test_a_line_for_each_change_of_state():
    before = frame(process(12, service(endpoint(1), endpoint(2), endpoint(3, state="ejected"))))
    now = frame(
        process(12, service(endpoint(1, state="ejected", reason="5 failures in a row"), endpoint(3), endpoint(4))),
        process(13, service(endpoint(1), endpoint(3), endpoint(4), panic=True, failing=True)),
    )
    assert list(changes(before, now)) == [
        "gunicorn: 2 processes (12, 13)",
        "orders: 10.0.0.4:80 came (3 now)",
        "orders: 10.0.0.2:80 left (3 now)",
        "orders: 10.0.0.1:80 is ejected in 1 of 2 workers: 5 failures in a row",
        "orders: 10.0.0.3:80 is healthy",
        "orders: panic: too few endpoints are healthy, all are used",
        "orders: lookups fail; what is known stays in use",
    ]
    assert list(changes(now, frame())) == ["gunicorn: no process is left"]


def test_numbers_that_grow_are_no_change():
    before = frame(process(12, service(endpoint(1, uses=1, pending=0), age=1.0)))
    assert list(changes(before, frame(process(12, service(endpoint(1, uses=9, pending=4), age=2.0))))) == []


def test_many_that_come_are_one_line():
    before = frame(process(12, service(endpoint(1))))
    (line,) = changes(before, frame(process(12, service(*(endpoint(n) for n in range(1, 100))))))
    assert line == ("orders: 10.0.0.2:80, 10.0.0.3:80, 10.0.0.4:80, 10.0.0.5:80, 10.0.0.6:80 and 93 more came (99 now)")


def test_of_endpoints_that_are_only_told_of_in_part_none_comes_or_leaves():
    before = frame(process(12, service(endpoint(1), total=1000)))
    assert list(changes(before, frame(process(12, service(endpoint(2), total=1000))))) == []
    (line,) = changes(before, frame(process(12, service(endpoint(2), total=900))))
    assert line.startswith("orders: 900 endpoints")


def test_an_error_of_the_own_lookup_is_said_when_it_begins_and_when_it_ends():
    own = Program("", "", ())
    good = replace(frame(), own=own)
    bad = replace(good, error="no such name")
    assert list(changes(good, bad)) == ["orders: no such name"]
    assert list(changes(bad, bad)) == []
    assert list(changes(bad, good)) == ["orders: resolves again"]
