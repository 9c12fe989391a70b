"""One request of a wrapped requests session, over all its attempts, below requests' own adapter.

Which endpoint, how long, what an answer or an error says of the endpoint, whether it is retried, and what the
adapter is told. Everything here speaks urllib3's language: its responses, its errors.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from math import inf
from types import NoneType
from typing import Any, NamedTuple

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

from ecs_discovery.client.attempt import AttemptHistory
from ecs_discovery.client.failures import GOOD, Judgement, forget
from ecs_discovery.client.hedge import Hedge
from ecs_discovery.client.sync import race
from ecs_discovery.client.sync.discovery import Discovery
from ecs_discovery.client.sync.hedging import Trial, duel
from ecs_discovery.config.options import current_options
from ecs_discovery.config.targets import is_address
from ecs_discovery.core.balancing.node import Health, Node, Outcome
from ecs_discovery.core.calls.call import Call
from ecs_discovery.core.calls.failure_kinds import Failure
from ecs_discovery.core.calls.liveness import begin_look
from ecs_discovery.core.calls.race import probe_timeout
from ecs_discovery.core.lease import Lease
from ecs_discovery.core.service import Service
from ecs_discovery.errors import ConnectTimeout, DeadlineExceeded, DiscoveryError, ResolutionTimeout
from ecs_discovery.integrations._requests_errors import cause_of
from ecs_discovery.integrations._urllib3_failures import classify
from ecs_discovery.integrations._urllib3_pool import (
    HttpEndpointPool,
    HttpsEndpointPool,
    Overtaken,
    Use,
    UseTimeout,
    put_back,
    read_whole,
)
from ecs_discovery.runtime.sockets import AbortHandle, Tuning, start_connect

__all__ = ["Exchange", "Route", "ServicePool"]

_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})  # RFC 9110, section 9.2.2
_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # RFC 9110, section 9.2.1
_OVERLOADED = frozenset({429, 503})
_LONGEST_PUSHBACK = 300.0  # seconds that an answer's Retry-After can keep an endpoint out of the first choice
_SUCCESS = Outcome.SUCCESS  # looking a member up takes longer than comparing with it (Python 3.11)
_VARIANTS = 64  # connection pools to one endpoint with different TLS options
_NO_RETRIES = Retry(0, read=False)  # as requests' own: one retry layer only, and its errors look as they always do
_TLS = ("cert_reqs", "ca_certs", "ca_cert_dir", "cert_file", "key_file", "assert_hostname", "assert_fingerprint")
_PLAIN = HTTPAdapter()
_TESTS_APART = 1.0  # seconds between test connects to one endpoint: each takes a place in its queue
_UNUSUAL = 4  # times the usual latency of an endpoint
_DEFAULT_SIZE = 10  # of requests' pools: the application did not say


class Route:
    """One origin (`http://orders:8080`) of ours: its service, and connection pools per endpoint."""

    def __init__(
        self, discovery: Discovery, service: Service, target: str, scheme: str, host: str, port: int | None
    ) -> None:
        self.discovery = discovery
        self.service = service
        self.target = target
        """The name and port of the URL: another caller may have named the same service in another way first."""
        self.scheme = scheme
        self.host = host
        self.port = port
        self._generation = service.generation
        self._closed = False
        self._pools: dict[tuple[Any, ...], HttpEndpointPool] = {}
        self.verified: set[tuple[Any, ...]] = set()
        """TLS options with which an endpoint has answered: where these fail elsewhere, the endpoint is to blame."""

    def __repr__(self) -> str:
        return f"{self.scheme.upper()}ConnectionPool(host={self.host!r}, port={self.port!r})"

    def pool(self, node: Node, tls: tuple[Any, ...], options: Callable[[], dict[str, Any]]) -> HttpEndpointPool:
        """The pool of an endpoint and these TLS options, made if there is none."""
        if self._generation != self.service.generation:
            self._sweep()
        key = (node, *tls)
        pool = self._pools.get(key)
        if pool is None:
            pool = self._make(node, tls, options())
            if not self._closed:  # else a request in flight when the session was closed: kept for that request only
                pool = self._pools.setdefault(key, pool)
                if tls:
                    self._bound(node)
        return pool

    def close(self) -> None:
        """Close idle connections; connections in use close when they are free."""
        self._closed = True
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.close()

    def _sweep(self) -> None:
        """Close the idle connections of endpoints that left or went down."""
        self._generation = self.service.generation
        self._drop([key for key in list(self._pools) if key[0].removed or key[0].health is Health.DOWN])

    def _bound(self, node: Node) -> None:
        """A program that varies `verify=` without end must not keep a connection for each."""
        variants = [key for key in list(self._pools) if key[0] is node]
        self._drop(variants[:-_VARIANTS])
        if len(self.verified) > _VARIANTS:
            self.verified = set()

    def _drop(self, keys: list[tuple[Any, ...]]) -> None:
        for key in keys:
            gone = self._pools.pop(key, None)
            if gone is not None:
                gone.close()

    def _make(self, node: Node, tls: tuple[Any, ...], options: dict[str, Any]) -> HttpEndpointPool:
        policy = self.discovery.settings.connection
        # What the application set on its own adapter (a pool size, socket options) holds for our pools too.
        size = options.get("maxsize", _DEFAULT_SIZE)
        options = {**options, "maxsize": policy.max_idle if size == _DEFAULT_SIZE else size}
        clock = self.discovery._driver.engine.clock
        arguments = (node.endpoint, policy, self.host, self.port)
        if self.scheme != "https":
            return HttpEndpointPool(*arguments, clock=clock, **options)
        pool = HttpsEndpointPool(*arguments, clock=clock, tls_name=self.service.tls_name, **options)
        for name, value in zip(_TLS, tls, strict=False):
            if value is not None:
                setattr(pool, name, value)
        return pool  # type: ignore[return-value]  # both kinds behave alike


class Answered(NamedTuple):
    """What is known of an answer, beside the answer: kept on it as `ecs_discovery`."""

    trail: AttemptHistory
    node: Node
    late: float
    """Seconds that reading the body took, after the head had come."""
    body: bytes | None
    """The body, where it was read and nobody wants to read it from the connection."""


class ServicePool:
    """What requests' adapter is given for one request as its connection pool: it stands for all of the service."""

    cert_reqs: Any = None
    ca_certs: Any = None
    ca_cert_dir: Any = None
    cert_file: Any = None
    key_file: Any = None
    assert_hostname: Any = None
    assert_fingerprint: Any = None
    proxy: Any = None
    num_connections = num_requests = 0
    """Adapters look at these of a pool; this one is of a single request."""

    def __init__(
        self,
        route: Route,
        request: requests.PreparedRequest,
        stream: bool,
        adapter: HTTPAdapter,
        tls: dict[str, Any] | None,
        pinned: Node | None = None,
    ) -> None:
        self.route = route
        self.request = request
        self.stream = stream
        self.pinned = pinned
        self.host = route.host
        self.port = route.port
        self.may_hand_over = False
        """The body may reach requests without being read from the response."""
        self._adapter = adapter
        self._tls = tls

    def __repr__(self) -> str:
        return repr(self.route)

    def urlopen(
        self,
        method: str,
        url: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        retries: Any = None,
        redirect: bool = False,
        assert_same_host: bool = False,
        timeout: Any = None,
        **options: Any,
    ) -> HTTPResponse:
        """Send the request to an endpoint of the service, and to others where that is harmless and may help.

        `retries` is not used: there is one retry layer only. Raises urllib3's errors; on an error of ours
        `ecs_discovery` tells the whole story.
        """
        return Exchange(self, method, url, body, headers, timeout, options).run()

    def tls(self) -> tuple[Any, ...]:
        """What distinguishes connections to one endpoint."""
        if self._tls is None:
            return ()
        context = self._tls.get("ssl_context")
        return (*(getattr(self, name) for name in _TLS), id(context) if context is not None else None)

    def options(self) -> dict[str, Any]:
        """What urllib3's pools are made with: what the application set on its own adapter holds."""
        manager = getattr(self._adapter, "poolmanager", None)
        return {**getattr(manager, "connection_pool_kw", {}), **(self._tls or {})}


