"""The picture on a terminal: at most so many lines of at most so many columns. What does not fit is counted."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import NamedTuple

from ecs_discovery.cli.watch.changes import headline, processes
from ecs_discovery.cli.watch.document import STATES
from ecs_discovery.cli.watch.frame import Frame
from ecs_discovery.cli.watch.merge import Endpoint, Program, Service

__all__ = ["Line", "screen"]

_STYLES = {"healthy": "green", "probing": "yellow", "ejected": "yellow", "down": "red"}
_OUTCOMES = {"NoEndpoints": "without records", "TargetNotFound": "no such name", "ResolutionTimeout": "not answered"}
_LOG = 5  # lines of changes, if there is room
_LEAST = 12  # lines of a section, if there are several
_NOTICE = 3  # lines of a notice
_ROOMY = 16  # lines from which on changes are shown
_WHY = 24  # columns from which on the reason stands beside the endpoint
_LONGEST = 300  # characters of a line, whatever the terminal's width


class Line(NamedTuple):
    """A line, and its style."""

    text: str
    style: str = ""


def screen(frame: Frame, log: Sequence[str], width: int, height: int) -> list[Line]:
    """The lines. `log` are the last changes, the newest last."""
    sections = list(frame.sections)
    clock = time.strftime("%H:%M:%S", time.localtime(frame.at))
    top = [_row(f"watch {frame.asked}", clock, width)._replace(style="bold")]
    for each in _notices(frame):
        wrapped = textwrap.wrap(each[:_LONGEST], max(width, 20), break_on_hyphens=False)
        top += [Line(part, "yellow") for part in wrapped[:_NOTICE]]
    room = max(4, height - len(top[:height]))
    shown_log = [*log[-_LOG:]] if room >= _ROOMY else []
    shown_log = shown_log[-min(len(shown_log), room // 4) :] if shown_log else []
    room -= len(shown_log) + bool(shown_log)
    count = max(1, min(len(sections), room // _LEAST))
    lines: list[Line] = []
    if len(sections) > count:
        room -= 1
    for number, (program, service) in enumerate(sections[:count]):
        share = (room - len(lines)) // (count - number)
        lines += _section(frame, program, service, width, share)
    if len(sections) > count:
        left = [f"{service.seen.target} of {program.name or 'this command'}" for program, service in sections[count:]]
        lines.append(Line(f"{len(left)} more not shown: {', '.join(left)}", "dim"))
    if shown_log:
        lines += [Line(""), *(Line(each, "dim") for each in shown_log)]
    found = [*top, *lines][:height]
    return [each._replace(text=_cut(each.text, width)) for each in found]


def _notices(frame: Frame) -> Iterator[str]:
    yield from frame.notices
    for program in frame.programs:
        if not program.services:
            used = f"; it uses {', '.join(program.names[:8])}" if program.names else ""
            yield f"{program.name}, {processes(program)}: has not used {frame.asked}{used}"
    if frame.error:
        yield frame.error


def _section(frame: Frame, program: Program, service: Service, width: int, room: int) -> list[Line]:
    lines = [Line(""), *_head(program, service, width)]
    columns = _columns(service, width, program)
    lines.append(Line(_cells([(each.title, each) for each in columns]), "dim"))
    rows = [_rows(each, columns) for each in sorted(service.endpoints, key=_order)]
    lines = lines[: max(1, room - 1)]
    left = room - len(lines)
    shown: list[Line] = []
    count = 0
    for row in rows:
        more = count + 1 < len(rows) or service.left_out
        if len(shown) + len(row) + bool(more) > left:
            break
        shown += row
        count += 1
    hidden = len(rows) - count + service.left_out
    if hidden:
        states = [each.seen.state for each in sorted(service.endpoints, key=_order)[count:]]
        parts = [f"{states.count(state)} {state}" for state in STATES[::-1] if state in states]
        healthy = f"{service.left_out} not told of" if service.left_out else ""
        told = ", ".join([*parts, *([healthy] if healthy else [])])
        shown.append(Line(f"{hidden} more row{'' if hidden == 1 else 's'}: {told}", "dim"))
    return [*lines, *shown][:room]


def _head(program: Program, service: Service, width: int) -> Iterator[Line]:
    seen = service.seen
    idle = f", {service.idle} of them idle" if service.idle else ""
    whose = f"{program.name}, {processes(program)}{idle}" if program.pids else "resolved by this command"
    yield Line(f"{seen.target}  {whose}", "bold")
    yield Line(headline(service))
    yield from _wrapped(
        [
            "no TTL" if seen.ttl is None and seen.source else f"TTL {_seconds(seen.ttl)}",
            f"answer {_seconds(seen.age)} old" if seen.age is not None else "",
            f"asked again in {_seconds(seen.fresh_for)}" if seen.fresh_for is not None else "",
            f"lookups of all names: {_lookups(program.lookups)}" if program.lookups else "",
        ],
        width,
    )
    if program.pids:
        yield from _wrapped(list(_events(service)), width)
    flags = [
        text
        for flag, text in (
            (seen.panic, "PANIC: health is ignored"),
            (seen.failing, "lookups fail"),
            (seen.stale, "the answer has outlived its TTL"),
            (seen.doubted, "the newest answer is empty, and not believed yet"),
            (bool(seen.error), seen.error),
        )
        if flag
    ]
    if flags:
        yield Line("; ".join(flags), "red")


def _events(service: Service) -> Iterator[str]:
    counts = service.counts
    if service.rate is not None:
        yield f"{service.rate:.3g} picks/s"
    yield f"retries {_total(counts.get('retries')) + _total(counts.get('replays'))}"
    denied = counts.get("retries_denied", {})
    yield f"denied {_total(denied)}" + (f" ({_kinds(denied)})" if denied else "")
    if service.seen.retries_left is not None:
        yield f"{service.seen.retries_left:.3g} retries left"
    if counts.get("hedges"):
        yield f"hedges {_total(counts['hedges'])}, won {_total(counts.get('hedges_won'))}"
    ejected = counts.get("ejections", {})
    yield f"ejections {_total(ejected)}" + (f" ({_kinds(ejected)})" if ejected else "")
    for name, text in (("ejections_withheld", "withheld"), ("panics", "panics"), ("forced_lookups", "forced lookups")):
        if counts.get(name):
            yield f"{text} {_total(counts[name])}"


def _total(kinds: Mapping[str, int] | None) -> int:
    return sum((kinds or {}).values())


def _kinds(kinds: Mapping[str, int]) -> str:
    found = sorted(kinds.items(), key=lambda each: -each[1])[:4]
    return ", ".join(f"{_number(number)} {kind.replace('_', ' ')}" for kind, number in found)


def _lookups(outcomes: Mapping[str, int]) -> str:
    return _kinds({_OUTCOMES.get(outcome, outcome): number for outcome, number in outcomes.items()})


def _wrapped(parts: Sequence[str], width: int) -> Iterator[Line]:
    """The parts in as few lines as they fit in, two at most."""
    lines = [""]
    for part in filter(None, parts):
        joined = f"{lines[-1]}; {part}" if lines[-1] else part
        if len(joined) > width and lines[-1] and len(lines) < 2:
            lines.append(part)
        else:
            lines[-1] = joined
    yield from (Line(each) for each in lines if each)


# The table


class _Column(NamedTuple):
    title: str
    width: int
    value: Callable[[Endpoint], str]
    left: bool = False


def _columns(service: Service, width: int, program: Program) -> list[_Column]:
    names = [each.seen.endpoint for each in service.endpoints]
    longest = max(map(len, names), default=0)
    state = _Column("state", 8, lambda each: each.seen.state, True)
    if program.pids:
        others = [
            state,
            _Column("share", 5, lambda each: "-" if each.share is None else f"{each.share:.0%}"),
            _Column("in flight", 9, lambda each: _number(each.seen.pending)),
            _Column("latency", 8, lambda each: _milliseconds(each.seen.latency)),
            _Column("cost", 8, lambda each: _milliseconds(each.seen.cost)),
            _Column("failed", 6, lambda each: _number(each.seen.failures)),
            _Column("ejected", 7, lambda each: _number(each.seen.ejections)),
        ]
    else:
        others = [
            _Column(
                "named", 10, lambda each: f"{_seconds(each.seen.named)} ago" if each.seen.named is not None else "-"
            )
        ]
        if any(each.seen.zone for each in service.endpoints):
            others.append(_Column("zone", 15, lambda each: each.seen.zone or "-", True))
    while len(others) > 1 and 16 + sum(each.width + 1 for each in others) > width:
        others.pop()
    free = max(1, width - sum(each.width + 1 for each in others))
    wide = max(8, min(longest, free))
    endpoint = _Column("endpoint", wide, lambda each: _short(each.seen.endpoint, wide), True)
    if program.pids and free - wide > _WHY:
        others.append(_Column("why", free - wide - 1, _why, True))
    return [endpoint, *others]


def _rows(endpoint: Endpoint, columns: Sequence[_Column]) -> list[Line]:
    style = _STYLES.get(endpoint.seen.state, "")
    rows = [
        Line(
            _cells([(each.value(endpoint), each) for each in columns]),
            style if endpoint.seen.state != "healthy" else "",
        )
    ]
    why = _why(endpoint)
    if why and columns[-1].title != "why":
        rows.append(Line(f"    {why}", style))
    return rows


def _why(endpoint: Endpoint) -> str:
    seen = endpoint.seen
    parts = []
    if seen.state != "healthy":
        again = f", again in {_seconds(seen.returns_in)}" if seen.returns_in else ""
        where = (
            f" (in {endpoint.troubled_in} of {endpoint.known_by} workers)"
            if endpoint.troubled_in < endpoint.known_by
            else ""
        )
        parts.append(f"{seen.reason or seen.state}{again}{where}")
    elif seen.spared_for:
        parts.append(f"overloaded, spared for {_seconds(seen.spared_for)}")
    return "; ".join(parts)


def _cells(cells: Sequence[tuple[str, _Column]]) -> str:
    texts = [
        text[: column.width].ljust(column.width) if column.left else text[: column.width].rjust(column.width)
        for text, column in cells
    ]
    return " ".join(texts).rstrip()


def _order(endpoint: Endpoint) -> tuple[int, object]:
    seen = endpoint.seen
    host, _, port = seen.endpoint.rpartition(":")
    try:
        address = ip_address(host.strip("[]"))
        key: tuple[object, ...] = (address.version, int(address), port.rjust(5), "")
    except ValueError:
        key = (9, 0, port.rjust(5), seen.endpoint)
    return -STATES.index(seen.state), key


def _short(name: str, width: int) -> str:
    """The end of a name that is too long: by its end it differs from others."""
    return name if len(name) <= width else f"…{name[len(name) - width + 1 :]}"


def _cut(text: str, width: int) -> str:
    text = text[:_LONGEST]
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _row(left: str, right: str, width: int) -> Line:
    space = width - len(left) - len(right)
    return Line(left + " " * space + right if space > 0 else left)


# Numbers, each bounded in width whatever it is


def _number(value: int) -> str:
    if abs(value) < 10_000:
        return str(value)
    for size, unit in ((1e3, "k"), (1e6, "M"), (1e9, "G")):
        if abs(value) < size * 1000:
            return f"{value / size:.0f}{unit}"
    return "many"


def _milliseconds(value: float | None) -> str:
    if value is None:
        return "-"
    if not 0 <= value < 1e4:
        return "?"
    return f"{value * 1000:.1f} ms" if value < 0.1 else f"{value * 1000:.0f} ms" if value < 10 else f"{value:.0f} s"


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    if not 0 <= value < 1e7:
        return "?"
    return f"{value:.1f} s" if value < 10 else f"{value:.0f} s" if value < 600 else f"{value / 60:.0f} min"
