"""The directory: services by what the application calls them."""

from __future__ import annotations

import pytest

from ecs_discovery.config.policies import RetryPolicy, ZonePolicy
from ecs_discovery.config.settings import ServiceConfig, Settings
from ecs_discovery.core import directory as directory_module
from ecs_discovery.core.balancing.node import Outcome
from ecs_discovery.core.directory import Directory
from ecs_discovery.core.resolution.cache import Freshness
from ecs_discovery.core.service import Service
from ecs_discovery.errors import ConfigurationError, NoEndpoints, TargetNotFound
from ecs_discovery.models import Endpoint, Resolution
from tests.support import a, aaaa, answer, srv


def directory_of(**settings) -> Directory:
    made = Settings.make(environ=settings.pop("environ", {}), **settings)
    return Directory(made, lambda: 0.5, ())


def test_every_way_of_writing_a_target_is_one_service():
    directory = directory_of(namespace="prod.local")
    one = directory.service("orders:8080", None, 0.0)
    assert directory.service("orders.prod.local:8080", None, 0.0) is one
    assert directory.service("ORDERS.prod.local.:8080", 80, 0.0) is one
    assert directory.service("orders:9090", None, 0.0) is not one
    assert len(directory.services()) == 2


def test_a_url_without_a_port_is_a_service_of_its_own_per_scheme():
    directory = directory_of(namespace="prod.local")
    assert directory.service("orders", 80, 0.0) is not directory.service("orders", 443, 0.0)


def test_a_short_name_that_is_an_alias_of_the_proxy_is_not_completed():
    made = Settings.make(environ={}, namespace="prod.local")
    directory = Directory(made, lambda: 0.5, (), lambda name: name == "orders")
    assert directory.service("orders:80", None, 0.0).questions == (a(), aaaa(), srv())
    for other in ("orders.prod.local:80", "users:80"):
        name = other.partition(":")[0].partition(".")[0] + ".prod.local"
        assert directory.service(other, None, 0.0).questions[0] == a(name)
    assert directory.service("dns://orders:80", None, 0.0).questions == (
        a("orders.prod.local"),
        aaaa("orders.prod.local"),
    )


def test_services_on_different_ports_share_one_answer():
    directory = directory_of(namespace="prod.local")
    first, second = directory.service("orders:80", None, 0.0), directory.service("orders:81", None, 0.0)
    question = a("orders.prod.local")
    directory.cache.store(question, answer("10.0.0.1"), 10.0, 0.0)
    for service in directory.dependents(question):
        directory.due(service, 0.0)
    assert [str(service.nodes[0].endpoint) for service in (first, second)] == ["10.0.0.1:80", "10.0.0.1:81"]


def test_a_declared_service_is_found_under_its_short_and_its_full_name():
    directory = directory_of(
        namespace="prod.local", services={"billing": ServiceConfig("srv://pay", tls_name="pay.example")}
    )
    for target in ("billing", "billing.prod.local"):
        service = directory.service(target, None, 0.0)
        assert service.questions == (srv("pay.prod.local"),)
        assert service.tls_name == "pay.example"


def test_two_declared_services_with_one_target_are_verified_and_treated_each_in_its_own_way():
    shared = "static://10.0.0.1:443"
    directory = directory_of(
        namespace="prod.local",
        services={
            "orders": shared,
            "payments": ServiceConfig(shared, retry=RetryPolicy(attempts=1)),
            "refunds": ServiceConfig(shared, tls_name="payments.example"),
        },
    )
    orders, payments, refunds = (directory.service(name, 443, 0.0) for name in ("orders", "payments", "refunds"))
    assert [each.tls_name for each in (orders, payments, refunds)] == [
        "orders.prod.local",
        "payments.prod.local",
        "payments.example",
    ]
    assert [each.retry.attempts for each in (orders, payments, refunds)] == [3, 1, 3]
    assert directory.service(shared, 443, 0.0).tls_name == ""
    assert directory.service("orders.prod.local", 443, 0.0) is orders


