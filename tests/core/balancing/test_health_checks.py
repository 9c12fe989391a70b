"""Health checks: when they are due, and what they take out of choice and bring back."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from math import inf
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecs_discovery.client.snapshot import CheckSnapshot, snapshot_of
from ecs_discovery.config.policies import BalancingPolicy, HealthCheckPolicy, OutlierPolicy
from ecs_discovery.config.settings import ServiceConfig, Settings
from ecs_discovery.core.balancing.health_checks import Check
from ecs_discovery.core.balancing.node import Health, Node, Outcome
from ecs_discovery.core.directory import Directory
from ecs_discovery.core.service import Service
from ecs_discovery.events import HealthChanged
from ecs_discovery.models import PROXIED, Endpoint, Resolution
from tests.support import endpoints, service_of

NOW = 1000.0
POLICY = HealthCheckPolicy(kind="http")
BAD = Outcome.FAILURE


def fleet(count: int, *, seed: int = 1, policy: HealthCheckPolicy = POLICY, **policies: OutlierPolicy) -> Service:
    return service_of(static=endpoints(count), rng=Random(seed).random, now=NOW, health_check=policy, **policies)


def use(service: Service, now: float) -> tuple[Check, ...]:
    """One use of the service; the checks that begin with it."""
    node = service.pick(now)
    assert node is not None
    service.release(node)
    return service.pop_checks(now) if service.work.due else ()


def check_of(service: Service, node: Node, now: float) -> Check:
    """A check of this node, begun now, wherever its turn is."""
    for other in service.nodes:
        if other.checked is not None:
            other.checked.due = now if other is node else now + 5
    service._balancer._checks.at = -inf
    service._balancer._wake = -inf
    (check,) = use(service, now)
    assert check.node is node
    return check


def told(service: Service, node: Node, outcome: Outcome, now: float, why: str = "status 503") -> None:
    service.checked(check_of(service, node, now), outcome, "ok" if outcome is Outcome.SUCCESS else why, now)


def started(count: int, **options: object) -> Service:
    service = fleet(count, **options)  # type: ignore[arg-type]
    use(service, NOW)
    return service


def fail_checks(service: Service, node: Node, now: float, count: int = 3) -> None:
    for _ in range(count):
        told(service, node, BAD, now)


def test_nothing_is_checked_unless_asked_for():
    service = service_of(static=endpoints(3))
    for step in range(1000):
        assert use(service, NOW + step) == ()
    assert all(node.checked is None for node in service.nodes)
    assert service.pop_checks(NOW + 1000) == ()


def test_a_snapshot_shows_a_check_once_one_has_ended():
    service = started(1)
    assert snapshot_of(service, NOW + 1).nodes[0].check is None
    told(service, service.nodes[0], BAD, NOW + 1)
    assert snapshot_of(service, NOW + 3).nodes[0].check == CheckSnapshot("status 503", 2.0, 1)


def run(service: Service, times: list[float]) -> list[tuple[float, Node]]:
    """Use the service at these times; each check succeeds at once. When each began."""
    found = []
    for now in times:
        waiting = use(service, now)
        while waiting:
            for check in waiting:
                found.append((now, check.node))
                service.checked(check, Outcome.SUCCESS, "ok", now)
            waiting = service.pop_checks(now)
    return found


def test_a_service_in_use_is_checked_about_every_interval():
    service = fleet(5)
    found = run(service, [NOW + step / 10 for step in range(10_000)])
    counts = Counter(node for _, node in found)
    assert all(90 <= counts[node] <= 110 for node in service.nodes)
    for node in service.nodes:
        times = [now for now, other in found if other is node]
        gaps = [after - before for before, after in pairwise(times)]
        assert min(gaps) >= 8
        assert max(gaps) <= 12 + 0.2 + 0.1  # as late as the next look, and the next use
        assert NOW <= times[0] <= NOW + 10 + 0.3
        assert len({round(gap, 1) for gap in gaps}) > 20


def test_the_checks_of_a_client_are_not_in_step():
    service = fleet(20)
    found = run(service, [NOW + step / 10 for step in range(1000)])
    by_second = Counter(int(now) for now, _ in found)
    assert max(by_second.values()) <= 8  # of twenty nodes


def test_two_clients_check_at_times_of_their_own():
    first, second = (run(fleet(1, seed=seed), [NOW + step / 10 for step in range(1000)]) for seed in (1, 2))
    assert [now for now, _ in first] != [now for now, _ in second]


def test_without_use_nothing_is_checked():
    service = started(3)
    assert service.pop_checks(NOW + 100) == ()
    assert service.pop_checks(NOW + 1000) == ()


def test_what_was_due_when_the_use_ended_waits_for_use():
    service = started(10)
    taken = use(service, NOW + 20)
    assert len(taken) == 4
    service.checked(taken[0], Outcome.SUCCESS, "ok", NOW + 21)
    assert len(service.pop_checks(NOW + 22)) == 1
    service.checked(taken[1], Outcome.SUCCESS, "ok", NOW + 23)
    assert service.pop_checks(NOW + 31) == ()
    assert len(use(service, NOW + 60)) == 4


def test_checks_resume_with_use_and_are_spread_again():
    service = started(12)
    again = run(service, [NOW + 3600])
    assert {node for _, node in again} == set(service.nodes)
    soon = sorted(now for now, _ in run(service, [NOW + 3600 + step / 10 for step in range(1, 101)]))
    assert len(set(soon)) > 8
    assert soon[-1] - soon[0] > 5


def test_a_service_used_once_a_minute_is_checked_once_a_minute():
    service = started(3)
    counts = Counter(node for _, node in run(service, [NOW + 60 * step for step in range(1, 11)]))
    assert [counts[node] for node in service.nodes] == [10, 10, 10]


def test_four_checks_run_at_once_and_no_endpoint_twice():
    service = started(10)
    in_flight = list(use(service, NOW + 20))
    assert len(in_flight) == 4
    seen = {check.node for check in in_flight}
    for _ in range(6):
        service.checked(in_flight.pop(0), Outcome.SUCCESS, "ok", NOW + 20)
        in_flight += service.pop_checks(NOW + 20)
        assert len(in_flight) == 4
        seen |= {check.node for check in in_flight}
    assert seen == set(service.nodes)
    assert use(service, NOW + 29) == ()


def test_a_check_that_nobody_reported_is_given_up_and_its_late_report_means_nothing():
    service = started(1)
    (lost,) = use(service, NOW + 10)
    assert use(service, NOW + 21.9) == ()
    (check,) = use(service, NOW + 22.5)
    assert not service.checked(lost, BAD, "status 503", NOW + 23)
    assert check.checked.failures == 0
    service.checked(check, BAD, "status 503", NOW + 23)
    assert check.checked.failures == 1


def test_an_endpoint_that_comes_is_checked_within_an_interval():
    service = started(1)
    service._accept(Resolution(endpoints(2), 10.0, "static"), NOW + 1)
    found = run(service, [NOW + 1 + step / 10 for step in range(104)])
    assert service.nodes[1] in {node for _, node in found}


def test_an_endpoint_that_left_is_not_checked_and_a_check_of_it_changes_nothing():
    service = started(8)
    first = use(service, NOW + 20)
    assert len(first) == 4
    gone = first[0].node
    left = tuple(node.endpoint for node in service.nodes if node.checked in [check.checked for check in first[1:3]])
    service._accept(Resolution(left, 10.0, "static"), NOW + 20)
    assert not service.checked(first[0], Outcome.CONNECT, "Connection refused", NOW + 20)
    assert gone.health is Health.HEALTHY
    assert service.pop_checks(NOW + 20) == ()


def test_the_proxy_beside_the_task_is_not_checked():
    service = service_of(static=[Endpoint("127.255.0.1", 80, attributes=(PROXIED,))], now=NOW, health_check=POLICY)
    assert run(service, [NOW + step for step in range(100)]) == []


def test_three_failed_checks_take_an_endpoint_out_and_say_why_once():
    service = started(3)
    node = service.nodes[0]
    fail_checks(service, node, NOW + 1, 2)
    assert node.health is Health.HEALTHY
    fail_checks(service, node, NOW + 1, 3)
    assert node.health is Health.EJECTED
    (event,) = [event for event in service.pop_events() if isinstance(event, HealthChanged)]
    assert (event.endpoint, event.health, event.reason) == (
        node.endpoint, "ejected", "3 health checks failed: status 503",
    )  # fmt: skip
    assert 8 <= event.seconds <= 12
    assert all(service.pick(NOW + 500 + step) is not node for step in range(20)), "no request is its probe"


def test_checks_are_counted_and_so_are_the_ejections_that_the_limit_withholds():
    service = started(2, outlier=OutlierPolicy(max_ejected=0.5))
    first, second = service.nodes
    for index in range(1, 4):
        told(service, first, BAD, NOW + index)
        told(service, second, BAD, NOW + index + 0.5)
    told(service, second, Outcome.SUCCESS, NOW + 9)
    assert first.health is Health.EJECTED
    assert second.health is Health.HEALTHY
    counts = service.counters.read()
    assert counts["health_checks"] == {"failed": 6, "ok": 1}
    assert counts["ejections_withheld"] == {"health_check": 1}


def test_one_failed_check_is_enough_where_that_is_the_policy():
    service = started(3, policy=HealthCheckPolicy(kind="http", unhealthy_after=1, healthy_after=1))
    node = service.nodes[0]
    told(service, node, BAD, NOW + 1)
    assert (node.health, node.reason) == (Health.EJECTED, "1 health check failed: status 503")
    told(service, node, Outcome.SUCCESS, NOW + 11)
    assert node.health is Health.HEALTHY


def test_a_good_check_in_between_begins_the_count_anew():
    service = started(3)
    node = service.nodes[0]
    fail_checks(service, node, NOW + 1, 2)
    told(service, node, Outcome.SUCCESS, NOW + 1)
    fail_checks(service, node, NOW + 1, 2)
    assert node.health is Health.HEALTHY


def test_two_good_checks_in_a_row_bring_it_back():
    service = started(3)
    node = service.nodes[0]
    fail_checks(service, node, NOW + 1)
    told(service, node, Outcome.SUCCESS, NOW + 11)
    told(service, node, BAD, NOW + 21)
    told(service, node, Outcome.SUCCESS, NOW + 31)
    assert node.health is Health.EJECTED
    told(service, node, Outcome.SUCCESS, NOW + 41)
    assert (node.health, node.reason, node.consecutive, node.ejections) == (Health.HEALTHY, "", 0, 0)
    healths = [event.health for event in service.pop_events() if isinstance(event, HealthChanged)]
    assert healths == ["ejected", "healthy"]
    assert node in {service.pick(NOW + 41) for _ in range(6)}


def test_requests_that_failed_before_it_came_back_are_paid_for():
    service = started(3)
    node = service.nodes[0]
    for _ in range(4):
        service.observe(node, BAD, NOW + 1)
    fail_checks(service, node, NOW + 1)
    told(service, node, Outcome.SUCCESS, NOW + 11)
    told(service, node, Outcome.SUCCESS, NOW + 21)
    service.observe(node, BAD, NOW + 22)
    assert node.health is Health.HEALTHY


def test_it_comes_back_whatever_the_picker():
    service = service_of(
        static=endpoints(3), now=NOW, health_check=POLICY, balancing=BalancingPolicy(picker="least_pending")
    )
    use(service, NOW)
    node = service.nodes[0]
    fail_checks(service, node, NOW + 1)
    told(service, node, Outcome.SUCCESS, NOW + 11)
    told(service, node, Outcome.SUCCESS, NOW + 21)
    assert node.health is Health.HEALTHY


def test_its_cost_begins_again_at_the_median_of_the_others():
    service = started(3)
    node = service.nodes[0]
    for each in service.nodes:
        for _ in range(5):
            service.observe(each, Outcome.SUCCESS, NOW + 1, 5.0 if each is node else 0.1)
    fail_checks(service, node, NOW + 1)
    told(service, node, Outcome.SUCCESS, NOW + 2)
    told(service, node, Outcome.SUCCESS, NOW + 2)
    assert node.cost == pytest.approx(service.nodes[1].cost, rel=0.2)


def test_a_check_that_tells_nothing_counts_for_nothing():
    service = started(3)
    node = service.nodes[0]
    fail_checks(service, node, NOW + 1, 2)
    told(service, node, Outcome.NEUTRAL, NOW + 1)
    assert (node.checked and node.checked.failures, node.health) == (2, Health.HEALTHY)
    told(service, node, BAD, NOW + 1)
    assert node.health is Health.EJECTED


def test_a_check_that_cannot_connect_makes_the_endpoint_down_at_once_and_one_that_succeeds_revives_it():
    service = started(3)
    node = service.nodes[0]
    told(service, node, Outcome.CONNECT, NOW + 1, "Connection refused")
    assert (node.health, node.reason) == (Health.DOWN, "1 failed connect")
    told(service, node, Outcome.SUCCESS, NOW + 1.5)
    assert node.health is Health.HEALTHY
    assert [event.health for event in service.pop_events() if isinstance(event, HealthChanged)] == ["down", "healthy"]


def test_what_failed_its_checks_before_it_was_down_is_ejected_until_they_succeed():
    service = started(3)
    node = service.nodes[0]
    fail_checks(service, node, NOW + 1)
    told(service, node, Outcome.CONNECT, NOW + 2)
    assert node.health is Health.DOWN
    service.observe(node, Outcome.SUCCESS, NOW + 3)  # a reconnect
    assert (node.health, node.reason) == (Health.EJECTED, "3 health checks failed: status 503")
    assert all(service.pick(NOW + 100 + step) is not node for step in range(10))
    told(service, node, Outcome.SUCCESS, NOW + 111)
    told(service, node, Outcome.SUCCESS, NOW + 121)
    assert node.health is Health.HEALTHY


def test_a_good_check_of_one_that_is_down_and_failed_others_is_one_good_check():
    service = started(3)
    node = service.nodes[0]
    fail_checks(service, node, NOW + 1)
    told(service, node, Outcome.CONNECT, NOW + 2)
    told(service, node, Outcome.SUCCESS, NOW + 12)
    assert node.health is Health.EJECTED
    told(service, node, Outcome.SUCCESS, NOW + 22)
    assert node.health is Health.HEALTHY


def test_one_that_is_down_and_answers_badly_when_checked_is_ejected_once_it_connects():
    service = started(3)
    node = service.nodes[0]
    service.observe(node, Outcome.CONNECT, NOW + 1)
    fail_checks(service, node, NOW + 1)
    assert node.health is Health.DOWN
    service.observe(node, Outcome.SUCCESS, NOW + 2)
    assert node.health is Health.EJECTED
    told(service, node, Outcome.SUCCESS, NOW + 12)
    told(service, node, Outcome.SUCCESS, NOW + 22)
    assert node.health is Health.HEALTHY


def test_good_checks_do_not_revive_what_failed_requests_took_out():
    service = started(3)
    node = service.nodes[0]
    for _ in range(5):
        service.observe(node, BAD, NOW + 1)
    for _ in range(5):
        told(service, node, Outcome.SUCCESS, NOW + 2)
    assert (node.health, node.reason) == (Health.EJECTED, "5 failures in a row")
    assert service.pick(NOW + 10) is node, "its probe decides"
    assert node.health is Health.PROBING


def test_good_checks_do_not_begin_the_count_of_failed_requests_anew():
    service = started(3)
    node = service.nodes[0]
    for _ in range(4):
        service.observe(node, BAD, NOW + 1)
        told(service, node, Outcome.SUCCESS, NOW + 1)
    service.observe(node, BAD, NOW + 1)
    assert node.health is Health.EJECTED


def test_what_both_took_out_comes_back_when_both_agree():
    service = started(3)
    node = service.nodes[0]
    for _ in range(5):
        service.observe(node, BAD, NOW + 1)
    fail_checks(service, node, NOW + 1)
    assert all(service.pick(NOW + 100 + step) is not node for step in range(10)), "its checks hold it"
    told(service, node, Outcome.SUCCESS, NOW + 111)
    told(service, node, Outcome.SUCCESS, NOW + 121)
    assert node.health is Health.PROBING
    assert node in {service.pick(NOW + 121, [other for other in service.nodes if other is not node])}
    service.finish(node, Outcome.SUCCESS, NOW + 122, 0.01)
    assert node.health is Health.HEALTHY


def test_failed_checks_end_a_probe_that_is_waited_for():
    service = started(3)
    node = service.nodes[0]
    for _ in range(5):
        service.observe(node, BAD, NOW + 1)
    fail_checks(service, node, NOW + 1, 2)
    service.pick(NOW + 10, [node])
    assert node.health is Health.PROBING
    told_before = len(service.pop_events())
    check = check_of_probing(service, node, NOW + 10)
    service.checked(check, BAD, "status 503", NOW + 10)
    assert node.health is Health.EJECTED
    assert told_before
    assert service.pick(NOW + 10.1) is not node


def check_of_probing(service: Service, node: Node, now: float) -> Check:
    """As `check_of`, without a pick that might be the probe."""
    checks = service._balancer._checks
    for other in service.nodes:
        assert other.checked is not None
        other.checked.due = now if other is node else now + 5
    checks.use(service.nodes, now)
    (check,) = service.pop_checks(now)
    return check


@pytest.mark.parametrize(("count", "out"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (10, 5)])
def test_when_all_checks_fail_no_more_than_half_go_and_never_the_last(count: int, out: int):
    service = started(count)
    for round_ in range(5):
        for node in service.nodes:
            told(service, node, BAD, NOW + round_)
    assert sum(node.health is Health.EJECTED for node in service.nodes) == out
    assert not service.facts()["panic"]


def test_what_the_cap_spared_goes_when_there_is_room():
    service = started(2)
    first, second = service.nodes
    fail_checks(service, first, NOW + 1)
    fail_checks(service, second, NOW + 1, 5)
    assert (first.health, second.health) == (Health.EJECTED, Health.HEALTHY)
    told(service, first, Outcome.SUCCESS, NOW + 11)
    told(service, first, Outcome.SUCCESS, NOW + 21)
    told(service, second, BAD, NOW + 22)
    assert (first.health, second.health) == (Health.HEALTHY, Health.EJECTED)
    assert second.reason == "6 health checks failed: status 503"


def test_in_panic_what_failed_its_checks_is_used_all_the_same():
    service = started(3, outlier=OutlierPolicy(max_ejected=1))
    for node in service.nodes:
        fail_checks(service, node, NOW + 1)
    assert service.facts()["panic"]
    assert {service.pick(NOW + 2) for _ in range(12)} == set(service.nodes)


def test_the_child_of_a_fork_checks_at_times_of_its_own_and_hears_nothing_of_its_parents_checks():
    service = started(3)
    fail_checks(service, service.nodes[0], NOW + 1)
    (check,) = (check_of(service, service.nodes[1], NOW + 2),)
    before = [node.checked and node.checked.due for node in service.nodes]
    service.reset_lock()
    assert not service.checked(check, Outcome.CONNECT, "Connection refused", NOW + 2)
    assert service.nodes[1].health is Health.HEALTHY
    assert service.nodes[0].health is Health.EJECTED
    assert use(service, NOW + 2) == ()
    after = [node.checked.due for node in service.nodes if node.checked]
    assert after != before
    assert all(NOW + 2 <= due <= NOW + 12 for due in after)


def test_a_fork_before_the_first_use_changes_nothing():
    service = fleet(2)
    service.reset_lock()
    assert use(service, NOW + 1) == ()
    assert len(run(service, [NOW + 11.5])) == 2


@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("orders", "orders.prod.local"),
        ("orders:80", "orders.prod.local"),
        ("orders:8080", "orders.prod.local:8080"),
        ("cloudmap://prod.local/orders", "orders.prod.local"),
        ("static://127.0.0.1:9", ""),
        ("billing", "billing.prod.local"),
    ],
)
def test_a_check_says_the_name_of_the_service(target: str, host: str):
    settings = Settings.make(
        namespace="prod.local", services={"billing": "static://127.0.0.1:7"}, environ={}, health_check=POLICY
    )
    directory = Directory(settings, Random(1).random, ("cloudmap",))
    service = directory.service(target, None, NOW)
    service._accept(Resolution((Endpoint("10.0.0.1", 80),), 10.0, "dns"), NOW)
    use(service, NOW)
    (check,) = use(service, NOW + 10)
    assert check.host == (host or "10.0.0.1:80")


@pytest.mark.parametrize(
    ("policies", "environ", "checked"),
    [
        ({}, {}, False),
        ({"health_check": POLICY}, {}, True),
        ({"health_check": POLICY}, {"ECS_DISCOVERY_DISABLED": "1"}, False),
        ({}, {"ECS_DISCOVERY_HEALTHCHECK_KIND": "tcp"}, True),
        ({"services": {"orders": ServiceConfig("static://127.0.0.1:9", health_check=POLICY)}}, {}, True),
        (
            {
                "health_check": POLICY,
                "services": {"orders": ServiceConfig("static://127.0.0.1:9", health_check=HealthCheckPolicy())},
            },
            {},
            False,
        ),
    ],
)
def test_checks_are_asked_for_by_discovery_service_or_variable(policies, environ, checked: bool):
    policies.setdefault("services", {"orders": "static://127.0.0.1:9"})
    directory = Directory(Settings.make(environ=environ, **policies), Random(1).random, ())
    service = directory.service("orders", None, NOW)
    assert bool(run(service, [NOW + step for step in range(20)])) is checked


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_whatever_checks_and_requests_say_the_limits_hold(data: st.DataObject):
    """At most half of those that connect go out at once, never the last; unfit ones are out; good times heal all."""
    count = data.draw(st.integers(1, 5))
    service = started(count, seed=data.draw(st.integers(0, 9)))
    now = NOW
    for _ in range(data.draw(st.integers(1, 40))):
        now += data.draw(st.sampled_from([0.1, 1.0, 7.0, 40.0]))
        for check in use(service, now):
            before = [node.health for node in service.nodes]
            outcome = data.draw(st.sampled_from(Outcome))
            service.checked(check, outcome, "x", now)
            healthy = before.count(Health.HEALTHY)
            out = before.count(Health.EJECTED) + before.count(Health.PROBING)
            was = before[service.nodes.index(check.node)]
            if was is Health.HEALTHY and check.node.health is Health.EJECTED:
                assert healthy > 1
                assert 2 * (out + 1) <= healthy + out
        node = data.draw(st.sampled_from(service.nodes))
        service.observe(node, data.draw(st.sampled_from(Outcome)), now, 0.01)
        assert all(not node.failed_checks or node.health in (Health.EJECTED, Health.DOWN) for node in service.nodes)
    for _ in range(100):
        now += 10
        node = service.pick(now)
        assert node is not None
        service.finish(node, Outcome.SUCCESS, now, 0.01)
        for down in service.pop_reconnects():
            service.observe(down, Outcome.SUCCESS, now)
        waiting = service.pop_checks(now)
        while waiting:
            for check in waiting:
                service.checked(check, Outcome.SUCCESS, "ok", now)
            waiting = service.pop_checks(now)
    assert [node.health for node in service.nodes] == [Health.HEALTHY] * count
