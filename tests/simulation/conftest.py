"""Every scenario here runs without a word in the log: hundreds of clients would fill it."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("ecs_discovery"), "disabled", True)