def test_a_name_and_a_declared_service_that_leads_to_it_are_verified_each_by_its_own_name():
    directory = directory_of(namespace="prod.local", services={"billing": "orders:443"})
    names = [directory.service(target, None, 0.0).tls_name for target in ("orders:443", "billing:443")]
    assert names == ["orders.prod.local", "billing.prod.local"]


def test_a_cloud_map_target_is_verified_by_the_name_that_dns_would_have():
    settings = Settings.make(environ={}, services={"billing": "cloudmap://prod.local/orders"})
    directory = Directory(settings, lambda: 0.5, ("cloudmap",))
    assert directory.service("cloudmap://prod.local/orders", 443, 0.0).tls_name == "orders.prod.local"
    assert directory.service("billing", 443, 0.0).tls_name == "billing"


def test_a_wrong_declaration_is_told_at_construction():
    with pytest.raises(ConfigurationError, match="consul"):
        directory_of(services={"billing": "consul://pay"})


def test_tls_names_are_fully_qualified():
    directory = directory_of(namespace="prod.local")
    assert directory.service("orders", 443, 0.0).tls_name == "orders.prod.local"
    assert directory.service("srv://orders", 443, 0.0).tls_name == "orders.prod.local"


def test_a_plain_name_without_port_or_scheme_hints_at_the_port():
    directory = directory_of(namespace="prod.local")
    service = directory.service("orders", None, 0.0)
    directory.cache.store_negative(srv("orders.prod.local"), NoEndpoints("no SRV"), None, 0.0)
    error = directory.due(service, 0.0).error
    assert "'orders:8080'" in str(error)
    service = directory.service("dns://orders", None, 0.0)
    directory.cache.store(a("orders.prod.local"), answer("10.0.0.1"), 10.0, 0.0)
    assert "'dns://orders:8080'" in str(directory.due(service, 0.0).error)


def test_a_record_that_is_gone_leads_to_the_other_kinds_in_the_same_step():
    directory = directory_of()
    service = directory.service("orders:80", None, 0.0)
    directory.cache.store(a(), answer("10.0.0.1"), 10.0, 0.0)
    for question in (aaaa(), srv()):
        directory.cache.store_negative(question, NoEndpoints("none"), None, 0.0)
    assert directory.due(service, 0.0).error is None
    for now in (20.0, 60.0):
        directory.cache.store_negative(a(), TargetNotFound("gone"), None, now)
        due = directory.due(service, now)
    assert set(due.ask) == {aaaa(), srv()}
    assert directory.cache.lookup(a(), 60.0).freshness is Freshness.NEGATIVE


def test_switched_off_a_name_is_passed_through_as_it_is():
    directory = directory_of(namespace="prod.local", environ={"ECS_DISCOVERY_DISABLED": "1"})
    service = directory.service("orders", 80, 0.0)
    assert [str(node.endpoint) for node in service.nodes] == ["orders:80"]
    with pytest.raises(ConfigurationError, match="DISABLED"):
        directory.service("orders", None, 0.0)
    static = directory.service("static://127.0.0.1:1", None, 0.0)
    assert [str(node.endpoint) for node in static.nodes] == ["127.0.0.1:1"]


def test_the_environment_redirects_a_service():
    directory = directory_of(
        namespace="prod.local", environ={"ECS_DISCOVERY_SERVICES": "orders=static://127.0.0.1:8080,127.0.0.1:8081"}
    )
    service = directory.service("orders.prod.local", 80, 0.0)
    assert [str(node.endpoint) for node in service.nodes] == ["127.0.0.1:8080", "127.0.0.1:8081"]


def test_a_look_at_a_name_without_port_finds_it_as_it_is_in_use():
    directory = directory_of(namespace="prod.local")
    used = directory.service("orders", 80, 0.0)
    assert directory.known("orders", 0.0) is not used
    directory.cache.store(srv("orders.prod.local"), answer("10.0.0.1", port=9000), 10.0, 0.0)
    directory.due(used, 0.0)
    assert directory.known("orders", 0.0) is used
    assert directory.known("orders.prod.local", 0.0) is used
    assert directory.known("orders:80", 0.0) is not used
    assert directory.known("other", 0.0) is not used


