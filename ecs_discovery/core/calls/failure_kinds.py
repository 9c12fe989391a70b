"""What the end of an attempt says: of its endpoint, of repeating the call, and what follows.

All are values. Rules return them, and the callers of the rules act on them.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from ecs_discovery.core.balancing.node import Outcome

__all__ = ["GOOD", "NOT_REPEATED", "Decision", "FailureKind", "Fault", "Judgement", "Retry", "Stop"]

NOT_REPEATED = "this kind of failure is not retried"


class FailureKind(Enum):
    """What an attempt's failure says about repeating it."""

    NOT_SENT = "connect"
    """Nothing of the request was sent: any request may go elsewhere."""
    CLOSED = "closed"
    """The connection ended, or the peer's kernel fell silent, before a byte of the answer."""
    STATUS = "status"
    """An answer that asks to try again (429, 502, 503, 504)."""
    OTHER = "error"
    """Anything else: it may have been processed, or trying again would not help."""


class Fault(Enum):
    """What went wrong with an attempt, whatever the library calls it. Each has its kind, its word for people, and
    what it says of the endpoint."""

    CONNECT = (FailureKind.NOT_SENT, "connect", Outcome.CONNECT)
    """It was not connected to."""
    CONNECT_TIMEOUT = (FailureKind.NOT_SENT, "connect timeout", Outcome.UNANSWERED)
    CERTIFICATE = (FailureKind.NOT_SENT, "certificate", Outcome.NEUTRAL)
    """Its certificate was refused: as likely the caller's settings as the endpoint's fault."""
    TLS = (FailureKind.NOT_SENT, "tls", Outcome.NEUTRAL)
    """As likely TLS to a port that speaks none."""
    OWN = (FailureKind.NOT_SENT, "own", Outcome.NEUTRAL)
    """This side's: no descriptor left, a pool that was closed."""
    OWN_FILE = (FailureKind.OTHER, "own", Outcome.NEUTRAL)
    """This side's: a certificate file that cannot be read."""
    REFUSED_STREAM = (FailureKind.NOT_SENT, "refused stream", Outcome.NEUTRAL)
    """It said that it has not looked at the request (HTTP/2)."""
    SILENT = (FailureKind.CLOSED, "silent", Outcome.CONNECT)
    """Its kernel acknowledges nothing: the host is gone."""
    DOUBTED = (FailureKind.CLOSED, "doubted", Outcome.NEUTRAL)
    """It may be gone, or busy: the request goes elsewhere, once."""
    CLOSED = (FailureKind.CLOSED, "closed", Outcome.FAILURE)
    """The connection ended before the answer."""
    CUT = (FailureKind.CLOSED, "cut", Outcome.FAILURE)
    """The connection ended within the answer."""
    READ_TIMEOUT = (FailureKind.OTHER, "read timeout", Outcome.FAILURE)
    BAD_ANSWER = (FailureKind.OTHER, "bad answer", Outcome.FAILURE)
    DEADLINE = (FailureKind.OTHER, "deadline", Outcome.FAILURE)
    """The caller's deadline ended it."""
    OUT_OF_TIME = (FailureKind.OTHER, "out of time", Outcome.NEUTRAL)
    """The application's own limit for all of the request ended it: as likely spent before this attempt."""
    UNKNOWN = (FailureKind.OTHER, "error", Outcome.FAILURE)
    """An error of the library that says nothing else."""
    NOT_OURS = (FailureKind.OTHER, "error", Outcome.NEUTRAL)
    """No error of a connection: a body that cannot be read, say."""

    def __init__(self, kind: FailureKind, label: str, outcome: Outcome) -> None:
        self.kind = kind
        self.label = label
        self.outcome = outcome


class Judgement(NamedTuple):
    """What an attempt's result or exception says."""

    outcome: Outcome
    failure: FailureKind | None
    """None: the call is done with it."""
    label: str
    retry_after: float | None = None
    """Seconds that the answer asks to wait."""


GOOD = Judgement(Outcome.SUCCESS, None, "ok")


class Retry(NamedTuple):
    """Another attempt follows."""

    after: float
    """Seconds to wait before it."""


class Stop(NamedTuple):
    """No other attempt follows."""

    reason: str
    """Why, for people."""


Decision = Retry | Stop
