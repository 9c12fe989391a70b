"""What several of these tests need."""

from __future__ import annotations

from collections import Counter

import requests

from ecs_discovery import (
    Discovery,
)
from ecs_discovery.integrations.requests import DiscoveryAdapter


def discovery_of(session: requests.Session) -> Discovery:
    adapter = session.get_adapter("http://")
    assert isinstance(adapter, DiscoveryAdapter)
    return adapter.discovery


def shares(session: requests.Session, url: str, count: int) -> Counter[str]:
    return Counter(session.get(url, timeout=10).headers["X-Task"] for _ in range(count))
