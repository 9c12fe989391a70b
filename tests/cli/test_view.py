"""How the demo looks."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from ecs_discovery.cli.demo.story import fate
from ecs_discovery.cli.demo.traffic import Request, summarize
from ecs_discovery.cli.demo.view import Line, TaskRow, comparison, live, vanish_lines, verdict


def drawn(*parts):
    console = Console(file=io.StringIO(), width=120, markup=False)
    for part in parts:
        console.print(part)
    return console.file.getvalue()


def requests(good, lost=0, unanswered=0):
    return [
        *(Request("/", 0.0, 0.002, 200) for _ in range(good)),
        *(Request("/", 0.0, 2.5, 503) for _ in range(lost)),
        *(Request("/", 0.0) for _ in range(unanswered)),
    ]


def cells(text, label):
    line = next(line for line in text.splitlines() if line.strip().startswith(label))
    return line.replace(label, "").split("  ")


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("requests", ["20000", "4"]),
        ("success rate", ["99.99 %", "75.00 %"]),  # 19,999 of 20,000 is not rounded up
        ("lost", ["1", "1"]),
        ("latency p50, ms", ["2.0", "2.0"]),
        ("latency max, ms", ["2500", "2500"]),
        ("queries to the DNS server", ["5", "6"]),
    ],
)
def test_the_comparison_puts_both_side_by_side(label, expected):
    text = drawn(comparison(summarize(requests(19_999, 1)), summarize(requests(3, 1)), 5, 6))
    assert [cell.strip() for cell in cells(text, label) if cell.strip()] == expected


def test_rows_without_news_are_left_out_and_others_shown():
    calm = drawn(comparison(summarize(requests(1)), summarize(requests(1)), 0, 0))
    assert "unanswered" not in calm
    assert "held back" not in calm
    busy = drawn(comparison(summarize(requests(1, 0, 1)), summarize(requests(1), held_back=3), 0, 0))
    assert "still unanswered" in busy
    assert "held back" in busy


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (requests(3), "The wrapped session lost none of 3 requests."),
        (requests(3, 1), "The wrapped session lost 1 of 4 requests."),
        (requests(3, 0, 1), "The wrapped session lost none of 4 requests; 1 had no answer yet."),
    ],
)
def test_the_verdict_counts_losses(found, text):
    assert verdict(summarize(found)) == text


def test_the_live_picture_shows_event_tasks_and_log():
    row = TaskRow(
        address="127.0.0.7",
        state="slow",
        health="healthy",
        pending=2,
        ejections=1,
        latency=0.0015,
        wrapped=0.25,
        plain=0.5,
    )
    gone = TaskRow(
        address="127.0.0.8", state="stopped", health="", pending=0, ejections=0, latency=None, wrapped=0.0, plain=0.0
    )
    lines = [Line(1.0, "lab", "127.0.0.7 slows down"), Line(1.2, "discovery", "something follows")]
    text = drawn(live(2.0, 30.0, [row, gone], lines))
    assert " 2.0 of 30 s  127.0.0.7 slows down" in text
    shown = next(line for line in text.splitlines() if "127.0.0.7  " in line and "healthy" in line)
    assert shown.split() == ["127.0.0.7", "slow", "healthy", "2", "1", "1.5", "25%", "50%"]
    assert next(line for line in text.splitlines() if "127.0.0.8" in line).split()[1:] == [
        *("stopped", "-", "-", "-", "-", "0%", "0%")
    ]
    assert "1.2 s    -> something follows" in text


def test_what_became_of_requests_to_a_vanished_task_is_told_for_both():
    met = fate([Request("/", 9.9, 19.0, 200), Request("/", 10.1, 10.36, 200)], 10.0, 30.0)
    text = "\n".join(vanish_lines("127.0.0.7", met, fate([Request("/", 9.9)], 10.0, 30.0)))
    assert "wrapped: 1 (1 answered, 0 lost) it had already acknowledged, 9.10 s at the longest" in text
    assert "1 (1 answered, 0 lost) sent to it afterwards, 0.26 s at the longest" in text
    assert "plain: 1 (0 answered, 0 lost, 1 still waiting)" in text
