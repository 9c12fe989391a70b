"""One request of a wrapped requests session, over all its attempts.

Which endpoint, how long, what an answer or an error says of the endpoint, whether it is tried
again, and as which error it reaches the application.
"""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from http.client import HTTPException
from math import inf
from types import NoneType
from typing import Any, Protocol

import requests
from requests.adapters import BaseAdapter
from requests.exceptions import InvalidHeader, InvalidURL
from requests.utils import rewind_body
from urllib3.exceptions import HTTPError
from urllib3.util import Timeout

from ecs_discovery import racing
from ecs_discovery.attempts import Trail
from ecs_discovery.client import Discovery
from ecs_discovery.context import current_options
from ecs_discovery.core.lease import Lease
from ecs_discovery.core.node import Node, Outcome
from ecs_discovery.core.retry import Call, Failure
from ecs_discovery.core.service import Service
from ecs_discovery.hedging import Hedge, Trial, duel
from ecs_discovery.integrations.requests_errors import as_requests_error, cause_of
from ecs_discovery.integrations.urllib3 import Overtaken, Use, UseTimeout
from ecs_discovery.integrations.urllib3_failures import classify
from ecs_discovery.judging import GOOD, Judgement, forget
from ecs_discovery.sockets import Leash

__all__ = ["Exchange"]

_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})  # RFC 9110, section 9.2.2
_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # RFC 9110, section 9.2.1
_OVERLOADED = frozenset({429, 503})
_LONGEST_PUSHBACK = 300.0  # seconds that an answer's Retry-After can keep an endpoint out of the first choice
_SUCCESS = Outcome.SUCCESS  # looking a member up takes longer than comparing with it (Python 3.11)
_DRAIN = 65536  # bytes of an unwanted answer read to keep its connection


class Route(Protocol):
    """Where a request goes."""

    service: Service

    def adapter(self, node: Node, verify: Any, cert: Any, request: requests.PreparedRequest) -> BaseAdapter:
        """The adapter that sends to one endpoint."""


