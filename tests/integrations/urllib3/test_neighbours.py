"""What others put into urllib3 sees our requests under the names of their URLs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ecs_discovery.testing.lab import Lab
from tests.spans import Spans, spans

__all__ = ["spans"]

Make = Callable[..., Any]


def test_opentelemetry_makes_a_span_for_each_attempt_under_the_name(lab: Lab, manager_of: Make, spans: Spans):
    instrumentation: Any = pytest.importorskip("opentelemetry.instrumentation.urllib3")
    service = lab.service("orders", tasks=2)
    service.tasks[0].errors(503)
    url = f"http://orders:{service.port}/v1"
    with spans.of(instrumentation.URLLib3Instrumentor()):
        manager = manager_of()
        for _ in range(2):
            assert manager.request("GET", url).status == 200
    assert spans.urls() == [url] * 3
    assert service.requests == 3  # the refused one as well
