"""The histories of the proof at scale, with 200 clients and 100 tasks; the full size is run by one command."""

from __future__ import annotations

import json
import subprocess
import sys
from array import array
from functools import cache
from hashlib import sha256

import pytest

from ecs_discovery.testing.simulation import scale
from ecs_discovery.testing.simulation.histories import HISTORIES, SECONDS
from ecs_discovery.testing.simulation.scale import Outcome, judge

SLOTS = round(SECONDS / scale.SLOT)


@cache  # one history, looked at by several tests
def played(history: str) -> Outcome:
    return scale.play(history, 200, 100, 1)


@pytest.mark.parametrize("history", HISTORIES)
def test_two_hundred_clients_and_a_hundred_tasks_come_through(history):
    """No request is lost but while no task answers, none is multiplied, and there is no wave."""
    outcome = played(history)
    assert judge(outcome) == []
    assert sum(outcome.began) > 5000


def test_every_request_of_a_deployment_and_of_a_lost_zone_succeeds():
    assert played("deployment").lost == []
    assert played("lost-zone").lost == []


def test_an_outage_loses_requests_while_it_lasts_only():
    outcome = played("outage")
    assert outcome.lost
    assert outcome.lost_in_light() == []


def test_shards_add_up_to_the_same_figures_in_any_order():
    one, two = (scale.play("start-up", 10, 10, seed) for seed in (1, 2))
    sums = []
    for order in ((one, two), (two, one)):
        total = Outcome("start-up", 0, 10)
        for each in order:
            total.add(each)
        sums.append({name: value for name, value in total.figures().items() if not name.startswith("cpu")})
    assert sums[0] == sums[1]
    assert sums[0]["clients"] == 20


def test_the_same_seed_is_the_same_history():
    first, second = (scale.play("deployment", 5, 10, 4) for _ in range(2))
    assert (first.began, first.served, first.lookups) == (second.began, second.served, second.lookups)
    assert list(first.seconds) == list(second.seconds)


def test_several_processes_play_what_one_does():
    """The same shards, whoever plays them."""
    alone, together = (scale.play_all("start-up", 6, 10, 1, processes, 3) for processes in (1, 2))
    assert (alone.began, alone.served) == (together.began, together.served)


def test_processes_begin_without_a_word():
    """Each shard has a process of its own: what one says would be said forty times."""
    few = ["--clients", "4", "--tasks", "5", "--shard", "2", "--processes", "2", "--histories", "start-up"]
    ended = subprocess.run(
        [sys.executable, "-m", "ecs_discovery.testing.simulation.scale", *few],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert "2 of 2 shards" in ended.stdout
    assert ended.stderr == ""


def even(history: str = "start-up", **given: object) -> Outcome:
    """200 clients that go through a history without a fault: two requests in each tenth of a second."""
    outcome = Outcome(history, 200, 100, began=[2] * SLOTS, served=[2] * SLOTS, seconds=array("f", [0.02]))
    for name, value in given.items():
        setattr(outcome, name, value)
    return outcome


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        (even(lost=[(50.0, "refused")]), "1 requests were lost while a task answered"),
        (even("outage", lost=[(163.0, "503")]), "1 requests were lost while a task answered"),
        (even(served=[50] * SLOTS), "150000 requests reached tasks, over 67200"),
        (even(served=[2] * 2000 + [50] * 10 + [2] * (SLOTS - 2010)), "a wave: 500 requests in 1 s"),
        (even("start-up-cloud-map", lookups=[101] * 10), "1010 calls to Cloud Map in one second"),
        (even(most_lookups=1025), "1025 DNS lookups of one client"),
    ],
)
def test_what_does_not_hold_is_told(outcome, told):
    found = judge(outcome)
    assert len(found) == 1
    assert found[0].startswith(told)


def test_what_holds_is_not_told():
    assert judge(even()) == []
    assert judge(even("outage", lost=[(120.0, "503")])) == []


def test_the_command_writes_figures_and_a_picture(tmp_path, capsys):
    few = ["--clients", "4", "--tasks", "5", "--processes", "1", "--histories", "start-up"]
    assert scale.main([*few, "--out", str(tmp_path)]) in (0, 1)  # so few clients may meet in one second by chance
    assert '"history": "start-up"' in capsys.readouterr().out
    assert '"requests"' in (tmp_path / "scale.json").read_text()
    assert (tmp_path / "scale-start-up.svg").read_text().startswith("<svg")


@pytest.mark.parametrize(
    ("history", "told"),
    [
        ("deployment", "246 requests, 160 lookups, 337 connects: 49a4db46c833"),
        ("outage", "233 requests, 142 lookups, 287 connects: a56b2df386cd"),
        ("lost-zone", "236 requests, 174 lookups, 312 connects: d0098330e73f"),
        ("start-up-cloud-map", "231 requests, 146 lookups, 222 connects: 5524e09710c1"),
    ],
)
def test_what_is_only_made_faster_changes_no_history(history, told):
    """The figures of small worlds, as they are. Where a rule is changed they may change; else a faster way is another
    way."""
    outcome = scale.play(history, 8, 30, 11)
    counts = [outcome.began, outcome.served, outcome.lookups, outcome.connects, outcome.attempts, outcome.known]
    digest = sha256(json.dumps(counts).encode()).hexdigest()[:12]
    totals = f"{sum(outcome.began)} requests, {sum(outcome.lookups)} lookups, {sum(outcome.connects)} connects"
    assert f"{totals}: {digest}" == told
