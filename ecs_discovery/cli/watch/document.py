"""What one process says of itself, checked: any process that listens at a socket may say anything.

A document that does not fit is refused as a whole. Numbers are bounded, and texts are printable.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ecs_discovery.cli.foreign_values import Limits, made

__all__ = ["Count", "EndpointSeen", "Process", "ServiceSeen", "StateCount", "read"]

_KNOWN = 1  # the newest version of the document that is understood
_LIMITS = Limits(text=320, items=500, of={"services": 16, "names": 100, "states": 8, "lookups": 100})
STATES = ("healthy", "probing", "ejected", "down")
"""From the best to the worst."""


@dataclass(frozen=True, slots=True)
class Count:
    """How often something has happened."""

    what: str
    kind: str
    number: int


@dataclass(frozen=True, slots=True)
class StateCount:
    """How many endpoints are in a state."""

    state: str
    number: int


@dataclass(frozen=True, slots=True)
class EndpointSeen:
    """An endpoint. Times are in seconds."""

    endpoint: str
    state: str
    reason: str = ""
    returns_in: float | None = None
    spared_for: float | None = None
    pending: int = 0
    uses: int = 0
    failures: int = 0
    latency: float | None = None
    cost: float | None = None
    ejections: int = 0
    zone: str = ""
    named: float | None = None
    """Seconds since a source named it."""
    check: str = ""


@dataclass(frozen=True, slots=True)
class ServiceSeen:
    """A service."""

    target: str
    source: str = ""
    ttl: float | None = None
    age: float | None = None
    fresh_for: float | None = None
    idle_for: float | None = None
    partial: bool = False
    estimate: int | None = None
    coverage: float | None = None
    stale: bool = False
    doubted: bool = False
    failing: bool = False
    panic: bool = False
    error: str = ""
    retries_left: float | None = None
    counts: tuple[Count, ...] = ()
    total: int = 0
    states: tuple[StateCount, ...] = ()
    pending: int = 0
    uses: int = 0
    failures: int = 0
    endpoints: tuple[EndpointSeen, ...] = ()


@dataclass(frozen=True, slots=True)
class Process:
    """A process of a program."""

    version: int
    pid: int
    program: str
    group: str
    package: str = ""
    python: str = ""
    lookups: tuple[Count, ...] = ()
    services: tuple[ServiceSeen, ...] = ()
    services_left: int = 0
    names: tuple[str, ...] = ()
    names_left: int = 0


def read(text: bytes, pid: int) -> Process:
    """The document of this process. Raises `ValueError` for anything else."""
    try:
        value = json.loads(text)
        if not isinstance(value, Mapping):
            raise ValueError("it is no object")
        _check_version(value)
        found = made(Process, value, _LIMITS)
    except (TypeError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"it does not fit: {error}") from error
    if found.pid != pid:
        raise ValueError("it names another process")
    for service in found.services:
        states = {each.state for each in service.endpoints} | {each.state for each in service.states}
        if not states <= set(STATES):
            raise ValueError("it has states that there are not")
    return found


def _check_version(value: Mapping[str, Any]) -> None:
    version = value.get("version")
    if isinstance(version, int) and not isinstance(version, bool) and version > _KNOWN:
        raise ValueError("its program has a newer version of ecs_discovery")
