"""Fixtures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ecs_discovery import Discovery
from ecs_discovery.integrations.urllib3 import DiscoveryPoolManager
from ecs_discovery.testing.lab import Lab


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(namespace="prod.local", seed=7) as lab:
        yield lab


@pytest.fixture
def discovery(lab: Lab) -> Iterator[Discovery]:
    with Discovery(namespace="prod.local", nameservers=[lab.nameserver]) as discovery:
        yield discovery


@pytest.fixture
def manager_of(discovery: Discovery) -> Iterator[Callable[..., DiscoveryPoolManager]]:
    """Makes managers with these options, which are cleared in the end."""
    made: list[DiscoveryPoolManager] = []

    def make(**options: Any) -> DiscoveryPoolManager:
        made.append(DiscoveryPoolManager(discovery, **options))
        return made[-1]

    yield make
    for manager in made:
        manager.clear()
