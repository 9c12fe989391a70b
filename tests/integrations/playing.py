"""Scenarios that are played with each client library, in threads and in asyncio: the fixtures."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ecs_discovery import DnsPolicy
from ecs_discovery.testing.lab import Lab, LabService
from tests.integrations.clients import CLIENTS, ClientUnderTest
from tests.worlds import Asyncio, Worlds

__all__ = ["Play", "complete", "in_tasks", "kind", "lab", "name_of", "play", "url_of"]

COMPLETE = tuple(each for each in CLIENTS if each.is_complete)
Play = Callable[..., None]


def name_of(kind: type[ClientUnderTest]) -> str:
    return f"{kind.name}-{kind.world.name}"


@pytest.fixture(params=CLIENTS, ids=name_of)
def kind(request: pytest.FixtureRequest) -> type[ClientUnderTest]:
    return request.param  # type: ignore[no-any-return]


complete = pytest.mark.parametrize("kind", COMPLETE, ids=name_of)
in_tasks = pytest.mark.parametrize("kind", [each for each in CLIENTS if each.world is Asyncio], ids=name_of)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(namespace="prod.local", seed=7) as lab:
        yield lab


@pytest.fixture
def play(lab: Lab, kind: type[ClientUnderTest]) -> Play:
    """Run `await scenario(client, w)` with a client of the library, which is closed afterwards."""

    def run(scenario: Callable[..., Any], *, verify: ssl.SSLContext | None = None, **settings: Any) -> None:
        async def inner(w: Any) -> None:
            client = kind(w.discovery, verify)
            try:
                await scenario(client, w)
            finally:
                await client.close()

        asked = DnsPolicy(nameservers=(lab.nameserver,))
        Worlds(kind.world).run(inner, namespace="prod.local", dnspolicy=asked, **settings)

    return run


def url_of(service: LabService, path: str = "/", scheme: str = "http") -> str:
    return f"{scheme}://{service.name}.prod.local:{service.port}{path}"
