"""One request of a wrapped requests session, below requests' own adapter: what is requests' own of an exchange.

Everything here speaks urllib3's language: its responses, its errors.
"""

from __future__ import annotations

from types import NoneType
from typing import Any, Protocol

import requests
from requests.adapters import HTTPAdapter
from requests.utils import rewind_body
from urllib3.exceptions import (
    ConnectTimeoutError,
    EmptyPoolError,
    HTTPError,
    MaxRetryError,
    NewConnectionError,
    ReadTimeoutError,
    SSLError,
)
from urllib3.response import HTTPResponse

from ecs_discovery.client.attempt_result import AttemptResult
from ecs_discovery.core.calls.call import Call
from ecs_discovery.errors import ConnectTimeout, DeadlineExceeded, DiscoveryError, ResolutionTimeout
from ecs_discovery.integrations._requests_errors import FailedRequest
from ecs_discovery.integrations._urllib3_body import put_back, read_whole
from ecs_discovery.integrations._urllib3_exchange import PoolExchange, ServicePool
from ecs_discovery.integrations._urllib3_pool import PoolUse

__all__ = ["RequestsExchange"]

_PLAIN = HTTPAdapter()


class RequestPool(ServicePool, Protocol):
    """What an exchange needs of the pool that requests' adapter was given."""

    request: requests.PreparedRequest
    may_hand_over: bool


class RequestsExchange(PoolExchange[RequestPool]):
    """One request over all its attempts."""

    __slots__ = ()

    # Sending

    def read_body(self, response: HTTPResponse, use: PoolUse) -> None:
        """Read it here, so that a body cut short is this attempt's failure."""
        raw: object = response
        if not isinstance(raw, HTTPResponse):
            return  # a recorder has answers of its own
        clock = self.engine.clock
        began = clock()
        use.in_body = True
        body = read_whole(response, keep_error=300 <= response.status < 400)
        use.late = clock() - began
        if body is None:
            return
        if self.pool.may_hand_over and "Content-Encoding" not in response.headers:
            use.body = body
        else:
            put_back(response, body)

    def url(self) -> str:
        return self.pool.request.url or ""

    # The body

    def replayable(self) -> bool:
        body = self._body
        return body is None or isinstance(body, (bytes, str)) or isinstance(self._position(), int)

    def concurrent(self) -> bool:
        return isinstance(self._body, (bytes, str, NoneType))  # two threads would read one file

    def rewind(self) -> None:
        if isinstance(self._position(), int):  # a file; bytes need no rewinding
            rewind_body(self.pool.request)

    def has_key(self) -> bool:
        return "Idempotency-Key" in self._headers

    def _position(self) -> Any:
        return getattr(self.pool.request, "_body_position", None)

    # The answer

    def keep(self, response: HTTPResponse, use: PoolUse) -> None:
        if self._variant is not None:
            self.route.verified.add(self._variant)
        response.ecs_discovery = use  # type: ignore[attr-defined]

    # Errors

    def as_error(self, told: DiscoveryError | Call, error: Exception, use: PoolUse | None) -> Exception:
        """An error of urllib3, for requests' adapter, with the story on it."""
        pool: Any = self.pool
        if isinstance(told, DiscoveryError):
            if isinstance(told, DeadlineExceeded):
                error = ReadTimeoutError(pool, self._url, str(told))
            else:
                late = isinstance(told, (ResolutionTimeout, ConnectTimeout))
                reason: Any = (ConnectTimeoutError if late else NewConnectionError)(pool, str(told))
                error = MaxRetryError(pool, self._url, reason)
            error.__cause__ = told
        elif not isinstance(error, HTTPError):
            return error
        elif isinstance(error, EmptyPoolError):  # requests knows it only as the reason of another error
            error = MaxRetryError(pool, self._url, error)
        error.ecs_discovery = FailedRequest(told, self.last_fault, use is not None and use.in_body)  # type: ignore[attr-defined]
        return error

    def over(self, error: BaseException | None) -> None:
        story: FailedRequest | None = getattr(error, "ecs_discovery", None)
        if story is not None and self._call is not None and self._call.observed is not None:
            error = story.told if isinstance(story.told, DiscoveryError) else story.error()  # as the caller knows it
        super().over(error)

    # A tenacity object of the application's

    def by_own_policy(self) -> HTTPResponse:
        found: HTTPResponse = self.driver.pursue(self.call, self._as_requests_sees_it).raw
        return found

    def _as_requests_sees_it(self) -> AttemptResult[requests.Response]:
        """One attempt, as responses and errors of requests, which the object knows."""
        attempted = self.attempt()
        try:
            raw = attempted.outcome()
        except HTTPError as error:
            return AttemptResult(None, self._as_requests_error(error), attempted.decision)
        return AttemptResult(HTTPAdapter.build_response(_PLAIN, self.pool.request, raw), None, attempted.decision)

    def _as_requests_error(self, error: HTTPError) -> requests.RequestException:
        reason = error.reason if isinstance(error, MaxRetryError) else error
        kind: type[requests.RequestException] = requests.ConnectionError
        if isinstance(reason, ConnectTimeoutError) and not isinstance(reason, NewConnectionError):
            kind = requests.ConnectTimeout
        elif isinstance(reason, SSLError):
            kind = requests.exceptions.SSLError
        elif isinstance(reason, ReadTimeoutError):
            kind = requests.ReadTimeout
        made = kind(error, request=self.pool.request)
        made.__cause__ = error
        return made

    def error_for_caller(self, error: Exception) -> Exception:
        if isinstance(error, requests.RequestException):  # of a tenacity object's loop
            error = error.args[0]
        return super().error_for_caller(error)
