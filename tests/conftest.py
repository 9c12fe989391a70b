"""Fixtures for every test: a clock that stands still, and seeded rng."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import HealthCheck, settings

from tests.support import FakeClock

# A property says nothing of time: a machine that does other things beside the tests may take long over an example.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# A shell has what it runs in the background ignore SIGINT, and what that starts would ignore it too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def rng() -> Random:
    return Random(7)


@pytest.fixture
def unmeasured() -> Iterator[None]:
    """No coverage: it makes everything several times slower, which a test of load and time would show."""
    try:
        from coverage import Coverage
    except ImportError:
        yield
        return
    measuring = Coverage.current()
    if measuring is None:
        yield
        return
    measuring.stop()
    try:
        yield
    finally:
        measuring.start()
