"""Pictures of a history: curves over its seconds, with a legend, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ecs_discovery.cli.demo.charts import Axis, Mark, Series, lines, ticks

__all__ = ["Curve", "picture"]


@dataclass(frozen=True, slots=True)
class Curve:
    """One value for each `step` seconds."""

    name: str
    color: str
    values: Sequence[float]
    step: float = 1.0


def picture(
    title: str, curves: Sequence[Curve], seconds: float, *, marks: Sequence[Mark] = (), width: int = 760
) -> str:
    """The curves over `seconds` seconds, each named in its colour under the title."""
    most = max((value for curve in curves for value in curve.values), default=0.0)
    top, step = ticks(most)
    axis = Axis(
        [(index * step, f"{index * step:,g}") for index in range(round(top / step) + 1)], lambda value: value / top
    )
    series = [
        Series(
            curve.name, curve.color, [((index + 0.5) * curve.step, value) for index, value in enumerate(curve.values)]
        )
        for curve in curves
    ]
    drawn = lines(title, series, axis, seconds, marks, width)
    legend = "".join(
        f'<tspan fill="{curve.color}" dx="{0 if index == 0 else 14}">{curve.name}</tspan>'
        for index, curve in enumerate(curves)
    )
    return drawn.removesuffix("</svg>") + f'<text x="60" y="36">{legend}</text></svg>'
