"""Cloud Map over HTTP with boto3: against the moto server for the wire, and against the lab for what moto lacks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from ecs_discovery import CloudMapPolicy, Question
from ecs_discovery.errors import NoEndpoints, ResolutionError, ResolutionTimeout, TargetNotFound
from ecs_discovery.resolvers import AsyncCloudMapResolver, CloudMapResolver
from ecs_discovery.resolvers.cloud_map.sync import _client
from ecs_discovery.testing.lab import Lab
from tests.cloud_map import KEYS, client_for, moto_server
from tests.support import FakeClock

ORDERS = Question("cloudmap", "prod.local/orders")


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment as ECS gives it, and nothing of the machine's own."""
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SERVICEDISCOVERY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_REGION", "us-east-1")


# The client that is made


def test_the_client_has_short_timeouts_no_retries_and_the_region_that_ecs_gives():
    client = _client(CloudMapPolicy())
    config = client.meta.config
    assert (config.connect_timeout, config.read_timeout, config.max_pool_connections) == (1.0, 2.0, 8)
    assert config.retries["total_max_attempts"] == 1
    assert client.meta.endpoint_url == "https://servicediscovery.us-east-1.amazonaws.com"
    assert config.inject_host_prefix is not False
    assert _client(CloudMapPolicy(region="eu-west-1")).meta.region_name == "eu-west-1"


