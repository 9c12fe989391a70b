"""One request of a wrapped requests session, below requests' own adapter: what is requests' own of an exchange.

Everything here speaks urllib3's language: its responses, its errors.
"""

from __future__ import annotations

import socket
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
from urllib3.util import Retry, Timeout

from ecs_discovery.client.attempt_result import AttemptResult
from ecs_discovery.client.sync import race
from ecs_discovery.core.balancing.node import Node
from ecs_discovery.core.calls.call import Call
from ecs_discovery.core.lease import Lease
from ecs_discovery.errors import ConnectTimeout, DeadlineExceeded, DiscoveryError, ResolutionTimeout
from ecs_discovery.integrations._requests_errors import FailedRequest
from ecs_discovery.integrations._requests_routes import RequestsRoute
from ecs_discovery.integrations._urllib3_body import put_back, read_whole
from ecs_discovery.integrations._urllib3_pool import Overtaken, PoolUse, UseTimeout
from ecs_discovery.integrations._urllib3_table import TABLE
from ecs_discovery.integrations.http.liveness import Suspicion
from ecs_discovery.integrations.http.sync import SyncExchange
from ecs_discovery.integrations.http.timeouts import read_limit
from ecs_discovery.runtime.sockets import AbortHandle, Tuning

__all__ = ["RequestsExchange"]

_NO_RETRIES = Retry(0, read=False)  # as requests' own: one retry layer only, and its errors look as they always do
_PLAIN = HTTPAdapter()


class RequestPool(Protocol):
    """What an exchange needs of the pool that requests' adapter was given."""

    route: RequestsRoute
    request: requests.PreparedRequest
    stream: bool
    pinned: Node | None
    may_hand_over: bool

    def tls(self) -> tuple[Any, ...]: ...

    def options(self) -> dict[str, Any]: ...


