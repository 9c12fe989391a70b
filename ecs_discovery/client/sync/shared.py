"""The default discoveries of threads."""

from __future__ import annotations

from ecs_discovery.client.shared import DefaultDiscoveries
from ecs_discovery.client.sync.discovery import Discovery
from ecs_discovery.config.settings import Settings

__all__ = ["shared_discovery"]


_registry: DefaultDiscoveries[Discovery] = DefaultDiscoveries(
    lambda settings: Discovery(settings=settings), lambda discovery: discovery._engine.closed
)


def shared_discovery(settings: Settings) -> Discovery:
    """The default discovery of these settings, made if there is none or it was closed."""
    return _registry.get(settings)