def test_addresses_in_a_row_with_other_sources_are_one_of_the_answers():
    directory = directory_of(services={"orders": ["srv://orders", "static://10.0.0.9:80"]})
    service = directory.service("orders", None, 0.0)
    assert [str(question) for question in service.questions] == ["srv://orders", "static://10.0.0.9:80"]
    assert service.nodes == ()


def bounded(monkeypatch: pytest.MonkeyPatch, services: int, most: int) -> Directory:
    monkeypatch.setattr(directory_module, "_SERVICES", services)
    monkeypatch.setattr(directory_module, "_MOST", most)
    return directory_of(namespace="prod.local")


def used(directory: Directory, number: int, now: float) -> Service:
    """A service that is used then: one call, which succeeds."""
    service = directory.service(f"static://10.0.{number // 250}.{number % 250 + 1}:80", None, now)
    service.finish(service.pick(now), Outcome.SUCCESS, now)
    return service


def test_the_ways_to_write_services_are_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(directory_module, "_NAMES", 5)
    directory = directory_of(namespace="prod.local")
    kept = directory.service("static://127.0.0.1:1", None, 0.0)
    for spelling in ("STATIC", "Static", "sTatic", "stAtic", "staTic", "statIc", "statiC"):
        assert directory.service(f"{spelling}://127.0.0.1:1", None, 0.0) is kept
        assert len(directory.named) <= 5
        directory.service(f"{spelling}://127.0.0.1:1", 80, 0.0)
        assert len(directory._named_with_port) <= 5


def test_services_in_use_keep_their_history_when_there_are_more_of_them_than_the_bound():
    directory = directory_of()
    first = [used(directory, number, number * 0.05) for number in range(1200)]
    again = [used(directory, number, 60.0 + number * 0.05) for number in range(1200)]
    assert sum(one is not other for one, other in zip(first, again, strict=True)) == 0
    assert all(service.nodes[0].uses == 2 for service in first)


def test_services_that_are_not_used_any_more_go_until_the_bound_holds_again(monkeypatch: pytest.MonkeyPatch):
    directory = bounded(monkeypatch, 10, 30)
    for number in range(20):
        used(directory, number, 0.0)
    assert len(directory.services()) == 20
    kept = used(directory, 3, 200.0)
    for number in range(20, 40):
        used(directory, number, 301.0)
    assert len(directory.services()) == 21
    assert used(directory, 3, 302.0) is kept


def test_past_the_second_bound_the_service_goes_that_was_used_longest_ago(monkeypatch: pytest.MonkeyPatch):
    directory = bounded(monkeypatch, 10, 30)
    services = [used(directory, number, number * 2.0) for number in range(30)]
    used(directory, 0, 80.0)
    used(directory, 100, 82.0)
    assert used(directory, 0, 84.0) is services[0]
    assert len(directory.services()) <= 30
    assert services[1] not in directory.services()
    assert services[-1] in directory.services()


def test_a_service_that_is_used_after_it_was_seen_to_be_idle_stays(monkeypatch: pytest.MonkeyPatch):
    directory = bounded(monkeypatch, 10, 30)
    for number in range(12):
        used(directory, number, float(number))
    used(directory, 12, 400.0)  # looks which may go, and drops two
    used(directory, 2, 400.1)
    used(directory, 13, 400.2)
    assert {"static://10.0.0.3:80", "static://10.0.0.14:80"} <= {each.target for each in directory.services()}
    assert {"static://10.0.0.4:80"}.isdisjoint(each.target for each in directory.services())


def test_a_service_with_uses_under_way_never_goes(monkeypatch: pytest.MonkeyPatch):
    directory = bounded(monkeypatch, 3, 6)
    busy = directory.service("static://10.9.0.1:80", None, 0.0)
    assert busy.pick(0.0) is not None
    for number in range(100):
        used(directory, number, 1000.0 * number)
    assert busy in directory.services()
    assert len(directory.services()) == 3


def test_names_that_are_not_found_take_the_place_of_each_other(monkeypatch: pytest.MonkeyPatch):
    """However many a client makes up, within the time for which services in use are kept."""
    directory = bounded(monkeypatch, 10, 30)
    kept = [used(directory, number, 0.0) for number in range(8)]
    for number in range(200):
        directory.service(f"made-up-{number}:80", None, number * 1.0)
        assert len(directory.services()) <= 22
    assert set(kept) <= set(directory.services())
    assert directory.dependents(a("made-up-0.prod.local")) == ()
    assert len(directory._made) == len(directory.services())


