"""Fixtures."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from ecs_discovery import (
    Discovery,
    wrap_session,
)
from ecs_discovery.testing.lab import Lab


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(namespace="prod.local", seed=7) as lab:
        yield lab


@pytest.fixture
def wrap(lab: Lab) -> Iterator[object]:
    """A wrapped session on a discovery of its own, asking the lab's DNS."""
    made: list[tuple[requests.Session, Discovery]] = []

    def make(**settings) -> requests.Session:
        discovery = Discovery(namespace="prod.local", nameservers=[lab.nameserver], **settings)
        session = wrap_session(requests.Session(), discovery)
        made.append((session, discovery))
        return session

    yield make
    for session, discovery in made:
        session.close()
        discovery.close()
