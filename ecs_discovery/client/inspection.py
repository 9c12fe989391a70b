"""Inspection: what a running program shows of its services to `ecs-discovery watch`.

It is loaded only where `ECS_DISCOVERY_INSPECT` asks for it. The socket is the process's; the discoveries of all kinds
register here. A document is bounded, and made in small steps: requests go on meanwhile.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from heapq import nlargest
from itertools import islice
from math import isfinite
from threading import RLock
from typing import Any, Protocol
from weakref import ref

from ecs_discovery.config.settings import Settings
from ecs_discovery.config.targets import Target, parse_target
from ecs_discovery.core.balancing.node import Health, Node
from ecs_discovery.core.counters import Counted, Counters
from ecs_discovery.core.directory import Directory
from ecs_discovery.core.service import Service
from ecs_discovery.errors import ConfigurationError, foreign
from ecs_discovery.runtime import fork
from ecs_discovery.runtime.inspection_socket import InspectionSocket

__all__ = ["VERSION", "Inspected", "Inspection", "attach", "document"]

VERSION = 1
"""Of the document."""
_SERVICES = 8  # shown
_ENDPOINTS = 200  # shown of one service; those in trouble first
_NAMES = 50  # of other services
_STEP = 250  # endpoints looked at between pauses
_PAUSE = 0.001  # seconds
_TEXT = 160  # characters of a reason


class Inspected(Protocol):
    """What is needed of an engine."""

    clock: Callable[[], float]
    settings: Settings
    directory: Directory
    counters: Counters

    @property
    def closed(self) -> bool: ...


class Inspection:
    """The engines of this process, and its socket."""

    def __init__(self, directory: str) -> None:
        self._engines: set[ref[Inspected]] = set()
        self._socket = InspectionSocket(directory, self._answer, self._wanted)

    def add(self, engine: Inspected) -> None:
        """Show this one too."""
        self._engines.add(ref(engine, self._dropped))
        self._socket.open()

    def closed(self) -> None:
        """An engine was closed: with the last one goes the socket."""
        self._socket.close_if_unwanted()

    def _dropped(self, engine: ref[Inspected]) -> None:
        self._engines.discard(engine)
        self._socket.wake()  # a finaliser may run anywhere: the thread looks what is left

    def _alive(self) -> list[Inspected]:
        found = [engine for each in self._engines.copy() if (engine := each()) is not None]
        return [engine for engine in found if not engine.closed]

    def _wanted(self) -> bool:
        return bool(self._alive())

    def _answer(self, request: str) -> bytes:
        return document(self._alive(), request, pause=_pause)


_LOCK = RLock()
_inspections: dict[str, Inspection] = {}  # by directory, and so nearly always one


def attach(engine: Inspected, directory: str) -> Inspection:
    """Show this engine. "" is the usual directory."""
    with _LOCK:
        found = _inspections.get(directory)
        if found is None:
            found = _inspections[directory] = Inspection(directory)
    found.add(engine)
    return found


class _Forked:
    def after_fork(self) -> None:
        global _LOCK
        _LOCK = RLock()


_forked = _Forked()
fork.track(_forked)


def _pause() -> None:
    time.sleep(_PAUSE)


def document(engines: Iterable[Inspected], asked: str, *, pause: Callable[[], object] = lambda: None) -> bytes:
    """What these engines know of the services that `asked` names, as JSON. "" names none.

    `pause` is called between steps that take about 0.5 ms each.
    """
    from ecs_discovery import __version__

    shown: list[tuple[Inspected, Service]] = []
    others: dict[str, None] = {}
    lookups: dict[str, int] = {}
    try:
        target = parse_target(asked) if asked else None
    except ConfigurationError:
        target = None
    for engine in engines:
        for kind, number in engine.counters.read().get(Counted.LOOKUPS.value, {}).items():
            outcome = kind.partition(" ")[2]
            lookups[outcome] = lookups.get(outcome, 0) + number
        for service in engine.directory.services():
            if target is not None and (service.target == asked or _is_named(service, target, engine.settings)):
                shown.append((engine, service))
            else:
                others[service.target] = None
    services = [_service(engine, service, pause) for engine, service in shown[:_SERVICES]]
    program, group = _program()
    head = {
        "version": VERSION,
        "package": __version__,
        "pid": os.getpid(),
        "program": program,
        "group": group,
        "python": platform.python_version(),
        "lookups": _counts("lookups", lookups),
        "services_left": max(0, len(shown) - _SERVICES),
        "names": [foreign(name) for name in islice(others, _NAMES)],
        "names_left": max(0, len(others) - _NAMES),
    }
    # Service by service: one call of json holds the interpreter until it ends.
    return f'{json.dumps(head)[:-1]}, "services": [{", ".join(services)}]}}'.encode()


def _is_named(service: Service, asked: Target, settings: Settings) -> bool:
    """Is this one of the services that is meant? A name without a port or scheme means all of that name."""
    if asked.name.partition(".")[0] not in service.target.lower():
        return False  # nearly always, and sooner than by taking it apart
    try:
        found = parse_target(service.target)
    except ConfigurationError:
        return False
    if asked.port is not None and asked.port != found.port:
        return False
    if asked.scheme != "auto":
        return (asked.scheme, asked.name) == (found.scheme, found.name) and (not asked.query or asked == found)
    name = found.name
    if found.scheme == "cloudmap":
        namespace, _, short = found.name.rpartition("/")
        name = f"{short}.{namespace}"
    elif found.scheme not in ("auto", "dns", "srv"):
        return False
    return settings.qualified(asked.name) == settings.qualified(name)


def _program() -> tuple[str, str]:
    """What the program is called, and a word that the workers of one program have in common.

    Its arguments may hold secrets, and are not shown.
    """
    arguments = [str(each) for each in getattr(sys, "argv", ())]
    first = arguments[0] if arguments else ""
    name = os.path.basename(first)
    if name in ("__main__.py", "__init__.py"):
        name = os.path.basename(os.path.dirname(first))
    digest = blake2b("\0".join([sys.executable or "", *arguments]).encode("utf-8", "replace"), digest_size=8)
    return foreign(name if name not in ("", "-c", "-m") else "python", 60), digest.hexdigest()


def _service(engine: Inspected, service: Service, pause: Callable[[], object]) -> str:
    now = engine.clock()
    facts = service.facts(picks=False)
    known = service.resolution
    nodes: tuple[Node, ...] = facts["nodes"]
    sums = _Sums()
    best: list[Node] = []
    for at in range(0, len(nodes), _STEP):
        step = nodes[at : at + _STEP]
        sums.add(step)
        best = [*best, *step] if len(nodes) <= _ENDPOINTS else nlargest(_ENDPOINTS, [*best, *step], _rank)
        pause()
    age = engine.directory.age(service, now)
    return json.dumps(
        {
            "target": foreign(service.target),
            "source": known.source if known else "",
            "ttl": _number(known.ttl) if known else None,
            "age": _number(age) if age is not None else None,
            "fresh_for": _number(max(0.0, service.refresh_at - now)),
            "idle_for": _number(now - service.used_at),
            "partial": bool(known and known.partial),
            "estimate": known.estimate if known else None,
            "coverage": known.coverage if known else None,
            "stale": bool(known and known.stale),
            "doubted": facts["doubted"],
            "failing": facts["failing"],
            "panic": facts["panic"],
            "error": "" if nodes else _why(service),
            "retries_left": _number(service.budget.balance(now)),
            "counts": [each for name, kinds in facts["counts"].items() for each in _counts(name, kinds)],
            "total": len(nodes),
            "states": [{"state": state.value, "number": number} for state, number in sums.states.items()],
            "pending": sums.pending,
            "uses": sums.uses,
            "failures": sums.failures,
            "endpoints": [_endpoint(node, now) for node in best],
        },
        allow_nan=False,
    )


class _Sums:
    """Over all endpoints, shown or not."""

    def __init__(self) -> None:
        self.states = dict.fromkeys(Health, 0)
        self.pending = self.uses = self.failures = 0

    def add(self, nodes: Sequence[Node]) -> None:
        for node in nodes:
            self.states[node.health] += 1
            self.pending += node.pending
            self.uses += node.uses
            self.failures += node.failures


def _rank(node: Node) -> tuple[bool, int, int]:
    return node.health is not Health.HEALTHY, node.pending, node.uses


def _endpoint(node: Node, now: float) -> dict[str, Any]:
    checked = node.checked
    return {
        "endpoint": foreign(node.endpoint),
        "state": node.health.value,
        "reason": foreign(node.reason, _TEXT),
        "returns_in": _number(max(0.0, node.state_ends_at - now)) if node.reason else None,
        "spared_for": _number(max(0.0, node.pushback_ends_at - now)),
        "pending": node.pending,
        "uses": node.uses,
        "failures": node.failures,
        "latency": node.latency,
        "cost": _number(node.cost),
        "ejections": node.ejections,
        "zone": foreign(node.endpoint.zone or "", 60),
        "named": _number(now - max(node.seen.copy().values(), default=now)) if node.seen else None,
        "check": foreign(checked.result, _TEXT) if checked is not None else "",
    }


def _why(service: Service) -> str:
    error = service.unusable()
    if error.__cause__ is None and service.resolution is None:
        return ""  # it was not asked for yet
    return foreign(error.message + (f" ({error.hint})" if error.hint else ""), 2 * _TEXT)


def _counts(name: str, kinds: dict[str, int]) -> list[dict[str, Any]]:
    return [{"what": name, "kind": foreign(kind, 60), "number": number} for kind, number in kinds.items()]


def _number(value: float) -> float | None:
    return round(value, 6) if isfinite(value) else None
