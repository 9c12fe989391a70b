"""Wrapped requests while what a source says of the endpoints changes: health, weight, priority, zone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import requests

from ecs_discovery import CachePolicy, ConnectionPolicy, Discovery, wrap_session
from ecs_discovery.models import Endpoint, Question, Resolution
from ecs_discovery.testing.lab import Lab
from tests.support import FakeResolver, eventually
from tests.traffic import traffic

QUESTION = Question("registry", "orders")
FACTS: dict[str, dict[str, Any]] = {
    "its health": {"attributes": (("AWS_INIT_HEALTH_STATUS", "UNHEALTHY"),)},
    "its weight": {"weight": 9},
    "its priority": {"priority": 1},
    "its zone": {"zone": "eu-west-1b"},
}


class Source:
    """A registry of some tasks of a lab, which tells what it is told to."""

    def __init__(self, lab: Lab, tasks: int) -> None:
        self.service = lab.service("orders", tasks=tasks)
        self.resolver = FakeResolver()
        self.told = tuple(
            Endpoint(task.address, task.port, zone="eu-west-1a", instance_id=task.id) for task in self.service.tasks
        )
        self.discovery = Discovery(
            services={"orders": "registry://orders"},
            resolvers={"registry": self.resolver},
            cache=CachePolicy(min_ttl=1),
            # Connections are short-lived, so that there are always new ones.
            connection=ConnectionPolicy(idle_timeout=0.1, max_age=1),
        )
        self.tell()

    def tell(self, number: int = 0, **facts: Any) -> None:
        """From now on this is so of one endpoint, and the discovery knows."""
        told = list(self.told)
        told[number] = replace(told[number], **facts)
        self.told = tuple(told)
        self.resolver.answers[QUESTION] = Resolution(self.told, 1.0, "registry")
        self.discovery._driver.background.ask(QUESTION, force=True)
        nodes = self.discovery._driver.engine.service("orders:80")
        self.discovery.resolve("orders:80")
        eventually(lambda: tuple(node.endpoint for node in nodes.nodes) == self.told)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(namespace="prod.local", seed=7) as lab:
        yield lab


@pytest.mark.parametrize("facts", FACTS.values(), ids=FACTS.keys())
def test_a_new_connection_to_an_endpoint_of_which_a_fact_changed(lab: Lab, facts: dict[str, Any]):
    source = Source(lab, tasks=1)
    with source.discovery, wrap_session(requests.Session(), source.discovery) as session:
        for _ in range(2):
            assert session.get("http://orders/", headers={"Connection": "close"}).status_code == 200
            source.tell(**facts)
        assert session.get("http://orders/").status_code == 200
    assert source.service.tasks[0].connections == 3


def test_facts_of_endpoints_change_under_load_and_no_get_fails(lab: Lab):
    """One task of four becomes unhealthy, weighs nine times as much, and moves to another zone, and back again."""
    source = Source(lab, tasks=4)
    with source.discovery, traffic("http://orders/", source.discovery) as load:
        for facts in (*FACTS.values(), {"attributes": (), "weight": 1, "priority": 0, "zone": "eu-west-1a"}):
            target = len(load.sent) + 100
            eventually(lambda target=target: len(load.sent) >= target, within=30)
            source.tell(**facts)
        target = len(load.sent) + 200
        eventually(lambda: len(load.sent) >= target, within=30)
    assert load.failures == []
    assert len(Counter(task for _, task in load.tasks)) == 4
