"""How the demo looks: tables, live in a terminal and at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ecs_discovery.cli.demo.story import Fate
from ecs_discovery.cli.demo.traffic import Summary

__all__ = ["Line", "TaskRow", "as_dict", "comparison", "live", "vanish_lines", "verdict"]

_STYLES = {
    "running": "green",
    "healthy": "green",
    "slow": "yellow",
    "ejected": "yellow",
    "probing": "yellow",
    "errors": "red",
    "vanished": "red",
    "stopped": "dim",
    "down": "red",
}
_LOG_LINES = 8


@dataclass(frozen=True, slots=True)
class Line:
    """One event."""

    at: float
    """Seconds since the demo began."""
    kind: str
    """`lab`: it happened to tasks; `discovery`: what the wrapped session's discovery made of it."""
    text: str

    def __str__(self) -> str:
        return f"{self.at:6.1f} s  {'' if self.kind == 'lab' else '  -> '}{self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRow:
    """One task, as the lab, the discovery and both clients see it."""

    address: str
    state: str
    health: str
    """The discovery's word; empty if it does not know the task."""
    pending: int
    ejections: int
    latency: float | None
    """Seconds."""
    wrapped: float
    """Its share of the wrapped client's answers."""
    plain: float


def live(elapsed: float, seconds: float, rows: Sequence[TaskRow], lines: Sequence[Line]) -> RenderableType:
    """The picture of this moment: the event, the tasks, the last events."""
    now = next((line.text for line in reversed(lines) if line.kind == "lab"), "")
    table = Table("task", "state", "discovery says", box=box.SIMPLE_HEAD)
    for name in ("pending", "ejections", "latency ms", "wrapped", "plain"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            row.address,
            Text(row.state, _STYLES.get(row.state, "")),
            Text(row.health or "-", _STYLES.get(row.health, "dim")),
            str(row.pending) if row.health else "-",
            str(row.ejections) if row.health else "-",
            _ms(None if row.latency is None else row.latency * 1000),
            f"{row.wrapped:.0%}",
            f"{row.plain:.0%}",
        )
    log = Text("\n".join(map(str, lines[-_LOG_LINES:])), "dim")
    return Group(Text(f"{min(elapsed, seconds):4.1f} of {seconds:g} s  {now}", "bold"), table, log)


def comparison(wrapped: Summary, plain: Summary, wrapped_queries: int, plain_queries: int) -> Table:
    """Both clients side by side."""
    table = Table("", box=box.SIMPLE_HEAD)
    table.add_column("wrapped session", justify="right")
    table.add_column("plain session", justify="right")
    both = (wrapped, plain)
    table.add_row("requests", *(str(one.requests) for one in both))
    table.add_row("success rate", *(_percent(one.success_rate) for one in both))
    table.add_row("lost", *(Text(str(one.lost), "red" if one.lost else "green") for one in both))
    if any(one.unanswered for one in both):
        table.add_row("still unanswered", *(str(one.unanswered) for one in both))
    if any(one.held_back for one in both):
        table.add_row("held back: every caller waits", *(str(one.held_back) for one in both))
    table.add_row("latency p50, ms", *(_ms(one.p50_ms) for one in both))
    table.add_row("latency p99, ms", *(_ms(one.p99_ms) for one in both))
    table.add_row("latency max, ms", *(_ms(one.max_ms) for one in both))
    table.add_row("queries to the DNS server", str(wrapped_queries), str(plain_queries))
    return table


def vanish_lines(address: str, wrapped: Fate, plain: Fate) -> list[str]:
    """What became of the requests that met the task which vanished."""
    lines = [f"{address} vanished: its packets were lost, with no FIN and no RST."]
    for name, one in (("wrapped", wrapped), ("plain", plain)):
        lines += (
            f"  {name}: {_group(one.in_hand, one.in_hand_answered, one.in_hand_lost, one.in_hand_unanswered)}"
            f" it had already acknowledged{_longest(one.in_hand_longest_ms)};",
            f"  {' ' * len(name)}  {_group(one.later, one.later_answered, one.later_lost, one.later_unanswered)}"
            f" sent to it afterwards{_longest(one.later_longest_ms)}.",
        )
    lines.append(
        "  An acknowledged request looks like one that a slow task works on: the wrapped session waits until\n"
        "  others have met silence there and a connect meets it too, then repeats it. Others move on at once."
    )
    return lines


def verdict(wrapped: Summary) -> str:
    """What the exit status says, in words."""
    waiting = f"; {wrapped.unanswered} had no answer yet" if wrapped.unanswered else ""
    return f"The wrapped session lost {wrapped.lost or 'none'} of {wrapped.requests} requests{waiting}."


def as_dict(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Events as plain values, for JSON."""
    return [{"at": round(line.at, 3), "kind": line.kind, "text": line.text} for line in lines]


def _group(total: int, answered: int, lost: int, unanswered: int) -> str:
    parts = [f"{answered} answered", f"{lost} lost"] + ([f"{unanswered} still waiting"] if unanswered else [])
    return f"{total} ({', '.join(parts)})"


def _longest(milliseconds: float | None) -> str:
    return "" if milliseconds is None else f", {milliseconds / 1000:.2f} s at the longest"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _percent(share: float | None) -> str:
    if share is None:
        return "-"
    return "100 %" if share == 1 else f"{min(share * 100, 99.99):.2f} %"  # never rounded up to all
