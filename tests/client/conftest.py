"""The two worlds that most of these tests run in."""

from __future__ import annotations

from tests.worlds import refused_port, world

__all__ = ["refused_port", "world"]
