"""A service: from lookups to endpoints, and what is asked next."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from threading import Thread
from typing import Any

import pytest

from ecs_discovery.config.policies import BalancingPolicy, HedgePolicy
from ecs_discovery.core.balancing.node import Health, Outcome
from ecs_discovery.core.lease import Lease
from ecs_discovery.core.resolution.cache import Freshness, Look
from ecs_discovery.core.resolution.sources import Due
from ecs_discovery.core.service import Service
from ecs_discovery.errors import NoEndpoints, Overloaded, ResolutionError, ResolutionTimeout, TargetNotFound
from ecs_discovery.events import EndpointsChanged, HealthChanged, LookupFailed, LookupRecovered, Notice, PanicChanged
from ecs_discovery.models import PROXIED, Endpoint, Question, Resolution
from tests.support import a, aaaa, answer, endpoints, service_of, srv

MISSING: Look[Resolution] = Look(Freshness.MISSING, refresh=True)
NXDOMAIN = TargetNotFound("no such name", target="a://orders")
NODATA = NoEndpoints("no such record", target="a://orders")
SERVFAIL = ResolutionError("SERVFAIL", target="a://orders")


def fresh(*hosts: str, port: int = 0, changes_at: float = 2000.0, serial: int = 1) -> Look[Resolution]:
    return Look(Freshness.FRESH, answer(*hosts, port=port), None, False, changes_at, serial)


def none(error: Exception = NODATA, changes_at: float = 1005.0, serial: int = 1) -> Look[Resolution]:
    return Look(Freshness.NEGATIVE, None, error, False, changes_at, serial)


def hosts(service: Service) -> list[str]:
    return [str(node.endpoint) for node in service.nodes]


def known(service: Service | None = None) -> Service:
    """A service that was found under its A record."""
    service = service or service_of()
    service.judge({a(): fresh("10.0.0.1", "10.0.0.2"), aaaa(): none(), srv(): none()}, 1000.0)
    service.pop_events()
    return service


def test_a_cold_service_asks_for_every_kind_of_record_at_once():
    service = service_of()
    assert service.wanted() == (a(), aaaa(), srv())
    assert service.judge(dict.fromkeys(service.wanted(), MISSING), 1000.0) == Due(wait=(a(), aaaa(), srv()))


def test_what_a_name_turned_out_to_be_is_remembered_so_that_it_costs_one_question():
    service = known()
    assert service.wanted() == (a(),)
    assert hosts(service) == ["10.0.0.1:80", "10.0.0.2:80"]
    assert service.refresh_at == 2000.0
    assert service.resolution is not None
    assert (service.resolution.source, service.resolution.ttl, service.resolution.stale) == ("dns", 10.0, False)


def test_the_default_port_is_known_as_such_only_where_no_record_names_another():
    service = service_of("orders", default_port=80)
    assert service.default_port is None  # nothing is known yet
    assert known(service).default_port == 80
    assert known(service_of("orders:80", default_port=80)).default_port is None  # the caller named it
    service = service_of("orders", default_port=80)
    service.judge({a(): none(), aaaa(): none(), srv(): fresh("10.0.0.1", port=8080)}, 1000.0)
    assert service.default_port is None


def test_an_answer_with_the_very_same_endpoints_brings_its_own_ttl_and_source():
    tasks = (Endpoint("10.0.0.1", 8080),)
    service = known()
    for number, said in enumerate((Resolution(tasks, 5.0, "one"), Resolution(tasks, 300.0, "two")), 2):
        service.judge({a(): Look(Freshness.FRESH, said, None, False, 2000.0, number)}, 1000.0 + number)
        assert service.resolution is not None
        assert (service.resolution.ttl, service.resolution.source) == (said.ttl, said.source)


def test_both_families_are_used_together():
    service = service_of()
    service.judge({a(): fresh("10.0.0.1"), aaaa(): fresh("::1", changes_at=1500.0), srv(): none()}, 1000.0)
    assert hosts(service) == ["10.0.0.1:80", "[::1]:80"]
    assert service.wanted() == (a(), aaaa())
    assert service.refresh_at == 1500.0


def test_one_family_is_served_while_the_other_is_still_asked():
    service = service_of()
    due = service.judge({a(): fresh("10.0.0.1"), aaaa(): MISSING, srv(): MISSING}, 1000.0)
    assert due == Due(ask=(aaaa(),))
    assert hosts(service) == ["10.0.0.1:80"]
    assert service.wanted() == (a(), aaaa())


def test_a_family_that_could_not_be_asked_is_asked_again_later():
    service = service_of()
    service.judge({a(): fresh("10.0.0.1"), aaaa(): none(SERVFAIL, changes_at=1001.0), srv(): none()}, 1000.0)
    assert service.wanted() == (a(), aaaa())
    assert service.refresh_at == 1001.0


def test_srv_answers_where_there_is_no_address_and_its_port_wins_with_one_notice():
    service = service_of("orders:80")
    looks = {a(): none(), aaaa(): none(), srv(): fresh("10.0.0.1", port=32768)}
    service.judge(looks, 1000.0)
    assert hosts(service) == ["10.0.0.1:32768"]
    assert service.wanted() == (srv(),)
    service.judge({srv(): fresh("10.0.0.1", port=32769, serial=2)}, 1000.0)
    notices = [event for event in service.pop_events() if isinstance(event, Notice)]
    assert len(notices) == 1
    assert "instead of port 80" in str(notices[0])


def test_without_a_port_srv_goes_first_and_addresses_get_the_schemes_port():
    service = service_of("orders", default_port=443)
    service.judge({srv(): none(), a(): fresh("10.0.0.1"), aaaa(): none()}, 1000.0)
    assert hosts(service) == ["10.0.0.1:443"]


def test_servfail_is_never_taken_for_there_is_none():
    service = service_of("orders", default_port=80)
    due = service.judge({srv(): none(SERVFAIL), a(): fresh("10.0.0.1"), aaaa(): none()}, 1000.0)
    assert isinstance(due.error, ResolutionError)
    assert not isinstance(due.error, (TargetNotFound, NoEndpoints))
    assert due.error.__cause__ is SERVFAIL
    assert due.error.target == "orders"


def test_another_source_is_used_when_one_fails_and_the_first_is_asked_again():
    service = service_of("orders", sources=["srv://orders", "dns://backup:80"])
    other = Question("a", "backup")
    looks = {srv(): none(SERVFAIL), other: fresh("10.9.0.1"), Question("aaaa", "backup"): none()}
    assert service.judge(looks, 1000.0).error is None
    assert hosts(service) == ["10.9.0.1:80"]
    assert srv() in service.wanted()


def test_when_every_source_fails_the_first_ones_error_is_told():
    service = service_of("orders", sources=["srv://orders", "srv://backup"])
    later = ResolutionError("REFUSED")
    due = service.judge({srv(): none(SERVFAIL), srv("backup"): none(later)}, 1000.0)
    assert due.error is not None
    assert due.error.__cause__ is SERVFAIL


def test_the_next_source_is_used_when_one_has_no_such_name():
    service = service_of("orders", sources=["srv://orders", "dns://backup:80"])
    other = Question("a", "backup")
    service.judge({srv(): none(NXDOMAIN), other: fresh("10.9.0.1"), Question("aaaa", "backup"): none()}, 1000.0)
    assert hosts(service) == ["10.9.0.1:80"]
    assert service.wanted() == (other,)


@pytest.mark.parametrize(
    ("errors", "kind"),
    [
        ((NXDOMAIN, NXDOMAIN, NXDOMAIN), TargetNotFound),
        ((NXDOMAIN, NODATA, NXDOMAIN), NoEndpoints),
        ((SERVFAIL, NODATA, NXDOMAIN), ResolutionError),
        ((ResolutionTimeout("silence"), NODATA, NXDOMAIN), ResolutionTimeout),
        ((ValueError("a resolver's own"), NODATA, NODATA), ResolutionError),
    ],
)
def test_a_name_that_cannot_be_used_says_why(errors, kind):
    service = service_of()
    looks = {question: none(error) for question, error in zip((a(), aaaa(), srv()), errors, strict=True)}
    due = service.judge(looks, 1000.0)
    assert type(due.error) is kind
    assert due.error.target == "orders:80"
    assert due.error.__cause__ in errors
    assert service.resolution is None


def test_an_error_of_the_target_itself_names_it_once():
    service = service_of()
    looks = {
        question: none(ResolutionError("needs a library", target="orders:80")) for question in (a(), aaaa(), srv())
    }
    assert str(service.judge(looks, 1000.0).error).startswith("orders:80: needs a library")


def test_answers_without_any_port_are_an_error_that_says_so():
    service = service_of("orders", sources=["file://orders"], schemes=("file",))
    due = service.judge({Question("file", "orders"): fresh("10.0.0.1")}, 1000.0)
    assert isinstance(due.error, NoEndpoints)
    assert "no port" in str(due.error)


def test_a_stale_answer_is_refreshed_in_the_background():
    service = known()
    stale = Look(Freshness.STALE, answer("10.0.0.1", "10.0.0.2"), None, True, 1010.0, 1)
    assert service.judge({a(): stale}, 1010.0) == Due(ask=(a(),))
    assert service.resolution is not None
    assert service.resolution.stale


def test_an_expired_answer_is_waited_for_and_served_stale_if_that_fails():
    service = known()
    expired = Look(Freshness.EXPIRED, answer("10.0.0.1", "10.0.0.2"), None, True, 1100.0, 1)
    assert service.judge({a(): expired}, 1100.0) == Due(wait=(a(),))
    failed = Look(Freshness.EXPIRED, answer("10.0.0.1", "10.0.0.2"), SERVFAIL, True, 1101.0, 2)
    assert service.judge({a(): failed}, 1101.0, waited=(a(),)) == Due()
    assert len(service.nodes) == 2


def test_what_was_just_asked_in_vain_is_not_waited_for_again():
    service = service_of()
    looks = {a(): Look(Freshness.MISSING, None, SERVFAIL, True), aaaa(): none(), srv(): none()}
    assert service.judge(looks, 1000.0).wait == (a(),)
    assert service.judge(looks, 1000.0, waited=(a(),)).error is not None


def test_failing_lookups_keep_the_endpoints_and_are_told_once():
    service = known()
    failed = Look(Freshness.STALE, answer("10.0.0.1", "10.0.0.2"), SERVFAIL, False, 1050.0, 2)
    for _ in range(3):
        service.judge({a(): failed}, 1040.0)
    assert [type(event) for event in service.pop_events()] == [LookupFailed]
    assert len(service.nodes) == 2
    service.judge({a(): fresh("10.0.0.1", "10.0.0.2", serial=3)}, 1051.0)
    assert [type(event) for event in service.pop_events()] == [LookupRecovered]


def test_a_known_record_that_is_gone_makes_every_kind_be_asked_again():
    service = known()
    assert service.judge({a(): none(NXDOMAIN, serial=2)}, 1010.0) == Due()  # one empty answer is no truth
    assert service.wanted() == (a(),)
    assert service.judge({a(): none(NXDOMAIN, serial=3)}, 1040.0) == Due(again=True)
    assert service.wanted() == (a(), aaaa(), srv())
    due = service.judge({a(): none(NXDOMAIN, serial=3), aaaa(): MISSING, srv(): MISSING}, 1040.0)
    assert due == Due(ask=(aaaa(), srv()))
    assert len(service.nodes) == 2


def test_an_emptied_service_keeps_its_endpoints_until_that_has_stood_for_thirty_seconds():
    service = known()
    assert service.judge({a(): none(NXDOMAIN, serial=2)}, 1010.0) == Due()
    assert service.resolution is not None
    assert service.resolution.stale
    assert service.judge({a(): none(NXDOMAIN, serial=3)}, 1030.0) == Due()
    assert len(service.nodes) == 2
    service.pop_events()
    assert service.judge({a(): none(NXDOMAIN, serial=4)}, 1041.0).again
    looks = dict.fromkeys(service.wanted(), none(NXDOMAIN, serial=5))

    due = service.judge(looks, 1041.0)
    assert isinstance(due.error, TargetNotFound)
    assert service.resolution is None
    assert service.pick(1041.0) is None
    changed = service.pop_events()
    assert isinstance(changed[0], EndpointsChanged)
    assert changed[0].endpoints == ()


def test_a_servfail_while_empty_keeps_the_endpoints():
    service = known()
    service.judge({a(): none(SERVFAIL, serial=2)}, 1100.0)
    service.judge({a(): none(SERVFAIL, serial=3)}, 1200.0)
    assert len(service.nodes) == 2
    assert service.wanted() == (a(),)


def test_an_answer_the_cache_has_dropped_is_asked_for_again():
    service = known()
    assert service.judge({a(): MISSING}, 1010.0) == Due(ask=(a(),))
    assert len(service.nodes) == 2


def test_a_late_answer_does_not_undo_a_newer_one():
    service = known()
    service.judge({a(): fresh("10.0.0.3", serial=5)}, 1010.0)
    assert service.judge({a(): fresh("10.0.0.1", serial=4)}, 1010.0) == Due(again=True)
    assert hosts(service) == ["10.0.0.3:80"]


def test_a_forced_refresh_is_for_what_is_known_to_exist_and_rate_limited():
    service = known()
    assert service.force(1000.0, 5.0) == (a(),)
    assert service.force(1004.9, 5.0) == ()
    assert service.force(1005.0, 5.0) == (a(),)
    assert service_of().force(1000.0, 5.0) == (a(), aaaa(), srv())
    for node in service.nodes:
        service.observe(node, Outcome.CONNECT, 1005.0)
    assert service.force(1005.9, 5.0) == ()
    assert service.force(1006.0, 5.0) == (a(),)  # nobody connects: a second is long enough


def test_static_endpoints_need_no_questions():
    service = service_of("orders", static=endpoints(2))
    assert service.questions == ()
    assert service.refresh_at == inf
    assert hosts(service) == ["10.0.0.1:80", "10.0.0.2:80"]
    assert repr(service) == "<Service orders <Balancer 2 endpoints, 0 out of choice, 0 in flight>>"


def test_changes_of_health_and_panic_are_told():
    service = service_of("orders", static=endpoints(2))
    service.pop_events()
    first, second = service.nodes
    assert service.observe(first, Outcome.CONNECT, 1000.0)
    assert not service.observe(first, Outcome.CONNECT, 1000.1)
    (event,) = service.pop_events()
    assert isinstance(event, HealthChanged)
    assert (event.health, event.seconds, str(event)) == ("down", 1.0, "orders: 10.0.0.1:80 is down: 1 failed connect")
    second.health = Health.EJECTED
    second.state_ends_at = 1001.0
    assert service.observe(first, Outcome.SUCCESS, 1000.5)
    assert [type(event) for event in service.pop_events()] == [HealthChanged]
    first.health = Health.DOWN
    assert service.observe(first, Outcome.SUCCESS, 1000.6) or True
    second.health = Health.PROBING
    assert service.observe(second, Outcome.SUCCESS, 1002.0)
    assert service.facts()["panic"] is False


def test_panic_is_told_when_it_begins_and_ends():
    service = service_of("orders", static=endpoints(2))
    service.pop_events()
    first, second = service.nodes
    for _ in range(5):
        service.observe(first, Outcome.FAILURE, 1000.0)
    service.observe(second, Outcome.CONNECT, 1000.0)
    told = [event for event in service.pop_events() if isinstance(event, PanicChanged)]
    assert [event.panic for event in told] == [True]
    service.observe(second, Outcome.SUCCESS, 1001.0)
    told = [event for event in service.pop_events() if isinstance(event, PanicChanged)]
    assert [event.panic for event in told] == [False]


def test_a_drained_panic_is_over():
    service = known()
    first, second = service.nodes
    for _ in range(5):
        service.observe(first, Outcome.FAILURE, 1000.0)
    service.observe(second, Outcome.CONNECT, 1000.0)
    service.judge({a(): none(NXDOMAIN, serial=2)}, 1010.0)
    service.pop_events()
    service.judge({a(): none(NXDOMAIN, serial=3)}, 1050.0)
    service.judge(dict.fromkeys(service.wanted(), none(NXDOMAIN, serial=4)), 1050.0)
    assert [event.panic for event in service.pop_events() if isinstance(event, PanicChanged)] == [False]


def test_reconnects_are_handed_out_once():
    service = service_of("orders", static=endpoints(3))
    service.observe(service.nodes[0], Outcome.CONNECT, 1000.0)
    service.pick(1000.5)
    assert not service.work.due
    service.pick(1001.0)
    assert service.work.due
    assert service.pop_reconnects() == (service.nodes[0],)
    assert not service.work.due


def test_a_lease_counts_as_load_until_it_ends_once():
    service = service_of("orders", static=endpoints(1))
    lease = Lease(service, 1000.0)
    node = lease.pick()
    assert node is not None
    assert lease.endpoint == node.endpoint
    assert node.pending == 1
    lease.observe(Outcome.SUCCESS, 1000.1)
    assert not lease.finish(Outcome.SUCCESS, 1000.5)
    assert not lease.finish(Outcome.CONNECT, 1000.6)
    lease.release()
    assert node.pending == 0
    assert node.health is Health.HEALTHY


def test_a_lease_that_is_forgotten_ends_at_the_next_pick():
    service = service_of("orders", static=endpoints(1))
    lease = Lease(service, 1000.0)
    node = lease.pick()
    assert node is not None
    del lease
    assert node.pending == 1
    other = Lease(service, 1001.0)
    assert other.pick() is node
    assert node.pending == 1
    other.release()
    assert node.pending == 0


def test_it_is_stranded_when_no_endpoint_connects():
    service = service_of("orders", static=endpoints(2))
    service.observe(service.nodes[0], Outcome.CONNECT, 1000.0)
    assert not service.all_down
    service.observe(service.nodes[1], Outcome.CONNECT, 1000.0)
    assert service.all_down


def test_untried_counts_the_endpoints_that_are_left():
    service = service_of("orders", static=endpoints(3))
    assert service.untried(()) == 3
    assert service.untried(service.nodes[:1]) == 2
    assert service.untried(service.nodes[:2]) == 1


def test_the_child_of_a_fork_has_its_own_locks_and_no_uses():
    service = service_of("orders", static=endpoints(1))
    node = service.pick(1000.0)
    assert node is not None
    service._lock.acquire()
    service.reset_lock()
    assert node.pending == 0
    assert service.pick(1000.0) is node


def partial(*hosts: str, serial: int = 1, estimate: int | None = 12) -> Look[Resolution]:
    found = Resolution(answer(*hosts, port=80).endpoints, 10.0, "dns", True, estimate)
    return Look(Freshness.FRESH, found, None, False, 2000.0, serial)


def test_a_possibly_partial_answer_makes_the_next_source_be_asked_and_settled_on_if_it_knows_all():
    service = service_of("orders", sources=["srv://orders", "cloudmap://ns/orders"], schemes=("cloudmap",))
    other = Question("cloudmap", "ns/orders")
    due = service.judge({srv(): partial("10.0.0.1", "10.0.0.2"), other: MISSING}, 1000.0)
    assert due == Due(ask=(other,))
    assert len(service.nodes) == 2
    assert service.resolution is not None
    assert (service.resolution.partial, service.resolution.estimate) == (True, 12)
    service.judge({srv(): partial("10.0.0.1", "10.0.0.2"), other: fresh("10.0.0.3", port=80, serial=2)}, 1001.0)
    assert hosts(service) == ["10.0.0.3:80"]
    assert service.wanted() == (other,)


@pytest.mark.parametrize(
    "second",
    [none(SERVFAIL, serial=2), none(NXDOMAIN, serial=2), partial("10.0.0.9", serial=2)],
    ids=["it fails", "it knows none", "it is partial too"],
)
def test_a_partial_answer_stands_where_the_next_source_is_no_better(second: Look[Resolution]):
    service = service_of("orders", sources=["srv://orders", "cloudmap://ns/orders"], schemes=("cloudmap",))
    service.judge({srv(): partial("10.0.0.1", "10.0.0.2"), Question("cloudmap", "ns/orders"): second}, 1000.0)
    assert hosts(service) == ["10.0.0.1:80", "10.0.0.2:80"]
    assert set(service.wanted()) == {srv(), Question("cloudmap", "ns/orders")}


def test_emptiness_that_the_registry_itself_confirms_is_believed_at_once():
    service = service_of("orders", sources=["srv://orders", "cloudmap://ns/orders"], schemes=("cloudmap",))
    registry = Question("cloudmap", "ns/orders")
    service.judge({srv(): fresh("10.0.0.1", port=80), registry: MISSING}, 1000.0)
    assert len(service.nodes) == 1
    assert service.judge({srv(): none(NXDOMAIN, serial=2)}, 1001.0).again
    due = service.judge({srv(): none(NXDOMAIN, serial=2), registry: none(NODATA, serial=3)}, 1001.0)
    assert isinstance(due.error, NoEndpoints)
    assert service.nodes == ()


def test_it_is_kept_which_source_named_an_endpoint_and_when():
    service = service_of()
    service.judge({a(): fresh("10.0.0.1"), aaaa(): fresh("::1", serial=2), srv(): none()}, 1000.0)
    service.judge({a(): fresh("10.0.0.1"), aaaa(): fresh("::1", serial=3)}, 1007.0)
    assert [node.seen for node in service.facts()["nodes"]] == [{"dns": 1000.0}, {"dns": 1007.0}]


def test_families_take_turns():
    service = service_of()
    service.judge({a(): fresh("10.0.0.1", "10.0.0.2"), aaaa(): fresh("::1", "::2", "::3"), srv(): none()}, 1000.0)
    assert [node.endpoint.host for node in service.nodes] == ["10.0.0.1", "::1", "10.0.0.2", "::2", "::3"]


def test_a_service_connect_proxy_is_one_endpoint_that_is_never_taken_out():
    service = service_of()
    proxy = replace(answer("127.255.0.1").endpoints[0], attributes=(PROXIED,))
    other = replace(answer("2600:f0f0::1").endpoints[0], attributes=(PROXIED,))
    look = Look(Freshness.FRESH, Resolution((proxy, other), 5.0, "service-connect"), None, False, 2000.0, 1)
    service.judge({a(): look, aaaa(): none(), srv(): none()}, 1000.0)
    assert hosts(service) == ["127.255.0.1:80"]
    for outcome in (Outcome.CONNECT, *[Outcome.FAILURE] * 10, Outcome.NEUTRAL):
        assert not service.observe(service.nodes[0], outcome, 1000.0)
    assert service.nodes[0].health is Health.HEALTHY
    assert service.nodes[0].failures == 11


def test_without_a_reason_it_says_that_there_are_no_endpoints():
    error = service_of().unusable()
    assert isinstance(error, NoEndpoints)
    assert "has no endpoints now" in str(error)


def test_a_fresh_answer_that_was_waited_for_is_taken_as_it_is():
    service = service_of()
    assert service.judge({a(): fresh("10.0.0.1"), aaaa(): none(), srv(): none()}, 1000.0, waited=(a(),)) == Due()


def test_a_row_of_other_sources_does_not_take_over_from_a_possibly_partial_answer():
    service = service_of("orders", sources=["srv://orders", "static://10.9.9.9:1"])
    other = Question("static", "10.9.9.9:1")
    service.judge({srv(): partial("10.0.0.1", "10.0.0.2"), other: fresh("10.9.9.9", port=1, serial=2)}, 1000.0)
    assert hosts(service) == ["10.0.0.1:80", "10.0.0.2:80"]
    assert service.wanted() == (srv(),)


def test_only_the_registry_is_believed_at_once_that_nothing_is_there():
    service = service_of("orders", sources=["srv://orders", "mine://orders"], schemes=("mine",))
    mine = Question("mine", "orders")
    service.judge({srv(): fresh("10.0.0.1", port=80), mine: MISSING}, 1000.0)
    assert service.judge({srv(): none(NXDOMAIN, serial=2)}, 1001.0).again
    assert service.judge({srv(): none(NXDOMAIN, serial=2), mine: none(NODATA, serial=3)}, 1001.0).error is None
    assert len(service.nodes) == 1


def test_of_a_joined_answer_only_what_the_newest_one_named_was_seen_now():
    service = service_of()
    joined = Resolution(answer("10.0.0.1", "10.0.0.2").endpoints, 10.0, "dns", True, 12)
    for now, serial, named in ((1000.0, 1, {"10.0.0.1", "10.0.0.2"}), (1010.0, 2, {"10.0.0.2"})):
        look = Look(Freshness.FRESH, replace(joined, named=frozenset(named)), None, False, 2000.0, serial)
        service.judge({a(): look, aaaa(): none(), srv(): none()}, now)
    assert [node.seen["dns"] for node in service.facts()["nodes"]] == [1000.0, 1010.0]


def test_the_registry_completes_a_partial_answer_from_wherever_in_the_row_it_stands():
    service = service_of(
        "orders", sources=["srv://orders", "static://10.9.9.9:1", "cloudmap://ns/orders"], schemes=("cloudmap",)
    )
    looks = {
        srv(): partial("10.0.0.1", "10.0.0.2"),
        Question("static", "10.9.9.9:1"): fresh("10.9.9.9", port=1, serial=2),
        Question("cloudmap", "ns/orders"): fresh("10.0.0.1", "10.0.0.2", "10.0.0.3", port=80, serial=3),
    }
    service.judge(looks, 1000.0)
    assert len(service.nodes) == 3
    assert service.wanted() == (Question("cloudmap", "ns/orders"),)


def test_in_the_child_of_a_fork_an_endpoint_that_left_and_comes_back_has_no_uses_of_the_parent():
    service = known()
    node = service.pick(1000.0)
    assert node is not None
    stays = next(other for other in service.nodes if other is not node)
    service.judge({a(): fresh(stays.endpoint.host, serial=2)}, 1001.0)
    service.reset_lock()
    service.judge({a(): fresh("10.0.0.1", "10.0.0.2", serial=3)}, 1002.0)
    assert node in service.nodes
    assert node.pending == 0


def test_an_endpoint_that_refuses_and_is_not_in_the_newest_answer_is_gone_at_once():
    service = service_of("orders")
    both = partial("10.0.0.1", "10.0.0.2")
    assert both.value is not None
    service.judge({srv(): both._replace(value=replace(both.value, named=frozenset({"10.0.0.1"})))}, 1000.0)
    named, unnamed = service.nodes
    service.pop_events()
    service.observe(unnamed, Outcome.CONNECT, 1001.0)
    assert service.nodes == (named,)
    assert unnamed.removed
    assert [type(event) for event in service.pop_events()] == [HealthChanged, EndpointsChanged]
    service.observe(named, Outcome.CONNECT, 1002.0)
    assert service.nodes == (named,), "never the last one"


def test_an_endpoint_that_goes_down_does_not_begin_the_wait_for_a_second_empty_answer_anew():
    service = known()
    assert service.judge({a(): none(NXDOMAIN, serial=2)}, 1010.0) == Due()
    for node in service.nodes:
        service.observe(node, Outcome.CONNECT, 1020.0)
    assert service.judge({a(): none(NXDOMAIN, serial=3)}, 1041.0).again
    service.judge(dict.fromkeys(service.wanted(), none(NXDOMAIN, serial=4)), 1041.0)
    assert service.nodes == ()


def test_refused_hosts_are_told_once_and_again_when_none_are_left():
    service = service_of("orders:80")
    service.pop_events()
    told: list[str] = []
    for number, refused in enumerate([(), ("169.254.1.1",) * 5, ("169.254.1.2",), (), ("169.254.1.1",)]):
        found = replace(answer("10.0.0.1"), refused=refused)
        looks = {
            question: Look(Freshness.FRESH, found, serial=number + 1, changes_at=1001.0 + number)
            for question in service.wanted()
        }
        service.judge(looks, 1000.0 + number)
        told += [str(event) for event in service.pop_events() if isinstance(event, Notice)]
    assert told == [
        "orders:80: addresses that no task has are refused: 169.254.1.1",
        "orders:80: none are refused now",
        "orders:80: addresses that no task has are refused: 169.254.1.1",
    ]


def test_an_overload_that_asks_for_no_pause_is_not_told():
    service = known()
    node = service.nodes[0]
    assert not any(service.push_back(node, 1000.0 + number, 0.0) for number in range(5))
    assert service.pop_events() == ()
    assert service.push_back(node, 1010.0, 1.0)


def test_a_family_of_refused_hosts_alone_is_told_while_the_other_answers():
    service = service_of("orders:80")
    error = ResolutionError("no address that a task can have", refused=("169.254.169.254",))
    for other in (error, OSError("another failure")):
        service = service_of("orders:80")
        service.judge({a(): none(other), aaaa(): fresh("fd00::1"), srv(): none()}, 1000.0)
        told = [str(event) for event in service.pop_events() if isinstance(event, Notice)]
        assert bool(told) is (other is error)
    assert hosts(service) == ["[fd00::1]:80"]


def test_a_use_of_a_certain_endpoint_begins_while_it_takes_requests():
    service = service_of(static=endpoints(2), balancing=BalancingPolicy(max_pending=2))
    node, lease = service.nodes[1], Lease(service, 1000.0)
    assert service.pick_this(node, lease) is node
    assert (node.pending, node.uses, lease.node) == (1, 1, node)
    assert service.pick_this(node) is node
    assert service.pick_this(node) is None, "it is full"
    service.release(node)
    lease.release()
    assert node.pending == 0
    service.observe(node, Outcome.CONNECT, 1000.0)
    assert service.pick_this(node) is None, "it is down"


def test_while_requests_in_flight_look_whether_its_host_is_there_an_unanswered_connect_tells_nothing():
    service = service_of(static=endpoints(2))
    node = service.nodes[0]
    service.watch(node, 1)
    service.observe(node, Outcome.UNANSWERED, 1000.0)
    assert node.health is Health.HEALTHY
    service.watch(node, -1)
    service.observe(node, Outcome.UNANSWERED, 1000.0)
    assert node.health is Health.DOWN


def test_the_time_that_connects_take_is_a_moving_average():
    service = service_of(static=endpoints(1))
    service.connected(0.1)
    assert service.connect_time == 0.1
    service.connected(0.2)
    assert service.connect_time == pytest.approx(0.12)


def test_the_child_of_a_fork_hedges_with_a_lock_of_its_own():
    service = service_of(static=endpoints(1), hedge=HedgePolicy(enabled=True))
    assert service.hedging is not None
    service.hedging._lock.acquire()
    service.reset_lock()
    assert threading_free(service.hedging._lock)


def threading_free(lock: Any) -> bool:
    """Can another thread take it?"""
    found: list[bool] = []
    thread = Thread(target=lambda: found.append(lock.acquire(blocking=False)))
    thread.start()
    thread.join()
    return found[0]


def test_an_error_of_a_missing_namespace_says_that_and_no_advice_on_ports():
    service = service_of("orders:80")
    service._hint = "no namespace is set"
    named = service._named(TargetNotFound("not found", target="a://orders", hint="is the port right?"))
    assert named.hint == "no namespace is set"
    assert "a://orders: not found" in str(named)


def test_the_advice_of_an_error_that_names_the_port_is_not_said_twice():
    service = service_of("orders:80")
    service._hint = "name a port"
    assert service._named(ResolutionError("no port", target="a://orders", hint="add a port")).hint is None
    assert service._named(ResolutionError("refused", target="a://orders", hint="allow it")).hint == "name a port"


def test_with_endpoints_that_are_all_full_it_says_what_limits_them():
    service = service_of(static=endpoints(1), balancing=BalancingPolicy(max_pending=1))
    service.pick(1000.0)
    assert service.pick(1000.0) is None
    error = service.unusable()
    assert isinstance(error, Overloaded)
    assert "max_pending" in str(error)


def test_a_family_that_is_empty_for_a_moment_keeps_its_endpoints_for_half_a_minute():
    service = service_of()
    both = {a(): fresh("10.0.0.1"), aaaa(): fresh("fd00::1"), srv(): none()}
    service.judge(both, 1000.0)
    assert hosts(service) == ["10.0.0.1:80", "[fd00::1]:80"]
    for now, serial in ((1001.0, 2), (1030.0, 3)):
        service.judge({**both, aaaa(): none(serial=serial)}, now)
        assert hosts(service) == ["10.0.0.1:80", "[fd00::1]:80"]
    service.judge({**both, aaaa(): none(serial=4)}, 1031.5)
    assert hosts(service) == ["10.0.0.1:80"]


def test_an_answer_that_was_taken_over_is_not_compared_again(monkeypatch: pytest.MonkeyPatch):
    """However often it is looked at: with thousands of endpoints each look would cost milliseconds."""
    service = service_of()
    look = fresh("10.0.0.1", "10.0.0.2")
    service.judge({a(): look, aaaa(): none(), srv(): none()}, 1000.0)
    monkeypatch.setattr(service._membership, "replace", None)
    service.judge({a(): look}, 1001.0)
    assert service.resolution is not None
    assert not service.resolution.stale
    service.judge({a(): look._replace(freshness=Freshness.STALE)}, 1002.0)
    assert service.resolution.stale
    service.judge({a(): look}, 1003.0)
    assert not service.resolution.stale


def test_an_answer_that_was_given_up_is_taken_over_anew():
    service = service_of()
    look = fresh("10.0.0.1", "10.0.0.2")
    service.judge({a(): look, aaaa(): none(), srv(): none()}, 1000.0)
    for serial, now in enumerate((1010.0, 1045.0, 1045.0, 1080.0, 1115.0), 2):
        service.judge({question: none(serial=serial) for question in service.wanted()}, now)
    assert service.nodes == ()
    service.judge({a(): look._replace(serial=9), aaaa(): none(serial=9), srv(): none(serial=9)}, 1120.0)
    assert hosts(service) == ["10.0.0.1:80", "10.0.0.2:80"]


def test_a_service_that_starts_over_knows_nothing_and_learns_anew():
    service = service_of()
    service.judge({a(): fresh("10.0.0.1"), aaaa(): none(), srv(): none()}, 1000.0)
    service.start_over(1001.0)
    assert (service.nodes, service.resolution, service.refresh_at) == ((), None, -inf)
    assert set(service.wanted()) == {a(), aaaa(), srv()}
    service.judge({a(): fresh("10.0.0.2"), aaaa(): none(), srv(): none()}, 1002.0)
    assert hosts(service) == ["10.0.0.2:80"]


def test_what_needs_no_lookup_does_not_start_over():
    service = service_of(static=endpoints(2))
    service.start_over(1001.0)
    assert len(service.nodes) == 2


def test_the_last_endpoint_stays_though_it_goes_down_and_no_answer_names_it():
    service = service_of()
    service.judge({a(): fresh("10.0.0.1"), aaaa(): none(), srv(): none()}, 1000.0)
    assert service.resolution is not None
    service.resolution = replace(service.resolution, named=frozenset({"10.0.0.9"}))
    service.observe(service.nodes[0], Outcome.CONNECT, 1001.0)
    assert service.nodes[0].health is Health.DOWN
    assert hosts(service) == ["10.0.0.1:80"]
