"""A node: an endpoint with its load and its health history."""

from __future__ import annotations

from enum import Enum
from math import inf

from ecs_discovery.models import Endpoint

__all__ = ["Checked", "Health", "Node", "Outcome", "Use"]


class Health(Enum):
    HEALTHY = "healthy"
    EJECTED = "ejected"
    """Taken out after failed requests, until a time."""
    PROBING = "probing"
    """Its ejection is over; one request, in flight, decides."""
    DOWN = "down"
    """Did not accept a connection; set aside until a connection succeeds."""


class Outcome(Enum):
    """How one use of a node ended."""

    SUCCESS = "success"
    FAILURE = "failure"
    """It was reached and did badly: an error status, a broken connection, an exception of the caller's."""
    CONNECT = "connect"
    """It could not be connected to."""
    UNANSWERED = "unanswered"
    """A connect met silence. Its host is gone, or it is busy and its queue for connections is full. Where requests that
    it has acknowledged are in flight, these find out which."""
    NEUTRAL = "neutral"
    """Says nothing about the node: cancelled, or lost a race."""


class _Pickable:
    """What a pick reads and writes, side by side in memory: with thousands of endpoints that is what it waits for."""

    __slots__ = ("full", "full_priority_at", "health", "load", "pending", "picked", "score", "uses")


class Checked:
    """What checks told of a node. Mutable; written under its service's lock, read for display without it."""

    __slots__ = ("at", "due", "failures", "result", "successes")

    def __init__(self) -> None:
        self.due = inf
        """When the next one is due; inf: to be drawn."""
        self.at = -inf
        """When the last one ended."""
        self.result = ""
        """What it told: `ok`, or what was wrong."""
        self.failures = 0
        """Failed ones since the last good one."""
        self.successes = 0
        """Good ones since the last failed one."""


class Node(_Pickable):
    """Mutable; read and written under its service's lock, read for display without it."""

    __slots__ = (
        "__weakref__",
        "accepted_at",
        "answered_at",
        "checked",
        "connect_failures",
        "consecutive",
        "cost",
        "cost_at",
        "ejection_ends_at",
        "ejections",
        "endpoint",
        "failed_checks",
        "failures",
        "gone_at",
        "healthy_since",
        "joined",
        "last_but_one",
        "last_cost",
        "latency",
        "log_cost",
        "out_by_checks",
        "probe",
        "pushback_ends_at",
        "pushed_at",
        "pushed_back",
        "reason",
        "reconnecting",
        "removed",
        "seen",
        "state_ends_at",
        "streak",
        "successes",
        "suspect_again_at",
        "waiting",
        "warm_at",
        "window",
        "window_before",
        "window_ends",
    )

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.pending = 0
        """Uses in flight."""
        self.picked = 0
        """The service's pick count when it was last picked."""
        self.uses = 0
        self.successes = 0
        self.failures = 0
        self.consecutive = 0
        """Failures since the last success."""
        self.streak = (0, 0, 0, 0)
        """As they were when those began: its successes and failures, and those of all nodes together."""
        self.connect_failures = 0
        """Failed connects since the last success."""
        self.reconnecting = False
        """True while the driver tries whether it accepts connections again."""
        self.ejections = 0
        """Recent ejections; each doubles the next, a success after one and calm time take some off."""
        self.health = Health.HEALTHY
        self.probe = 1
        """Uses in flight when its probe had begun: with fewer the probe is over, or another may begin."""
        self.healthy_since = -inf
        """When it last came back."""
        self.state_ends_at = 0.0
        """When an ejection or the pause before the next connect ends."""
        self.ejection_ends_at = 0.0
        """When its last ejection ends, whatever happens to it meanwhile."""
        self.reason = ""
        """Why it is not healthy, for people."""
        self.window = (0, 0, 0, 0)
        """The same as it was when this half window began: the requests of the last seconds, kept by `outlier`."""
        self.window_before = (0, 0, 0, 0)
        """How much each of these grew in the half window before."""
        self.window_ends = -inf
        """When another half window begins."""
        self.latency: float | None = None
        """A moving average of successful uses, in seconds, for display."""
        self.cost = 0.0
        """What a use of it costs, in seconds, kept by `cost`."""
        self.log_cost = 0.0
        self.cost_at = 0.0
        """When that was so."""
        self.last_cost = 0.0
        """What the last use cost alone."""
        self.last_but_one = 0.0
        self.score = 0.0
        """The logarithm of its cost, shifted by time so that scores can be compared at any later moment."""
        self.load = 0.0
        """Its score for one use more than there are now: what pickers compare."""
        self.joined: float | None = None
        """When it became a choice; None before that."""
        self.warm_at = -inf
        """When it has come up to its full share."""
        self.pushed_back = False
        """It is counted among those that are."""
        self.pushed_at = -inf
        """When it last said that it is overloaded."""
        self.pushback_ends_at = -inf
        """It said that it is overloaded, and is to be left alone until then."""
        self.full = False
        """It has as many uses as it may have."""
        self.full_priority_at = -inf
        """Until then a pick looks twice: it is full, pushed back or warming up."""
        self.seen: dict[str, float] | None = None
        """When each source last named it, told late (`Membership.seen`); None before that."""
        self.checked: Checked | None = None
        """What health checks told, kept by `health_checks`; None before it was the turn of any."""
        self.failed_checks = ""
        """Why health checks say that it must not be used. It is ejected or down then, and only they bring it back."""
        self.out_by_checks = False
        """Nothing else had taken it out of choice when checks found that."""
        self.removed = False
        """True once the source no longer names it."""
        self.answered_at = 0.0
        """When a use of it last ended in success."""
        self.accepted_at = -inf
        """When a look last found that it accepts connections."""
        self.gone_at = -inf
        """When it was last found that its kernel says nothing: a use of it from before that waits in vain."""
        self.suspect_again_at = -inf
        """Until then another caller is finding out whether it is there."""
        self.waiting = 0
        """Requests in flight on connections that are looked at: they find out should its host be gone."""

    def __repr__(self) -> str:
        return f"<Node {self.endpoint} {self.health.value} pending={self.pending}>"


class Use:
    """Holds a use of a node that is in flight, if there is one. The balancer books it here as it counts it: an
    asynchronous exception finds both done or neither. What is `open` when its holder is dropped is to be ended."""

    __slots__ = ("node", "open")
    node: Node
    """The node of the last use."""
    open: bool
    """A use is in flight."""
