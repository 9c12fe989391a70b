from __future__ import annotations

from collections.abc import Iterator

import pytest

from ecs_discovery.testing.lab import Lab, LabTask


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(namespace="prod.local", seed=1) as lab:
        yield lab


@pytest.fixture
def task(lab: Lab) -> LabTask:
    return lab.service("orders", tasks=1).tasks[0]
