"""The rules of gRPC: what a status code says of the endpoint and of the call.

Statuses come as their names (`UNAVAILABLE`). Those that count against an endpoint are Envoy's. What gRPC makes by
itself, where no answer came, can be told from its text alone.
"""

from __future__ import annotations

from ecs_discovery.config.policies import BalancingPolicy
from ecs_discovery.core.balancing.node import Outcome
from ecs_discovery.core.calls.failure_kinds import FailureKind, Fault, Judgement

__all__ = ["FAILURES", "asked_wait", "is_cut", "judge_code", "pushback"]

FAILURES = frozenset({"UNAVAILABLE", "INTERNAL", "UNKNOWN", "DATA_LOSS", "DEADLINE_EXCEEDED"})
"""Status codes that count against the endpoint."""
_CUT = "CANCELLED"
"""The details of an RPC that its server ended without a status. A server that stops at once does so to half of its
RPCs, and a handler may do so too: it says nothing sure of the endpoint."""
_RESET = "RST_STREAM with error code 8"
"""In the details where another server than gRPC's own has done so (RFC 9113, section 7: CANCEL)."""
_NOT_CONNECTED = "failed to connect to all addresses"
_OURS = (
    "Exception iterating requests",
    "Exception serializing request",
    "Exception deserializing response",
    "Received message larger than max",
    "Sent message larger than max",
)
"""How the details begin of what this side makes by itself: the application's own faults, and its limits."""
_LONGEST_PUSHBACK = 300.0  # seconds that an endpoint can keep itself out of the first choice
_DIGITS = 9  # of a number of milliseconds that is looked at


def judge_code(code: str, details: str, address: str, *, asked: float | None = None, alone: bool = False) -> Judgement:
    """What the end of an attempt says whose status is no `OK`. `asked` is the wait that it asks for, in seconds.

    `address` is the endpoint's (`ipv4:10.0.0.1:50051`), as gRPC names it. A server may pass on the text of its own
    failure to connect, which names another. The wait counts only where no other endpoint is left (`alone`).
    """
    wait = asked if alone else None
    if code == "UNAVAILABLE":
        if details.startswith(_NOT_CONNECTED) and address in details:
            fault = _fault_of_connect(details)
            return Judgement(fault.outcome, fault.kind, fault.label)
        return Judgement(Outcome.FAILURE, _repeated(asked, FailureKind.CLOSED), "unavailable", wait)
    if code == "CANCELLED" and is_cut(details):
        return Judgement(Outcome.NEUTRAL, _repeated(asked, FailureKind.CLOSED), "cancelled by the server", wait)
    label = code.lower().replace("_", " ")
    if details.startswith(_OURS):
        return Judgement(Outcome.NEUTRAL, FailureKind.OTHER, label)
    if code == "RESOURCE_EXHAUSTED":
        return Judgement(Outcome.SUCCESS, _repeated(asked, FailureKind.STATUS), label, wait)
    if code in FAILURES:
        return Judgement(Outcome.FAILURE, FailureKind.OTHER, label)
    return Judgement(Outcome.SUCCESS, None, label)


def is_cut(details: str) -> bool:
    """Do the details of a `CANCELLED` say that the server ended the RPC, and no application?"""
    return details == _CUT or _RESET in details


def pushback(code: str, asked: float | None, policy: BalancingPolicy) -> float | None:
    """Seconds for which the endpoint asks to be spared; None if it does not."""
    if asked is not None:
        return min(asked, _LONGEST_PUSHBACK) if asked > 0 else None
    return policy.pushback if code == "RESOURCE_EXHAUSTED" else None


def asked_wait(text: str | bytes | None) -> float | None:
    """Seconds that a `grpc-retry-pushback-ms` asks to wait; -1.0 if it asks for no other attempt, which anything but a
    number of milliseconds does (gRFC A6). None if there is none."""
    if text is None:
        return None
    digits = text.decode("ascii", "replace") if isinstance(text, bytes) else text
    if digits.isascii() and digits.isdigit() and len(digits) <= _DIGITS:
        return int(digits) / 1000
    return -1.0


def _repeated(asked: float | None, kind: FailureKind) -> FailureKind:
    return FailureKind.OTHER if asked is not None and asked < 0 else kind


def _fault_of_connect(details: str) -> Fault:
    lowered = details.lower()
    if "timed out" in lowered or "deadline" in lowered or "no route to host" in lowered:
        return Fault.CONNECT_TIMEOUT
    if "verif" in lowered or "certificate" in lowered:
        return Fault.CERTIFICATE
    if "handshake" in lowered or "ssl" in lowered:
        return Fault.TLS
    return Fault.CONNECT
