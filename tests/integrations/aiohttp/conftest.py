"""Fixtures."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import aiohttp
import pytest

from ecs_discovery import AsyncDiscovery
from ecs_discovery.integrations.aiohttp import DiscoveryConnector, client_session
from ecs_discovery.testing.lab import Lab

Play = Callable[..., None]


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(namespace="prod.local", seed=7) as lab:
        yield lab


@pytest.fixture
def play(lab: Lab) -> Play:
    """Run `await scenario(session, discovery)`. `options` are the session's; `connector` those of its connector."""

    def run(
        scenario: Callable[[aiohttp.ClientSession, AsyncDiscovery], Awaitable[object]],
        *,
        connector: dict[str, Any] | None = None,
        settings: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        async def main() -> None:
            discovery = AsyncDiscovery(namespace="prod.local", nameservers=[lab.nameserver], **(settings or {}))
            async with discovery:
                if connector is None:
                    session = client_session(discovery, **options)
                else:
                    session = client_session(connector=DiscoveryConnector(discovery, **connector), **options)
                async with session:
                    await scenario(session, discovery)

        asyncio.run(main())

    return run
