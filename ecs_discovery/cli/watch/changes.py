"""What has changed from one look to the next, a line each."""

from __future__ import annotations

from collections.abc import Iterator

from ecs_discovery.cli.watch.frame import Frame
from ecs_discovery.cli.watch.merge import Endpoint, Program, Service

__all__ = ["changes", "headline"]

_NAMED = 5  # endpoints named in one line
_FLAGS: tuple[tuple[str, str, str], ...] = (
    ("panic", "panic: too few endpoints are healthy, all are used", "panic over"),
    ("failing", "lookups fail; what is known stays in use", "lookups succeed again"),
    ("stale", "the answer has outlived its TTL", "the answer is fresh again"),
    ("doubted", "the newest answer is empty, and not believed yet", "answers are believed again"),
)


def changes(before: Frame | None, now: Frame) -> Iterator[str]:
    """The lines. At first: what there is."""
    old_notices = () if before is None else before.notices
    yield from (each for each in now.notices if each not in old_notices)
    if now.error and (before is None or before.error != now.error):
        yield f"{now.asked}: {now.error}"
    elif before is not None and before.error and not now.error and now.own is not None:
        yield f"{now.asked}: resolves again"
    programs = {_key(each): each for each in (() if before is None else before.programs)}
    for program in now.programs:
        old = programs.pop(_key(program), None)
        if old is None or old.pids != program.pids:
            yield f"{program.name}: {processes(program)}"
    yield from (f"{program.name}: no process is left" for program in programs.values())
    known = {} if before is None else {(_key(program), each.seen.target): each for program, each in before.sections}
    several = len(now.programs) > 1
    for program, service in now.sections:
        about = f"{program.name}: {service.seen.target}" if several and program.pids else service.seen.target
        earlier = known.get((_key(program), service.seen.target))
        yield from (f"{about}: {each}" for each in _of_service(earlier, service))


def processes(program: Program) -> str:
    """`process 12`, or `4 processes (12, 13, 14, 15)`."""
    pids = program.pids
    if len(pids) == 1:
        return f"process {pids[0]}"
    shown = ", ".join(map(str, pids[:8])) + (", …" if len(pids) > 8 else "")
    return f"{len(pids)} processes ({shown})"


def headline(service: Service) -> str:
    """`10 endpoints from dns: 8 healthy, 2 down`, and how many of them are known."""
    seen = service.seen
    total = max(seen.total, len(service.endpoints))
    text = f"{total} endpoint{'' if total == 1 else 's'}"
    text += f" from {seen.source}" if seen.source else ""
    text += f": {', '.join(f'{number} {state}' for state, number in service.states.items() if number)}" if total else ""
    if seen.coverage is not None and seen.coverage < 1:
        text += f"; {seen.coverage:.0%} of about {seen.estimate} known"
    elif seen.partial:
        text += "; there may be more"
    return text


def _key(program: Program) -> tuple[str, str]:
    return program.name, program.group


def _of_service(before: Service | None, now: Service) -> Iterator[str]:
    if before is None:
        yield headline(now)
        yield from (_trouble(each) for each in now.endpoints if each.seen.state != "healthy")
        yield from (begins for flag, begins, _ in _FLAGS if getattr(now.seen, flag))
        if now.seen.error:
            yield now.seen.error
        return
    old = {each.seen.endpoint: each for each in before.endpoints}
    new = {each.seen.endpoint: each for each in now.endpoints}
    if before.left_out or now.left_out:  # who is told of changes with the load: only the number says something
        if before.seen.total != now.seen.total:
            yield headline(now)
    else:
        yield from _named("came", [name for name in new if name not in old], now)
        yield from _named("left", [name for name in old if name not in new], now)
    for name, each in new.items():
        was = old[name].seen.state if name in old else "healthy"
        if each.seen.state != was:
            yield _trouble(each)
    for flag, begins, ends in _FLAGS:
        if getattr(now.seen, flag) != getattr(before.seen, flag):
            yield begins if getattr(now.seen, flag) else ends
    if now.seen.error and now.seen.error != before.seen.error:
        yield now.seen.error


def _named(verb: str, names: list[str], service: Service) -> Iterator[str]:
    if names:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        yield f"{', '.join(names[:_NAMED])}{more} {verb} ({service.seen.total} now)"


def _trouble(endpoint: Endpoint) -> str:
    seen = endpoint.seen
    where = (
        f" in {endpoint.troubled_in} of {endpoint.known_by} workers"
        if 0 < endpoint.troubled_in < endpoint.known_by
        else ""
    )
    return f"{seen.endpoint} is {seen.state}{where}" + (f": {seen.reason}" if seen.reason else "")
