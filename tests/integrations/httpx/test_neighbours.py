"""What others put into httpx sees our requests under the names of their URLs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import respx

from ecs_discovery import Discovery, wrap_client
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
