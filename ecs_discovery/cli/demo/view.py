"""How the demo looks in a terminal of 80 columns and more: live, and at the end."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ecs_discovery.cli.demo.story import Fate
from ecs_discovery.cli.demo.traffic import Summary

__all__ = [
    "NAMES",
    "Line",
    "TaskRow",
    "as_dict",
    "comparison",
    "live",
    "shared_prefix",
    "shortened",
    "vanish_lines",
    "verdict",
]

NAMES = {"wrapped": "wrapped", "plain": "plain", "plain_retry": "plain + Retry"}
"""What people read for a client's name. The third is a plain session with urllib3's `Retry`."""
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
_LEAST_LOG = 3  # lines of the log that are shown however small the terminal is
_ADDRESS = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?")

Scores = Sequence[tuple[str, Summary]]
"""Each client's name and figures."""


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
    """One task, as the lab, the discovery and the clients see it."""

    address: str
    state: str
    health: str
    """The discovery's word; empty if it does not know the task."""
    pending: int
    ejections: int
    latency: float | None
    """Seconds."""
    shares: tuple[float, ...]
    """Its share of each client's answers."""


def shared_prefix(addresses: Sequence[str]) -> str:
    """What the addresses begin with, all alike, as whole numbers: `127.24.51.`; "" if nothing."""
    parts = [address.split(".") for address in addresses]
    prefix = []
    for column in list(zip(*parts, strict=False))[:3]:
        if len(set(column)) > 1:
            break
        prefix.append(column[0])
    return "".join(f"{part}." for part in prefix)


def shortened(lines: Sequence[Line]) -> list[str]:
    """The lines with their addresses without what these share, and without ports."""
    found = [match.partition(":")[0] for line in lines for match in _ADDRESS.findall(line.text)]
    prefix = shared_prefix(found)
    return [_ADDRESS.sub(lambda match: short(match[0].partition(":")[0], prefix), str(line)) for line in lines]


def short(address: str, prefix: str) -> str:
    """`.7` of `127.24.51.7`, where `127.24.51.` is the prefix."""
    return "." + address.removeprefix(prefix) if prefix and address.startswith(prefix) else address


def live(
    elapsed: float, seconds: float, scores: Scores, rows: Sequence[TaskRow], lines: Sequence[Line], height: int = 24
) -> RenderableType:
    """The picture of this moment: the score, the tasks, and as many of the last events as the terminal has room for."""
    prefix = shared_prefix([row.address for row in rows])
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("task", no_wrap=True)
    table.add_column("state")
    table.add_column("discovery")
    for name in ("in flight", "ms"):
        table.add_column(name, justify="right")
    for name, _ in scores:
        table.add_column(f"{NAMES[name].replace('plain + ', '')} %", justify="right")
    for row in rows:
        table.add_row(
            short(row.address, prefix),
            Text(row.state, _STYLES.get(row.state, "")),
            Text(row.health or "-", _STYLES.get(row.health, "dim")),
            str(row.pending) if row.health else "-",
            _ms(None if row.latency is None else row.latency * 1000),
            *(f"{share * 100:.0f}" for share in row.shares),
        )
    head = Text(f"{min(elapsed, seconds):4.1f} of {seconds:g} s", "bold")
    if prefix:
        head.append(f"   .7 is the task {prefix}7", "dim")
    room = height - 1 - (len(scores) + 1) - 1 - (len(rows) + 1) - 1 - 1
    shown = max(_LEAST_LOG, room)
    log = [Text(text, "dim", no_wrap=True, overflow="ellipsis") for text in shortened(lines)[-shown:]]
    return Group(head, _score(scores), Text(), table, Text(), *log)


def _score(scores: Scores) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("client")
    for name in ("lost", "of", "success", "p50 ms", "p99 ms", "max ms"):
        table.add_column(name, justify="right")
    for name, one in scores:
        table.add_row(
            NAMES[name],
            Text(str(one.lost), "bold red" if one.lost else "bold green"),
            str(one.requests),
            _percent(one.success_rate),
            *(_ms(value) for value in (one.p50_ms, one.p99_ms, one.max_ms)),
        )
    return table


def comparison(scores: Scores, wrapped_queries: int, plain_queries: int) -> Table:
    """The clients side by side."""
    table = Table("", box=box.SIMPLE_HEAD)
    for name, _ in scores:
        table.add_column(NAMES[name], justify="right")
    each = [one for _, one in scores]
    table.add_row("requests", *(str(one.requests) for one in each))
    table.add_row("success rate", *(_percent(one.success_rate) for one in each))
    table.add_row("lost", *(Text(str(one.lost), "red" if one.lost else "green") for one in each))
    if any(one.unanswered for one in each):
        table.add_row("still unanswered", *(str(one.unanswered) for one in each))
    if any(one.held_back for one in each):
        table.add_row("held back: every caller waits", *(str(one.held_back) for one in each))
    table.add_row("latency p50, ms", *(_ms(one.p50_ms) for one in each))
    table.add_row("latency p99, ms", *(_ms(one.p99_ms) for one in each))
    table.add_row("latency max, ms", *(_ms(one.max_ms) for one in each))
    table.add_row("queries to the DNS server", str(wrapped_queries), f"{plain_queries}, both", "")
    return table


def vanish_lines(address: str, fates: Sequence[tuple[str, Fate]]) -> list[str]:
    """What became of the requests that met the task which vanished."""
    lines = [f"{address} vanished: its packets were lost, with no FIN and no RST."]
    for name, one in fates:
        parts = []
        if one.in_hand:
            parts.append(
                f"{_group(one.in_hand, one.in_hand_answered, one.in_hand_lost, one.in_hand_unanswered)}"
                f" in flight{_longest(one.in_hand_longest_ms)}"
            )
        if one.later:
            parts.append(
                f"{_group(one.later, one.later_answered, one.later_lost, one.later_unanswered)}"
                f" sent later{_longest(one.later_longest_ms)}"
            )
        for index, part in enumerate(parts or ["no request met its silence"]):
            lines.append(f"  {NAMES[name] + ':' if not index else '':<15}{part}")
    lines.append(
        "  A request that the task acknowledged before it vanished looks like slow work.\n"
        "  The wrapped session waits until a test connection fails too. Then it retries\n"
        "  the request at another task. All other requests move on at once."
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
    parts = [f"{answered} answered"] + ([f"{lost} lost"] if lost else [])
    parts += [f"{unanswered} waiting"] if unanswered else []
    return f"{total} ({', '.join(parts)})"


def _longest(milliseconds: float | None) -> str:
    return "" if milliseconds is None else f", longest {milliseconds / 1000:.2f} s"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _percent(share: float | None) -> str:
    if share is None:
        return "-"
    return "100 %" if share == 1 else f"{min(share * 100, 99.99):.2f} %"  # never rounded up to all
