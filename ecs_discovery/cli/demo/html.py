"""The demo's report: one page that needs nothing else, and no script."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import log10

from ecs_discovery.cli.demo.charts import COLORS, Axis, Mark, Point, Series, areas, lines
from ecs_discovery.cli.demo.traffic import Request, Summary, percentile
from ecs_discovery.cli.demo.view import NAMES, Line, shared_prefix, short, shortened

__all__ = ["History", "page"]

_WIDE, _NARROW = 1000, 360
_MOST_BINS = 60
_SHORTEST_BIN = 0.5  # seconds: fewer requests than a dozen make no share
_SIDES = {"wrapped": ("#0b7a53", ""), "plain": ("#b8322a", "6 3"), "plain_retry": ("#9a6b00", "2 3")}
_SHORTEST, _LONGEST = 0.001, 20.0  # seconds that the latency chart reaches from and to

_STYLE = """
body { margin: 0 auto; padding: 16px; max-width: 1000px; font: 16px/1.5 system-ui, sans-serif; color: #222; }
h1 { font-size: 24px; line-height: 1.25; } h2 { font-size: 18px; margin: 28px 0 4px; }
table { border-collapse: collapse; width: 100%; } td, th { padding: 4px 8px 4px 0; text-align: right; }
td:first-child, th:first-child { text-align: left; } tr { border-bottom: 1px solid #ddd; }
.key { display: inline-block; width: 14px; height: 10px; margin: 0 4px 0 12px; }
.legend span { white-space: nowrap; } .narrow { display: none; } svg { display: block; max-width: 100%; }
.good { color: #0b7a53; font-weight: bold; } .bad { color: #b8322a; font-weight: bold; }
ol { padding-left: 28px; } pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 13px; }
@media (max-width: 720px) { .wide { display: none; } .narrow { display: block; } body { padding: 12px; }
  .less { display: none; } }
"""


@dataclass(frozen=True, slots=True)
class History:
    """All that happened in one demo. `began` and the requests' times are monotonic seconds."""

    seconds: float
    began: float
    sides: Mapping[str, tuple[Sequence[Request], Summary]]
    """By client: its requests, and its figures."""
    tasks: Mapping[str, str]
    """The address of each task, by its id, in the order of their start."""
    lines: Sequence[Line]

    @property
    def bins(self) -> int:
        """Into how many times the seconds are cut."""
        return min(_MOST_BINS, max(1, int(self.seconds / _SHORTEST_BIN)))


def page(history: History) -> str:
    """The page as HTML."""
    events = [line for line in history.lines if line.kind == "lab"]
    marks = [Mark(line.at, str(number)) for number, line in enumerate(events, 1)]
    wrapped = history.sides["wrapped"][1]
    lost = ", ".join(f"{NAMES[name]} {one.lost} of {one.requests}" for name, (_, one) in history.sides.items())
    title = f"The wrapped session lost {wrapped.lost or 'none'} of {wrapped.requests} requests"
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>ecs_discovery demo: {escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        f"<p>Three clients called the same tasks for {history.seconds:g} s at the same rate. Lost: {escape(lost)}.</p>",
        _table(history),
        "<h2>Events</h2><ol>",
        *(f"<li>{escape(text.partition(' s  ')[2])} ({line.at:.1f} s)</li>" for line, text in _texts(events, history)),
        "</ol>",
        "<h2>Answered requests</h2>",
        _legend((NAMES[name], _SIDES[name][0]) for name in history.sides),
        *_both(lambda width: lines("Answered requests", _success(history), _SHARE, history.seconds, marks, width)),
        "<h2>Latency: the slowest of 100 requests</h2>",
        _legend((NAMES[name], _SIDES[name][0]) for name in history.sides),
        *_both(lambda width: lines("Latency", _latency(history), _LATENCY, history.seconds, marks, width)),
    ]
    prefix = shared_prefix(list(history.tasks.values()))
    colors = {task: COLORS[index % len(COLORS)] for index, task in enumerate(history.tasks)}
    key = [(short(address, prefix), colors[task]) for task, address in history.tasks.items()]
    for name in ("wrapped", "plain"):
        piles = _shares(history, name, colors)
        parts += [
            f"<h2>Share of each task: {escape(NAMES[name])}</h2>",
            _legend(key),
            *_both(_pile(f"Share of each task, {NAMES[name]}", piles, history.seconds, marks)),
        ]
    parts += [
        "<details><summary>Everything that was told</summary>",
        f"<pre>{escape(chr(10).join(shortened(history.lines)))}</pre></details>",
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


_SHARE = Axis([(0.0, "0 %"), (0.25, "25 %"), (0.5, "50 %"), (0.75, "75 %"), (1.0, "100 %")], lambda value: value)


def _on_a_scale(value: float) -> float:
    return log10(max(value, _SHORTEST) / _SHORTEST) / log10(_LONGEST / _SHORTEST)


_LATENCY = Axis([(0.001, "1 ms"), (0.01, "10 ms"), (0.1, "100 ms"), (1.0, "1 s"), (10.0, "10 s")], _on_a_scale)


def _both(draw: Callable[[int], str]) -> list[str]:
    return [f'<div class="wide">{draw(_WIDE)}</div>', f'<div class="narrow">{draw(_NARROW)}</div>']


def _pile(title: str, series: Sequence[Series], seconds: float, marks: Sequence[Mark]) -> Callable[[int], str]:
    return lambda width: areas(title, series, _SHARE, seconds, marks, width)


def _texts(events: Sequence[Line], history: History) -> list[tuple[Line, str]]:
    texts = dict(zip(map(id, history.lines), shortened(history.lines), strict=True))
    return [(line, texts[id(line)]) for line in events]


def _legend(entries: Iterable[tuple[str, str]]) -> str:
    keys = "".join(
        f'<span><span class="key" style="background:{color}"></span>{escape(name)}</span> ' for name, color in entries
    )
    return f'<p class="legend">{keys}</p>'


def _table(history: History) -> str:
    rows = []
    for name, (_, one) in history.sides.items():
        p50, p99, longest = (
            "-" if value is None else f"{value:.0f} ms" for value in (one.p50_ms, one.p99_ms, one.max_ms)
        )
        rows.append(
            f'<tr><td>{escape(NAMES[name])}</td><td class="{"bad" if one.lost else "good"}">{one.lost}</td>'
            f'<td>{one.requests}</td><td class="less">{one.unanswered}</td><td class="less">{p50}</td>'
            f"<td>{p99}</td><td>{longest}</td></tr>"
        )
    head = (
        '<tr><th></th><th>lost</th><th>of</th><th class="less">no answer yet</th><th class="less">p50</th>'
        "<th>p99</th><th>longest</th></tr>"
    )
    return f"<table>{head}{''.join(rows)}</table>"


def _binned(history: History, requests: Sequence[Request]) -> list[list[Request]]:
    """The requests that ended, by when."""
    count = history.bins
    bins: list[list[Request]] = [[] for _ in range(count)]
    for request in requests:
        if request.ended is not None:
            at = (request.ended - history.began) / history.seconds
            bins[min(count - 1, max(0, int(at * count)))].append(request)
    return bins


def _middle(history: History, index: int) -> float:
    return (index + 0.5) / history.bins * history.seconds


def _by_side(history: History, value: Callable[[list[Request]], float | None]) -> list[Series]:
    found = []
    for name, (requests, _) in history.sides.items():
        color, dash = _SIDES[name]
        points: list[Point] = [
            (_middle(history, index), value(each)) for index, each in enumerate(_binned(history, requests))
        ]
        found.append(Series(NAMES[name], color, points, dash))
    return found


def _success(history: History) -> list[Series]:
    return _by_side(history, lambda each: sum(not one.lost for one in each) / len(each) if each else None)


def _latency(history: History) -> list[Series]:
    return _by_side(
        history, lambda each: percentile(sorted(one.seconds for one in each if one.seconds is not None), 99)
    )


def _shares(history: History, name: str, colors: Mapping[str, str]) -> list[Series]:
    bins = _binned(history, history.sides[name][0])
    good = [[one.task for one in each if one.task is not None and not one.lost] for each in bins]
    return [
        Series(
            task,
            color,
            [
                (_middle(history, index), tasks.count(task) / len(tasks) if tasks else 0.0)
                for index, tasks in enumerate(good)
            ],
        )
        for task, color in colors.items()
    ]
