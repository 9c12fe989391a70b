"""The Cloud Map API of the lab answers as AWS does, counts, and fails on demand."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from typing import Any

import pytest

from ecs_discovery.testing.lab import CloudMapFault, Lab
from tests.support import eventually


def call(lab: Lab, operation: str = "DiscoverInstances", **parameters: Any) -> dict[str, Any]:
    """Call the API without a library; an answer with an error has its code under `__type`."""
    body = json.dumps({"NamespaceName": "prod.local", "ServiceName": "orders", **parameters}).encode()
    request = urllib.request.Request(
        lab.cloud_map.endpoint_url, body, {"X-Amz-Target": f"Route53AutoNaming_v20170314.{operation}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            found: dict[str, Any] = json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            found = {"status": error.code, **json.load(error)}
    return found


def ids(lab: Lab, **parameters: Any) -> list[str]:
    return [instance["InstanceId"] for instance in call(lab, **parameters)["Instances"]]


def revision(lab: Lab) -> int:
    told: int = call(lab, "DiscoverInstancesRevision")["InstancesRevision"]
    return told


def test_tasks_have_the_attributes_that_ecs_registers(lab):
    orders = lab.service("orders", tasks=4, cluster="blue")
    found = {each["InstanceId"]: each for each in call(lab)["Instances"]}
    for place, task in enumerate(orders.tasks):
        assert found[task.id] == {
            "InstanceId": task.id,
            "NamespaceName": "prod.local",
            "ServiceName": "orders",
            "HealthStatus": "HEALTHY",
            "Attributes": {
                "AVAILABILITY_ZONE": f"us-east-1{'abca'[place]}",
                "AWS_INSTANCE_IPV4": task.address,
                "AWS_INSTANCE_PORT": str(task.port),
                "ECS_CLUSTER_NAME": "blue",
                "ECS_SERVICE_NAME": "orders",
                "ECS_TASK_DEFINITION_FAMILY": "orders",
                "REGION": "us-east-1",
            },
        }


def test_the_port_can_be_left_out(lab):
    lab.service("orders", instance_port=False)
    assert "AWS_INSTANCE_PORT" not in call(lab)["Instances"][0]["Attributes"]


def test_an_answer_holds_100_unless_it_is_told_otherwise_in_random_order(lab):
    for number in range(150):
        lab.cloud_map.add("orders", f"t{number}", {})
    assert len(ids(lab)) == 100
    everything = ids(lab, MaxResults=1000)
    assert len(set(everything)) == 150
    assert everything != ids(lab, MaxResults=1000)
    assert call(lab, MaxResults=1001)["__type"] == "InvalidInput"


def test_attributes_choose_strictly_or_if_possible(lab):
    for name, zone in [("t1", "a"), ("t2", "b")]:
        lab.cloud_map.add("orders", name, {"zone": zone})
    assert ids(lab, QueryParameters={"zone": "a"}) == ["t1"]
    assert ids(lab, QueryParameters={"zone": "c"}) == []
    assert ids(lab, OptionalParameters={"zone": "b"}) == ["t2"]
    assert sorted(ids(lab, OptionalParameters={"zone": "c"})) == ["t1", "t2"]


@pytest.mark.parametrize(
    ("status", "one_ill", "all_ill"),
    [("HEALTHY", 1, 0), ("UNHEALTHY", 1, 2), ("ALL", 2, 2), ("HEALTHY_OR_ELSE_ALL", 1, 2)],
)
def test_health_chooses(lab, status, one_ill, all_ill):
    orders = lab.service("orders", tasks=2)
    lab.cloud_map.health_lag = 0
    for task, count in zip(orders.tasks, (one_ill, all_ill), strict=True):
        orders.set_health(task, False)
        assert len(ids(lab, HealthStatus=status)) == count
    assert call(lab, HealthStatus="FINE")["__type"] == "InvalidInput"


def test_health_is_shown_late_and_does_not_change_the_revision(lab):
    orders = lab.service("orders", tasks=2)
    before = revision(lab)
    orders.set_health(orders.tasks[0], False)
    assert len(ids(lab, HealthStatus="HEALTHY")) == 2, "30 s are not over"
    orders.flush()
    assert len(ids(lab, HealthStatus="HEALTHY")) == 1
    assert revision(lab) == before
    lab.cloud_map.health_lag = 0.02
    orders.set_health(orders.tasks[0], True)
    orders.set_health(orders.tasks[0], False)
    orders.set_health(orders.tasks[0], True)
    eventually(lambda: len(ids(lab, HealthStatus="HEALTHY")) == 2)
    orders.set_health(orders.tasks[1], False)
    orders.kill(orders.tasks[1])
    orders.flush()
    assert len(ids(lab)) == 1
    assert revision(lab) > before, "because one was deregistered"
    assert revision(lab) == call(lab)["InstancesRevision"]


def test_the_revision_is_large_and_grows_with_every_registration_and_deregistration(lab):
    orders = lab.service("orders", tasks=1)
    told = [revision(lab)]
    orders.set_health(orders.tasks[0], False)
    assert revision(lab) == told[0] > 2**54
    orders.add_task()
    told.append(revision(lab))
    orders.kill(orders.tasks[0])
    told.append(revision(lab))
    assert told == sorted(set(told))


def test_a_registration_is_shown_when_dns_shows_it_and_a_deregistration_at_once(lab):
    orders = lab.service("orders", tasks=1, registration_lag=60, deregistration_lag=60)
    old = orders.tasks[0]
    new = orders.add_task()
    assert ids(lab) == [old.id]
    orders.kill(old)
    assert ids(lab) == []
    assert list(orders.visible.instances) == [old.id]
    orders.flush()
    assert ids(lab) == list(orders.visible.instances) == [new.id]


def test_a_task_taken_out_before_it_was_shown_never_is(lab):
    orders = lab.service("orders", tasks=1, registration_lag=60)
    new = orders.add_task()
    orders.deregister(new)
    orders.flush()
    assert new.id not in ids(lab)


def test_instances_can_be_added_and_removed_by_hand(lab):
    lab.cloud_map.add("orders", "t1", {"x": "1"})
    lab.cloud_map.add("orders", "t1", {"x": "2"})
    assert [each["Attributes"] for each in call(lab)["Instances"]] == [{"x": "2"}]
    lab.cloud_map.remove("orders", "t1")
    lab.cloud_map.remove("orders", "t1")
    assert ids(lab) == []


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"ServiceName": "nothing"}, "ServiceNotFound"),
        ({"NamespaceName": "nowhere"}, "NamespaceNotFound"),
        ({"OwnerAccount": "210987654321"}, "NamespaceNotFound"),
        ({"MaxResults": "many"}, "InvalidInput"),
        ({"QueryParameters": "x"}, "InvalidInput"),
    ],
)
def test_what_is_not_there_or_makes_no_sense_is_an_error(lab, parameters, code):
    lab.service("orders")
    answer = call(lab, **parameters)
    assert (answer["status"], answer["__type"]) == (400, code)
    assert ids(lab, OwnerAccount="123456789012")


def test_other_operations_are_unknown_and_counted(lab):
    assert call(lab, "DeleteService")["__type"] == "UnknownOperationException"
    assert lab.cloud_map.calls == {"DeleteService": 1}
    assert lab.snapshot()["calls"] == lab.cloud_map.total == 1
    lab.cloud_map.reset_counts()
    assert lab.cloud_map.total == 0


def test_faults_of_all_operations_or_one_come_and_go(lab):
    lab.service("orders")
    lab.cloud_map.fault = "throttled"
    lab.cloud_map.fail("DiscoverInstancesRevision", CloudMapFault.DENIED)
    assert call(lab)["__type"] == "RequestLimitExceeded"
    assert call(lab, "DiscoverInstancesRevision")["__type"] == "AccessDeniedException"
    assert "throttled" in repr(lab.cloud_map)
    lab.cloud_map.fault = "error"
    assert call(lab)["status"] == 500
    lab.cloud_map.fault = "garbage"
    with pytest.raises(json.JSONDecodeError):
        call(lab)
    lab.cloud_map.fault = "silence"
    with pytest.raises(TimeoutError):
        urllib.request.urlopen(lab.cloud_map.endpoint_url, b"{}", timeout=0.1)
    lab.cloud_map.fail("DiscoverInstancesRevision", None)
    lab.cloud_map.heal()
    assert ids(lab)
    assert revision(lab)
    assert lab.cloud_map.fault is None
    with pytest.raises(ValueError, match="tired"):
        lab.cloud_map.fault = "tired"


def test_answers_can_be_slow(lab):
    lab.service("orders")
    lab.cloud_map.delay = 0.1
    began = time.monotonic()
    call(lab)
    assert time.monotonic() - began >= 0.1


def test_the_same_seed_gives_the_same_order_and_revision():
    told = []
    for _ in range(2):
        with Lab(namespace="prod.local", seed=5) as lab:
            for number in range(20):
                lab.cloud_map.add("orders", f"t{number}", {})
            told.append((ids(lab), revision(lab)))
    assert told[0] == told[1]


def test_a_service_that_could_not_start_is_not_listed(lab):
    taken = lab.service("orders", tasks=1)
    with pytest.raises(ValueError, match="already"):
        lab.service("orders")
    assert ids(lab) == [taken.tasks[0].id]


def test_it_is_gone_with_the_lab():
    with Lab(seed=1) as lab:
        assert "listing" not in repr(lab.cloud_map).lower()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(lab.cloud_map.endpoint_url, b"{}", timeout=1)
