"""Fixtures for every test: a clock that stands still, and seeded dice."""

from __future__ import annotations

from random import Random

import pytest

from tests.support import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def dice() -> Random:
    return Random(7)