@pytest.mark.parametrize("how", ["policy", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SERVICEDISCOVERY"])
def test_an_endpoint_of_ones_own_is_called_without_the_host_prefix(how: str, monkeypatch: pytest.MonkeyPatch):
    with Lab(namespace="prod.local", seed=1) as lab:
        orders = lab.service("orders", tasks=1)
        if how != "policy":
            monkeypatch.setenv(how, lab.cloud_map.endpoint_url)
        resolver = CloudMapResolver(CloudMapPolicy(endpoint_url=lab.cloud_map.endpoint_url if how == "policy" else ""))
        assert resolver.resolve(ORDERS, 30).endpoints[0].host == orders.tasks[0].address
        resolver.close()


# Moto


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with (tmp_path_factory.mktemp("moto") / "log").open("wb") as log:
        yield from moto_server(log)


class MotoService:
    """A service in an HTTP namespace on the moto server."""

    def __init__(self, url: str, name: str) -> None:
        self.client = boto3.Session(**KEYS).client("servicediscovery", endpoint_url=url)
        namespaces = self.client.list_namespaces()["Namespaces"]
        if not namespaces:
            self.client.create_http_namespace(Name="prod.local")
            namespaces = self.client.list_namespaces()["Namespaces"]
        self.id = self.client.create_service(Name=name, NamespaceId=namespaces[0]["Id"])["Service"]["Id"]

    def register(self, number: int, **attributes: str) -> None:
        given = {"AWS_INSTANCE_IPV4": f"10.0.0.{number}", "AWS_INSTANCE_PORT": "8080", **attributes}
        self.client.register_instance(ServiceId=self.id, InstanceId=f"t{number}", Attributes=given)

    def deregister(self, number: int) -> None:
        self.client.deregister_instance(ServiceId=self.id, InstanceId=f"t{number}")


def hosts(resolution: Any) -> list[int]:
    return [int(endpoint.host.rpartition(".")[2]) for endpoint in resolution.endpoints]


def test_moto_instances_are_found_filtered_and_missed(moto: str, clock: FakeClock):
    service = MotoService(moto, "filtered")
    resolver = CloudMapResolver(client=client_for(moto), clock=clock)
    with pytest.raises(NoEndpoints):
        resolver.resolve(Question("cloudmap", "prod.local/filtered"), 30)
    service.register(1, ECS_CLUSTER_NAME="blue")
    service.register(2, ECS_CLUSTER_NAME="green")
    assert hosts(resolver.resolve(Question("cloudmap", "prod.local/filtered"), 30)) == [1, 2]
    for name, found in [
        ("filtered?ECS_CLUSTER_NAME=blue", [1]),
        ("filtered?optional.ECS_CLUSTER_NAME=green", [2]),
        ("filtered?optional.ECS_CLUSTER_NAME=red", [1, 2]),
        ("filtered?health=ALL", [1, 2]),
    ]:
        assert hosts(resolver.resolve(Question("cloudmap", f"prod.local/{name}"), 30)) == found
    with pytest.raises(NoEndpoints):
        resolver.resolve(Question("cloudmap", "prod.local/filtered?ECS_CLUSTER_NAME=red"), 30)
    with pytest.raises(TargetNotFound, match="no such service"):
        resolver.resolve(Question("cloudmap", "prod.local/nothing"), 30)
    with pytest.raises(TargetNotFound, match="no such namespace"):
        resolver.resolve(Question("cloudmap", "nowhere/orders"), 30)


def test_moto_health_that_fails_open(moto: str, clock: FakeClock):
    service = MotoService(moto, "unwell")
    for number in (1, 2):
        service.register(number)
    for number, expected in ((1, [2]), (2, [1, 2])):
        service.client.update_instance_custom_health_status(
            ServiceId=service.id, InstanceId=f"t{number}", Status="UNHEALTHY"
        )
        clock.advance(30)
        resolver = CloudMapResolver(client=client_for(moto), clock=clock)
        assert hosts(resolver.resolve(Question("cloudmap", "prod.local/unwell"), 30)) == expected


def test_a_swap_under_moto_s_unchanged_revision_is_seen_by_the_next_full_call(moto: str, clock: FakeClock):
    """Moto's revision falls when an instance leaves, so that a rolling swap brings the old number back."""
    service = MotoService(moto, "swapped")
    question = Question("cloudmap", "prod.local/swapped")
    for number in (1, 2):
        service.register(number)
    resolver = CloudMapResolver(client=client_for(moto), clock=clock)
    assert hosts(resolver.resolve(question, 30)) == [1, 2]
    service.deregister(1)
    service.register(3)
    began = clock()
    while hosts(resolver.resolve(question, 30)) != [2, 3]:
        clock.advance(5.5)
        assert clock() - began <= 35
    assert clock() > began, "moto has learnt to count: this test shows nothing any more"


def test_moto_in_asyncio(moto: str):
    service = MotoService(moto, "awaited")
    service.register(7)

    async def main() -> Any:
        return await AsyncCloudMapResolver(client=client_for(moto)).resolve(
            Question("cloudmap", "prod.local/awaited"), 30
        )

    assert hosts(asyncio.run(main())) == [7]


# The lab


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(namespace="prod.local", seed=7) as lab:
        yield lab


@pytest.fixture
def resolver(lab: Lab, clock: FakeClock) -> CloudMapResolver:
    return CloudMapResolver(client=client_for(lab.cloud_map.endpoint_url), clock=clock)


def test_150_instances_are_all_found(lab: Lab, resolver: CloudMapResolver):
    for number in range(150):
        lab.cloud_map.add("orders", f"t{number}", {"AWS_INSTANCE_IPV4": f"10.0.0.{number}"})
    found = resolver.resolve(ORDERS, 10)
    assert len(found.endpoints) == 150
    assert not found.partial


def test_a_registration_and_a_deregistration_are_seen_by_their_revision(lab: Lab, resolver: CloudMapResolver):
    orders = lab.service("orders", tasks=2)
    for change, expected in [(lambda: orders.add_task(), 3), (lambda: orders.kill(orders.tasks[0]), 2)]:
        resolver.resolve(ORDERS, 10)
        lab.cloud_map.reset_counts()
        change()
        assert len(resolver.resolve(ORDERS, 10).endpoints) == expected
        assert resolver.resolve(ORDERS, 10).endpoints
        assert lab.cloud_map.calls == {"DiscoverInstancesRevision": 2, "DiscoverInstances": 1}


def test_a_change_of_health_alone_is_seen_within_35_seconds(lab: Lab, resolver: CloudMapResolver, clock: FakeClock):
    orders = lab.service("orders", tasks=2)
    lab.cloud_map.health_lag = 0
    assert len(resolver.resolve(ORDERS, 10).endpoints) == 2
    orders.set_health(orders.tasks[0], False)
    began = clock()
    while len(resolver.resolve(ORDERS, 10).endpoints) == 2:
        clock.advance(5.5)
        assert clock() - began <= 35
    assert [endpoint.instance_id for endpoint in resolver.resolve(ORDERS, 10).endpoints] == [orders.tasks[1].id]


def test_a_swap_under_an_unchanged_revision_is_seen_by_the_next_full_call(
    lab: Lab, resolver: CloudMapResolver, clock: FakeClock
):
    orders = lab.service("orders", tasks=2)
    lab.cloud_map.set_revision("orders", 2)
    resolver.resolve(ORDERS, 10)
    orders.deploy(interval=0, stop="kill")
    lab.cloud_map.set_revision("orders", 2)
    expected = sorted(task.id for task in orders.tasks)
    began = clock()
    while [endpoint.instance_id for endpoint in resolver.resolve(ORDERS, 10).endpoints] != expected:
        clock.advance(5.5)
        assert clock() - began <= 35
    assert clock() > began


def test_attributes_choose_and_are_told(lab: Lab, resolver: CloudMapResolver):
    orders = lab.service("orders", tasks=3, cluster="blue", family="orders-v2")
    assert len(resolver.resolve(Question("cloudmap", "prod.local/orders?ECS_CLUSTER_NAME=blue"), 10).endpoints) == 3
    with pytest.raises(NoEndpoints):
        resolver.resolve(Question("cloudmap", "prod.local/orders?ECS_CLUSTER_NAME=green"), 10)
    zonal = Question("cloudmap", "prod.local/orders?optional.AVAILABILITY_ZONE=us-east-1b")
    (one,) = resolver.resolve(zonal, 10).endpoints
    task = orders.tasks[1]
    assert (one.instance_id, one.host, one.port, one.zone) == (task.id, task.address, task.port, "us-east-1b")
    assert {"cluster": "blue", "service": "orders", "family": "orders-v2", "region": "us-east-1"}.items() <= dict(
        one.attributes
    ).items()


@pytest.mark.parametrize(
    ("fault", "kind", "text"),
    [
        ("throttled", ResolutionError, "throttles"),
        ("denied", ResolutionError, "grant the task role servicediscovery:DiscoverInstances"),
        ("error", ResolutionError, "InternalFailure"),
        ("garbage", ResolutionError, "makes no sense"),
        ("silence", ResolutionTimeout, "in time"),
    ],
)
def test_trouble_at_the_api_is_an_error_that_says_so_after_one_call(
    lab: Lab, clock: FakeClock, fault: str, kind: type[Exception], text: str
):
    lab.service("orders")
    lab.cloud_map.fault = fault
    client = client_for(lab.cloud_map.endpoint_url, read_timeout=0.2)
    with pytest.raises(ResolutionError, match=text) as caught:
        CloudMapResolver(client=client, clock=clock).resolve(ORDERS, 10)
    assert type(caught.value) is kind
    assert lab.cloud_map.calls == {"DiscoverInstances": 1}


def test_nobody_there_is_an_error_that_says_so(clock: FakeClock):
    with Lab() as gone:
        url = gone.cloud_map.endpoint_url
    with pytest.raises(ResolutionError, match="VPC endpoint"):
        CloudMapResolver(client=client_for(url), clock=clock).resolve(ORDERS, 10)


def test_denied_revisions_degrade_to_full_calls(lab: Lab, resolver: CloudMapResolver):
    lab.service("orders", tasks=2)
    lab.cloud_map.fail("DiscoverInstancesRevision", "denied")
    for _ in range(4):
        assert len(resolver.resolve(ORDERS, 10).endpoints) == 2
    assert lab.cloud_map.calls == {"DiscoverInstancesRevision": 1, "DiscoverInstances": 4}
