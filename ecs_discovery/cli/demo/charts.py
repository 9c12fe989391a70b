"""Charts as SVG, for a page without scripts. Each is drawn for a width in pixels, so that its text keeps its size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

__all__ = ["COLORS", "Axis", "Mark", "Series", "areas", "lines", "ticks"]

COLORS = ("#1f77b4", "#ff9f40", "#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf", "#aec7e8")
"""For what has no colour of its own, one after the other."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 10, 22, 26
_FONT = 12
_HEIGHT = 230
_LETTER = 6.6  # the width of one, at most of them, in pixels
_LINE = 13  # the height of a line of numbers over the chart, in pixels
_MINUTES = 240.0  # seconds from which on times are told in minutes

Point = tuple[float, float | None]
"""A time in seconds, and a value; None where there is none."""


@dataclass(frozen=True, slots=True)
class Series:
    """One line, or one area of a pile."""

    name: str
    color: str
    points: Sequence[Point]
    dash: str = ""


@dataclass(frozen=True, slots=True)
class Mark:
    """An event: a number over the chart, and a line at its time."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Axis:
    """Values upwards. `place` maps a value to 0 (bottom) to 1 (top); `ticks` are values with their labels."""

    ticks: Sequence[tuple[float, str]]
    place: Callable[[float], float]


def lines(
    title: str,
    series: Sequence[Series],
    axis: Axis,
    seconds: float,
    marks: Sequence[Mark],
    width: int,
    height: int = _HEIGHT,
) -> str:
    """A line for each series."""
    frame = _Frame(title, axis, seconds, marks, width, height)
    for each in series:
        for run in _runs(each.points):
            path = " ".join(_turns([(f"{frame.x(at):.1f}", f"{frame.y(value):.1f}") for at, value in run]))
            style = f'stroke="{each.color}" stroke-width="2" stroke-linecap="round"'
            dash = f' stroke-dasharray="{each.dash}"' if each.dash else ""
            frame.add(f'<polyline points="{path}" fill="none" {style}{dash}/>')
    return frame.drawn()


def areas(title: str, series: Sequence[Series], axis: Axis, seconds: float, marks: Sequence[Mark], width: int) -> str:
    """The series piled up. All have points at the same times; a missing value counts as 0."""
    frame = _Frame(title, axis, seconds, marks, width)
    times = [at for at, _ in series[0].points] if series else []
    below = [0.0] * len(times)
    for each in series:
        above = [low + (value or 0.0) for low, (_, value) in zip(below, each.points, strict=True)]
        edge = [(at, high) for at, high in zip(times, above, strict=True)]
        edge += reversed([(at, low) for at, low in zip(times, below, strict=True)])
        path = " ".join(f"{frame.x(at):.1f},{frame.y(value):.1f}" for at, value in edge)
        frame.add(f'<polygon points="{path}" fill="{each.color}" stroke="#fff" stroke-width="0.5"/>')
        below = above
    return frame.drawn()


def ticks(most: float) -> tuple[float, float]:
    """A round number at or above `most`, and a round step that divides it into a few."""
    if most <= 0:
        return 1.0, 1.0
    power: float = 10.0 ** (ceil(log10(most)) - 1)
    step = next(factor * power for factor in (0.2, 0.5, 1.0, 2.0, 5.0) if factor * power * 5 >= most)
    return step * ceil(most / step), step


def _runs(points: Sequence[Point]) -> list[list[tuple[float, float]]]:
    """The points without gaps in between."""
    runs: list[list[tuple[float, float]]] = [[]]
    for at, value in points:
        if value is None:
            runs.append([])
        else:
            runs[-1].append((at, value))
    return [run for run in runs if run]


def _turns(places: list[tuple[str, str]]) -> list[str]:
    """The places as a path has them, without those inside of a level stretch.

    One place alone is a line to itself, whose round ends make a dot.
    """
    last = len(places) - 1
    kept = [
        f"{x},{y}"
        for index, (x, y) in enumerate(places)
        if index in (0, last) or not places[index - 1][1] == y == places[index + 1][1]
    ]
    return kept if last else kept * 2


def _step(least: float) -> float:
    """The next round number of seconds: 1, 2 or 5 times a power of ten."""
    power = 10.0 ** floor(log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least)


class _Frame:
    """Axes, grid and marks of one chart."""

    def __init__(
        self, title: str, axis: Axis, seconds: float, marks: Sequence[Mark], width: int, height: int = _HEIGHT
    ) -> None:
        self._title = title
        self._axis = axis
        self._seconds = seconds
        self._marks = marks
        self._width = width
        self._height = height
        self._left = max(_LEFT, ceil(12 + _LETTER * max((len(label) for _, label in axis.ticks), default=0)))
        self._lines = self._staggered()
        self._top = _TOP + _LINE * max(0, max(self._lines, default=0))
        self._inside: list[str] = []

    def x(self, at: float) -> float:
        share = min(1.0, max(0.0, at / self._seconds))
        return self._left + share * (self._width - self._left - _RIGHT)

    def y(self, value: float) -> float:
        share = min(1.0, max(0.0, self._axis.place(value)))
        return self._height - _BOTTOM - share * (self._height - _BOTTOM - self._top)

    def add(self, shape: str) -> None:
        self._inside.append(shape)

    def _staggered(self) -> list[int]:
        """The line of each mark's number, 0 next to the chart: two numbers must not stand on each other."""
        ends: list[float] = []
        chosen = []
        for mark in self._marks:
            half = _LETTER * (len(mark.label) + 1) / 2
            x = self.x(mark.at)
            free = (line for line, end in enumerate(ends) if x - half >= end + 2)
            line = next(free, len(ends))
            ends[line : line + 1] = [x + half]
            chosen.append(line)
        return chosen

    def drawn(self) -> str:
        right, bottom = self._width - _RIGHT, self._height - _BOTTOM
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(self._title)}" '
            f'width="{self._width}" height="{self._height}" viewBox="0 0 {self._width} {self._height}" '
            f'font-size="{_FONT}" font-family="system-ui, sans-serif" fill="#444">'
        ]
        for value, label in self._axis.ticks:
            y = self.y(value)
            parts.append(f'<line x1="{self._left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="#ddd"/>')
            parts.append(f'<text x="{self._left - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(label)}</text>')
        scale, unit = (60.0, "min") if self._seconds >= _MINUTES else (1.0, "s")
        step = _step(self._seconds / scale / (8 if self._width > 500 else 4))
        for index in range(int(self._seconds / scale / step) + 1):
            at = index * step * scale
            anchor = "end" if self.x(at) > right - 2 * _FONT else "middle"
            parts.append(
                f'<text x="{self.x(at):.1f}" y="{bottom + 18}" text-anchor="{anchor}">{at / scale:g} {unit}</text>'
            )
        parts += self._inside
        for mark, line in zip(self._marks, self._lines, strict=True):
            x, y = self.x(mark.at), self._top - 6 - _LINE * line
            parts.append(
                f'<line x1="{x:.1f}" y1="{self._top}" x2="{x:.1f}" y2="{bottom}" stroke="#777" stroke-dasharray="2 3"/>'
            )
            parts.append(f'<text x="{x:.1f}" y="{y}" text-anchor="middle">{escape(mark.label)}</text>')
        return "".join((*parts, "</svg>"))