class RequestsExchange(SyncExchange[HTTPResponse, PoolUse]):
    """One request over all its attempts."""

    __slots__ = ("_aborts", "_body", "_headers", "_options", "_pool", "_suspicion", "_tls", "_url")

    table = TABLE

    def __init__(
        self,
        pool: RequestPool,
        method: str,
        url: str,
        body: Any,
        headers: Any,
        timeout: Any,
        options: dict[str, Any],
    ) -> None:
        route = pool.route
        connect, read = _parts(timeout)
        super().__init__(route.driver, route.service, route.target, method, connect, read, pool.pinned)
        self._pool = pool
        self._url = url
        self._body = body
        if "Proxy-Authorization" in headers:
            headers = headers.copy()  # requests adds it for a proxy of the environment: no task may see it
            del headers["Proxy-Authorization"]
        self._headers = headers
        self._options = options
        self._tls = pool.tls()
        self._aborts: tuple[AbortHandle, ...] = ()
        self._suspicion: Suspicion | None = None

    # Sending

    def make_use(self, lease: Lease) -> PoolUse:
        use = PoolUse(lease, self.idempotent and self.replayable(), self.connect, self)
        call = self._call
        if call is not None and (call.hard or self.service.hedging is not None):
            use.abort = AbortHandle()
            self._aborts = (*self._aborts[-1:], use.abort)  # two may be in flight
        return use

    def send(self, use: PoolUse) -> HTTPResponse:
        try:
            try:
                response = self._send(use)
            except Overtaken:
                response = self._send(use)
            if not self._pool.stream and isinstance(response, HTTPResponse):  # a recorder has answers of its own
                self._read_body(response, use)
            return response
        finally:
            if use.connected is not None:
                use.connected.close()  # the winner's pool had an idle connection

    def _send(self, use: PoolUse) -> HTTPResponse:
        deadline_at = self.deadline_at()
        read = self.read if deadline_at is None else read_limit(self.read, deadline_at, self.engine.clock())
        pool = self._pool.route.pool(use.lease.node, self._tls, self._pool.options)
        if pool.block:  # its callers wait for a connection
            self._options = {**self._options, "pool_timeout": self.connect_limit()}
        return pool.urlopen(  # type: ignore[return-value]
            self.method,
            self._url,
            self._body,
            self._headers,
            _NO_RETRIES,
            False,
            False,
            UseTimeout(read, use),
            **self._options,
        )

    def _read_body(self, response: HTTPResponse, use: PoolUse) -> None:
        """Read it here, so that a body cut short is this attempt's failure."""
        clock = self.engine.clock
        began = clock()
        use.in_body = True
        body = read_whole(response, keep_error=300 <= response.status < 400)
        use.late = clock() - began
        if body is None:
            return
        if self._pool.may_hand_over and "Content-Encoding" not in response.headers:
            use.body = body
        else:
            put_back(response, body)

    def ended(self, use: PoolUse) -> None:
        use.connector = None  # else the two would keep each other until the collector comes

    def connect_socket(self, lease: Lease, tuning: Tuning | None) -> socket.socket:
        """A connected socket; `lease` is then of the endpoint that it leads to. Raises OSError."""
        return race.connect(self.driver.background, self.call, lease, tuning)

    def suspicion(self) -> Suspicion:
        """What the request may do about a host that may be gone."""
        if self._suspicion is None:
            self._suspicion = Suspicion(self)
        return self._suspicion

    def cut(self) -> None:
        for abort in self._aborts:
            abort.cut()

    def cut_attempt(self, use: PoolUse) -> None:
        if use.abort is not None:
            use.abort.cut()

    # The body

    def replayable(self) -> bool:
        body = self._body
        return body is None or isinstance(body, (bytes, str)) or isinstance(self._position(), int)

    def concurrent(self) -> bool:
        return isinstance(self._body, (bytes, str, NoneType))  # two threads would read one file

    def rewind(self) -> None:
        if isinstance(self._position(), int):  # a file; bytes need no rewinding
            rewind_body(self._pool.request)

    def has_key(self) -> bool:
        return "Idempotency-Key" in self._headers

    def _position(self) -> Any:
        return getattr(self._pool.request, "_body_position", None)

    # The answer

    def status(self, response: HTTPResponse) -> int:
        return response.status

    def field(self, response: HTTPResponse, name: str) -> str | None:
        return response.headers.get(name)

    def is_done(self, response: HTTPResponse) -> bool:
        # No body, or the answer of a mock; else the pool ends the use when the body was read.
        return getattr(response, "connection", None) is None

    def keep(self, response: HTTPResponse, use: PoolUse) -> None:
        if self._tls:
            self._pool.route.verified.add(self._tls)
        response.ecs_discovery = use  # type: ignore[attr-defined]

    def discard(self, response: HTTPResponse) -> None:
        _discard(response)

    # Errors

    @property
    def verified(self) -> bool:  # type: ignore[override]
        return self._tls in self._pool.route.verified

    def is_of_connection(self, error: Exception) -> bool:
        return isinstance(error, (HTTPError, OSError))

    def as_error(self, told: DiscoveryError | Call, error: Exception, use: PoolUse | None) -> Exception:
        """An error of urllib3, for requests' adapter, with the story on it."""
        pool: Any = self._pool
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
        return AttemptResult(HTTPAdapter.build_response(_PLAIN, self._pool.request, raw), None, attempted.decision)

    def _as_requests_error(self, error: HTTPError) -> requests.RequestException:
        reason = error.reason if isinstance(error, MaxRetryError) else error
        kind: type[requests.RequestException] = requests.ConnectionError
        if isinstance(reason, ConnectTimeoutError) and not isinstance(reason, NewConnectionError):
            kind = requests.ConnectTimeout
        elif isinstance(reason, SSLError):
            kind = requests.exceptions.SSLError
        elif isinstance(reason, ReadTimeoutError):
            kind = requests.ReadTimeout
        made = kind(error, request=self._pool.request)
        made.__cause__ = error
        return made

    def error_for_caller(self, error: Exception) -> Exception:
        if isinstance(error, requests.RequestException):  # of a tenacity object's loop
            error = error.args[0]
        return super().error_for_caller(error)


def _parts(timeout: Any) -> tuple[float | None, Any]:
    """urllib3's timeout as connect and read parts; None where it says nothing."""
    if not isinstance(timeout, Timeout):
        return timeout, timeout
    connect, read, total = timeout._connect, timeout._read, timeout.total
    # urllib3 says "the default" by an object of its own.
    connect = connect if isinstance(connect, (int, float)) else None
    read = read if isinstance(read, (int, float)) else None
    if not isinstance(total, (int, float)):
        return connect, read
    return min(total, connect or total), min(total, read or total)


def _discard(response: HTTPResponse) -> None:
    """Let go of an answer that is not wanted. What was read has given its connection back; the rest is closed."""
    response.close()
    response.release_conn()  # closed, it goes back to its pool: the use of the endpoint ends there
