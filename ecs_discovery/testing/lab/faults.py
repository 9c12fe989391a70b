"""What can be wrong with a task, the name server and the Cloud Map API.

Frozen values, switched on and off while traffic runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

__all__ = ["CloudMapFault", "DnsFault", "Drain", "Errors", "Fault", "Hang", "Refuse", "Reset", "Slow", "Vanish"]


@dataclass(frozen=True, slots=True)
class Refuse:
    """New connections are refused. Open connections go on, or are reset if `cut`."""

    cut: bool = False


@dataclass(frozen=True, slots=True)
class Reset:
    """Each request is read and its connection then reset, after `after_bytes` bytes of the answer."""

    after_bytes: int = 0

    def __post_init__(self) -> None:
        if self.after_bytes < 0:
            raise ValueError(f"after_bytes must be 0 or more, got {self.after_bytes!r}")


@dataclass(frozen=True, slots=True)
class Hang:
    """Connections are accepted, requests read and acknowledged by the kernel, and never answered, not even
    after the task is healed."""


@dataclass(frozen=True, slots=True)
class Slow:
    """A share of the answers, all by default, begins `seconds` later."""

    seconds: float
    probability: float = 1.0

    def __post_init__(self) -> None:
        if not self.seconds >= 0:
            raise ValueError(f"seconds must be 0 or more, got {self.seconds!r}")
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability must be between 0 and 1, got {self.probability!r}")


@dataclass(frozen=True, slots=True)
class Errors:
    """A share of the requests, all by default, is answered with `status` at once."""

    status: int = 503
    retry_after: float | None = None
    """The `Retry-After` header to send with it, in seconds."""
    probability: float = 1.0
    path: str | None = None
    """The only path that is answered so; None: all."""

    def __post_init__(self) -> None:
        if not 400 <= self.status <= 599:
            raise ValueError(f"status must be between 400 and 599, got {self.status!r}")
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability must be between 0 and 1, got {self.probability!r}")


@dataclass(frozen=True, slots=True)
class Drain:
    """New connections are refused; open connections get their answers, each with `Connection: close`.

    An idle connection stays open until its next request, or is closed at once if `close_idle`.
    """

    close_idle: bool = False


@dataclass(frozen=True, slots=True)
class Vanish:
    """The task's network interface is gone: whatever is sent to it meets silence.

    Connecting times out; on open connections nothing is acknowledged and nothing arrives, neither data nor
    FIN nor RST. What the kernel had already taken from the task may still arrive. Healing brings all of it back,
    as a repaired network does.

    This needs a socket filter, which Linux has (without special rights). Elsewhere only connecting times
    out, and open connections are an error (`RuntimeError`), unless `approximate`: then they go mute while
    their kernel still acknowledges.
    """

    approximate: bool = False


Fault: TypeAlias = Refuse | Reset | Hang | Slow | Errors | Drain | Vanish


class DnsFault(Enum):
    """What the name server does instead of answering."""

    SERVFAIL = "servfail"
    REFUSED = "refused"
    NXDOMAIN = "nxdomain"
    """Every name, existing or not, is denied."""
    EMPTY = "empty"
    """Every name exists and has no records."""
    SILENCE = "silence"
    """The query is received and nothing comes back."""
    GARBAGE = "garbage"
    """Bytes come back that are no DNS message, after the right message id."""


class CloudMapFault(Enum):
    """What the Cloud Map API does instead of answering."""

    THROTTLED = "throttled"
    """`RequestLimitExceeded`."""
    DENIED = "denied"
    """`AccessDeniedException`: the role lacks the permission."""
    ERROR = "error"
    """Status 500."""
    GARBAGE = "garbage"
    """Status 200, and a body that is no JSON."""
    SILENCE = "silence"
    """The request is received and nothing comes back."""
