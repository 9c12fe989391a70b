"""Bars as SVG, with their numbers beside them: readable without a script, in any viewer."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

__all__ = ["Bar", "bars"]

_WIDTH, _LEFT, _RIGHT, _ROW, _GAP, _TOP = 720, 190, 130, 18, 10, 34


class Bar(NamedTuple):
    """One bar: its parts lie one after the other."""

    group: str
    label: str
    parts: Sequence[tuple[float, str]]
    """Lengths and colours."""
    said: str


def bars(title: str, rows: Sequence[Bar], limit: float, mark: float | None = None) -> str:
    """`limit` is the value at the right edge; longer bars are cut there. `mark` draws a line, at 1 for ratios."""
    inside, y, group = [], _TOP, None
    room = _WIDTH - _LEFT - _RIGHT
    for row in rows:
        if row.group != group:
            y += _GAP + (_ROW if row.group else 0)
            group = row.group
            if group:
                inside.append(f'<text x="8" y="{y - 5}" font-weight="bold">{escape(group)}</text>')
        inside.append(f'<text x="{_LEFT - 8}" y="{y + 13}" text-anchor="end">{escape(row.label)}</text>')
        x, used = float(_LEFT), 0.0
        for value, color in row.parts:
            length = max(0.0, min(value, limit - used)) / limit * room
            used += value
            inside.append(f'<rect x="{x:.1f}" y="{y + 2}" width="{length:.1f}" height="{_ROW - 4}" fill="{color}"/>')
            x += length
        inside.append(f'<text x="{x + 6:.1f}" y="{y + 13}">{escape(row.said)}</text>')
        y += _ROW
    height = y + _GAP
    line = ""
    if mark is not None:
        x = _LEFT + mark / limit * room
        line = f'<line x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{height}" stroke="#555" stroke-dasharray="3 3"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(title)}" width="{_WIDTH}" '
        f'height="{height}" viewBox="0 0 {_WIDTH} {height}" font-size="12" font-family="system-ui, sans-serif" '
        f'fill="#333"><rect width="100%" height="100%" fill="#fff"/>'
        f'<text x="8" y="20" font-size="14" font-weight="bold">{escape(title)}</text>{"".join(inside)}{line}</svg>\n'
    )
