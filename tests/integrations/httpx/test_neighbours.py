"""What others put into httpx sees our requests under the names of their URLs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import respx

from ecs_discovery import ConfigurationError, Discovery, wrap_client
from ecs_discovery.testing.lab import Lab


@pytest.fixture
def discovery(lab: Lab) -> Iterator[Discovery]:
    with Discovery(namespace="prod.local", nameservers=[lab.nameserver]) as discovery:
        yield discovery


@pytest.mark.parametrize("using", ["httpx", "httpcore"])
def test_respx_answers_for_the_name(lab: Lab, discovery: Discovery, using: str):
    service = lab.service("orders", tasks=1)
    with respx.mock(using=using) as mock:
        mock.get(service.url("/v1")).respond(207, json={"mocked": True})
        with wrap_client(httpx.Client(), discovery) as client:
            assert client.get(service.url("/v1")).json() == {"mocked": True}

        async def main() -> None:
            async with wrap_client(httpx.AsyncClient(), discovery) as client:
                assert (await client.get(service.url("/v1"))).status_code == 207

        asyncio.run(main())
    assert service.requests == 0


def test_pytest_httpx_answers_for_the_name(lab: Lab, discovery: Discovery, httpx_mock: Any):
    service = lab.service("orders", tasks=1)
    httpx_mock.add_response(url=service.url("/v1"), status_code=207)
    with wrap_client(httpx.Client(), discovery) as client:
        assert client.get(service.url("/v1")).status_code == 207
    assert service.requests == 0


def test_a_recorder_writes_the_name_and_plays_it_back(lab: Lab, discovery: Discovery, tmp_path: Any):
    vcr: Any = pytest.importorskip("vcr")
    service = lab.service("orders", tasks=2)
    cassette = str(tmp_path / "orders.yaml")
    with vcr.use_cassette(cassette), wrap_client(httpx.Client(), discovery) as client:
        first = client.get(service.url("/v1")).text
    assert f"uri: {service.url('/v1')}" in (tmp_path / "orders.yaml").read_text()
    before = service.requests
    with vcr.use_cassette(cassette), wrap_client(httpx.Client(), discovery) as client:
        assert client.get(service.url("/v1")).text == first
    assert service.requests == before


def test_opentelemetry_makes_a_span_for_each_attempt_under_the_name(lab: Lab, discovery: Discovery):
    instrumentation: Any = pytest.importorskip("opentelemetry.instrumentation.httpx")
    sdk: Any = pytest.importorskip("opentelemetry.sdk.trace")
    export: Any = pytest.importorskip("opentelemetry.sdk.trace.export")
    memory: Any = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    service = lab.service("orders", tasks=2)
    service.tasks[0].errors(503)
    spans = memory.InMemorySpanExporter()
    provider = sdk.TracerProvider()
    provider.add_span_processor(export.SimpleSpanProcessor(spans))
    instrumentor = instrumentation.HTTPXClientInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    try:
        with wrap_client(httpx.Client(), discovery) as client:
            for _ in range(2):
                assert client.get(service.url("/v1")).status_code == 200
    finally:
        instrumentor.uninstrument()
        provider.shutdown()
    found = spans.get_finished_spans()
    urls = {span.attributes.get("http.url") or span.attributes.get("url.full") for span in found}
    assert urls == {service.url("/v1")}
    assert len(found) == service.requests == 3  # the refused one as well


def test_retries_of_another_package_go_around_ours(lab: Lab, discovery: Discovery):
    other: Any = pytest.importorskip("httpx_retries")
    from ecs_discovery.integrations.httpx import DiscoveryTransport

    service = lab.service("orders", tasks=2)
    for task in service.tasks:
        task.errors(500)  # not retried by us
    retry = other.Retry(total=2, backoff_factor=0.001, status_forcelist=[500])
    around = other.RetryTransport(transport=DiscoveryTransport(discovery), retry=retry)
    with httpx.Client(transport=around) as client:
        assert client.get(service.url()).status_code == 500
    assert service.requests == 3


def test_a_cache_goes_around_ours(lab: Lab, discovery: Discovery, tmp_path: Any):
    hishel: Any = pytest.importorskip("hishel")
    theirs: Any = pytest.importorskip("hishel.httpx")
    from ecs_discovery.integrations.httpx import DiscoveryTransport

    service = lab.service("orders", tasks=2)
    service.kill(service.tasks[0])  # DNS still names it
    storage = hishel.SqliteStorage(database_path=str(tmp_path / "cache.db"), default_ttl=60)
    cache = theirs.CacheTransport(DiscoveryTransport(discovery), storage=storage, rfc=False)
    with httpx.Client(transport=cache) as client:
        for path in ("/v1", "/v2", "/v1", "/v2"):
            assert client.get(service.url(path)).status_code == 200
    assert service.requests == 2  # each path once
    with pytest.raises(ConfigurationError, match="DiscoveryTransport"):
        wrap_client(theirs.CacheClient(storage=storage), discovery)
