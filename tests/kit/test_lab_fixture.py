"""`ecs_lab`: real sockets, with the application's calls kept."""

from __future__ import annotations

import os

import pytest
import requests

from ecs_discovery import wrap_session
from ecs_discovery.testing.lab import Slow


@pytest.mark.ecs(seed=3)
def test_a_dead_task_costs_no_request(ecs_lab):
    orders = ecs_lab.service("orders", tasks=3, records="A+SRV")
    session = wrap_session(requests.Session())  # the environment gives its namespace and name server
    with orders.tasks[0].fault("refuse"):
        assert [session.get("http://orders/").status_code for _ in range(60)] == [200] * 60
    assert orders.tasks[0].faults == ()
    ecs_lab.assert_spread("orders", within=0.5)
    ecs_lab.assert_attempts("orders", at_most=1.2)
    assert len(ecs_lab.recorder.calls) == 60


def test_a_task_that_had_a_fault_is_no_part_of_the_spread(ecs_lab):
    orders = ecs_lab.service("orders", tasks=2, records="A+SRV")
    with orders.tasks[0].slow(0.0), pytest.raises(ValueError, match="a fault is one of refuse, reset"):
        orders.tasks[1].fault("explode")
    orders.tasks[0].fault(Slow(0.0))
    assert [task.was_well for task in orders.tasks] == [False, True]


@pytest.mark.ecs(namespace="shop.internal")
def test_the_marker_names_the_namespace(ecs_lab):
    assert ecs_lab.service("orders").fqdn == "orders.shop.internal"


def test_a_name_that_was_never_called_is_no_proof_of_few_attempts(ecs_lab):
    ecs_lab.service("orders", tasks=2)
    with pytest.raises(AssertionError, match="no calls of 'odrers'; calls were of: nothing"):
        ecs_lab.assert_attempts("odrers", at_most=1)
    with pytest.raises(AssertionError, match="there were no requests"):
        ecs_lab.assert_spread("orders")


def test_variables_of_the_developer_do_not_lead_away_from_the_lab(developed, ecs_lab):
    assert {name for name in os.environ if name.startswith("ECS_DISCOVERY_")} == {
        "ECS_DISCOVERY_NAMESPACE",
        "ECS_DISCOVERY_NAMESERVERS",
    }


@pytest.fixture
def developed(monkeypatch):
    monkeypatch.setenv("ECS_DISCOVERY_DISABLED", "1")
    monkeypatch.setenv("ECS_DISCOVERY_SERVICES", "orders=static://127.0.0.1:8080")
