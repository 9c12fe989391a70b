from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short directory for sockets (a path of pytest's is too long for one), which discoveries made here use."""
    path = Path(tempfile.mkdtemp(prefix="ecsd-", dir="/tmp"))
    for name in ("NAMESPACE", "NAMESERVERS", "SERVICES", "DISABLED"):
        monkeypatch.delenv(f"ECS_DISCOVERY_{name}", raising=False)
    monkeypatch.setenv("ECS_DISCOVERY_INSPECT", str(path))
    try:
        yield path
    finally:
        shutil.rmtree(path)
