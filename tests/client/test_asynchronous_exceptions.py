"""Threads that an exception ends at any moment, as `KeyboardInterrupt` or a worker's time limit does: no use is left
over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("kind", ["lease", "call", "connect", "get"])
def test_an_exception_at_any_moment_leaves_no_use_over(kind: str):
    # Without coverage, whose tracer does not survive exceptions at any moment.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.client.interrupted", kind],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environ,
        timeout=55,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["least"] >= 0
    # `threading.Condition`, which events and queues use, can be left locked: who waits for it has its use.
    allowed = found["stuck"] if kind in ("connect", "get") else 0
    assert found["left"] <= allowed + found["swallowed"]
    assert found["hits"] >= 20, "it was tried"
