"""The queue for room."""

from __future__ import annotations

from ecs_discovery.core.room import Room


def test_waking_when_nobody_waits_does_nothing():
    Room().wake()
