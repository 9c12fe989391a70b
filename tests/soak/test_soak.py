"""A short soak, and the judgement of its measures."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ecs_discovery import Discovery
from tests.soak.measures import Held, grown, held, unfinished

ROOT = Path(__file__).resolve().parents[2]
BEFORE = Held(60 * 2**20, 20, 8, {"ecs_discovery.Node": 10})


@pytest.mark.timeout(300)
def test_requests_cancellations_and_forks_under_churn_and_faults_leave_nothing_behind():
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", "--seconds", "20", "--seed", "3"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["lost"] == 0
    assert summary["forks"] > 0
    assert {"answered", "cancelled", "closed early", "given up"} <= set(summary["outcomes"])
    assert sum(summary["weather"].values()) > 3


def test_what_is_held_before_and_after_alike_has_not_grown():
    assert grown(BEFORE, BEFORE) == []
    now = held()
    assert now.threads >= 1
    assert grown(now, now) == []


@pytest.mark.parametrize(
    ("after", "word"),
    [
        (replace(BEFORE, rss=120 * 2**20), "memory"),
        (replace(BEFORE, descriptors=200), "descriptors"),
        (replace(BEFORE, threads=40), "threads"),
        (replace(BEFORE, objects={"ecs_discovery.Node": 5000}), "ecs_discovery.Node"),
    ],
    ids=["memory", "descriptors", "threads", "objects"],
)
def test_what_has_grown_is_named(after: Held, word: str):
    (reason,) = grown(BEFORE, after)
    assert word in reason


def test_a_use_that_has_not_ended_is_named():
    with Discovery() as discovery:
        engine = discovery._driver.engine
        with discovery.lease("static://127.0.0.1:80"):
            assert unfinished(engine) == ["static://127.0.0.1:80: 1 uses of 127.0.0.1:80 are pending"]
        assert unfinished(engine) == []
