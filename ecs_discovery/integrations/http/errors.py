"""How an error becomes ours and the library's class at once, and what it says."""

from __future__ import annotations

from typing import TypeVar

from ecs_discovery.client.errors import hint_of
from ecs_discovery.core.calls.call import Call
from ecs_discovery.core.calls.failure_kinds import FailureKind, Fault
from ecs_discovery.errors import ConnectError, ConnectTimeout, DiscoveryError, RequestError, combined

__all__ = ["as_class", "of_call", "reason_of", "without_frames"]

E = TypeVar("E", bound=BaseException)


def reason_of(error: BaseException) -> str:
    """What went wrong, without the layers around it."""
    while True:
        deeper = getattr(error, "reason", None) or next((a for a in error.args if isinstance(a, BaseException)), None)
        if not isinstance(deeper, BaseException):
            text = str(error)
            # urllib3 begins with the name and port of the URL, which were not connected to; before 2.1, with a `repr`.
            if text.startswith("<urllib3.") and ">: " in text:
                return text.partition(">: ")[2]
            return text.partition("): ")[2] if text.startswith("HTTP") and "): " in text else text
        error = deeper


def of_call(call: Call, fault: Fault | None, *theirs: type[BaseException], timed_out: bool) -> DiscoveryError:
    """The error of a call whose attempts all failed: a `DiscoveryError` that is of the library's classes `theirs`
    too."""
    last = call.reports[-1]
    ours: type[DiscoveryError] = RequestError
    if timed_out:
        ours = ConnectTimeout
    elif fault is not None and fault.kind is FailureKind.NOT_SENT and fault is not Fault.OWN:
        ours = ConnectError
    tried = len({report.endpoint for report in call.reports})
    number = f"{call.number} attempt{'s' if call.number > 1 else ''}"
    if tried > call.number:  # connects that raced
        number += f" on {tried} endpoints"
    made: DiscoveryError = combined(ours, *theirs)(
        f"failed after {number}: {last.error or last.outcome}",
        target=call.target,
        attempts=call.reports,
        hint=hint_of(call),
    )
    return made


def as_class(error: DiscoveryError, *theirs: type[BaseException]) -> DiscoveryError:
    """A `DiscoveryError` that is of the library's classes `theirs` too."""
    kind = combined(type(error), *theirs)
    made: DiscoveryError = kind.__new__(kind, *error.args)
    made.__dict__.update(error.__dict__)
    made.message = str(error.args[0]) if error.args else ""
    made.__cause__ = error.__cause__ or error
    return made


def without_frames(error: E) -> E:
    """The error and what led to it, without the frames: a refused connection is not looked for in our code."""
    each: BaseException | None = error
    while each is not None and each.__traceback__ is not None:
        each.__traceback__ = None
        each = each.__cause__ or each.__context__
    return error
