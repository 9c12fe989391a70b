"""Spans of attempts.

    a client span of another instrumentation is current: its peer is put right, and attempts are children of it,
                                                         made when the call is over, if there was more than one
    no client span is current:                           each attempt of an HTTP request is a client span of ours

One request never has two client spans for one attempt: what runs within ours is told so by the key that the
instrumentations have for that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from opentelemetry import context, propagate, trace
from opentelemetry.trace import ProxyTracerProvider, Span, SpanKind, Status, StatusCode, TracerProvider

from ecs_discovery.events import AttemptEnded, AttemptStarted, CallEnded, CallStarted, Idle
from ecs_discovery.models import Endpoint
from ecs_discovery.telemetry._attributes import SCHEMA, attributes_of, error_type

__all__ = ["Spans"]

_IDLE = Idle(1.0)
# The API keeps these keys to itself, and the instrumentations use them. Without them nothing is suppressed.
_SUPPRESS_HTTP = getattr(context, "_SUPPRESS_HTTP_INSTRUMENTATION_KEY", None)
_SUPPRESS = getattr(context, "_SUPPRESS_INSTRUMENTATION_KEY", None)
_METHODS = frozenset(("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"))
_PORTS = {"http": 80, "https": 443}
_SECRET = frozenset(  # the conventions have these values hidden
    (
        "awsaccesskeyid",
        "sig",
        "signature",
        "x-amz-credential",
        "x-amz-security-token",
        "x-amz-signature",
        "x-goog-signature",
    )
)
_LONGEST = 2000  # characters of a URL
_MARKS = {"http": ("http.request.method", "http.method"), "grpc": ("rpc.system", "rpc.system.name", "rpc.method")}
"""What tells an instrumentation's client span, by the kind of call."""


class Spans:
    """An observer that makes them. `now` gives nanoseconds since 1970."""

    def __init__(
        self, version: str, tracer_provider: TracerProvider | None, now: Callable[[], int] = time.time_ns
    ) -> None:
        self._given = tracer_provider is not None
        self.tracer = trace.get_tracer("ecs_discovery", version, tracer_provider, SCHEMA)
        self.now = now

    def call_started(self, call: CallStarted) -> _Seen | _Client | Idle | None:
        """As `Observer` has it."""
        if not self._given and isinstance(trace.get_tracer_provider(), ProxyTracerProvider):
            return _IDLE  # the program has no SDK, or not yet
        if _is_set(_SUPPRESS):
            return None
        current = trace.get_current_span()
        is_client = getattr(current, "kind", None) is SpanKind.CLIENT and _is_of(current, call.kind)
        if current.is_recording() and (is_client or call.kind in ("call", "connect")):
            return _Seen(self, current, is_client)
        if call.kind != "http" or _is_set(_SUPPRESS_HTTP):
            return None
        return _Client(self, call)


class _Seen:
    """A call within another span."""

    __slots__ = ("_attempts", "_is_client", "_owner", "_span")

    def __init__(self, owner: Spans, span: Span, is_client: bool) -> None:
        self._owner = owner
        self._span = span
        self._is_client = is_client
        self._attempts: list[tuple[int, AttemptEnded]] = []  # with when it ended, in nanoseconds since 1970

    def attempt_started(self, attempt: AttemptStarted) -> _Seen:
        return self  # its ends are what matters

    def left(self) -> None:
        """Nothing is done where it ran."""

    def ended(self, end: AttemptEnded | CallEnded) -> None:
        """An attempt is over, or the call is."""
        if isinstance(end, AttemptEnded):
            self._attempts.append((self._owner.now(), end))
            return
        span = self._span
        if self._is_client and end.last is not None:
            span.set_attributes(_peer(end.last.endpoint))
        if len(self._attempts) < 2:
            return
        span.set_attribute("ecs_discovery.attempts", end.attempts)
        parent = trace.set_span_in_context(span)
        for ended_at, attempt in sorted(self._attempts, key=lambda each: each[1].number):
            began_at = ended_at - int(attempt.seconds * 1e9)
            child = self._owner.tracer.start_span("ecs_discovery.attempt", parent, start_time=began_at)
            child.set_attributes(_peer(attempt.endpoint))
            if attempt.number > 1:
                child.set_attribute("http.request.resend_count", attempt.number - 1)
            _finish(child, attempt, ended_at)


