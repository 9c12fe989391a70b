"""The command that measures: it runs, and its page says what was found."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.core import exponent
from benchmarks.measure import Cost, cpu_of, rotated, summary
from benchmarks.plots import Bar, bars
from benchmarks.report import page, plots
from benchmarks.system_resolver import ADDRESS, SystemResolver, reason_against
from tests.resolvers.conftest import ZONE
from tests.servers import KnotServer

ABOUT = {
    "date": "2000-01-01",
    "seconds": 61,
    "python": "3.11",
    "rounds": 3,
    "seed": 1,
    "versions": {"requests": "2"},
    "processors": 2,
    "model": "",
}


def test_the_command_writes_a_page_and_the_numbers(tmp_path: Path):
    command = [sys.executable, "-m", "benchmarks", "--only", "core", "--rounds", "3", "--docs", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    written = (tmp_path / "benchmarks.md").read_text()
    assert done.stdout.strip() == written.strip()
    found = json.loads((tmp_path / "pictures" / "benchmarks.json").read_text())
    assert f"| lease | {found['core']['lease']['4']:,.1f} µs |" in written


def test_each_is_the_first_as_often_as_the_others():
    names = ["a", "b", "c"]
    orders = [rotated(names, number) for number in range(12)]
    assert all(sorted(order) == names for order in orders)
    assert {name: sum(order[0] == name for order in orders) for name in names} == dict.fromkeys(names, 4)


def test_ratios_are_of_the_same_round():
    rounds = {
        "plain": [Cost(1.0, 1.0), Cost(10.0, 10.0), Cost(1.0, 2.0)],
        "ours": [Cost(2, 2), Cost(20, 5), Cost(2, 4)],
    }
    assert summary(rounds, "plain")["ours"]["wall_ratio"] == 2
    assert summary(rounds, "plain")["ours"]["cpu_ratio"] == 2


def test_the_cpu_of_a_process_is_that_of_all_its_threads():
    before = cpu_of(os.getpid())
    sum(range(2_000_000))
    assert cpu_of(os.getpid()) > before


@pytest.mark.parametrize(("power", "found"), [(0, 0.0), (1, 1.0), (2, 2.0)])
def test_the_exponent_is_the_power_that_the_cost_grows_with(power: int, found: float):
    assert exponent({size: 3.0 * size**power for size in (4, 100, 10_000)}) == pytest.approx(found)


def test_a_loss_of_ours_is_shown_like_any_other():
    figures = {
        "lost": 7,
        "unanswered": 0,
        "requests": 100,
        "p50_ms": 1.0,
        "p99_ms": 2.0,
        "max_ms": 3.0,
        "attempts": 1.0,
    }
    found = {"about": ABOUT, "faults": {"a task is killed": {"this, requests": figures}}}
    assert "| this, requests | 7 | 1 ms | 2 ms | 3 ms | 1.00 |" in page(found)
    assert "7.0 % lost" in plots(found)["benchmark-faults.svg"]


def test_bars_are_cut_at_the_edge_and_their_texts_are_escaped():
    drawn = bars("a & b", [Bar("<g>", "x", [(50.0, "#000")], "said")], 10.0)
    assert "a &amp; b" in drawn
    assert "&lt;g&gt;" in drawn
    assert 'width="400.0"' in drawn


def test_getaddrinfo_of_the_system_asks_the_benchmarks_server(tmp_path: Path):
    reason, program = reason_against(), shutil.which("knotd")
    if reason or program is None:
        pytest.skip(reason or "knotd is not installed")
    with KnotServer(program, tmp_path, ZONE, f"{ADDRESS}@53"), SystemResolver(tmp_path) as system:
        assert not system.can_ask(("a",), {"SRV"})
        assert all(0 < system.seconds("orders.prod.local", families) < 5 for families in (("a",), ("a", "aaaa")))


def test_a_peer_that_was_left_out_is_said_with_the_reason():
    times = {"this_us": 1000.0, "ratio to dnspython": 1.0, "ratio to aiodns": 1.0}
    lookups = {
        "cold, threads": {"A": times},
        "cold, asyncio": {"A": times},
        "cached": {},
        "getaddrinfo left out": "no such right",
    }
    assert "left out here: no such right." in page({"about": ABOUT, "lookups": lookups})
