"""The errors of a wrapped requests session: ours, and requests' own class at once."""

from __future__ import annotations

from typing import Any

import requests
from requests.exceptions import InvalidURL

from ecs_discovery.core.retry import Call
from ecs_discovery.errors import (
    ConfigurationError,
    ConnectError,
    ConnectTimeout,
    DeadlineExceeded,
    DiscoveryError,
    RequestError,
    ResolutionTimeout,
    combined,
)

__all__ = ["as_requests_error", "cause_of"]


def cause_of(error: BaseException) -> str:
    """What went wrong, without the layers around it."""
    while True:
        deeper = getattr(error, "reason", None) or next((a for a in error.args if isinstance(a, BaseException)), None)
        if not isinstance(deeper, BaseException):
            return str(error)
        error = deeper


def as_requests_error(error: Exception, call: Call | None, request: requests.PreparedRequest | None) -> Exception:
    """The error as one of ours that is also requests' own class."""
    ours: type[DiscoveryError]
    fields: dict[str, Any] = {"request": request, "response": None}
    if isinstance(error, DiscoveryError):
        theirs: type[requests.RequestException] = requests.ConnectionError
        if isinstance(error, ConfigurationError):
            theirs = InvalidURL
        elif isinstance(error, DeadlineExceeded):
            theirs = requests.Timeout
        elif isinstance(error, (ResolutionTimeout, ConnectTimeout)):
            theirs = requests.ConnectTimeout
        kind = combined(type(error), theirs)
        if kind is type(error):
            return error
        twin = kind.__new__(kind, *error.args)
        twin.args = error.args
        twin.__dict__.update(error.__dict__ | fields)
        return twin
    if not isinstance(error, requests.RequestException) or call is None or not call.reports:
        return error
    last = call.reports[-1]
    if isinstance(error, requests.ConnectTimeout):
        ours = ConnectTimeout
    else:
        ours = ConnectError if last.outcome in ("connect", "connect timeout", "tls", "certificate") else RequestError
    tried = f"after {call.number} attempt{'s' if call.number > 1 else ''}"
    return combined(ours, type(error))(
        f"failed {tried}: {last.error or last.outcome}",
        target=call.target,
        attempts=call.reports,
        hint=f"not tried again: {call.reason}" if call.reason else None,
        **fields,
    )
