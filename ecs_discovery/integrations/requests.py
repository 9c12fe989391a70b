"""requests: `wrap_session` mounts adapters that choose the endpoint per request.

The URL stays as it is written. Hosts that are not ours go through the adapter that was mounted
before. One retry layer only: the inner adapters never retry.
"""

from __future__ import annotations

from typing import Any

import requests
from requests.adapters import BaseAdapter, HTTPAdapter
from urllib3.util import parse_url

from ecs_discovery import _fork
from ecs_discovery.client import Discovery
from ecs_discovery.core.node import Health, Node
from ecs_discovery.core.service import Service
from ecs_discovery.defaults import shared_discovery
from ecs_discovery.errors import ClosedError, ConfigurationError
from ecs_discovery.integrations.requests_errors import as_requests_error
from ecs_discovery.integrations.requests_exchange import Exchange
from ecs_discovery.integrations.urllib3 import HttpEndpointPool, HttpsEndpointPool
from ecs_discovery.settings import Settings

__all__ = ["DiscoveryAdapter", "unwrap_session", "wrap_session"]

_SCHEMES = {"http://": 80, "https://": 443}
_ORIGINS = 1000  # hosts remembered per session


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
    made.check_for_threads()
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
        _fork.track(self)

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
        cut = url.find("/", 8)
        origin = url[:cut] if cut > 0 else url
        try:
            route = self._routes[origin]
        except KeyError:
            route = self._remember(origin)
        if route is None:
            return self.fallback.send(
                request, stream=stream, timeout=timeout, verify=verify, cert=cert, proxies=proxies
            )
        return Exchange(self, self.discovery, route, request, stream, timeout, verify, cert).run()

    def close(self) -> None:
        """Close the connections. The adapter works on; the discovery stays open."""
        self.close_pools()
        self.fallback.close()

    def after_fork(self) -> None:
        """In the child of a fork: the connections are the parent's, and go without a word to the other side."""
        self._routes = {}

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
            try:
                service = self.discovery.engine.service(target, _SCHEMES[f"{scheme}://"])
            except (ClosedError, ConfigurationError) as error:
                raise as_requests_error(error, None, None) from error
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
        self._closed = False
        self._adapters: dict[tuple[Node, Any, Any], _EndpointAdapter] = {}

    def adapter(self, node: Node, verify: Any, cert: Any, request: requests.PreparedRequest) -> _EndpointAdapter:
        """The adapter for an endpoint and these TLS options, made if there is none."""
        if self._generation != self.service.generation:
            self._sweep()
        key = (node, verify, cert if cert is None or isinstance(cert, str) else tuple(cert))
        adapter = self._adapters.get(key)
        if adapter is None:
            adapter = _EndpointAdapter(self._pool(node, verify, cert, request))
            if not self._closed:  # else a request that was under way when the session was closed: kept for it only
                adapter = self._adapters.setdefault(key, adapter)
        return adapter

    def close(self) -> None:
        self._closed = True
        adapters, self._adapters = self._adapters, {}
        for adapter in adapters.values():
            adapter.close()

    def _sweep(self) -> None:
        """Close the idle connections of endpoints that left or went down; those in use close when they are free."""
        self._generation = self.service.generation
        for key in [key for key in list(self._adapters) if key[0].removed or key[0].health is Health.DOWN]:
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
