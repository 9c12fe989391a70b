"""requests: `wrap_session` mounts adapters that choose the endpoint per request.

The URL stays as it is written. Hosts that are not ours go through the adapter that was mounted
before. One retry layer only: the inner adapters never retry.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import requests
from requests.adapters import BaseAdapter, HTTPAdapter
from requests.exceptions import InvalidHeader, InvalidURL
from requests.utils import rewind_body
from urllib3.util import Timeout, parse_url

from ecs_discovery.client import Discovery
from ecs_discovery.core.lease import Lease
from ecs_discovery.core.node import Node, Outcome
from ecs_discovery.core.retry import Call, Failure
from ecs_discovery.core.service import Service
from ecs_discovery.defaults import shared_discovery
from ecs_discovery.engine import Judgement
from ecs_discovery.errors import (
    ConfigurationError,
    ConnectError,
    ConnectTimeout,
    DeadlineExceeded,
    DiscoveryError,
    RequestError,
    combined,
)
from ecs_discovery.integrations.urllib3 import HttpEndpointPool, HttpsEndpointPool, Use, UseTimeout, classify
from ecs_discovery.options import current_options
from ecs_discovery.settings import Settings

__all__ = ["DiscoveryAdapter", "unwrap_session", "wrap_session"]

_SCHEMES = {"http://": 80, "https://": 443}
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})  # RFC 9110, section 9.2.2
_ORIGINS = 1000  # hosts remembered per session
_DRAIN = 65536  # bytes of an unwanted answer read to keep its connection


def wrap_session(session: requests.Session, discovery: Discovery | None = None, **settings: Any) -> requests.Session:
    """Make `session` find services by itself: in place, and returned for convenience.

    Without `discovery`, sessions with equal `settings` (those of `Discovery`: `namespace`, `services`,
    `nameservers`, policies) share one. Wrapping again replaces the discovery; with nothing given it changes nothing.
    With `ECS_DISCOVERY_DISABLED=1` the session stays as it is. Hosts that are not ours are untouched.

    Raises `ConfigurationError` for settings that cannot be used, and when there is neither a namespace nor a service.
    """
    if not isinstance(session, requests.Session):
        raise ConfigurationError("session", session, "a requests.Session")
    already = any(isinstance(adapter, DiscoveryAdapter) for adapter in session.adapters.values())
    if already and discovery is None and not settings:
        return session
    if discovery is not None and settings:
        raise ConfigurationError("settings", sorted(settings), "either discovery= or settings, not both")
    if discovery is not None and not isinstance(discovery, Discovery):
        raise ConfigurationError("discovery", discovery, "a Discovery")
    made = discovery.settings if discovery is not None else Settings.make(**settings)
    if made.disabled:
        return session
    if made.namespace is None and not made.services:
        raise ConfigurationError(
            "namespace", None, "wrap_session(session, namespace='prod.local'), services={…} or ECS_DISCOVERY_NAMESPACE"
        )
    if already:
        unwrap_session(session)
    for prefix in _SCHEMES:
        session.mount(prefix, DiscoveryAdapter(made, session.get_adapter(prefix), discovery))
    return session


def unwrap_session(session: requests.Session) -> requests.Session:
    """Undo `wrap_session`. Does nothing to a session that is not wrapped."""
    for prefix, adapter in list(session.adapters.items()):
        if isinstance(adapter, DiscoveryAdapter):
            session.mount(prefix, adapter.fallback)
            adapter.close_pools()
    return session


class DiscoveryAdapter(BaseAdapter):
    """Sends requests for our hosts to the endpoints of their service, all others through `fallback`."""

    def __init__(self, settings: Settings, fallback: BaseAdapter, discovery: Discovery | None = None) -> None:
        super().__init__()
        self.settings = settings
        self.fallback = fallback
        self._discovery = discovery
        self._routes: dict[str, _Route | None] = {}

    @property
    def discovery(self) -> Discovery:
        """The discovery in use: the one given, or the default one of its settings."""
        if self._discovery is None:
            self._discovery = shared_discovery(self.settings)
        return self._discovery

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        url = request.url or ""
        origin = url[: url.find("/", 8)]  # requests always writes a path
        try:
            route = self._routes[origin]
        except KeyError:
            route = self._remember(origin)
        if route is None:
            return self.fallback.send(
                request, stream=stream, timeout=timeout, verify=verify, cert=cert, proxies=proxies
            )
        return _Exchange(self, route, request, stream, timeout, verify, cert).run()

    def close(self) -> None:
        """Close the connections. The adapter works on; the discovery stays open."""
        self.close_pools()
        self.fallback.close()

    def close_pools(self) -> None:
        routes, self._routes = self._routes, {}
        for route in routes.values():
            if route is not None:
                route.close()

    def _remember(self, origin: str) -> _Route | None:
        if len(self._routes) >= _ORIGINS:
            self.close_pools()
        parsed = parse_url(origin)
        host = parsed.host or ""
        route = None
        if self.settings.owns(host):
            target = host if parsed.port is None else f"{host}:{parsed.port}"
            scheme = parsed.scheme or "http"
            with _as_requests_error(None):
                service = self.discovery.engine.service(target, _SCHEMES[f"{scheme}://"])
            route = _Route(self, service, scheme, host, parsed.port)
        return self._routes.setdefault(origin, route)

    def __getstate__(self) -> dict[str, Any]:
        return {"settings": self.settings, "fallback": self.fallback}

    def __setstate__(self, state: dict[str, Any]) -> None:
        DiscoveryAdapter.__init__(self, state["settings"], state["fallback"])

    def __deepcopy__(self, memo: dict[int, Any]) -> DiscoveryAdapter:
        return DiscoveryAdapter(self.settings, self.fallback, self._discovery)


class _Route:
    """One origin (`http://orders:8080`) of ours: its service, and an adapter per endpoint."""

    def __init__(self, owner: DiscoveryAdapter, service: Service, scheme: str, host: str, port: int | None) -> None:
        self.service = service
        self._owner = owner
        self._scheme = scheme
        self._host = host
        self._port = port
        self._generation = service.generation
        self._adapters: dict[tuple[Node, Any, Any], _EndpointAdapter] = {}

    def adapter(self, node: Node, verify: Any, cert: Any, request: requests.PreparedRequest) -> _EndpointAdapter:
        """The adapter for an endpoint and these TLS options, made if there is none."""
        if self._generation != self.service.generation:
            self._sweep()
        key = (node, verify, cert if cert is None or isinstance(cert, str) else tuple(cert))
        adapter = self._adapters.get(key)
        if adapter is None:
            made = _EndpointAdapter(self._pool(node, verify, cert, request))
            adapter = self._adapters.setdefault(key, made)
        return adapter

    def close(self) -> None:
        adapters, self._adapters = self._adapters, {}
        for adapter in adapters.values():
            adapter.close()

    def _sweep(self) -> None:
        """Close the idle connections of endpoints that left; those in use close when they are free."""
        self._generation = self.service.generation
        for key in [key for key in list(self._adapters) if key[0].removed]:
            gone = self._adapters.pop(key, None)
            if gone is not None:
                gone.close()

    def _pool(self, node: Node, verify: Any, cert: Any, request: requests.PreparedRequest) -> HttpEndpointPool:
        policy = self._owner.settings.connection
        fallback = self._owner.fallback
        options: dict[str, Any] = {"maxsize": policy.max_idle}
        if isinstance(fallback, HTTPAdapter):
            # What the application set on its own adapter (an SSL context, a pool size) holds for ours too.
            options = {**fallback.poolmanager.connection_pool_kw, **options}
            _, tls = fallback.build_connection_pool_key_attributes(request, verify, cert)
            options = {**options, **tls}
        clock = self._owner.discovery.engine.clock
        arguments = (node.endpoint, policy, self._host, self._port)
        if self._scheme == "https":
            pool: Any = HttpsEndpointPool(*arguments, clock=clock, tls_name=self.service.tls_name, **options)
            adapter: Any = HTTPAdapter()
            adapter.cert_verify(pool, f"https://{self._host}/", verify, cert)
        else:
            pool = HttpEndpointPool(*arguments, clock=clock, **options)
        return pool  # type: ignore[no-any-return]  # both kinds behave alike


class _EndpointAdapter(HTTPAdapter):
    """requests' own adapter over one endpoint's pool: what it works out per request is worked out once."""

    def __init__(self, pool: HttpEndpointPool) -> None:
        super().__init__(max_retries=0)
        self._pool = pool

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """There is one pool, and no manager that could evict it."""

    def get_connection_with_tls_context(self, *args: Any, **options: Any) -> Any:
        return self._pool

    def cert_verify(self, *args: Any, **options: Any) -> None:
        """Done when the pool was made."""

    def request_url(self, request: requests.PreparedRequest, proxies: Any) -> str:
        path = request.path_url
        return f"/{path.lstrip('/')}" if path.startswith("//") else path

    def close(self) -> None:
        self._pool.close()


class _Exchange:
    """One request over all its attempts."""

    __slots__ = ("_adapter", "_call", "_cert", "_read", "_request", "_response", "_route", "_stream", "_verify")

    def __init__(
        self,
        adapter: DiscoveryAdapter,
        route: _Route,
        request: requests.PreparedRequest,
        stream: bool,
        timeout: Any,
        verify: Any,
        cert: Any,
    ) -> None:
        connect, self._read = _parts(timeout)
        self._adapter = adapter
        self._route = route
        self._request = request
        self._stream = stream
        self._verify = verify
        self._cert = cert
        self._response: requests.Response | None = None
        idempotent = request.method in _IDEMPOTENT or "Idempotency-Key" in request.headers
        self._call = adapter.discovery.engine.call(route.service, idempotent=idempotent, connect=connect)

    def run(self) -> requests.Response:
        discovery, service, call = self._adapter.discovery, self._route.service, self._call
        engine = discovery.engine
        try:
            if engine.closed:
                engine.service(service.target)  # raises
            if engine.clock() >= service.fresh_until:
                discovery.ready(service, call.connect_until)
            return discovery.pursue(call, self._attempt)
        except Exception as error:
            translated = _translated(error, call, self._request)
            if translated is error:
                raise
            raise translated from error

    def _attempt(self) -> requests.Response:
        call, route = self._call, self._route
        discovery = self._adapter.discovery
        engine = discovery.engine
        if self._response is not None:
            _discard(self._response)
            self._response = None
        if call.number:
            self._rewind()
        lease = engine.begin(route.service, call, current_options().key)
        if route.service.reconnects_due:
            discovery.reconnect(route.service)
        use = Use(lease, call.idempotent and _replayable(self._request))
        try:
            adapter: Any = route.adapter(lease.node, self._verify, self._cert, self._request)
            response: requests.Response = adapter.send(
                self._request,
                stream=self._stream,
                timeout=UseTimeout(engine.connect_limit(route.service, call), self._read, use),
                verify=self._verify,
                cert=self._cert,
            )
        except Exception as error:
            self._failed(error, lease, use)
            raise
        except BaseException:
            lease.release()
            raise
        self._answered(response, lease)
        return response

    def _failed(self, error: Exception, lease: Lease, use: Use) -> None:
        call = self._call
        if isinstance(error, (InvalidURL, InvalidHeader, ValueError)):
            lease.release()  # the request itself is wrong
            return
        failure, label = classify(error, use)
        if use.sent:
            call.replayable = _replayable(self._request)
        outcome = Outcome.CONNECT if failure is Failure.NOT_SENT or label == "silent" else Outcome.FAILURE
        discovery = self._adapter.discovery
        discovery.force(discovery.engine.settle(call, lease, Judgement(outcome, failure, label), _text(error)))

    def _answered(self, response: requests.Response, lease: Lease) -> None:
        call, service = self._call, self._route.service
        discovery = self._adapter.discovery
        engine = discovery.engine
        settings = self._adapter.settings
        status = response.status_code
        response.connection = self._adapter  # type: ignore[assignment]  # any adapter will do: it is sent through
        now = engine.clock()
        good = status < 400 or status not in settings.outlier.failure_statuses
        told = lease.observe(Outcome.SUCCESS if good else Outcome.FAILURE, now)
        if getattr(response.raw, "connection", None) is None:
            lease.release()  # no body, or the answer of a mock; else the pool ends it when the body was read
        if status < 400 or status not in service.retry.statuses:
            failure, retry_after = None, None
        else:
            failure, retry_after = Failure.STATUS, _retry_after(response)
            call.replayable = _replayable(self._request)
            self._response = response
        judgement = Judgement(Outcome.SUCCESS, failure, f"status {status}", retry_after)
        engine.decide(call, lease, judgement, now, told)

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
        connect = timeout.connect_timeout
        return (connect if isinstance(connect, (int, float)) else None), timeout.read_timeout
    return timeout, timeout


def _replayable(request: requests.PreparedRequest) -> bool:
    """Can its body be sent a second time?"""
    body: Any = request.body
    return body is None or isinstance(body, (bytes, str)) or isinstance(getattr(request, "_body_position", None), int)


def _retry_after(response: requests.Response) -> float | None:
    """Seconds that the answer asks to wait (RFC 9110, section 10.2.3), None if it does not or is not understood."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())


