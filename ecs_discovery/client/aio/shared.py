"""The default discoveries of asyncio: each serves all event loops, and shares the state of the threads' default.

So a process has one cache and one view of health, whichever of its clients a request goes through.
"""

from __future__ import annotations

from ecs_discovery.client.aio.discovery import AsyncDiscovery
from ecs_discovery.client.shared import DefaultDiscoveries
from ecs_discovery.client.sync.shared import shared_discovery
from ecs_discovery.config.settings import Settings
from ecs_discovery.errors import ConfigurationError

__all__ = ["shared_async_discovery"]


def _make(settings: Settings) -> AsyncDiscovery:
    try:
        settings.check_for_threads()
    except ConfigurationError:  # it holds what asyncio alone can use
        return AsyncDiscovery(settings=settings)
    return AsyncDiscovery(share=shared_discovery(settings))


_registry: DefaultDiscoveries[AsyncDiscovery] = DefaultDiscoveries(
    _make, lambda found: found._closed or found._engine.closed
)


def shared_async_discovery(settings: Settings) -> AsyncDiscovery:
    """The default discovery of these settings, made if there is none or it was closed."""
    return _registry.get(settings)
