"""The demo's page: what it says, and how it looks in a real browser."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

import pytest

from ecs_discovery.cli.demo.charts import Axis, Mark, Series, areas, lines
from ecs_discovery.cli.demo.html import History, page
from ecs_discovery.cli.demo.traffic import Request, summarize
from ecs_discovery.cli.demo.view import NAMES, Line
from tests.pages.browser import measured

TASKS = {f"task-{number}": f"127.240.250.{240 + number}" for number in range(10)}
EVENTS = (
    Line(0.0, "lab", "4 healthy tasks, records with a TTL of 5 s"),
    Line(0.1, "discovery", "4 endpoints from dns"),
    *(Line(2.5 * number, "lab", f"127.240.250.24{number} is killed <&> replaced") for number in range(1, 10)),
    Line(29.0, "discovery", "127.240.250.241:80 is down: " + "a long reason " * 12),
)


def history(*, lost: int = 0, seconds: float = 30.0) -> History:
    rng, began = Random(3), 1000.0
    sides = {}
    for index, name in enumerate(NAMES):
        requests = []
        for number in range(int(60 * seconds)):
            at = began + number / 60
            took = rng.expovariate(200.0)
            status = 503 if number < lost * index else 200
            requests.append(Request("/orders/1", at, at + took, status, f"task-{rng.randrange(10)}"))
        requests.append(Request("/orders/2", began + seconds - 0.1))
        sides[name] = (requests, summarize(requests))
    return History(seconds, began, sides, TASKS, EVENTS)


@pytest.fixture(scope="module")
def looks(tmp_path_factory: pytest.TempPathFactory):
    widths = (400, 720, 1280)
    return measured(page(history(lost=40)), widths, tmp_path_factory.mktemp("browser"))


@pytest.mark.parametrize("index", range(3), ids=["400", "720", "1280"])
def test_nothing_is_cut_off_and_all_text_can_be_read(looks, index: int):
    assert looks[index]["overflow"] == 0
    assert looks[index]["smallest"] >= 12
    assert looks[index]["charts"] == 4
    assert looks[index]["words"] > 100


def test_the_head_says_what_was_lost_of_how_many():
    text = page(history(lost=40))
    assert "<h1>The wrapped session lost none of 1801 requests</h1>" in text
    assert "wrapped 0 of 1801, plain 40 of 1801, plain + Retry 80 of 1801" in text


def test_events_are_numbered_in_the_list_and_in_the_charts():
    text = page(history())
    assert "<li>.241 is killed &lt;&amp;&gt; replaced (2.5 s)</li>" in text
    assert text.count('stroke-dasharray="2 3"/>') >= 10 * 8 / 2  # each event in each chart


def test_a_history_that_was_interrupted_at_once_has_a_page():
    empty = History(10.0, 0.0, {name: ([], summarize([])) for name in NAMES}, {}, ())
    assert "lost none of 0 requests" in page(empty)


SHARE = Axis([(0.0, "0"), (1.0, "1")], lambda value: value)


def test_a_line_has_a_gap_where_there_is_no_value():
    drawn = lines("x", [Series("a", "#000", [(0, 1.0), (1, None), (2, 0.5), (3, 0.5)])], SHARE, 4.0, [], 360)
    assert drawn.count("<polyline") == 2


def test_a_value_between_two_gaps_is_a_dot():
    drawn = lines("x", [Series("a", "#000", [(0, None), (1, 0.5), (2, None)])], SHARE, 4.0, [], 360)
    (points,) = re.findall(r'points="(.*?)"', drawn)
    assert len(points.split()) == 2
    assert len(set(points.split())) == 1


def test_a_level_stretch_is_one_line():
    series = Series("a", "#000", [(at, 0.5) for at in range(4)] + [(4, 1.0)])
    (points,) = re.findall(r'points="(.*?)"', lines("x", [series], SHARE, 4.0, [], 360))
    assert len(points.split()) == 3


def test_long_times_are_told_in_minutes():
    drawn = lines("x", [], SHARE, 480.0, [], 1000)
    assert ">8 min<" in drawn
    assert " s<" not in drawn


def test_numbers_of_two_events_do_not_stand_on_each_other():
    marks = [Mark(1.0, "10"), Mark(1.2, "11"), Mark(3.0, "12")]
    drawn = lines("x", [], SHARE, 4.0, marks, 360)
    assert [heights(drawn)[label] for label in ("10", "11", "12")] == [29, 16, 29]


def test_a_chart_ends_below_the_numbers_of_its_events():
    drawn = lines("x", [Series("a", "#000", [(0, 1.0)])], SHARE, 4.0, [Mark(1.0, "1"), Mark(1.0, "2")], 360)
    (points,) = re.findall(r'points="(.*?)"', drawn)
    assert float(points.split()[0].split(",")[1]) > max(heights(drawn)[label] for label in "12")


def heights(drawn: str) -> dict[str, int]:
    """How far below the upper edge the numbers of events stand."""
    return {label: int(y) for y, label in re.findall(r'y="(\d+)" text-anchor="middle">(\d+)<', drawn)}


def test_a_long_label_of_the_axis_has_room():
    axis = Axis([(0.0, "0"), (1.0, "1000000 requests")], lambda value: value)
    drawn = lines("x", [Series("a", "#000", [(0, 0.5)])], axis, 4.0, [], 360)
    (left,) = set(re.findall(r'<line x1="(\d+)"', drawn))
    assert int(left) > 100


def test_piled_areas_reach_the_top_where_their_shares_add_up():
    series = [Series("a", "#111", [(0, 0.25), (4, 0.5)]), Series("b", "#222", [(0, 0.75), (4, 0.5)])]
    first, second = areas("x", series, SHARE, 4.0, [], 360).split("<polygon")[1:]
    top = [point.split(",")[1] for point in second.split('"')[1].split()[:2]]
    assert top == ["22.0", "22.0"]
    assert first.split('"')[1].split()[0].split(",")[1] == "158.5"


def test_numbers_of_events_that_are_close_do_not_stand_on_each_other():
    drawn = lines("x", [], SHARE, 10.0, [Mark(1.0, "1"), Mark(1.01, "2"), Mark(5.0, "3")], 360)
    assert [heights(drawn)[label] for label in "123"] == [29, 16, 29]


def test_names_are_escaped():
    assert "<script>" not in lines("<script>", [], SHARE, 1.0, [Mark(0.5, "<script>")], 360)


def test_the_command_refuses_a_folder_that_is_not_there(tmp_path: Path):
    from click.testing import CliRunner

    from ecs_discovery.cli.commands import commands

    done = CliRunner().invoke(commands, ["demo", "--report", str(tmp_path / "no" / "report.html")])
    assert done.exit_code == 2