class Exchange:
    """One request over all its attempts."""

    __slots__ = (
        "_call",
        "_cert",
        "_connect",
        "_discovery",
        "_owner",
        "_read",
        "_request",
        "_response",
        "_route",
        "_stream",
        "_use",
        "_verify",
    )

    def __init__(
        self,
        owner: BaseAdapter,
        discovery: Discovery,
        route: Route,
        request: requests.PreparedRequest,
        stream: bool,
        timeout: Any,
        verify: Any,
        cert: Any,
    ) -> None:
        self._connect, self._read = _parts(timeout)
        self._owner = owner
        self._discovery = discovery
        self._route = route
        self._request = request
        self._stream = stream
        self._verify = verify
        self._cert = cert
        self._response: requests.Response | None = None
        repeatable = request.method in _IDEMPOTENT or "Idempotency-Key" in request.headers
        self._call = discovery.engine.call(route.service, repeatable=repeatable, connect=self._connect)

    def run(self) -> requests.Response:
        discovery, service, call = self._discovery, self._route.service, self._call
        engine = discovery.engine
        try:
            if engine.closed:
                engine.service(service.target)  # raises
            if engine.clock() >= service.fresh_until:
                discovery.background.ready(service, call.connect_until)
            return discovery.pursue(call, self._attempt)
        except Exception as error:
            translated = as_requests_error(error, call, self._request)
            if translated is error:
                raise
            raise translated from error

    def connect(self, lease: Lease) -> socket.socket:
        """A connected socket; `lease` is then of the endpoint that it leads to. Raises OSError."""
        return racing.connect(self._discovery.background, self._call, lease)

    def suspect(self, lease: Lease) -> None:
        """Find out, in the background, whether the lease's endpoint has vanished."""
        self._discovery.background.suspect(lease.service, lease.node)

    def _attempt(self) -> requests.Response:
        call, route = self._call, self._route
        discovery = self._discovery
        call.wait = None  # whatever ends this attempt early ends the call
        if self._response is not None:
            _discard(self._response, self._stream)
            self._response = None
        if call.own_policy is not None:
            call.replayable = _replayable(self._request)  # asked of attempts that end in any way
        if call.number:
            self._rewind()
            discovery.background.rescue(route.service, call)
        lease = discovery.background.begin(route.service, call)
        if route.service.work_due:
            discovery.background.work(route.service)
        self._use = self._make_use(lease)
        try:
            response = self._perform(self._use) if route.service.hedging is None else self._hedged()
        except Exception as error:
            self._failed(error, self._use.lease, self._use)
            raise
        except BaseException:  # interrupted: the use is over, and says nothing of the endpoint
            self._use.lease.release()
            raise
        finally:
            self._use.racer = None  # else the two would keep each other until the collector comes
        self._answered(response, self._use.lease)
        return response

    def _make_use(self, lease: Lease) -> Use:
        return Use(lease, self._call.idempotent and _replayable(self._request), self._connect, self)

    def _perform(self, use: Use) -> requests.Response:
        """One attempt's sending and receiving. In a thread of its own if it is hedged."""
        try:
            try:
                response = self._send(use)
            except Overtaken:
                response = self._send(use)
            if not self._stream:
                response.content  # noqa: B018  # read here, so that a body cut short is this attempt's failure
            return response
        finally:
            if use.connected is not None:
                use.connected.close()  # the winner's pool had an idle connection

    def _hedged(self) -> requests.Response:
        """The first attempt, and another beside it when it takes long. `_use` is then that of the one that counts."""
        call, background, use, hedging = self._call, self._discovery.background, self._use, self._route.service.hedging
        if hedging is None or call.number > 1 or not _hedgeable(self._request, call):
            return self._perform(use)
        hedge = Hedge(background.engine, hedging, call, use.lease)
        if hedge.delay is None:
            response = self._perform(use)
            if response.status_code not in self._route.service.retry.statuses:
                hedge.won(use.lease)
            return response
        uses: dict[Lease, Use] = {}

        def trial(lease: Lease) -> Trial[requests.Response]:
            made = uses[lease] = self._make_use(lease)
            made.leash = Leash()
            return Trial(lease, partial(self._perform, made), cut=made.leash.cut, drop=requests.Response.close)

        def wanted(trial: Trial[requests.Response]) -> bool:
            response = trial.result
            return response is not None and response.status_code not in self._route.service.retry.statuses

        def failed(trial: Trial[requests.Response]) -> None:
            if isinstance(trial.error, Exception):
                self._failed(trial.error, trial.lease, uses[trial.lease])
            elif trial.result is not None:
                self._answered(trial.result, trial.lease)
                _discard(trial.result, self._stream)
                self._response = None

        winner = duel(background, hedge, use.lease.hand_over(), trial, wanted, failed)
        self._use = uses[winner.lease]
        return winner.outcome()

    def _send(self, use: Use) -> requests.Response:
        lease = use.lease
        adapter: Any = self._route.adapter(lease.node, self._verify, self._cert, self._request)
        response: requests.Response = adapter.send(
            self._request,
            stream=self._stream,
            timeout=UseTimeout(self._discovery.engine.connect_limit(lease.service, self._call), self._read, use),
            verify=self._verify,
            cert=self._cert,
        )
        return response

    def _failed(self, error: Exception, lease: Lease, use: Use) -> None:
        call = self._call
        if isinstance(error, (InvalidURL, InvalidHeader, ValueError)) and not use.sent:
            lease.release()  # the request itself is wrong
            return
        failure, label = classify(error, sent=use.sent)
        if use.sent:
            call.replayable = _replayable(self._request)
        outcome = Outcome.FAILURE
        if label == "silent":
            self._discovery.background.suspect(lease.service, lease.node)  # others may be waiting for it
        if label == "certificate":
            outcome = Outcome.NEUTRAL  # as likely this session's `verify=` as the task's fault
        elif label == "own" or not isinstance(error, (requests.RequestException, HTTPError, HTTPException, OSError)):
            outcome = Outcome.NEUTRAL  # this side's: out of descriptors, a closed session, a body that cannot be read
        elif label == "silent" or failure is Failure.NOT_SENT:
            outcome = Outcome.CONNECT
        judgement = Judgement(outcome, failure, label)
        engine = self._discovery.engine
        now = engine.clock()
        told = lease.observe(outcome, now)
        lease.release()  # a body that broke off has ended it already
        self._discovery.background.force(engine.decide(call, lease, judgement, now, told, cause_of(error)))
        if call.wait is not None:
            forget(error)

    def _answered(self, response: requests.Response, lease: Lease) -> None:
        call, service = self._call, self._route.service
        discovery = self._discovery
        engine = discovery.engine
        status = response.status_code
        response.connection = self._owner  # type: ignore[assignment]  # any adapter will do: it is sent through
        now = engine.clock()
        good = status < 400 or status not in service.outlier.failure_statuses
        told = lease.observe(_SUCCESS if good else Outcome.FAILURE, now)
        if status in _OVERLOADED:
            asked = _retry_after(response)
            pause = service.balancing.pushback if asked is None else min(asked, _LONGEST_PUSHBACK)
            told = service.push_back(lease.node, now, pause) or told
        if getattr(response.raw, "connection", None) is None:
            lease.release()  # no body, or the answer of a mock; else the pool ends it when the body was read
        if status < 400 or status not in service.retry.statuses:
            failure, retry_after = None, None
        else:
            failure, retry_after = Failure.STATUS, _retry_after(response)
            if status == 503 and service.untried(call.tried):
                retry_after = None  # it speaks for itself: another task need not be waited for
            if retry_after is not None and isinstance(self._read, (int, float)) and retry_after > self._read:
                retry_after = inf  # longer than the application would wait for an answer
        if failure is not None or call.own_policy is not None:
            call.replayable = _replayable(self._request)
            self._response = response
        judgement = GOOD
        if not good or failure is not None:
            judgement = Judgement(
                Outcome.SUCCESS if good else Outcome.FAILURE, failure, f"status {status}", retry_after
            )
        engine.decide(call, lease, judgement, now, told)
        response.ecs_discovery = Trail(  # type: ignore[attr-defined]  # for people: it is not part of a pickled one
            lease.node.endpoint, now - lease.began, call.reports, failure is None
        )

    def _rewind(self) -> None:
        if isinstance(getattr(self._request, "_body_position", None), int):  # a file; bytes need no rewinding
            rewind_body(self._request)


