"""Events: frozen records of what changed, for hooks (`on_event=`) and for the log.

One record per change of state, not per request.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from ecs_discovery.models import Endpoint

__all__ = [
    "EndpointsChanged",
    "Event",
    "HealthChanged",
    "LookupFailed",
    "LookupRecovered",
    "Notice",
    "PanicChanged",
    "PushedBack",
    "level_of",
]


@dataclass(frozen=True, slots=True)
class EndpointsChanged:
    """The endpoints of a target are now these."""

    target: str
    endpoints: tuple[Endpoint, ...]
    source: str

    def __str__(self) -> str:
        return f"{self.target}: {len(self.endpoints)} endpoints from {self.source}"


@dataclass(frozen=True, slots=True)
class HealthChanged:
    """An endpoint was taken out of choice, or came back."""

    target: str
    endpoint: Endpoint
    health: str
    """`healthy`, `ejected` or `down`."""
    reason: str
    seconds: float
    """For how long at least; 0 when it came back."""

    def __str__(self) -> str:
        reason = f": {self.reason}" if self.reason else ""
        return f"{self.target}: {self.endpoint} is {self.health}{reason}"


@dataclass(frozen=True, slots=True)
class PushedBack:
    """An endpoint answered that it is overloaded; others are chosen before it for a while."""

    target: str
    endpoint: Endpoint
    seconds: float

    def __str__(self) -> str:
        return f"{self.target}: {self.endpoint} is overloaded: others are chosen before it for {self.seconds:.3g} s"


@dataclass(frozen=True, slots=True)
class PanicChanged:
    """Too few endpoints are healthy and health is now ignored, or no longer."""

    target: str
    panic: bool

    def __str__(self) -> str:
        return f"{self.target}: " + ("panic: too few healthy endpoints, all are used" if self.panic else "panic over")


@dataclass(frozen=True, slots=True)
class LookupFailed:
    """Lookups began to fail; what was known stays in use."""

    target: str
    error: str
    endpoints_kept: int

    def __str__(self) -> str:
        return f"{self.target}: lookup failed, {self.endpoints_kept} known endpoints stay in use: {self.error}"


@dataclass(frozen=True, slots=True)
class LookupRecovered:
    """Lookups succeed again."""

    target: str

    def __str__(self) -> str:
        return f"{self.target}: lookups succeed again"


@dataclass(frozen=True, slots=True)
class Notice:
    """Something an operator should know, told once."""

    target: str
    text: str

    def __str__(self) -> str:
        return f"{self.target}: {self.text}"


Event = EndpointsChanged | HealthChanged | PushedBack | PanicChanged | LookupFailed | LookupRecovered | Notice


def level_of(event: Event) -> int:
    """The level it is logged with."""
    if isinstance(event, (LookupFailed, Notice)):
        return logging.WARNING
    if isinstance(event, PanicChanged):
        return logging.WARNING if event.panic else logging.INFO
    if isinstance(event, HealthChanged):
        return logging.INFO if event.health == "healthy" else logging.WARNING
    return logging.INFO
