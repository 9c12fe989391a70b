"""Targets, policies, settings, options and errors: what is accepted, and what refusals say."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import re
import ssl
from typing import Any, ClassVar

import pytest

from ecs_discovery import errors
from ecs_discovery.config.options import Options, current_options, options
from ecs_discovery.config.policies import (
    BalancingPolicy,
    CachePolicy,
    CloudMapPolicy,
    ConnectionPolicy,
    DnsPolicy,
    HealthCheckPolicy,
    OutlierPolicy,
    RetryPolicy,
    TimeoutPolicy,
    from_environment,
)
from ecs_discovery.config.settings import ServiceConfig, Settings, disabled
from ecs_discovery.config.targets import Target, check_name, parse_host_port, parse_target
from ecs_discovery.errors import AttemptReport, ConfigurationError, ConnectError, DiscoveryError, combined
from ecs_discovery.models import Endpoint


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("orders", Target("auto", "orders")),
        ("Orders.Prod.Local.", Target("auto", "orders.prod.local")),
        ("orders:8080", Target("auto", "orders", 8080)),
        ("srv://orders", Target("srv", "orders")),
        ("SRV://_http._tcp.orders", Target("srv", "_http._tcp.orders")),
        ("dns://orders:80", Target("dns", "orders", 80)),
        ("static://127.0.0.1:1", Target("static", "127.0.0.1:1", None, (Endpoint("127.0.0.1", 1),))),
        (
            "static://[::1]:1, 10.0.0.1:2,[::1]:1",
            Target("static", "[::1]:1,10.0.0.1:2", None, (Endpoint("::1", 1), Endpoint("10.0.0.1", 2))),
        ),
        ("cloudmap://prod.local/Orders", Target("cloudmap", "prod.local/Orders")),
        ("cloudmap://team/prod/orders?port=80&owner=123456789012&health=healthy-or-else-all&ECS_CLUSTER_NAME=a%26b",
         Target("cloudmap", "team/prod/orders", 80, (),
                (("ECS_CLUSTER_NAME", "a&b"), ("health", "HEALTHY_OR_ELSE_ALL"), ("owner", "123456789012")))),
        ("file://a/b?x=1", Target("file", "a/b", None, (), (("x", "1"),))),
    ],
)  # fmt: skip
def test_targets_are_taken_apart(text: str, target: Target):
    assert parse_target(text) == target


@pytest.mark.parametrize(
    "text",
    [
        "", ".", "-a", "a-", "a..b", "a b", "ä", "a" * 64, ".".join(["a" * 60] * 5), "a:0", "a:65536", "a:-1", "a:8o",
        "a:٣", "a:" + "9" * 5000, "a:000001234567", "a:000080",
        "srv://a:80", "static://", "static://a:80", "static://127.0.0.1", "http://a", "file://",
        "static://127.0.0.1:99999", "dns://", None, 5, b"a", "cloudmap://", "cloudmap://orders", "cloudmap://a/",
        "cloudmap:///a", "cloudmap://a/b?health=fine", "cloudmap://a/b?port=0", "cloudmap://a/b?port=x",
        "cloudmap://a/b?owner=1", "cloudmap://a/b?x=1&x=2", "cloudmap://a/b?=1", "cloudmap://a/b?optional.=1",
    ],
)  # fmt: skip
def test_what_is_no_target_is_refused(text: Any):
    with pytest.raises(ConfigurationError) as caught:
        parse_target(text)
    assert caught.value.field == "target"
    assert caught.value.allowed


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("127.0.0.1:5353", ("127.0.0.1", 5353)),
        ("10.0.0.2", ("10.0.0.2", 53)),
        ("[::1]:54", ("::1", 54)),
        ("::1", ("::1", 53)),
    ],
)
def test_addresses_with_ports(text: str, pair: tuple[str, int]):
    assert parse_host_port("nameserver", text, 53) == pair


def test_targets_that_mean_the_same_are_asked_as_one():
    one, other = parse_target("cloudmap://a/b?y=2&x=1%202&port=1"), parse_target("cloudmap://a/b?x=1%202&y=2")
    assert one.asked == other.asked == "a/b?x=1%202&y=2"
    assert parse_target(f"cloudmap://{one.asked}") == other


def test_names_are_normalised():
    assert check_name("namespace", "Prod.Local.") == "prod.local"


def test_endpoints_print_as_they_are_written():
    assert str(Endpoint("::1", 80)) == "[::1]:80"
    assert Endpoint("::1", 80, instance_id="x").key == ("::1", 80, "x")


@pytest.mark.parametrize(
    ("policy", "field", "value"),
    [
        (RetryPolicy, "attempts", 0),
        (RetryPolicy, "attempts", True),
        (RetryPolicy, "attempts", 2.5),
        (RetryPolicy, "budget", -0.1),
        (RetryPolicy, "statuses", (200,)),
        (RetryPolicy, "statuses", "503"),
        (CachePolicy, "min_ttl", "5"),
        (CachePolicy, "jitter", 1.1),
        (CachePolicy, "min_ttl", 100.0),
        (OutlierPolicy, "eject_min", 400.0),
        (OutlierPolicy, "is_failure", "ValueError"),
        (DnsPolicy, "nameservers", ("dns.example",)),
        (DnsPolicy, "nameservers", "127.0.0.1"),
        (DnsPolicy, "families", ("a", "a")),
        (DnsPolicy, "families", ()),
        (DnsPolicy, "search", 1),
        (TimeoutPolicy, "deadline", float("nan")),
        (ConnectionPolicy, "max_idle", 0),
        (BalancingPolicy, "full_scan", 1),
        (CloudMapPolicy, "poll", 0),
        (CloudMapPolicy, "health", "healthy"),
        (CloudMapPolicy, "families", ("a",)),
        (CloudMapPolicy, "default_port", 0),
        (CloudMapPolicy, "allowed_networks", ("169.254.0.1/16",)),
        (DnsPolicy, "allowed_networks", ("everything",)),
        (DnsPolicy, "allowed_networks", "169.254.0.0/16"),
        (DnsPolicy, "allowed_networks", (1,)),
        (DnsPolicy, "hosts_file", "/etc/hosts\0"),
        (DnsPolicy, "hosts_file", None),
        (CloudMapPolicy, "default_port", True),
        (CloudMapPolicy, "region", None),
        (HealthCheckPolicy, "kind", "https"),
        (HealthCheckPolicy, "path", "health"),
        (HealthCheckPolicy, "path", "/a b"),
        (HealthCheckPolicy, "path", "/a\r\nX: y"),
        (HealthCheckPolicy, "path", "/a\n"),
        (HealthCheckPolicy, "path", "/#a"),
        (HealthCheckPolicy, "path", "/\u00e4"),
        (HealthCheckPolicy, "path", b"/"),
        (HealthCheckPolicy, "statuses", ""),
        (HealthCheckPolicy, "statuses", "200-"),
        (HealthCheckPolicy, "statuses", "299-200"),
        (HealthCheckPolicy, "statuses", "100-200"),
        (HealthCheckPolicy, "statuses", "2xx"),
        (HealthCheckPolicy, "statuses", 200),
        (HealthCheckPolicy, "interval", 0),
        (HealthCheckPolicy, "jitter", 0.6),
        (HealthCheckPolicy, "unhealthy_after", 0),
    ],
)
def test_a_policy_refuses_what_it_cannot_use(policy: type, field: str, value: Any):
    with pytest.raises(ConfigurationError, match=f"{policy.__name__}.{field}") as caught:
        policy(**{field: value})
    assert caught.value.value is value
    assert caught.value.allowed in str(caught.value)


@pytest.mark.parametrize("policy", [CachePolicy, DnsPolicy, OutlierPolicy, RetryPolicy, TimeoutPolicy])
def test_policies_are_values(policy: type):
    assert policy() == policy()
    assert hash(policy()) == hash(policy())
    assert pickle.loads(pickle.dumps(policy())) == policy()
    with pytest.raises(TypeError):
        policy(1)
    first = dataclasses.fields(policy())[0].name
    assert dataclasses.replace(policy()) == copy.deepcopy(policy()) == policy()
    for change in (lambda made: setattr(made, first, 1), lambda made: delattr(made, first)):
        with pytest.raises(dataclasses.FrozenInstanceError):
            change(policy())


def test_a_policy_derived_from_another_has_its_fields_and_rules():
    class OurRetry(RetryPolicy):
        KIND: ClassVar[str] = "ours"

    assert OurRetry().attempts == RetryPolicy().attempts
    assert pickle.loads(pickle.dumps(RetryPolicy(attempts=2))).attempts == OurRetry(attempts=2).attempts == 2
    with pytest.raises(ConfigurationError, match=r"OurRetry\.attempts"):
        OurRetry(attempts=0)


def test_help_names_the_fields_of_a_policy_and_their_defaults():
    shown = inspect.signature(RetryPolicy).parameters
    assert list(shown)[:2] == ["attempts", "backoff_min"]
    assert (shown["attempts"].default, shown["attempts"].kind) == (3, inspect.Parameter.KEYWORD_ONLY)


def test_a_misspelt_field_of_a_policy_is_told_with_the_name_that_was_meant():
    with pytest.raises(
        ConfigurationError, match="unknown setting 'attemps' of RetryPolicy; did you mean 'attempts'"
    ) as e:
        RetryPolicy(attemps=3)  # type: ignore[call-arg]
    assert (e.value.field, e.value.value) == ("RetryPolicy.attemps", 3)


@pytest.mark.parametrize("wrong", [["abc"], ["10.0.0.2", "10.0.0.2:x"], [5], 5])
def test_wrong_nameservers_are_named_as_they_were_written(wrong: Any):
    with pytest.raises(ConfigurationError, match=r"^nameservers is") as caught:
        Settings.make(nameservers=wrong, environ={})
    assert caught.value.value is wrong
    with pytest.raises(ConfigurationError, match=r"^ECS_DISCOVERY_NAMESERVERS is 'abc'"):
        Settings.make(environ={"ECS_DISCOVERY_NAMESERVERS": "abc"})


@pytest.mark.parametrize(
    ("variable", "text", "made"),
    [
        ("RETRY_ATTEMPTS", "2", RetryPolicy(attempts=2)),
        ("RETRY_STATUSES", "503, 429", RetryPolicy(statuses=(429, 503))),
        ("CACHE_MIN_TTL", "0.5", CachePolicy(min_ttl=0.5)),
        ("DNS_FAMILIES", "a", DnsPolicy(families=("a",))),
        ("DNS_HOSTS_FILE", "", DnsPolicy(hosts_file="")),
        ("DNS_SEARCH", "true", DnsPolicy(search=True)),
        ("DNS_SEARCH", "0", DnsPolicy(search=False)),
        ("TIMEOUT_CONNECT", "1", TimeoutPolicy(connect=1)),
        ("HEALTHCHECK_KIND", "http", HealthCheckPolicy(kind="http")),
        ("HEALTHCHECK_PATH", "/healthz?full=1", HealthCheckPolicy(path="/healthz?full=1")),
        ("HEALTHCHECK_STATUSES", "200-299, 304", HealthCheckPolicy(statuses="200-299, 304")),
        ("HEALTHCHECK_UNHEALTHY_AFTER", "2", HealthCheckPolicy(unhealthy_after=2)),
        ("BALANCING_PICKER", "round_robin", BalancingPolicy(picker="round_robin")),
        ("CLOUDMAP_HEALTH", "healthy", CloudMapPolicy(health="HEALTHY")),
    ],
)
def test_policies_are_read_from_the_environment(variable: str, text: str, made: Any):
    assert from_environment(type(made), {f"ECS_DISCOVERY_{variable}": text}) == made


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("ECS_DISCOVERY_RETRY_ATTEMPTS", "many"),
        ("ECS_DISCOVERY_RETRY_ATTEMPTS", "0"),
        ("ECS_DISCOVERY_RETRY_STATUSES", "x"),
        ("ECS_DISCOVERY_CACHE_MAX_TTL", ""),
        ("ECS_DISCOVERY_OUTLIER_IS_FAILURE", "lambda"),
        ("ECS_DISCOVERY_NAMESPACE", "a..b"),
        ("ECS_DISCOVERY_NAMESERVERS", "resolver"),
        ("ECS_DISCOVERY_SERVICES", "orders"),
        ("ECS_DISCOVERY_SERVICES", "or ders=static://127.0.0.1:1"),
        ("ECS_DISCOVERY_SERVICES", "orders=static://nowhere"),
        ("ECS_DISCOVERY_DISABLED", "maybe"),
    ],
)
def test_a_variable_that_cannot_be_used_is_refused_at_construction(variable: str, text: str):
    with pytest.raises(ConfigurationError) as caught:
        Settings.make(environ={variable: text})
    assert caught.value.field in (variable, "nameserver", "target", "DnsPolicy.nameservers")


def test_arguments_go_before_variables_and_variables_before_defaults():
    environ = {
        "ECS_DISCOVERY_NAMESPACE": "env.local",
        "ECS_DISCOVERY_NAMESERVERS": "127.0.0.1:1, 127.0.0.1:2",
        "ECS_DISCOVERY_RETRY_ATTEMPTS": "7",
    }
    made = Settings.make(environ=environ)
    assert (made.namespace, made.dns.nameservers, made.retry.attempts) == (
        "env.local", ("127.0.0.1:1", "127.0.0.1:2"), 7,
    )  # fmt: skip
    made = Settings.make(
        environ=environ, namespace="arg.local", nameservers=["127.0.0.1:3"], retry=RetryPolicy(attempts=2)
    )
    assert (made.namespace, made.dns.nameservers, made.retry.attempts) == ("arg.local", ("127.0.0.1:3",), 2)
    made = Settings.make(environ=environ, dns=DnsPolicy(nameservers=("127.0.0.1:4",)))
    assert made.dns.nameservers == ("127.0.0.1:4",)


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("ECS_DISCOVERY_RETRY_ATTEMTPS", "; is ECS_DISCOVERY_RETRY_ATTEMPTS meant?"),
        ("ECS_DISCOVERY_NAMESPCE", "; is ECS_DISCOVERY_NAMESPACE meant?"),
        ("ECS_DISCOVERY_X", ""),
    ],
)
def test_a_variable_that_means_nothing_is_warned_of(variable: str, meant: str):
    with pytest.warns(UserWarning, match=f"{variable} means nothing to ecs_discovery{re.escape(meant)}$"):
        Settings.make(environ={variable: "2"})


def test_the_environment_redirects_services_and_keeps_their_tls_name():
    made = Settings.make(
        services={"orders": ServiceConfig("srv://orders", tls_name="orders.example"), "users": "srv://users"},
        environ={"ECS_DISCOVERY_SERVICES": "orders=static://127.0.0.1:1,127.0.0.1:2; new=static://127.0.0.1:3\n"},
    )
    config = made.config("orders")
    assert config is not None
    assert (config.sources, config.tls_name) == (("static://127.0.0.1:1,127.0.0.1:2",), "orders.example")
    assert [name for name, _ in made.services] == ["new", "orders", "users"]


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("orders", True), ("orders.prod.local", True), ("a.orders.prod.local", True), ("ORDERS.Prod.Local.", True),
        ("billing", True), ("localhost", False), ("prod.local", False), ("evilprod.local", False),
        ("orders.prod.local.evil.com", False), ("127.0.0.1", False), ("[::1]", False), ("::1", False), ("", False),
        ("example.com", False),
    ],
)  # fmt: skip
def test_what_is_ours(host: str, ours: bool):
    made = Settings.make(namespace="prod.local", services={"billing": "srv://pay"}, environ={})
    assert made.owns(host) is ours


def test_without_a_namespace_only_declared_services_are_ours():
    made = Settings.make(services={"billing": "srv://pay"}, environ={})
    assert made.owns("billing")
    assert not made.owns("orders")
    assert made.qualified("orders") == "orders"
    assert made.short("orders.x") == "orders.x"


@pytest.mark.parametrize(
    ("text", "off"), [("1", True), ("True", True), ("yes", True), ("", False), ("0", False), ("no", False)]
)
def test_the_off_switch(text: str, off: bool):
    assert disabled({"ECS_DISCOVERY_DISABLED": text}) is off


@pytest.mark.parametrize(
    "make",
    [
        lambda: ServiceConfig([]),
        lambda: ServiceConfig("srv://a:1"),
        lambda: ServiceConfig("srv://a", tls_name="a b"),
        lambda: ServiceConfig("srv://a", retry=3),  # type: ignore[arg-type]
        lambda: Settings.make(services=["orders"], environ={}),  # type: ignore[arg-type]
        lambda: Settings.make(services={"a b": "srv://a"}, environ={}),
    ],
)
def test_services_that_cannot_be_used_are_refused(make: Any):
    with pytest.raises(ConfigurationError):
        make()


def test_settings_are_values():
    made = Settings.make(namespace="prod.local", services={"billing": ["srv://pay", "dns://pay:80"]}, environ={})
    assert pickle.loads(pickle.dumps(made)) == made
    assert hash(made) == hash(pickle.loads(pickle.dumps(made)))
    assert [target.scheme for target in made.services[0][1].targets] == ["srv", "dns"]


def test_options_nest_and_end_with_their_block():
    with options(deadline=2, key="ann"):
        with options(idempotent=True, deadline=1):
            assert current_options() == Options(1, True, "ann")
        assert current_options() == Options(2, None, "ann")
    assert current_options() == Options()


@pytest.mark.parametrize("given", [{"deadline": 0}, {"deadline": True}, {"idempotent": 1}, {"key": 5}])
def test_options_of_the_wrong_kind_are_refused(given: dict[str, Any]):
    with pytest.raises(ConfigurationError, match="options"), options(**given):
        pass


EVERY = [
    getattr(errors, name)
    for name in errors.__all__
    if isinstance(getattr(errors, name), type) and issubclass(getattr(errors, name), Exception)
]


@pytest.mark.parametrize("kind", EVERY)
def test_every_error_is_ours_pickles_and_keeps_its_causes_text(kind: type):
    if kind is ConfigurationError:
        error = ConfigurationError("retry", object(), "a RetryPolicy")
        assert "retry is <object" in str(pickle.loads(pickle.dumps(error)))
        return
    report = AttemptReport("10.0.0.1:80", "connect", 0.012, "refused")
    error = kind("failed", target="orders:80", attempts=[report], hint="look at the task")
    error.__cause__ = OSError(111, "refused")
    twin = pickle.loads(pickle.dumps(error))
    assert isinstance(twin, DiscoveryError)
    assert type(twin) is kind
    assert (twin.target, twin.attempts, twin.hint, twin.endpoints) == (
        "orders:80", (report,), "look at the task", ("10.0.0.1:80",),
    )  # fmt: skip
    assert "ConnectionRefusedError" in twin.cause_text
    assert str(error) == "orders:80: failed [10.0.0.1:80 connect after 12 ms: refused] (look at the task)"
    assert str(twin).startswith(str(error))
    assert "caused by ConnectionRefusedError" in str(twin)


@pytest.mark.parametrize("theirs", [OSError, TimeoutError, ssl.SSLError, LookupError])
def test_an_error_can_also_be_a_librarys_own(theirs: type[BaseException]):
    kind = combined(ConnectError, theirs)
    assert combined(ConnectError, theirs) is kind
    error = kind("failed", target="orders")
    twin = pickle.loads(pickle.dumps(error))
    assert isinstance(twin, theirs)
    assert isinstance(twin, ConnectError)
    assert type(twin) is kind
    assert str(twin) == "orders: failed"


def test_an_error_needs_no_more_than_a_message():
    assert str(DiscoveryError("plain")) == "plain"
    assert str(AttemptReport("10.0.0.1:80", "ok", 0.5)) == "10.0.0.1:80 ok after 500 ms"
