"""Answers and errors of Cloud Map of all kinds: an answer or a `ResolutionError`, bounded in what is kept."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecs_discovery import CloudMapPolicy, Question
from ecs_discovery.errors import ResolutionError
from ecs_discovery.resolvers import CloudMapResolver
from ecs_discovery.resolvers.cloud_map.instances import failure, read
from tests.cloud_map import FakeClient, client_error, instance
from tests.fuzz.bounds import assert_cheap, unhurried

ORDERS = Question("cloudmap", "prod/orders")
POLICY = CloudMapPolicy()

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=12,
)
ODD = ("169.254.169.254", "::ffff:10.0.0.1", "fe80::1%x", "0.0.0.0")
ADDRESS = st.one_of(st.ip_addresses().map(str), st.text(max_size=20), st.sampled_from(ODD))
ATTRIBUTES = st.fixed_dictionaries(
    {},
    optional={
        "AWS_INSTANCE_IPV4": ADDRESS | JSON,
        "AWS_INSTANCE_IPV6": ADDRESS | JSON,
        "AWS_INSTANCE_PORT": st.integers().map(str) | st.text(max_size=10) | JSON,
        "AVAILABILITY_ZONE": st.text(max_size=400) | JSON,
        "ECS_SERVICE_NAME": st.text(max_size=400) | JSON,
    },
)
INSTANCE = JSON | st.fixed_dictionaries(
    {"InstanceId": st.text(max_size=80) | JSON, "Attributes": ATTRIBUTES | JSON}, optional={"HealthStatus": JSON}
)
INSTANCES = st.lists(INSTANCE, max_size=5) | JSON
ANSWER = st.fixed_dictionaries({}, optional={"Instances": INSTANCES, "InstancesRevision": JSON})


@unhurried
@given(ANSWER)
def test_answers_of_any_shape_are_an_answer_or_a_resolution_error(answer: dict[str, Any]):
    try:
        found = read(ORDERS, answer, POLICY)
    except ResolutionError:
        return
    for endpoint in found.endpoints:
        assert 0 <= endpoint.port <= 65_535
        assert len(endpoint.instance_id or "") <= 64
        assert all(len(value) <= 255 for _, value in endpoint.attributes)


@unhurried
@given(st.lists(INSTANCE, max_size=3) | JSON, JSON, JSON)
def test_a_resolver_lets_nothing_out_but_resolution_errors(instances: Any, revision: Any, inside: Any):
    client = FakeClient(revision=revision)
    client.instances, client.inside = instances, inside
    resolver = CloudMapResolver(client=client)
    try:
        for _ in range(2):
            try:
                resolver.resolve(ORDERS, 10)
            except ResolutionError:
                pass
    finally:
        resolver.close()


@unhurried
@given(st.text(), st.text(), st.sampled_from(["DiscoverInstances", "DiscoverInstancesRevision"]))
def test_errors_of_any_text_are_one_short_printable_line(code: str, text: str, operation: str):
    error = client_error(code)
    error.args = (text * 100,)
    found = str(failure(ORDERS, error, operation))
    assert found.isprintable()
    assert len(found) < 1000


LONGEST = dict.fromkeys(
    ("AVAILABILITY_ZONE", "ECS_CLUSTER_NAME", "ECS_SERVICE_NAME", "ECS_TASK_DEFINITION_FAMILY", "REGION"), "x" * 255
)
PAGES: dict[str, list[Any]] = {
    "a hundred thousand instances": [instance(f"t{n}", AWS_INSTANCE_IPV4="10.0.0.1") for n in range(100_000)],
    "long values": [
        instance(f"t{n}", AWS_INSTANCE_IPV4="10.0.0.1", ECS_SERVICE_NAME="x" * 10_000) for n in range(1000)
    ],
    "many attributes": [instance("t", **{f"A{n}": "x" for n in range(200_000)})] * 1000,
    "the same instance": [instance("t", AWS_INSTANCE_IPV4="10.0.0.1")] * 100_000,
    "the longest that are kept": [
        instance(f"{n:064}", "h" * 255, AWS_INSTANCE_IPV4="10.0.0.1", **LONGEST) for n in range(1000)
    ],
    "refused addresses": [instance(f"t{n}", AWS_INSTANCE_IPV4=f"169.254.{n >> 8}.{n & 255}") for n in range(1000)],
}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_made_to_be_slow_costs_little_once_it_is_parsed(page: str):
    answer = {"Instances": PAGES[page], "InstancesRevision": 1}
    assert_cheap(lambda: read(ORDERS, answer, POLICY))
