"""Every scenario here runs without a word in the log: hundreds of clients would fill it. And without coverage, which
would make it take three times as long: what it runs is covered by the tests of the core."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(logging.getLogger("ecs_discovery"), "disabled", True)
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
