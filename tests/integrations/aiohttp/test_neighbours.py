"""What others put into aiohttp sees our requests under the names of their URLs."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from ecs_discovery import AsyncDiscovery
from ecs_discovery.testing.lab import Lab
from tests.integrations.aiohttp.conftest import Play
from tests.spans import Spans, spans

__all__ = ["spans"]


def test_aioresponses_answers_for_the_name(lab: Lab, play: Play):
    aioresponses: Any = pytest.importorskip("aioresponses")
    service = lab.service("orders", tasks=1)
    url = f"http://orders:{service.port}/v1"

    async def scenario(session: aiohttp.ClientSession, discovery: AsyncDiscovery) -> None:
        with aioresponses.aioresponses() as mock:
            mock.get(url, status=207, payload={"mocked": True}, repeat=True)
            async with aiohttp.ClientSession() as plain:
                try:
                    await plain.get(url)
                except TypeError:
                    pytest.skip("this aioresponses does not know this aiohttp")
            async with session.get(url) as response:
                assert (response.status, await response.json()) == (207, {"mocked": True})
        assert service.requests == 0
        async with session.get(url) as response:
            assert response.status == 200

    play(scenario)
    assert service.requests == 1


def test_opentelemetry_makes_one_span_for_a_request_however_many_attempts_it_takes(lab: Lab, play: Play, spans: Spans):
    instrumentation: Any = pytest.importorskip("opentelemetry.instrumentation.aiohttp_client")
    service = lab.service("orders", tasks=2)
    service.tasks[0].errors(503)
    url = f"http://orders:{service.port}/v1"

    async def scenario(session: aiohttp.ClientSession, discovery: AsyncDiscovery) -> None:
        for _ in range(2):
            async with session.get(url) as response:
                assert response.status == 200

    with spans.of(instrumentation.AioHttpClientInstrumentor()):
        play(scenario)
    assert spans.urls() == [url] * 2
    assert service.requests == 3  # the refused one as well
