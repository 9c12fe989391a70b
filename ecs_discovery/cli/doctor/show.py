"""The report as text, in plain characters that every terminal has a way to show."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from ecs_discovery.cli.doctor.checks import Finding, Severity
from ecs_discovery.cli.doctor.facts import ConnectFacts, Facts, TargetFacts
from ecs_discovery.errors import foreign, plain
from ecs_discovery.models import Endpoint

__all__ = ["report"]

_GOOD, _UNKNOWN = "√", "-"
MARKS = {Severity.INFO: "i", Severity.WARNING: "‼", Severity.ERROR: "×"}  # noqa: RUF001
ASCII = {"√": "+", "‼": "!", "×": "x"}  # noqa: RUF001
"""What stands for a mark where it cannot be shown."""
_ORDER = (Severity.ERROR, Severity.WARNING, Severity.INFO)
_COLOURS = {"√": "32", "-": "2", "i": "36", "‼": "33", "×": "31"}  # noqa: RUF001
_LABEL = 10  # columns
_NARROWEST = 40


def report(facts: Facts, findings: Sequence[Finding], *, width: int = 100, colour: bool = False) -> Iterator[str]:
    """The lines. What was found stands below the step of a request's way at which it was found."""
    yield f"ecs-discovery doctor {facts.version}: {_where(facts)}"
    yield ""
    for step, label, seen, known in _steps(facts):
        mine = [finding for finding in findings if finding.step == step]
        worst = next((each for each in _ORDER if any(finding.severity is each for finding in mine)), None)
        first = _coloured(MARKS[worst] if worst is not None else _GOOD if known else _UNKNOWN, colour)
        lines = _wrapped(seen, width, 2 + _LABEL)
        yield f"{first} {label:<{_LABEL}}{lines[0]}"
        yield from (" " * (2 + _LABEL) + line for line in lines[1:])
        for finding in mine:
            yield from _finding(finding, width, colour)
    yield ""
    yield _sum(findings)
    yield "Nothing was changed."


def _finding(finding: Finding, width: int, colour: bool) -> Iterator[str]:
    mark = _coloured(MARKS[finding.severity], colour)
    lines = _wrapped(f"{finding.code} {finding.title}", width, 6)
    yield f"    {mark} {lines[0]}"
    yield from (f"      {line}" for line in lines[1:])
    for label, text in (
        ("seen", finding.seen),
        ("means", finding.means),
        ("do", finding.do),
    ):
        lines = _wrapped(text, width, 14)
        yield f"      {label:<8}{lines[0]}"
        yield from (f"{'':<14}{line}" for line in lines[1:])
    for command in finding.run:  # in one line each, to be copied
        yield f"      run     {plain(command)}"
    yield f"      more    {finding.docs}"


def _wrapped(text: str, width: int, indent: int) -> list[str]:
    shown = plain(text)
    return textwrap.wrap(shown, max(_NARROWEST, width) - indent, break_on_hyphens=False, break_long_words=False) or [""]


def _coloured(mark: str, colour: bool) -> str:
    return f"\x1b[{_COLOURS[mark]}m{mark}\x1b[0m" if colour else mark


def _sum(findings: Sequence[Finding]) -> str:
    counts = [(sum(each.severity is kind for each in findings), kind) for kind in _ORDER]
    words = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}
    told = [f"{count} {words[kind]}{'' if count == 1 else 's'}" for count, kind in counts if count]
    return f"{', '.join(told) or 'Nothing was found'}."


def _where(facts: Facts) -> str:
    task = facts.task
    if not task.metadata:
        return "in a task whose metadata endpoint does not answer" if task.in_ecs else "not in an ECS task"
    parts = [task.service or task.family or "a task", f"in cluster {task.cluster}" if task.cluster else ""]
    return foreign(" ".join(part for part in (*parts, f"({task.zone})" if task.zone else "") if part))


