"""Cloud Map: what is asked, what answers and errors come to, and when all is asked for. Over a client that is told
what to answer; `test_cloud_map_servers` has real ones."""

from __future__ import annotations

import asyncio
import logging
import pickle
import threading
import time
from collections.abc import Callable
from typing import Any

import botocore.exceptions
import pytest

from ecs_discovery import CloudMapPolicy, ConfigurationError, Endpoint, Question, Resolution
from ecs_discovery.core.rate_limiter import RateLimiter
from ecs_discovery.errors import NoEndpoints, ResolutionError, ResolutionTimeout, TargetNotFound
from ecs_discovery.resolvers import AsyncCloudMapResolver, CloudMapResolver
from ecs_discovery.resolvers.base import Remembering
from ecs_discovery.resolvers.cloud_map import sync as module
from ecs_discovery.resolvers.cloud_map.instances import error_code
from tests.cloud_map import FakeClient, client_error, instance
from tests.support import FakeClock, eventually

ORDERS = Question("cloudmap", "prod.local/orders")
Ask = Callable[..., Resolution]


@pytest.fixture(params=["threads", "asyncio"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Asks a resolver, from a thread or from a task."""

    def asked(resolver: CloudMapResolver, name: str = "prod.local/orders", timeout: float = 10.0) -> Resolution:
        question = Question("cloudmap", name)
        if request.param == "threads":
            return resolver.resolve(question, timeout)
        return asyncio.run(AsyncCloudMapResolver(share=resolver).resolve(question, timeout))

    return asked


def resolver_of(client: Any, clock: Callable[[], float] | None = None, **policy: Any) -> CloudMapResolver:
    return CloudMapResolver(CloudMapPolicy(**policy), client=client, clock=clock or FakeClock())


@pytest.mark.parametrize(
    ("name", "policy", "parameters"),
    [
        ("prod.local/orders", {}, {}),
        ("prod.local/orders", {"health": "ALL"}, {"HealthStatus": "ALL"}),
        ("prod.local/orders?health=healthy", {"health": "ALL"}, {"HealthStatus": "HEALTHY"}),
        ("prod.local/orders?ECS_CLUSTER_NAME=blue&x=", {}, {"QueryParameters": {"ECS_CLUSTER_NAME": "blue", "x": ""}}),
        (
            "prod.local/orders?optional.AVAILABILITY_ZONE=us-east-1a",
            {},
            {"OptionalParameters": {"AVAILABILITY_ZONE": "us-east-1a"}},
        ),
        ("prod.local/orders?owner=123456789012", {}, {"OwnerAccount": "123456789012"}),
        ("a/b/orders?port=80&x=1%262", {}, {"NamespaceName": "a/b", "QueryParameters": {"x": "1&2"}}),
    ],
)
def test_what_is_asked(name: str, policy: dict[str, Any], parameters: dict[str, Any]):
    client = FakeClient(instance(AWS_INSTANCE_IPV4="10.0.0.1"))
    resolver_of(client, **policy).resolve(Question("cloudmap", name), 10)
    usual = {
        "NamespaceName": "prod.local",
        "ServiceName": "orders",
        "MaxResults": 1000,
        "HealthStatus": "HEALTHY_OR_ELSE_ALL",
    }
    assert client.calls == [("full", {**usual, **parameters})]


def test_a_check_names_the_service_and_its_owner_only():
    client = FakeClient(instance(AWS_INSTANCE_IPV4="10.0.0.1"))
    resolver = resolver_of(client)
    question = Question("cloudmap", "prod.local/orders?owner=123456789012&x=1&health=ALL")
    resolver.resolve(question, 10)
    resolver.resolve(question, 10)
    assert client.calls[1] == (
        "revision",
        {"NamespaceName": "prod.local", "ServiceName": "orders", "OwnerAccount": "123456789012"},
    )


def test_what_is_no_cloud_map_target_is_refused(ask: Ask):
    with pytest.raises(ConfigurationError, match="namespace/service"):
        ask(resolver_of(FakeClient()), "orders")


def test_an_instance_becomes_an_endpoint_with_all_that_is_known_of_it(ask: Ask):
    client = FakeClient(
        instance(
            "0a1b",
            "UNHEALTHY",
            AWS_INSTANCE_IPV4="10.0.0.1",
            AWS_INSTANCE_PORT="8080",
            AVAILABILITY_ZONE="us-east-1a",
            ECS_CLUSTER_NAME="blue",
            ECS_SERVICE_NAME="orders",
            ECS_TASK_DEFINITION_FAMILY="orders-v2",
            ECS_TASK_SET_EXTERNAL_ID="set-1",
            REGION="us-east-1",
            EC2_INSTANCE_ID="i-1",
        )
    )
    assert ask(resolver_of(client)) == Resolution(
        (
            Endpoint(
                "10.0.0.1",
                8080,
                zone="us-east-1a",
                instance_id="0a1b",
                attributes=(
                    ("cluster", "blue"),
                    ("service", "orders"),
                    ("family", "orders-v2"),
                    ("task_set", "set-1"),
                    ("region", "us-east-1"),
                    ("health", "UNHEALTHY"),
                ),
            ),
        ),
        5.0,
        "cloudmap",
    )


@pytest.mark.parametrize(
    ("attributes", "families", "found"),
    [
        ({"AWS_INSTANCE_IPV4": "10.0.0.1"}, ("ipv4", "ipv6"), "10.0.0.1:0"),
        ({"AWS_INSTANCE_IPV6": "fd00::1"}, ("ipv4", "ipv6"), "[fd00::1]:0"),
        ({"AWS_INSTANCE_IPV6": "FD00:0::1", "AWS_INSTANCE_PORT": "1"}, ("ipv6",), "[fd00::1]:1"),
        ({"AWS_INSTANCE_IPV4": "10.0.0.1", "AWS_INSTANCE_IPV6": "fd00::1"}, ("ipv4", "ipv6"), "10.0.0.1:0"),
        ({"AWS_INSTANCE_IPV4": "10.0.0.1", "AWS_INSTANCE_IPV6": "fd00::1"}, ("ipv6", "ipv4"), "[fd00::1]:0"),
        ({"AWS_INSTANCE_IPV4": "10.0.0.1"}, ("ipv6",), None),
        ({"AWS_INSTANCE_IPV4": "fd00::1"}, ("ipv4",), None),
        ({"AWS_INSTANCE_IPV4": "0.0.0.0"}, ("ipv4",), None),
        ({"AWS_INSTANCE_IPV4": "orders.evil"}, ("ipv4",), None),
        ({"AWS_INSTANCE_IPV4": "10.0.0.1\r\nX: y"}, ("ipv4",), None),
        ({"AWS_INSTANCE_IPV4": 5}, ("ipv4",), None),
        ({"AWS_INSTANCE_IPV6": "fe80::1%eth0"}, ("ipv6",), None),
        ({"AWS_INSTANCE_IPV6": "::ffff:224.0.0.1"}, ("ipv6",), None),
        ({"AWS_INSTANCE_CNAME": "orders.example"}, ("ipv4", "ipv6"), None),
        *(
            ({"AWS_INSTANCE_IPV4": "10.0.0.1", "AWS_INSTANCE_PORT": port}, ("ipv4",), None)
            for port in ("0", "65536", "-1", "8080 ", "", "http", "٣", "9" * 5000, "000001234567", "000080")
        ),
    ],
)
def test_addresses_and_ports(attributes: dict[str, Any], families: tuple[str, ...], found: str | None):
    resolver = resolver_of(FakeClient(instance(**attributes)), families=families)
    if found is not None:
        assert [str(endpoint) for endpoint in resolver.resolve(ORDERS, 10).endpoints] == [found]
    else:
        with pytest.raises(NoEndpoints, match="none of its 1 instances"):
            resolver.resolve(ORDERS, 10)


def test_of_a_hundred_thousand_instances_as_many_as_an_answer_can_hold_are_taken():
    many = [instance(f"t{n}", AWS_INSTANCE_IPV4=f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}") for n in range(100_000)]
    found = resolver_of(FakeClient(*many)).resolve(ORDERS, 10)
    assert len(found.endpoints) == 1000
    assert found.partial


def test_values_that_ecs_would_not_have_registered_are_not_kept():
    good = {"AWS_INSTANCE_IPV4": "10.0.0.1", "ECS_SERVICE_NAME": "x" * 1_000_000, "ECS_CLUSTER_NAME": "blue"}
    client = FakeClient(instance("t1", **good), instance("t" * 65, **good), instance("t2", "H" * 1_000_000, **good))
    found = resolver_of(client).resolve(ORDERS, 10).endpoints
    assert [(each.instance_id, dict(each.attributes)) for each in found] == [
        ("t1", {"cluster": "blue", "health": "HEALTHY"}),
        ("t2", {"cluster": "blue"}),
    ]


@pytest.mark.parametrize("wrong", [None, "x", {}, {"InstanceId": 5}, {"InstanceId": "a", "Attributes": "b"}])
def test_what_makes_no_sense_is_left_out(wrong: Any):
    client = FakeClient(wrong, instance("t2", AWS_INSTANCE_IPV4="10.0.0.2"))
    assert [endpoint.host for endpoint in resolver_of(client).resolve(ORDERS, 10).endpoints] == ["10.0.0.2"]


def test_instances_come_in_one_order_and_the_last_registration_of_each_counts():
    first = instance("a", AWS_INSTANCE_IPV4="10.0.0.1")
    again = instance("a", AWS_INSTANCE_IPV4="10.0.0.9")
    other = instance("b", AWS_INSTANCE_IPV4="10.0.0.2")
    found = resolver_of(FakeClient(other, first, again)).resolve(ORDERS, 10)
    assert [endpoint.host for endpoint in found.endpoints] == ["10.0.0.9", "10.0.0.2"]


@pytest.mark.parametrize(("count", "partial"), [(999, False), (1000, True)])
def test_an_answer_that_is_full_may_be_partial(count: int, partial: bool):
    client = FakeClient(*(instance(f"t{n}", AWS_INSTANCE_IPV4=f"10.0.{n // 250}.{n % 250}") for n in range(count)))
    assert resolver_of(client).resolve(ORDERS, 10).partial is partial


def test_an_empty_answer_is_no_endpoints_and_says_why(ask: Ask):
    with pytest.raises(NoEndpoints, match="no such instances now") as caught:
        ask(resolver_of(FakeClient()))
    assert caught.value.target == "cloudmap://prod.local/orders"
    assert "registered" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (client_error("ServiceNotFound"), TargetNotFound, "no such service.*spelling"),
        (client_error("NamespaceNotFound"), TargetNotFound, "no such namespace.*spelling"),
        (client_error("RequestLimitExceeded"), ResolutionError, "throttles.*quota"),
        (client_error("ThrottlingException"), ResolutionError, "throttles.*quota"),
        (client_error("AccessDeniedException"), ResolutionError, "grant the task role servicediscovery:DiscoverInst"),
        (client_error("ExpiredTokenException"), ResolutionError, "credentials"),
        (client_error("InvalidInput"), ResolutionError, "answered InvalidInput"),
        (client_error("InternalFailure", 500), ResolutionError, "answered InternalFailure"),
        (botocore.exceptions.NoCredentialsError(), ResolutionError, "give the task a role"),
        (botocore.exceptions.NoRegionError(), ResolutionError, "AWS_REGION"),
        (botocore.exceptions.EndpointConnectionError(endpoint_url="http://x"), ResolutionError, "VPC endpoint"),
        (botocore.exceptions.ConnectTimeoutError(endpoint_url="http://x"), ResolutionTimeout, "in time.*VPC endpoint"),
        (botocore.exceptions.ReadTimeoutError(endpoint_url="http://x"), ResolutionTimeout, "in time"),
        (botocore.exceptions.ParamValidationError(report="x"), ResolutionError, "too old"),
        (ValueError("no JSON"), ResolutionError, "ValueError: no JSON"),
    ],
    ids=lambda value: error_code(value) or type(value).__name__,
)
def test_errors_keep_their_cause_and_say_what_to_do(ask: Ask, error: Exception, kind: type[Exception], text: str):
    client = FakeClient()
    client.instances = error
    with pytest.raises(ResolutionError, match=text) as caught:
        ask(resolver_of(client))
    assert type(caught.value) is kind
    assert caught.value.__cause__ is error
    assert caught.value.target == "cloudmap://prod.local/orders"
    assert type(error).__name__ in pickle.loads(pickle.dumps(caught.value)).cause_text


@pytest.mark.parametrize("response", [None, "x", {"Error": "x"}, {"Error": {"Code": 5}}])
def test_an_error_that_only_looks_like_an_answer_is_none(response: Any):
    client = FakeClient()
    client.instances = error = ValueError("odd")
    error.response = response  # type: ignore[attr-defined]
    with pytest.raises(ResolutionError, match="could not be asked: ValueError: odd"):
        resolver_of(client).resolve(ORDERS, 10)


# When all is asked for


@pytest.fixture
def client() -> FakeClient:
    return FakeClient(instance(AWS_INSTANCE_IPV4="10.0.0.1"))


def polled(resolver: CloudMapResolver, client: FakeClient) -> str:
    """What one more lookup asks for."""
    before = len(client.calls)
    resolver.resolve(ORDERS, 10)
    return " ".join(client.operations[before:])


def test_polls_look_at_the_revision_and_ask_for_all_every_30_seconds(client: FakeClient, clock: FakeClock):
    resolver = resolver_of(client, clock)
    seen = []
    for _ in range(13):
        seen.append(polled(resolver, client))
        clock.advance(5)
    assert seen == ["full", *["revision"] * 4] * 2 + ["full", "revision", "revision"]


def test_an_unchanged_revision_answers_what_was_answered(ask: Ask, client: FakeClient, clock: FakeClock):
    resolver = resolver_of(client, clock)
    first = ask(resolver)
    client.instances = []
    assert ask(resolver) is first


@pytest.mark.parametrize("revision", [0, 2])
def test_another_revision_higher_or_lower_asks_for_all(client: FakeClient, clock: FakeClock, revision: int):
    resolver = resolver_of(client, clock)
    polled(resolver, client)
    client.revision = revision
    assert [polled(resolver, client) for _ in range(2)] == ["revision full", "revision"]


def test_revisions_in_answers_that_are_not_the_services_cost_one_full_call(client: FakeClient, clock: FakeClock):
    """Moto's answers have the revision of what they show, which an attribute may cut down."""
    client.inside = 77
    resolver = resolver_of(client, clock)
    assert [polled(resolver, client) for _ in range(4)] == ["full", "revision full", "revision", "revision"]


@pytest.mark.parametrize("told", [None, "7"])
def test_without_a_revision_that_makes_sense_all_is_asked_for(client: FakeClient, clock: FakeClock, told: Any):
    resolver = resolver_of(client, clock)
    polled(resolver, client)
    client.revision = told
    assert [polled(resolver, client) for _ in range(2)] == ["revision full", "full"]


def test_a_change_of_health_alone_is_seen_within_35_seconds(client: FakeClient, clock: FakeClock):
    resolver = resolver_of(client, clock)
    polled(resolver, client)
    client.instances = [instance(health="UNHEALTHY", AWS_INSTANCE_IPV4="10.0.0.1")]
    began = clock()
    while ("health", "UNHEALTHY") not in resolver.resolve(ORDERS, 10).endpoints[0].attributes:
        clock.advance(5.5)
    assert clock() - began <= 35


def test_each_target_has_a_memory_of_its_own(client: FakeClient, clock: FakeClock):
    resolver = resolver_of(client, clock)
    for name in ("prod.local/orders", "prod.local/orders?x=1", "prod.local/other"):
        resolver.resolve(Question("cloudmap", name), 10)
    assert client.operations == ["full"] * 3


def test_a_forgotten_answer_is_asked_for_as_a_whole(client: FakeClient, clock: FakeClock):
    resolver = resolver_of(client, clock)
    polled(resolver, client)
    asynchronous = AsyncCloudMapResolver(share=resolver)
    assert isinstance(resolver, Remembering)
    assert isinstance(asynchronous, Remembering)
    asynchronous.forget(ORDERS)
    assert [polled(resolver, client) for _ in range(2)] == ["full", "revision"]


def test_forgetting_reaches_a_look_up_under_way(client: FakeClient, clock: FakeClock):
    resolver = resolver_of(client, clock)
    polled(resolver, client)

    def revision() -> int:
        resolver.forget(ORDERS)
        return 1

    client.revision = revision
    client.inside = 1
    assert polled(resolver, client) == "revision full"


@pytest.mark.parametrize("error", [ValueError("garbage"), botocore.exceptions.ReadTimeoutError(endpoint_url="x")])
def test_after_a_look_at_the_revision_that_got_no_answer_all_is_asked_for(
    client: FakeClient, clock: FakeClock, error: Exception
):
    resolver = resolver_of(client, clock)
    polled(resolver, client)
    client.revision = error
    client.inside = 1
    with pytest.raises(ResolutionError):
        resolver.resolve(ORDERS, 10)
    assert polled(resolver, client) == "full"


def test_after_any_failure_all_is_asked_for(client: FakeClient, clock: FakeClock):
    resolver = resolver_of(client, clock)
    for trouble in (client_error("InternalFailure", 500), []):
        polled(resolver, client)
        clock.advance(26)
        good, client.instances = client.instances, trouble
        with pytest.raises(ResolutionError):
            resolver.resolve(ORDERS, 10)
        client.instances = good
        assert polled(resolver, client) == "full"


def test_a_revision_that_the_api_fails_to_tell_is_done_without_at_once(client: FakeClient, clock: FakeClock):
    resolver = resolver_of(client, clock)
    polled(resolver, client)
    client.inside = 1
    client.revision = client_error("InternalFailure", 500)
    assert polled(resolver, client) == "revision full"


def test_a_throttled_look_at_the_revision_does_not_turn_to_the_smaller_quota(client: FakeClient, clock: FakeClock):
    resolver = resolver_of(client, clock)
    polled(resolver, client)
    client.revision = client_error("RequestLimitExceeded")
    with pytest.raises(ResolutionError, match="throttles"):
        resolver.resolve(ORDERS, 10)
    client.revision = 1
    assert [polled(resolver, client)] == ["revision"]


def test_a_throttled_full_call_is_an_error_and_what_was_known_stays(client: FakeClient, clock: FakeClock):
    resolver = resolver_of(client, clock)
    polled(resolver, client)
    client.revision, client.inside = 2, 2
    good, client.instances = client.instances, client_error("RequestLimitExceeded")
    with pytest.raises(ResolutionError, match="throttles"):
        resolver.resolve(ORDERS, 10)
    client.instances, client.revision = good, 1
    assert polled(resolver, client) == "revision"


@pytest.mark.parametrize("code", ["AccessDeniedException", "UnknownOperationException"])
def test_without_the_permission_for_revisions_every_poll_asks_for_all_and_one_line_says_so(
    client: FakeClient, clock: FakeClock, caplog: pytest.LogCaptureFixture, code: str
):
    resolver = resolver_of(client, clock)
    polled(resolver, client)
    client.inside, client.revision = 1, client_error(code)
    with caplog.at_level(logging.WARNING, "ecs_discovery"):
        seen = [polled(resolver, client) for _ in range(3)]
        clock.advance(601)
        polled(resolver, client)
        seen.append(polled(resolver, client))
    assert seen == ["revision full", "full", "full", "revision full"]
    assert len(caplog.records) == 1
    assert "servicediscovery:DiscoverInstancesRevision" in caplog.text


def test_a_client_without_revisions_will_do(
    client: FakeClient, clock: FakeClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delattr(FakeClient, "discover_instances_revision")
    resolver = resolver_of(client, clock)
    assert [polled(resolver, client) for _ in range(3)] == ["full"] * 3
    assert "too old" in caplog.text


# The process's own limit


def test_a_process_stays_under_its_own_limit(client: FakeClient, clock: FakeClock):
    resolver = resolver_of(client, clock, max_calls=2)
    for _ in range(4):
        resolver.resolve(ORDERS, 10)
    with pytest.raises(ResolutionError, match=r"own limit of 2 Cloud Map calls.*max_calls"):
        resolver.resolve(ORDERS, 10)
    assert len(client.calls) == 4
    clock.advance(0.5)
    assert polled(resolver, client) == "revision", "the refusal has not made it forget"


def test_resolvers_of_one_process_share_the_limit():
    one, other = CloudMapResolver(client=FakeClient()), CloudMapResolver(client=FakeClient())
    faster = CloudMapResolver(CloudMapPolicy(max_calls=21), client=FakeClient())
    assert one._rate_limiter is other._rate_limiter is not faster._rate_limiter
    given = RateLimiter(1, 1)
    assert CloudMapResolver(client=FakeClient(), rate_limiter=given)._rate_limiter is given


# Threads, time limits and life cycle


def test_a_client_that_hangs_holds_nobody_longer_than_the_time_limit(ask: Ask, client: FakeClient):
    let_go = threading.Event()
    client.revision = lambda: let_go.wait(20) and 1
    resolver = resolver_of(client)
    began = time.monotonic()
    with pytest.raises(ResolutionTimeout, match=r"within 0\.1 s"):
        ask(resolver, timeout=0.1)
    assert time.monotonic() - began < 5
    let_go.set()
    eventually(lambda: resolver.resolve(ORDERS, 10).endpoints)


def test_a_cancelled_task_leaves_nothing_waiting(client: FakeClient):
    let_go, entered = threading.Event(), threading.Event()

    def slowly() -> Any:
        entered.set()
        let_go.wait(20)
        return 1

    client.revision = slowly
    resolver = AsyncCloudMapResolver(client=client)

    async def main() -> None:
        task = asyncio.create_task(resolver.resolve(ORDERS, 20))
        while not entered.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
    let_go.set()


def test_what_nobody_waits_for_any_more_is_not_asked(client: FakeClient, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_THREADS", 1)
    let_go = threading.Event()
    client.revision = lambda: let_go.wait(20) and 1
    resolver = resolver_of(client)
    for _ in range(3):
        with pytest.raises(ResolutionTimeout):
            resolver.resolve(ORDERS, 0.05)
    let_go.set()
    client.revision = 1
    resolver.resolve(Question("cloudmap", "prod.local/other"), 10)
    assert [parameters["ServiceName"] for _, parameters in client.calls] == ["orders", "other"]


def test_boto3_runs_in_threads_of_its_own(ask: Ask, client: FakeClient):
    ran_in: list[str] = []
    client.revision = lambda: ran_in.append(threading.current_thread().name) or 1
    ask(resolver_of(client))
    assert ran_in == ["ecs_discovery"]


def test_fifty_threads_make_one_client(monkeypatch: pytest.MonkeyPatch, client: FakeClient):
    made: list[CloudMapPolicy] = []

    def make(policy: CloudMapPolicy) -> FakeClient:
        time.sleep(0.02)
        made.append(policy)
        return client

    monkeypatch.setattr(module, "_client", make)
    resolver = CloudMapResolver(CloudMapPolicy(max_calls=1000))
    barrier, found = threading.Barrier(50), []

    def run() -> None:
        barrier.wait()
        found.append(resolver.resolve(ORDERS, 20))

    threads = [threading.Thread(target=run) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(found), len(made)) == (50, 1)


def test_closing_closes_a_client_made_here_and_no_other(monkeypatch: pytest.MonkeyPatch, client: FakeClient):
    closed: list[FakeClient] = []
    monkeypatch.setattr(FakeClient, "close", lambda self: closed.append(self), raising=False)
    given = resolver_of(client)
    given.resolve(ORDERS, 10)
    AsyncCloudMapResolver(share=given).close()
    assert closed == []

    monkeypatch.setattr(module, "_client", lambda policy: client)
    own = CloudMapResolver()
    own.resolve(ORDERS, 10)
    own.close()
    own.close()
    assert closed == [client]
    with pytest.raises(ResolutionError, match="closed"):
        own.resolve(ORDERS, 10)


def test_a_fork_starts_with_fresh_locks_and_a_client_of_its_own(monkeypatch: pytest.MonkeyPatch, clock: FakeClock):
    monkeypatch.setattr(module, "_client", lambda policy: FakeClient(instance(AWS_INSTANCE_IPV4="10.0.0.1")))
    resolver = CloudMapResolver(clock=clock)
    answer = resolver.resolve(ORDERS, 10)
    old = resolver._made
    for lock in (resolver._lock, resolver._revisions._lock, resolver._rate_limiter._lock):
        lock.acquire()
    resolver.after_fork()
    assert resolver.resolve(ORDERS, 10) is answer, "what is known stays"
    assert resolver._made is not old


def test_without_boto3_the_error_says_what_to_install(ask: Ask, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "boto3", None)
    with pytest.raises(ResolutionError, match=r"pip install '\.\[cloudmap\]'"):
        ask(CloudMapResolver())


def test_a_client_that_cannot_be_made_is_an_error_that_says_why(ask: Ask, monkeypatch: pytest.MonkeyPatch):
    def make(policy: CloudMapPolicy) -> None:
        raise botocore.exceptions.NoRegionError

    monkeypatch.setattr(module, "_client", make)
    with pytest.raises(ResolutionError, match="AWS_REGION"):
        ask(CloudMapResolver())


def test_sharing_a_resolver_leaves_nothing_else_to_say():
    with pytest.raises(ConfigurationError, match="neither policy nor client"):
        AsyncCloudMapResolver(CloudMapPolicy(), share=CloudMapResolver())


def test_they_say_what_they_are():
    resolver = CloudMapResolver()
    assert repr(resolver) == "<CloudMapResolver <Revisions of 0 answers>>"
    assert repr(AsyncCloudMapResolver(share=resolver)) == "<AsyncCloudMapResolver <Revisions of 0 answers>>"
