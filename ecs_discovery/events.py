"""Events: frozen records of what changed, for hooks (`on_event=`) and for the log. One per change of state.

What is told of each call and each attempt goes to an `Observer` instead.
"""

from __future__ import annotations

import logging
import re
from typing import NamedTuple, Protocol

from ecs_discovery.errors import foreign
from ecs_discovery.models import Endpoint, Question, Value

__all__ = [
    "AttemptEnded",
    "AttemptObserver",
    "AttemptStarted",
    "CallEnded",
    "CallObserver",
    "CallStarted",
    "ConnectEnded",
    "EndpointsChanged",
    "Event",
    "HealthChanged",
    "Idle",
    "LookupEnded",
    "LookupFailed",
    "LookupRecovered",
    "Notice",
    "Observer",
    "PanicChanged",
    "PushedBack",
    "fields_of",
    "level_of",
]

_PREFIX = "ecs_discovery_"
_CAPITAL = r"(?<=[a-z])(?=[A-Z])"


class EndpointsChanged(Value):
    """The endpoints of a target are now these."""

    target: str
    endpoints: tuple[Endpoint, ...]
    source: str

    def __str__(self) -> str:
        return f"{self.target}: {len(self.endpoints)} endpoints from {self.source}"


class HealthChanged(Value):
    """An endpoint was ejected or is down, or it came back."""

    target: str
    endpoint: Endpoint
    health: str
    """`healthy`, `ejected` or `down`."""
    reason: str
    seconds: float
    """For how long at least; 0 when it came back."""
    cause: str = ""
    """The cause of its ejection: `consecutive_failures`, `success_rate`, `probe_failed`, `health_check` or
    `connect`; "" when it came back."""

    def __str__(self) -> str:
        reason = f": {self.reason}" if self.reason else ""
        return f"{self.target}: {self.endpoint} is {self.health}{reason}"


class PushedBack(Value):
    """An endpoint answered that it is overloaded; others are chosen before it for a while."""

    target: str
    endpoint: Endpoint
    seconds: float

    def __str__(self) -> str:
        return f"{self.target}: {self.endpoint} is overloaded: others are chosen before it for {self.seconds:.3g} s"


class PanicChanged(Value):
    """Too few endpoints are healthy and health is now ignored, or no longer."""

    target: str
    panic: bool

    def __str__(self) -> str:
        return f"{self.target}: " + ("panic: too few healthy endpoints, all are used" if self.panic else "panic over")


class LookupFailed(Value):
    """Lookups began to fail; what was known stays in use."""

    target: str
    error: str
    endpoints_kept: int

    def __str__(self) -> str:
        return f"{self.target}: lookup failed, {self.endpoints_kept} known endpoints stay in use: {self.error}"


class LookupRecovered(Value):
    """Lookups succeed again."""

    target: str

    def __str__(self) -> str:
        return f"{self.target}: lookups succeed again"


class Notice(Value):
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


def fields_of(event: Event) -> dict[str, str | float | bool]:
    """What a log record of the event has for machines: `ecs_discovery_event`, and each of its values by name.

    Of many endpoints it has the number.
    """
    name = re.sub(_CAPITAL, "_", type(event).__name__).lower()
    found: dict[str, str | float | bool] = {f"{_PREFIX}event": name}
    for slot in event.__match_args__:
        value = getattr(event, slot)
        if isinstance(value, tuple):
            value = len(value)
        found[_PREFIX + slot] = value if isinstance(value, (bool, int, float)) else foreign(value)
    return found


class CallStarted(NamedTuple):
    """A call begins: before its lookup, if any."""

    kind: str
    """`http`, `grpc`, `call` or `connect`."""
    target: str
    method: str
    """The request's, or the RPC's (`/shop.Orders/Get`); "" if it is neither."""
    url: str = ""
    """The URL of an HTTP request, as the application wrote it: it may hold secrets."""


class AttemptStarted(NamedTuple):
    """An attempt begins."""

    number: int
    """1 for the first."""
    endpoint: Endpoint


class AttemptEnded(NamedTuple):
    """An attempt has ended, and was judged."""

    number: int
    endpoint: Endpoint
    """The endpoint that it led to. Where an endpoint does not connect, an attempt goes on with the next."""
    kind: str
    """"" if it was good. Else `connect` (nothing was sent), `closed`, `status` or `error`; `overtaken` if the other of
    two in flight won, `cancelled` if it was cancelled or interrupted."""
    label: str
    """The same for people, and finer: `read timeout`, `503`."""
    error_type: str
    """The name of the exception's class; "" without an exception."""
    status: int | None
    """The status of an answer to an HTTP request."""
    seconds: float
    pause: float | None
    """Seconds until the next attempt; None if none follows, or the application's own policy decides."""


class CallEnded(NamedTuple):
    """A call has ended."""

    attempts: int
    """How many were begun."""
    last: AttemptEnded | None
    """The attempt that counts; None if the call ended before any attempt had."""
    error_type: str
    """The name of the class of the exception that ended it; "" without an exception."""
    error: str
    """What that says."""
    seconds: float


class ConnectEnded(NamedTuple):
    """A connect has ended. gRPC and a library's own connects are not seen."""

    target: str
    endpoint: Endpoint
    outcome: str
    """`ok`, `overtaken` if another connect was faster, or what was wrong: `connect`, `connect timeout`, `own`."""
    seconds: float


class LookupEnded(NamedTuple):
    """A lookup has ended: of a resolver, not of the cache."""

    question: Question
    outcome: str
    """`ok`, or the name of the error's class."""
    seconds: float


class Idle(NamedTuple):
    """No call is of interest for a while, and until then none is told."""

    seconds: float


class AttemptObserver(Protocol):
    """What an observer does about one attempt.

    It may have `headers`, a mapping: an HTTP request carries these fields where the application has set none of the
    name.
    """

    def left(self) -> None:
        """Nothing of the attempt runs here any more. Called in the thread or task in which it was begun."""

    def ended(self, end: AttemptEnded) -> None:
        """It was judged. Called once, in any thread, before or after `left`."""


class CallObserver(Protocol):
    """What an observer does about one call."""

    def attempt_started(self, attempt: AttemptStarted) -> AttemptObserver | None:
        """Called in the thread or task that makes the attempt: context variables that are set here are seen in it,
        until `left` takes them back. None: the attempt is of no interest."""

    def ended(self, end: CallEnded) -> None:
        """Called once, in the thread or task of the call."""


class Observer(Protocol):
    """Is told of each call and each attempt. What it raises is logged once, and breaks nothing.

    It may also have `connect_ended`, which takes a `ConnectEnded`, and `lookup_ended`, which takes a `LookupEnded`.
    Both are called in any thread.
    """

    def call_started(self, call: CallStarted) -> CallObserver | Idle | None:
        """Called in the thread or task of the call. None: the call is of no interest, and costs no more.

        When every observer says `Idle`, no call is told for the shortest of these times.
        """