def test_many_new_names_at_once_stay_within_the_second_bound(monkeypatch: pytest.MonkeyPatch):
    directory = bounded(monkeypatch, 10, 30)
    kept = [used(directory, number, 0.0) for number in range(8)]
    for number in range(500):
        directory.service(f"made-up-{number}:80", None, 1.0 + number * 0.001)
    assert len(directory.services()) <= 30
    assert set(kept) <= set(directory.services())


def test_dropping_one_service_leaves_others_that_share_its_questions(monkeypatch: pytest.MonkeyPatch):
    directory = bounded(monkeypatch, 2, 2)
    for port in (1, 2, 3):
        directory.service(f"orders:{port}", None, 100.0 * port)
    assert [each.target for each in directory.dependents(a("orders.prod.local"))] == ["orders:2", "orders:3"]


def test_the_child_of_a_fork_has_its_own_locks():
    directory = directory_of()
    directory.service("static://127.0.0.1:1", None, 0.0)
    directory._lock.acquire()
    directory.reset_locks()
    assert len(directory.services()) == 1
    assert repr(directory) == "<Directory 1 services, <TtlCache 0 of 10000 entries>>"


def test_answers_of_eight_are_joined_and_asked_for_more_often_while_they_name_new_ones():
    directory = directory_of()
    question = a()
    directory.store(question, answer(*(f"10.0.0.{n}" for n in range(8)), ttl=1.0), 0.0)
    assert directory.cache.lookup(question, 0.0).changes_at < 1.5
    directory.store(question, answer(*(f"10.0.0.{n}" for n in range(4, 12)), ttl=1.0), 1.2)
    look = directory.cache.lookup(question, 1.2)
    assert look.value is not None
    assert len(look.value.endpoints) == 12
    directory.store(question, TargetNotFound("gone"), 2.0)
    directory.store(question, answer(*(f"10.0.0.{n}" for n in range(4, 12)), ttl=1.0), 3.0)
    look = directory.cache.lookup(question, 3.0)
    assert look.value is not None
    assert len(look.value.endpoints) == 8
    directory.store(question, OSError("broken"), 3.0)
    assert directory.cache.lookup(question, 10.0).error is not None


def test_what_is_joined_is_bounded_and_what_was_not_asked_for_longest_goes_first(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(directory_module, "_MOST", 3)
    directory = directory_of()
    for number in range(10):
        directory.store(a("kept"), answer("10.0.0.1"), 0.0)
        directory.store(a(f"n{number}"), answer("10.0.0.1"), 0.0)
    assert len(directory._partials) == 3
    assert a("kept") in directory._partials


def test_the_own_zone_is_told_to_services_that_are_there():
    directory = directory_of(namespace="prod.local", zone=ZonePolicy(prefer=True))
    found = Resolution(tuple(Endpoint(f"10.0.0.{n}", 80, zone="ab"[n % 2]) for n in range(1, 9)), 60.0, "cloudmap")
    service = directory.service("orders:80", None, 0.0)
    for question in service.questions:
        directory.store(question, found if question == a("orders.prod.local") else NoEndpoints("none"), 0.0)
    directory.due(service, 0.0)
    for _ in range(2):  # told again it changes nothing
        directory.locate("a", 0.0)
    zones = set()
    for _ in range(100):
        node = service.pick(0.0)
        assert node is not None
        zones.add(node.endpoint.zone)
        service.release(node)
    assert zones == {"a"}


def test_a_directory_that_starts_over_has_no_answers():
    found = directory_of()
    service = found.service("orders:80", None, 1000.0)
    found.store(a("orders"), answer("10.0.0.1"), 1000.0)
    found.due(service, 1000.0)
    assert len(service.nodes) == 1
    found.start_over(1001.0)
    assert service.nodes == ()
    assert len(found.cache) == 0
    assert found.due(service, 1001.0).wait
