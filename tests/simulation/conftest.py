"""Every scenario here runs without a word in the log: hundreds of clients would fill it. And without coverage, which
would make it take three times as long: what it runs is covered by the tests of the core."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch, unmeasured: None) -> None:
    monkeypatch.setattr(logging.getLogger("ecs_discovery"), "disabled", True)
