"""OpenTelemetry's instrumentations beside ours: the spans that they make."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

__all__ = ["Spans", "spans"]


class Spans:
    """The spans that have ended."""

    def __init__(self) -> None:
        sdk: Any = pytest.importorskip("opentelemetry.sdk.trace")
        export: Any = pytest.importorskip("opentelemetry.sdk.trace.export")
        memory: Any = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
        self._memory = memory.InMemorySpanExporter()
        self.provider = sdk.TracerProvider()
        self.provider.add_span_processor(export.SimpleSpanProcessor(self._memory))

    @property
    def tracer(self) -> Any:
        """For spans of the test's own."""
        return self.provider.get_tracer("tests")

    def finished(self) -> list[Any]:
        """The spans, in the order in which they ended."""
        return list(self._memory.get_finished_spans())

    @contextmanager
    def of(self, instrumentor: Any) -> Iterator[None]:
        """Instrument a library for as long as the block runs."""
        instrumentor.instrument(tracer_provider=self.provider)
        try:
            yield
        finally:
            instrumentor.uninstrument()

    def urls(self) -> list[str]:
        return [
            span.attributes.get("http.url") or span.attributes.get("url.full")
            for span in self._memory.get_finished_spans()
        ]

    def names(self) -> list[str]:
        return [span.name for span in self._memory.get_finished_spans()]


@pytest.fixture
def spans() -> Iterator[Spans]:
    made = Spans()
    yield made
    made.provider.shutdown()