def _steps(facts: Facts) -> Iterator[tuple[str, str, str, bool]]:
    """The steps of the way: key, label, what was seen, and whether anything was seen."""
    mine, resolver = facts.settings, facts.resolver
    declared = f", {len(mine.services)} declared services" if mine.services else ""
    yield "settings", "settings", (f"namespace {mine.namespace}" if mine.namespace else "no namespace") + declared, True
    place = f"{facts.task.network_mode or 'network'} {facts.task.address or 'address unknown'}"
    yield "task", "task", place if facts.task.metadata else _where(facts), facts.task.metadata
    search = f", search {' '.join(resolver.search)}" if resolver.search else ""
    told = resolver.problem or f"nameserver {', '.join(resolver.nameservers) or 'none'}{search}, ndots {resolver.ndots}"
    yield "resolver", "resolver", told, not resolver.problem
    yield "servers", "DNS", _servers(facts), bool(facts.servers)
    if facts.zones:
        texts = {zone: _zone(facts, zone) for zone in facts.zones}
        told = "; ".join(text or f"{zone} was not seen" for zone, text in texts.items())
        yield "zones", "zone", told, all(texts.values())
    for asked in dict.fromkeys(target.asked for target in facts.targets):
        sources = [each for each in facts.targets if each.asked == asked]
        ready = all(_ready(each) for each in sources)
        yield f"name {asked}", "name", "; ".join(_target(facts, each) for each in sources), ready
    outcomes = [target.api.outcome for target in facts.targets if target.api is not None]
    if outcomes:
        yield "api", "Cloud Map", _api(facts), all(outcome == "answered" for outcome in outcomes)
    yield "program", "program", _program(facts), bool(facts.process.pid)


def _ready(target: TargetFacts) -> list[ConnectFacts]:
    return [each for each in target.connects if each.used and "accepts" in (each.result, each.again)]


def _servers(facts: Facts) -> str:
    texts = []
    for server in facts.servers:
        answers = [each for each in facts.answers if each.server == server.address and each.outcome == "answered"]
        role = "" if server.used else " (Amazon's, for comparison)"
        fastest = f"in {min(each.seconds for each in answers) * 1000:.0f} ms" if answers else "not at all"
        texts.append(f"{server.address}{role} answers {fastest}")
    return "; ".join(texts) or "no server"


def _zone(facts: Facts, zone: str) -> str:
    used = {server.address for server in facts.servers if server.used}
    ttls = [each.negative_ttl for each in facts.answers if each.server in used and each.zone == zone]
    known = [ttl for ttl in ttls if ttl is not None]
    return f'{zone} is here, "no such name" holds for {max(known):g} s' if known else ""


def _target(facts: Facts, target: TargetFacts) -> str:
    used = {server.address for server in facts.servers if server.used}
    mine = [each for each in facts.answers if each.name == target.name and each.server in used and each.records]
    texts = [target.asked if target.asked == target.source else f"{target.asked} by {target.source}"]
    if target.scheme not in ("auto", "dns", "srv", "cloudmap", "static"):
        texts.append("not looked at: its resolver is the application's own")
    for kind in ("a", "aaaa", "srv"):
        counts = [len(each.records) for each in mine if each.kind == kind]
        if counts:
            texts.append(f"{max(counts)} {kind.upper()}")
    ttls = [record.ttl for each in mine for record in each.records]
    texts += [f"TTL {max(ttls):g} s"] if ttls else []
    tried = [each for each in target.connects if each.used]
    ready = _ready(target)
    if tried:
        shown = f" ({Endpoint(ready[0].host, ready[0].port)}, …)" if ready else ""
        texts.append(f"{len(ready)} of {len(tried)} endpoints accept{shown}")
    return ", ".join(texts)


def _api(facts: Facts) -> str:
    texts = []
    for target in facts.targets:
        api = target.api
        if api is not None:
            told = f"{api.count} instances" if api.outcome == "answered" else api.outcome
            texts.append(f"{api.namespace}/{api.service}: {told}")
    return "; ".join(dict.fromkeys(texts))


def _program(facts: Facts) -> str:
    process = facts.process
    if not process.pid:
        return f"its process cannot be seen; Python {process.python}"
    named = f"process {process.pid} ({process.name})"
    return f"{named}{f', {process.server}' if process.server else ''}, Python {process.python}"
