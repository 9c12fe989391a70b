"""A node: an endpoint with its load and its health history."""

from __future__ import annotations

from enum import Enum
from math import inf

from ecs_discovery.models import Endpoint

__all__ = ["Health", "Node", "Outcome"]


class Health(Enum):
    HEALTHY = "healthy"
    EJECTED = "ejected"
    """Taken out after failed requests, until a time."""
    PROBING = "probing"
    """Its ejection is over; one request, under way, decides."""
    DOWN = "down"
    """Did not accept a connection; set aside until a connection succeeds."""


class Outcome(Enum):
    """How one use of a node ended."""

    SUCCESS = "success"
    FAILURE = "failure"
    """It was reached and did badly: an error status, a broken connection, an exception of the caller's."""
    CONNECT = "connect"
    """It could not be connected to."""
    NEUTRAL = "neutral"
    """Says nothing about the node: cancelled, or lost a race."""


class Node:
    """Mutable; read and written under its service's lock, read for display without it."""

    __slots__ = (
        "__weakref__",
        "answered",
        "connect_failures",
        "consecutive",
        "ejected_until",
        "ejections",
        "endpoint",
        "failures",
        "gone",
        "health",
        "latency",
        "pending",
        "picked",
        "reason",
        "reconnecting",
        "removed",
        "seen",
        "successes",
        "suspected",
        "until",
        "uses",
    )

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.pending = 0
        """Uses under way."""
        self.picked = 0
        """The service's pick count when it was last picked."""
        self.uses = 0
        self.successes = 0
        self.failures = 0
        self.consecutive = 0
        """Failures since the last success."""
        self.connect_failures = 0
        """Failed connects since the last success."""
        self.reconnecting = False
        """True while the driver tries whether it accepts connections again."""
        self.ejections = 0
        """Recent ejections; each doubles the next, a success after one takes one off."""
        self.health = Health.HEALTHY
        self.until = 0.0
        """When an ejection or the pause before the next connect ends."""
        self.ejected_until = 0.0
        """When its last ejection ends, whatever happens to it meanwhile."""
        self.reason = ""
        """Why it is not healthy, for people."""
        self.latency: float | None = None
        """A moving average of successful uses, in seconds, for display."""
        self.seen: dict[str, float] = {}
        """When each source last named it."""
        self.removed = False
        """True once the source no longer names it."""
        self.answered = 0.0
        """When a use of it last ended in success."""
        self.gone = -inf
        """When it was last found that its kernel says nothing: a use of it from before that waits in vain."""
        self.suspected = -inf
        """Until then somebody is finding out whether it is there."""

    def __repr__(self) -> str:
        return f"<Node {self.endpoint} {self.health.value} pending={self.pending}>"