class _Client:
    """A call whose attempts are client spans."""

    __slots__ = ("_attributes", "_name", "_owner")

    def __init__(self, owner: Spans, call: CallStarted) -> None:
        self._owner = owner
        method = call.method if call.method in _METHODS else "_OTHER"
        self._name = call.method if call.method in _METHODS else "HTTP"
        self._attributes: dict[str, str | int] = {"http.request.method": method, **_of_url(call)}
        if method == "_OTHER":
            self._attributes["http.request.method_original"] = call.method

    def attempt_started(self, attempt: AttemptStarted) -> _ClientAttempt:
        attributes = {**self._attributes, **_peer(attempt.endpoint)}
        if attempt.number > 1:
            attributes["http.request.resend_count"] = attempt.number - 1
        return _ClientAttempt(self._owner.tracer.start_span(self._name, kind=SpanKind.CLIENT, attributes=attributes))

    def ended(self, end: CallEnded) -> None:
        """Each attempt has told its end."""


class _ClientAttempt:
    """One attempt, whose span is current as long as it runs."""

    __slots__ = ("_span", "_token", "headers")

    def __init__(self, span: Span) -> None:
        self._span = span
        inside = trace.set_span_in_context(span)
        if _SUPPRESS_HTTP is not None:
            inside = context.set_value(_SUPPRESS_HTTP, True, inside)
        self.headers: dict[str, str] = {}
        """What carries the trace to the endpoint."""
        try:
            propagate.inject(self.headers, inside)
        except Exception:  # raised again, and logged as the observer's fault: a propagator is the application's own
            span.end()
            raise
        self._token = context.attach(inside)

    def left(self) -> None:
        context.detach(self._token)

    def ended(self, end: AttemptEnded) -> None:
        self._span.set_attributes(_peer(end.endpoint))  # one that did not connect was passed over
        _finish(self._span, end, None)


def _finish(span: Span, end: AttemptEnded, ended_at: int | None) -> None:
    if end.status is not None:
        span.set_attribute("http.response.status_code", end.status)
    if end.kind in ("overtaken", "cancelled"):
        span.set_attribute("ecs_discovery.attempt.outcome", end.kind)
    elif end.kind:
        span.set_attribute("error.type", error_type(end))
        span.set_status(Status(StatusCode.ERROR, end.label))
    elif end.status is not None and end.status >= 400:
        span.set_attribute("error.type", str(end.status))
        span.set_status(Status(StatusCode.ERROR))
    span.end(ended_at)


def _peer(endpoint: Endpoint) -> Mapping[str, str | int]:
    return {"network.peer.address": endpoint.host, "network.peer.port": endpoint.port}


def _of_url(call: CallStarted) -> Mapping[str, str | int]:
    found = dict(attributes_of(call.target))
    try:
        url = urlsplit(call.url)
        port = url.port or _PORTS.get(url.scheme)
    except ValueError:
        return found
    if port is not None:
        found.setdefault("server.port", port)
    if url.scheme and url.hostname:
        pairs = parse_qsl(url.query, keep_blank_values=True)
        query = url.query
        if any(name.lower() in _SECRET for name, _ in pairs):
            query = urlencode([(name, "REDACTED" if name.lower() in _SECRET else value) for name, value in pairs])
        place = url.netloc.rpartition("@")[2]
        found["url.full"] = urlunsplit((url.scheme, place, url.path, query, ""))[:_LONGEST]
    return found


def _is_set(key: str | None) -> bool:
    return key is not None and bool(context.get_value(key))


def _is_of(span: Span, kind: str) -> bool:
    """Is this client span that of the request? A call of an AWS SDK, say, may have one around requests of its own."""
    wanted = _MARKS.get(kind)
    attributes = getattr(span, "attributes", None) or {}
    return wanted is None or any(name in attributes for name in wanted)