def _discard(response: requests.Response) -> None:
    """Let go of an answer that is not wanted; a short one is read, so that its connection can be used again."""
    length = response.headers.get("Content-Length", "")
    if length.isascii() and length.isdigit() and int(length[:9]) <= _DRAIN:
        try:
            _ = response.content
        except (requests.RequestException, RuntimeError):
            pass  # the connection is gone then, which is all that matters
    response.close()


def _text(error: BaseException) -> str:
    """What went wrong, without the layers around it."""
    while True:
        deeper = getattr(error, "reason", None) or next((a for a in error.args if isinstance(a, BaseException)), None)
        if not isinstance(deeper, BaseException):
            return str(error)
        error = deeper


def _translated(error: Exception, call: Call, request: requests.PreparedRequest | None) -> Exception:
    """The error as one of ours that is also requests' own class."""
    ours: type[DiscoveryError]
    fields: dict[str, Any] = {"request": request, "response": None}
    if isinstance(error, DiscoveryError):
        theirs = requests.Timeout if isinstance(error, DeadlineExceeded) else requests.ConnectionError
        kind = combined(type(error), theirs)
        if kind is type(error):
            return error
        twin = kind(str(error.args[0]))
        twin.__dict__.update(error.__dict__ | fields)
        return twin
    if not isinstance(error, requests.RequestException) or not call.reports:
        return error
    last = call.reports[-1]
    if isinstance(error, requests.ConnectTimeout):
        ours = ConnectTimeout
    else:
        ours = ConnectError if last.outcome in ("connect", "connect timeout", "tls") else RequestError
    tried = f"after {call.number} attempt{'s' if call.number > 1 else ''}"
    return combined(ours, type(error))(
        f"failed {tried}: {last.error or last.outcome}",
        target=call.target,
        attempts=call.reports,
        hint=f"not tried again: {call.reason}" if call.reason else None,
        **fields,
    )


@contextmanager
def _as_requests_error(request: requests.PreparedRequest | None) -> Iterator[None]:
    try:
        yield
    except ConfigurationError:
        raise
    except DiscoveryError as error:
        kind = combined(type(error), requests.ConnectionError)
        twin = kind(str(error.args[0]))
        twin.__dict__.update(error.__dict__ | {"request": request, "response": None})
        raise twin from error
