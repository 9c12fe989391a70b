"""The errors of a wrapped requests session: ours, and requests' own class at once."""

from __future__ import annotations

import requests
from requests.exceptions import InvalidURL

from ecs_discovery.core.calls.call import Call
from ecs_discovery.core.calls.failure_kinds import Fault
from ecs_discovery.errors import (
    ConfigurationError,
    ConnectTimeout,
    DeadlineExceeded,
    DiscoveryError,
    ResolutionTimeout,
)
from ecs_discovery.integrations.http.errors import as_class, of_call
from ecs_discovery.models import Value

__all__ = ["FailedRequest", "as_requests_error"]


class FailedRequest(Value):
    """The story of a request that failed, on urllib3's error."""

    told: DiscoveryError | Call
    fault: Fault | None = None
    """What went wrong with the last attempt."""
    in_body: bool = False
    """It went wrong within the body."""

    def error(self, *theirs: type[Exception], timed_out: bool | None = None) -> DiscoveryError:
        """The error of a call whose attempts failed, of requests' classes `theirs` too."""
        assert isinstance(self.told, Call)
        late = self.fault is Fault.CONNECT_TIMEOUT if timed_out is None else timed_out
        return of_call(self.told, self.fault, *theirs, timed_out=late)


def as_requests_error(error: requests.RequestException, request: requests.PreparedRequest) -> Exception:
    """What a wrapped session raises for `error`, which requests made of an error of ours; others stay as they are.

    It is ours and of requests' class, and its first argument is urllib3's error, as with a plain session.
    """
    theirs = next((each for each in (*error.args, error.__context__) if hasattr(each, "ecs_discovery")), None)
    if not isinstance(theirs, Exception):
        return error
    story: FailedRequest = theirs.__dict__.pop("ecs_discovery")
    if isinstance(story.told, DiscoveryError):
        made = as_class(story.told, _class_of(story.told))
    else:
        kind = _class_in_body(error, story.fault) if story.in_body else type(error)
        timed_out = isinstance(error, requests.ConnectTimeout)
        made = story.error(kind, timed_out=timed_out)
        made.__cause__ = theirs
    made.args = (theirs,)
    made.__dict__.update(request=error.request or request, response=error.response)
    return made


def _class_in_body(error: requests.RequestException, fault: Fault | None) -> type[requests.RequestException]:
    """As requests has it where the body is read after the adapter."""
    kind: type[requests.RequestException] = type(error)
    kind = requests.ConnectionError if kind is requests.ReadTimeout else kind
    if kind is requests.ConnectionError and fault in (Fault.CUT, Fault.CLOSED):
        return requests.exceptions.ChunkedEncodingError
    return kind


def _class_of(told: DiscoveryError) -> type[requests.RequestException]:
    if isinstance(told, ConfigurationError):
        return InvalidURL
    if isinstance(told, DeadlineExceeded):
        return requests.Timeout
    if isinstance(told, (ResolutionTimeout, ConnectTimeout)):
        return requests.ConnectTimeout
    return requests.ConnectionError
