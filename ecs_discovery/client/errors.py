"""The errors of calls and connects: what was tried, and what to do."""

from __future__ import annotations

import socket
import sys
from typing import Any, NoReturn

from ecs_discovery.core.calls.call import Call
from ecs_discovery.core.calls.failure_kinds import FailureKind
from ecs_discovery.errors import (
    ConnectError,
    ConnectTimeout,
    DiscoveryError,
    ResolutionError,
    combined,
    foreign,
)

__all__ = ["Elsewhere", "as_os_error", "hint_of", "no_connection", "noted"]


def no_connection(call: Call, error: OSError) -> DiscoveryError:
    """The error for a call none of whose endpoints took the connection. `error` is the last one's."""
    if isinstance(error, DiscoveryError):
        return error
    kind: type[DiscoveryError] = ConnectTimeout if isinstance(error, TimeoutError) else ConnectError
    ssl: Any = sys.modules.get("ssl")  # without it there are no errors of its
    if isinstance(error, socket.gaierror) or (ssl is not None and isinstance(error, ssl.SSLError)):
        kind = combined(kind, type(error))
    return kind(
        f"no connection after {len(call.reports)} connect{'s' if len(call.reports) != 1 else ''}: {foreign(error)}",
        target=call.target,
        attempts=call.reports,
        hint=hint_of(call),
    )


def hint_of(call: Call) -> str | None:
    """What to do about a call that failed, and why it was not retried."""
    parts = []
    if call.reports and "WRONG_VERSION_NUMBER" in call.reports[-1].error:
        parts.append("this port does not seem to speak TLS: use http://, or no ssl=, or the port that does")
    if call.default_port is not None and call.reports and call.reports[-1].kind == FailureKind.NOT_SENT.value:
        parts.append(
            f"port {call.default_port} is the default, since there is no SRV record: "
            f"write the port if it is another, as {call.target}:8080"
        )
    if call.reason:
        parts.append(f"not retried: {call.reason}")
    return "; ".join(parts) or None


def as_os_error(error: ResolutionError) -> DiscoveryError:
    """The same error as one that is also an OSError, for callers who expect a socket's."""
    kind = combined(type(error), OSError)
    if kind is type(error):
        return error
    twin = kind(*error.args)
    twin.__dict__.update(error.__dict__)
    return twin


def noted(error: Exception, call: Call) -> None:
    """Put a note on what was tried onto an exception of the caller's, which is not ours to wrap."""
    if call.reports:
        tried = "; ".join(map(str, call.reports))
        why = f"; not retried: {call.reason}" if call.reason else ""
        error.add_note(f"ecs_discovery: {call.target}: {tried}{why}")


class Elsewhere:
    """A method that the other world's discovery has: who asks for it is told its name here.

    Not by `__getattr__`: a class that has it loses the interpreter's short cut for every attribute.
    """

    def __init__(self, here: str) -> None:
        self._here = here
        self._name = ""

    def __set_name__(self, owner: type[object], name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type[object]) -> NoReturn:
        text = f"{owner.__name__!r} object has no attribute {self._name!r}; did you mean {self._here!r}?"
        raise AttributeError(text, name=self._name, obj=instance)
