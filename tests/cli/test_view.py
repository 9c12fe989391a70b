"""How the demo looks."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from ecs_discovery.cli.demo.story import fate
from ecs_discovery.cli.demo.traffic import Request, summarize
from ecs_discovery.cli.demo.view import (
    NAMES,
    Line,
    TaskRow,
    comparison,
    live,
    shared_prefix,
    vanish_lines,
    verdict,
)


def drawn(*parts, width=80):
    console = Console(file=io.StringIO(), width=width, markup=False)
    for part in parts:
        console.print(part)
    return console.file.getvalue()


def requests(good, lost=0, unanswered=0):
    return [
        *(Request("/", 0.0, 0.002, 200) for _ in range(good)),
        *(Request("/", 0.0, 2.5, 503) for _ in range(lost)),
        *(Request("/", 0.0) for _ in range(unanswered)),
    ]


def scores(*of_each):
    return [(name, summarize(each)) for name, each in zip(NAMES, of_each, strict=True)]


def cells(text, label):
    line = next(line for line in text.splitlines() if line.strip().startswith(label))
    return line.replace(label, "").split("  ")


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("requests", ["20000", "4", "1"]),
        ("success rate", ["99.99 %", "75.00 %", "100 %"]),  # 19,999 of 20,000 is not rounded up
        ("lost", ["1", "1", "0"]),
        ("latency p50, ms", ["2.0", "2.0", "2.0"]),
        ("latency max, ms", ["2500", "2500", "2.0"]),
        ("queries to the DNS server", ["5", "6, both"]),
    ],
)
def test_the_comparison_puts_the_clients_side_by_side(label, expected):
    text = drawn(comparison(scores(requests(19_999, 1), requests(3, 1), requests(1)), 5, 6))
    assert [cell.strip() for cell in cells(text, label) if cell.strip()] == expected


def test_rows_without_news_are_left_out_and_others_shown():
    calm = drawn(comparison(scores(requests(1), requests(1), requests(1)), 0, 0))
    assert "unanswered" not in calm
    assert "held back" not in calm
    held_back = [("wrapped", summarize(requests(1, 0, 1))), ("plain", summarize(requests(1), held_back=3))]
    busy = drawn(comparison(held_back, 0, 0))
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


def row(address, state="running", health="healthy", **facts):
    given = {"pending": 2, "ejections": 1, "latency": 0.0015, "shares": (0.25, 0.5, 0.0), **facts}
    return TaskRow(address=address, state=state, health=health, **given)


def test_the_live_picture_shows_score_tasks_and_log():
    gone = row("127.9.8.8", "stopped", "", pending=0, latency=None, shares=(0.0, 0.0, 0.0))
    lines = [Line(1.0, "lab", "127.9.8.7 slows down"), Line(1.2, "discovery", "127.9.8.8:80 is down")]
    text = drawn(live(2.0, 30.0, scores(requests(9), requests(8, 1), requests(9)), [row("127.9.8.7"), gone], lines))
    shown = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    assert text.splitlines()[0].split("   ")[0].strip() == "2.0 of 30 s"
    assert "127.9.8.7" in text.splitlines()[0], "what a shortened address stands for"
    assert shown["wrapped"][:4] == ["0", "9", "100", "%"]
    assert "88.89 %" in text
    assert shown[".7"] == ["running", "healthy", "2", "1.5", "25", "50", "0"]
    assert shown[".8"] == ["stopped", "-", "-", "-", "0", "0", "0"]
    assert "1.0 s  .7 slows down" in text
    assert "1.2 s    -> .8 is down" in text


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40)])
def test_the_live_picture_fits_the_terminal_and_cuts_nothing_but_the_log(width, height):
    rows = [row(f"127.240.250.{number}", "vanished", "probing", latency=1.234) for number in range(240, 248)]
    lines = [Line(float(at), "lab", f"127.240.250.24{at % 8} is started in its place; " * 3) for at in range(60)]
    many = scores(*[requests(9_999, 999)] * 3)
    text = drawn(live(29.9, 30.0, many, rows, lines, height), width=width)
    assert len(text.splitlines()) <= height
    assert all(len(line) <= width for line in text.splitlines())
    above = text[: text.index("s  .24")]
    assert "…" not in above
    assert above.count("probing") == 8


@pytest.mark.parametrize(
    ("addresses", "prefix"),
    [
        (["127.1.2.3", "127.1.2.4"], "127.1.2."),
        (["127.1.2.3", "127.1.3.4"], "127.1."),
        (["127.1.2.3"], "127.1.2."),
        (["10.0.0.1", "127.0.0.1"], ""),
        ([], ""),
    ],
)
def test_addresses_are_shortened_by_the_numbers_that_they_share(addresses, prefix):
    assert shared_prefix(addresses) == prefix


def test_what_became_of_requests_to_a_vanished_task_is_told_for_each():
    met = fate([Request("/", 9.9, 19.0, 200), Request("/", 10.1, 10.36, 200)], 10.0, 30.0)
    others = fate([Request("/", 9.9)], 10.0, 30.0), fate([], 10.0, 30.0)
    text = "\n".join(vanish_lines("127.0.0.7", list(zip(NAMES, (met, *others), strict=True))))
    assert "wrapped:       1 (1 answered) in flight, longest 9.10 s" in text
    assert "1 (1 answered) sent later, longest 0.26 s" in text
    assert "plain:         1 (0 answered, 1 waiting) in flight" in text
    assert "plain + Retry: no request met its silence" in text
    assert max(map(len, text.splitlines())) <= 80