def _parts(timeout: Any) -> tuple[float | None, Any]:
    """requests' `timeout=` as connect and read parts; None where it says nothing."""
    if timeout is None:
        return None, None
    if isinstance(timeout, tuple):
        try:
            connect, read = timeout
        except ValueError:
            raise ValueError(f"Invalid timeout {timeout}: pass (connect, read), or one number for both") from None
        return connect, read
    if isinstance(timeout, Timeout):
        connect, read, total = (
            part if isinstance(part, (int, float)) else None
            for part in (getattr(timeout, "_connect", None), getattr(timeout, "_read", None), timeout.total)
        )
        if total is None:
            return connect, read
        return min(total, connect or total), min(total, read or total)
    return timeout, timeout


def _replayable(request: requests.PreparedRequest) -> bool:
    """Can its body be sent a second time?"""
    body: Any = request.body
    return body is None or isinstance(body, (bytes, str)) or isinstance(getattr(request, "_body_position", None), int)


def _hedgeable(request: requests.PreparedRequest, call: Call) -> bool:
    """May it be under way twice at once? Changes need the application's word for that: one that comes late, after the
    next one, undoes it."""
    body: Any = request.body
    if not isinstance(body, (bytes, str, NoneType)):
        return False  # two threads would read one file
    return call.idempotent and (request.method in _SAFE or bool(current_options().idempotent))


def _retry_after(response: requests.Response) -> float | None:
    """Seconds that the answer asks to wait (RFC 9110, section 10.2.3), None if it does not or is not understood."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        at = parsedate_to_datetime(text)
        if at.tzinfo is None:
            at = at.replace(tzinfo=UTC)
        return max(0.0, (at - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def _discard(response: requests.Response, stream: bool) -> None:
    """Let go of an answer that is not wanted; a short one is read, so that its connection can be used again.

    Not with `stream`: its body has not come yet, and may never come.
    """
    length = response.headers.get("Content-Length", "") if not stream else ""
    if len(length) <= 9 and length.isascii() and length.isdigit() and int(length) <= _DRAIN:
        try:
            _ = response.content
        except (requests.RequestException, RuntimeError):
            pass  # the connection is gone then, which is all that matters
    response.close()
