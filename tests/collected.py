"""OpenTelemetry's metrics through the real SDK: what would be exported."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from ecs_discovery.telemetry._attributes import SCHEMA

__all__ = ["ADDRESS", "Collected", "collected"]

ADDRESS = "ecs_discovery"


class Collected:
    """A provider whose metrics are read at will."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader])

    def points(self, name: str) -> dict[frozenset[tuple[str, Any]], Any]:
        """The points of a metric, by their attributes; a histogram's is its count."""
        found: dict[frozenset[tuple[str, Any]], Any] = {}
        data = self._reader.get_metrics_data()
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                assert scope.scope.name == ADDRESS
                assert scope.scope.schema_url == SCHEMA
                for metric in scope.metrics:
                    if metric.name == f"{ADDRESS}.{name}":
                        for point in metric.data.data_points:
                            key = frozenset((point.attributes or {}).items())
                            found[key] = getattr(point, "value", getattr(point, "count", None))
        return found

    def total(self, name: str, **having: Any) -> Any:
        """The sum of the points that have these attributes; `__` stands for a dot."""
        wanted = {(key.replace("__", "."), value) for key, value in having.items()}
        return sum(value for key, value in self.points(name).items() if wanted <= key)


@pytest.fixture
def collected() -> Iterator[Collected]:
    made = Collected()
    yield made
    made.provider.shutdown()
