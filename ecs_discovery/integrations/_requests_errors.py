"""The errors of a wrapped requests session: ours, and requests' own class at once."""

from __future__ import annotations

import requests
from requests.exceptions import InvalidURL

from ecs_discovery.client.errors import hint_of
from ecs_discovery.core.calls.call import Call
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
            text = str(error)
            # urllib3 begins with the name and port of the URL, where nobody connected to.
            return text.partition("): ")[2] if text.startswith("HTTP") and "): " in text else text
        error = deeper


def as_requests_error(error: requests.RequestException, request: requests.PreparedRequest) -> Exception:
    """What a wrapped session raises for `error`, which requests made of an error of ours; others stay as they are.

    It is ours and of requests' class, and its first argument is urllib3's error, as with a plain session.
    """
    theirs = next((each for each in (*error.args, error.__context__) if hasattr(each, "ecs_discovery")), None)
    if not isinstance(theirs, Exception):
        return error
    told: DiscoveryError | Call = theirs.__dict__.pop("ecs_discovery")
    if isinstance(told, DiscoveryError):
        kind = combined(type(told), _kind(told))
        made = kind.__new__(kind, *told.args)
        made.__dict__.update(told.__dict__)
        made.message = str(told.args[0]) if told.args else ""
        made.__cause__ = told.__cause__ or told
    else:
        made = _of_call(error, told, in_body=theirs.__dict__.pop("ecs_discovery_in_body", False))
        made.__cause__ = theirs
    made.args = (theirs,)
    made.__dict__.update(request=error.request or request, response=error.response)
    return made


def _of_call(error: requests.RequestException, call: Call, *, in_body: bool) -> DiscoveryError:
    last = call.reports[-1]
    kind: type[requests.RequestException] = type(error)
    if in_body:  # as requests has it where the body is read after the adapter
        kind = requests.ConnectionError if kind is requests.ReadTimeout else kind
        kind = (
            requests.exceptions.ChunkedEncodingError
            if kind is requests.ConnectionError and last.outcome in ("cut", "closed")
            else kind
        )
    ours: type[DiscoveryError]
    if isinstance(error, requests.ConnectTimeout):
        ours = ConnectTimeout
    else:
        ours = ConnectError if last.outcome in ("connect", "connect timeout", "tls", "certificate") else RequestError
    made: DiscoveryError = combined(ours, kind)(
        f"failed after {call.number} attempt{'s' if call.number > 1 else ''}: {last.error or last.outcome}",
        target=call.target,
        attempts=call.reports,
        hint=hint_of(call),
    )
    return made


def _kind(told: DiscoveryError) -> type[requests.RequestException]:
    if isinstance(told, ConfigurationError):
        return InvalidURL
    if isinstance(told, DeadlineExceeded):
        return requests.Timeout
    if isinstance(told, (ResolutionTimeout, ConnectTimeout)):
        return requests.ConnectTimeout
    return requests.ConnectionError