class Exchange:
    """One request over all its attempts."""

    __slots__ = (
        "_body",
        "_call",
        "_connect",
        "_discovery",
        "_doubted",
        "_handled",
        "_headers",
        "_leashes",
        "_method",
        "_options",
        "_pool",
        "_read",
        "_response",
        "_service",
        "_tls",
        "_url",
        "_use",
    )

    def __init__(
        self,
        pool: ServicePool,
        method: str,
        url: str,
        body: Any,
        headers: Any,
        timeout: Any,
        options: dict[str, Any],
    ) -> None:
        self._connect, self._read = _parts(timeout)
        self._pool = pool
        self._discovery = pool.route.discovery
        self._service = pool.route.service
        self._method = method
        self._url = url
        self._body = body
        if "Proxy-Authorization" in headers:
            headers = headers.copy()  # requests adds it for a proxy of the environment: no task may see it
            del headers["Proxy-Authorization"]
        self._headers = headers
        self._options = options
        self._tls = pool.tls()
        self._response: HTTPResponse | None = None
        self._leashes: tuple[AbortHandle, ...] = ()
        self._doubted = False
        self._handled = sys.exc_info()[1]  # what the application is handling led to none of our errors
        repeatable = method in _IDEMPOTENT or "Idempotency-Key" in headers
        self._call = self._discovery._driver.engine.call(self._service, repeatable=repeatable, connect=self._connect)
        self._call.target = pool.route.target

    def run(self) -> HTTPResponse:
        discovery, service, call = self._discovery, self._service, self._call
        engine = discovery._driver.engine
        try:
            engine.check_open(service.target)
            if engine.clock() >= service.refresh_at:
                discovery._driver.background.ready(service, call.connect_deadline_at)
            if not call.hard and call.own_policy is None:
                return discovery._driver.pursue(call, self._attempt)
            with discovery._driver.background.alarms.at(call.deadline_at, self._cut) if call.hard else nullcontext():
                if call.own_policy is None:
                    return discovery._driver.pursue(call, self._attempt)
                found: HTTPResponse = discovery._driver.pursue(call, self._as_requests_sees_it).raw
                return found
        except requests.RequestException as error:
            failed = error.args[0]
        except Exception as error:  # noqa: BLE001  # raised below, with what was tried
            failed = error
        raise self._told(failed)  # outside of the block: its context is none of the reader's business

    def connect(self, lease: Lease, tuning: Tuning | None) -> socket.socket:
        """A connected socket; `lease` is then of the endpoint that it leads to. Raises OSError."""
        return race.connect(self._discovery._driver.background, self._call, lease, tuning)

    def waits(self, lease: Lease, count: int) -> None:
        """So many more, or fewer, requests look whether the host of the lease's endpoint is there."""
        self._service.watch(lease.node, count)

    def vanished(self, lease: Lease, since: float) -> None:
        """The host of the lease's endpoint has met what was sent with silence since then."""
        self._discovery._driver.engine.vanished(lease.node, since)

    def patience(self) -> float:
        """Seconds within which a host that lives acknowledges something."""
        return probe_timeout(self._service.connect_time)

    def test(self, lease: Lease) -> socket.socket | None:
        """A connect to the lease's endpoint that was begun as a test; None if it would serve nothing."""
        node, now = lease.node, self._discovery._driver.engine.clock()
        if node.endpoint.proxied or not is_address(node.endpoint.host) or not self._could_move_on(lease, now):
            return None
        if not begin_look(node, now, _TESTS_APART):
            return None
        try:
            return start_connect(node.endpoint)
        except OSError:
            return None

    def may_move_on(self, lease: Lease, waited: float) -> bool:
        """The test met silence. May a request that has waited so long go elsewhere, although that proves nothing?

        Once, and where that is unusual for its endpoint. The endpoint is not judged by it.
        """
        latency = lease.node.latency
        if latency is None or waited < _UNUSUAL * latency:
            return False
        self._doubted = self._could_move_on(lease, self._discovery._driver.engine.clock())
        return self._doubted

    def _could_move_on(self, lease: Lease, now: float) -> bool:
        call, service = self._call, self._service
        if self._doubted or lease.node.latency is None or call.own_policy is not None:
            return False
        others = service.untried(call.tried) and call.number < service.retry.attempts
        return bool(others) and service.budget.balance(now) >= 1

    def _told(self, error: Exception) -> Exception:
        """The error for requests' adapter: one of urllib3, with the whole story on it."""
        pool: Any = self._pool
        told: DiscoveryError | Call
        call = self._call
        if isinstance(error, DiscoveryError):
            told = error
            if told.target == self._service.target:
                told.target = call.target
            if isinstance(error, DeadlineExceeded):
                error = ReadTimeoutError(pool, self._url, str(told))
            else:
                late = isinstance(error, (ResolutionTimeout, ConnectTimeout))
                reason: Any = (ConnectTimeoutError if late else NewConnectionError)(pool, str(told))
                error = MaxRetryError(pool, self._url, reason)
            error.__cause__ = told
        elif not isinstance(error, HTTPError) or not call.reports:
            return error
        else:
            told = call
            _without_frames(error)
            if isinstance(error, EmptyPoolError):  # requests knows it only as the reason of another error
                error = MaxRetryError(pool, self._url, error)
            error.ecs_discovery_in_body = self._use.in_body  # type: ignore[attr-defined]
        error.ecs_discovery = told  # type: ignore[attr-defined]
        return error

    def _attempt(self) -> HTTPResponse:
        call, service = self._call, self._service
        discovery = self._discovery
        call.wait = None  # whatever ends this attempt early ends the call
        if self._response is not None:
            _discard(self._response)
            self._response = None
        if call.own_policy is not None:
            call.replayable = self._replayable()  # asked of attempts that end in any way
        if call.number:
            self._rewind()
            discovery._driver.background.wait_for_refresh(service, call)
        lease = discovery._driver.background.start_attempt(
            service, call, prefer=None if call.number else self._pool.pinned
        )
        if service.work_due:
            discovery._driver.background.work(service)
        use = self._use = self._make_use(lease)
        try:
            response = self._perform(use) if service.hedging is None else self._hedged()
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

    def _as_requests_sees_it(self) -> requests.Response:
        """One attempt for a tenacity object of the application's, which knows responses and errors of requests."""
        try:
            return HTTPAdapter.build_response(_PLAIN, self._pool.request, self._attempt())
        except HTTPError as error:
            reason = error.reason if isinstance(error, MaxRetryError) else error
            kind: type[requests.RequestException] = requests.ConnectionError
            if isinstance(reason, ConnectTimeoutError) and not isinstance(reason, NewConnectionError):
                kind = requests.ConnectTimeout
            elif isinstance(reason, SSLError):
                kind = requests.exceptions.SSLError
            elif isinstance(reason, ReadTimeoutError):
                kind = requests.ReadTimeout
            raise kind(error, request=self._pool.request) from error

    def _make_use(self, lease: Lease) -> Use:
        call = self._call
        use = Use(lease, call.idempotent and self._replayable(), self._connect, self)
        if call.hard:
            use.leash = AbortHandle()
            self._leashes = (*self._leashes[-1:], use.leash)  # two may be in flight
        return use

    def _cut(self) -> None:
        """The deadline has passed: what is waited for ends now, however slowly bytes go on coming."""
        for leash in self._leashes:
            leash.cut()

    def _perform(self, use: Use) -> HTTPResponse:
        """One attempt's sending and receiving. In a thread of its own if it is hedged."""
        try:
            try:
                response = self._send(use)
            except Overtaken:
                response = self._send(use)
            if not self._pool.stream and isinstance(response, HTTPResponse):  # a recorder has answers of its own
                # Read here, so that a body cut short is this attempt's failure.
                clock = self._discovery._driver.engine.clock
                began = clock()
                status = response.status
                use.in_body = True
                body = read_whole(response, keep_error=300 <= status < 400)
                use.late = clock() - began
                if body is not None:
                    if self._pool.may_hand_over and "Content-Encoding" not in response.headers:
                        use.body = body
                    else:
                        put_back(response, body)
            return response
        finally:
            if use.connected is not None:
                use.connected.close()  # the winner's pool had an idle connection

    def _hedged(self) -> HTTPResponse:
        """The first attempt, and another beside it when it takes long. `_use` is then that of the one that counts."""
        call, background, use, hedging = (
            self._call,
            self._discovery._driver.background,
            self._use,
            self._service.hedging,
        )
        if hedging is None or call.number > 1 or not self._hedgeable():
            return self._perform(use)
        hedge = Hedge(background.engine, hedging, call, use.lease)
        statuses = self._service.retry.statuses
        if hedge.delay is None:
            response = self._perform(use)
            if response.status not in statuses:
                hedge.won(use.lease)
            return response
        uses: dict[Lease, Use] = {}

        def trial(lease: Lease) -> Trial[HTTPResponse]:
            made = uses[lease] = self._make_use(lease)
            made.leash = made.leash or AbortHandle()
            return Trial(lease, partial(self._perform, made), cut=made.leash.cut, drop=_discard)

        def wanted(trial: Trial[HTTPResponse]) -> bool:
            response = trial.result
            return response is not None and response.status not in statuses

        def failed(trial: Trial[HTTPResponse]) -> None:
            if isinstance(trial.error, Exception):
                self._failed(trial.error, trial.lease, uses[trial.lease])
            elif trial.result is not None:
                self._answered(trial.result, trial.lease)
                _discard(trial.result)
                self._response = None

        winner = duel(background, hedge, use.lease.hand_over(), trial, wanted, failed)
        self._use = uses[winner.lease]
        return winner.outcome()

    def _send(self, use: Use) -> HTTPResponse:
        lease, call = use.lease, self._call
        engine = self._discovery._driver.engine
        read = self._read
        if call.hard:
            left = max(0.001, call.deadline_at - engine.clock())
            read = min(read, left) if isinstance(read, (int, float)) else left
        pool = self._pool.route.pool(lease.node, self._tls, self._pool.options)
        limit = engine.connect_limit(lease.service, call)
        response: HTTPResponse = pool.urlopen(  # type: ignore[assignment]
            self._method,
            self._url,
            body=self._body,
            headers=self._headers,
            retries=_NO_RETRIES,
            redirect=False,
            assert_same_host=False,
            timeout=UseTimeout(limit, read, use),
            **{**self._options, "pool_timeout": limit},  # of a pool that has callers wait for a connection
        )
        return response

    def _failed(self, error: Exception, lease: Lease, use: Use) -> None:
        call = self._call
        if isinstance(error, (ValueError, DiscoveryError)) and not use.sent:
            lease.release()  # the request itself is wrong
            return
        failure, label = classify(error, sent=use.sent, handled=self._handled)
        if use.sent:
            call.replayable = self._replayable()
        engine = self._discovery._driver.engine
        now = engine.clock()
        if call.hard and now >= call.deadline_at and label != "silent":
            failure, label = Failure.OTHER, "deadline"
        outcome = _OUTCOMES.get(label, Outcome.FAILURE)
        if label in ("certificate", "tls") and self._tls in self._pool.route.verified:
            outcome = Outcome.FAILURE
        if label == "silent":
            engine.vanished(lease.node, now - engine.settings.connection.ack_timeout)  # others may wait for it
        elif failure is Failure.OTHER and not isinstance(error, (HTTPError, OSError)):
            outcome = Outcome.NEUTRAL  # this side's: a body that cannot be read, say
        if label in ("certificate", "tls") and not lease.service.untried(call.tried):
            failure = Failure.OTHER  # the same endpoint has the same certificate
        said = "no answer by then" if label == "deadline" else cause_of(error)
        judgement = Judgement(outcome, failure, label)
        told = lease.observe(outcome, now)
        lease.release()  # a body that broke off has ended it already
        self._discovery._driver.background.force(engine.decide(call, lease, judgement, now, told, said))
        if label == "deadline":
            raise DeadlineExceeded(
                "not done within the deadline", target=call.target, attempts=call.reports
            ) from _without_frames(error)
        if call.wait is not None:
            forget(error)

    def _answered(self, response: HTTPResponse, lease: Lease) -> None:
        call, service = self._call, self._service
        engine = self._discovery._driver.engine
        status = response.status
        now = engine.clock()
        if self._tls:
            self._pool.route.verified.add(self._tls)
        good = status < 400 or status not in service.outlier.failure_statuses
        told = lease.observe(_SUCCESS if good else Outcome.FAILURE, now)
        if status in _OVERLOADED:
            asked = _retry_after(response)
            pause = service.balancing.pushback if asked is None else min(asked, _LONGEST_PUSHBACK)
            told = service.push_back(lease.node, now, pause) or told
        if getattr(response, "connection", None) is None:
            lease.release()  # no body, or the answer of a mock; else the pool ends it when the body was read
        if status < 400 or status not in service.retry.statuses:
            failure, retry_after = None, None
        else:
            failure, retry_after = Failure.STATUS, _retry_after(response)
            if service.untried(call.tried):
                retry_after = None  # a task speaks for itself: another one need not be waited for
            if retry_after is not None and isinstance(self._read, (int, float)) and retry_after > self._read:
                retry_after = inf  # longer than the application would wait for an answer
        if failure is not None or call.own_policy is not None:
            call.replayable = self._replayable()
            self._response = response
        judgement = GOOD
        if not good or failure is not None:
            judgement = Judgement(
                Outcome.SUCCESS if good else Outcome.FAILURE, failure, f"status {status}", retry_after
            )
        engine.decide(call, lease, judgement, now, told)
        trail = AttemptHistory(lease.node.endpoint, now - lease.started_at, call.reports, failure is None)
        response.ecs_discovery = Answered(trail, lease.node, self._use.late, self._use.body)  # type: ignore[attr-defined]

    def _replayable(self) -> bool:
        """Can the body be sent a second time?"""
        body = self._body
        return body is None or isinstance(body, (bytes, str)) or isinstance(self._position(), int)

    def _hedgeable(self) -> bool:
        """May it be in flight twice at once? Changes need the application's word for that: a change that comes late,
        after the next one, undoes that next one."""
        if not isinstance(self._body, (bytes, str, NoneType)):
            return False  # two threads would read one file
        return self._call.idempotent and (self._method in _SAFE or bool(current_options().idempotent))

    def _rewind(self) -> None:
        if isinstance(self._position(), int):  # a file; bytes need no rewinding
            rewind_body(self._pool.request)

    def _position(self) -> Any:
        return getattr(self._pool.request, "_body_position", None)


# What a failure says of the endpoint's health, where that is not simply a failure.
_OUTCOMES = {
    "silent": Outcome.CONNECT,
    "doubted": Outcome.NEUTRAL,
    "connect": Outcome.CONNECT,
    "connect timeout": Outcome.UNANSWERED,
    "certificate": Outcome.NEUTRAL,  # as likely this session's `verify=` as the task's fault
    "tls": Outcome.NEUTRAL,  # as likely `https://` to a port that speaks plain HTTP
    "own": Outcome.NEUTRAL,  # out of descriptors, a closed session
}


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


def _retry_after(response: HTTPResponse) -> float | None:
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


def _discard(response: HTTPResponse) -> None:
    """Let go of an answer that is not wanted. What was read has given its connection back; the rest is closed."""
    response.close()
    response.release_conn()  # closed, it goes back to its pool: the use of the endpoint ends there


def _without_frames(error: BaseException) -> BaseException:
    """The error and what led to it, without the frames: a refused connection is not looked for in our code."""
    each: BaseException | None = error
    while each is not None and each.__traceback__ is not None:
        each.__traceback__ = None
        each = each.__cause__ or each.__context__
    return error
