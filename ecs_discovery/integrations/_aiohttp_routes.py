"""The route of one origin of ours, for aiohttp: its service, and how its endpoints are named in the connection pool."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import ClientRequest
from aiohttp.client_reqrep import ConnectionKey
from yarl import URL

from ecs_discovery.client.aio.discovery import AsyncDiscovery
from ecs_discovery.core.balancing.node import Health, Node
from ecs_discovery.errors import ClosedError, ConfigurationError
from ecs_discovery.integrations._aiohttp_errors import as_aiohttp_error
from ecs_discovery.integrations.http.origins import Origins, default_port

__all__ = ["Route", "Routes"]

_KEYS = 1000  # of one origin: a program may vary `ssl=` without end
_FOUND = 1000


class Route:
    """One origin (`http://orders:8080`) of ours. `drop` closes the idle connections of a key."""

    def __init__(
        self,
        discovery: AsyncDiscovery,
        origin: str,
        drop: Callable[[ConnectionKey], None],
        uses: dict[ClientRequest, Any],
    ) -> None:
        url = URL(origin)
        host, scheme = url.raw_host or "", url.scheme.replace("ws", "http")
        self.discovery = discovery
        self.driver = discovery._driver
        self.target = host if url.explicit_port is None else f"{host}:{url.explicit_port}"
        self.service = self.driver.engine.service(self.target, default_port(scheme))
        self.uses = uses
        self.is_tls = scheme == "https"
        self.verified: set[Any] = set()
        """TLS options with which an endpoint has answered: where these fail elsewhere, the endpoint is to blame."""
        self._drop = drop
        self._generation = self.service.generation
        self._keys: dict[Any, tuple[Node, ConnectionKey]] = {}  # by the node, and with TLS by its options too

    def key(self, node: Node, request: ClientRequest) -> ConnectionKey:
        """The name of the node's connections in the pool, for the request's TLS options."""
        if self._generation != self.service.generation:
            self._sweep()
        by = (node, request.ssl, request.server_hostname) if self.is_tls else node
        found = self._keys.get(by)
        return found[1] if found is not None else self._make(node, request, by)

    def close(self) -> None:
        """Close idle connections."""
        keys, self._keys = self._keys, {}
        for _, key in keys.values():
            self._drop(key)

    def _sweep(self) -> None:
        """Close the idle connections of endpoints that left or went down."""
        self._generation = self.service.generation
        for by, (node, key) in list(self._keys.items()):
            if node.removed or node.health is Health.DOWN:
                del self._keys[by]
                self._drop(key)

    def _make(self, node: Node, request: ClientRequest, by: Any) -> ConnectionKey:
        if len(self._keys) >= _KEYS:
            self.close()
            self.verified.clear()
        key = request.connection_key
        # A connection that was verified for one name never serves another. Nor does a connection serve both a service
        # and the address of its task as a host of the application's own: no such host has an "@".
        name = request.server_hostname or self.service.tls_name if key.is_ssl else ""
        made = key._replace(host=f"{name}@{node.endpoint.host}", port=node.endpoint.port)
        self._keys[by] = node, made
        return made


class Routes:
    """The origins of ours that one connector knows."""

    def __init__(self, discovery: AsyncDiscovery, drop: Callable[[ConnectionKey], None]) -> None:
        self.discovery = discovery
        self.uses: dict[ClientRequest, Any] = {}
        """The attempts on their way to the connector. An attribute of the request would slow down all others of it."""
        self._origins: Origins[Route] = Origins(
            discovery.settings,
            lambda origin: URL(origin).raw_host or "",
            lambda origin: Route(discovery, origin, drop, self.uses),
        )
        self._found: dict[tuple[str, str | None], Route | None] = {}  # what was looked up, as aiohttp splits its URLs

    def find(self, request: ClientRequest) -> Route | None:
        """The route of a request; None if its host is not ours. Raises errors of ours that are aiohttp's too."""
        url = request.url
        key = url.scheme, url.host_port_subcomponent
        try:
            route = self._found[key]
        except KeyError:
            route = self._find(request, key)
        if route is not None and self.discovery._closed:
            self._find(request, key)
        return route

    def _find(self, request: ClientRequest, key: tuple[str, str | None]) -> Route | None:
        origin = f"{key[0]}://{key[1]}"
        route = None
        if self._origins.owns(origin):
            try:
                self.discovery._check_open(request.url.host or "")
                route = self._origins.route(origin)
            except (ClosedError, ConfigurationError) as error:
                told: Exception | None = as_aiohttp_error(error, request, error, None)
            else:
                told = None
            if told is not None:
                raise told
        if len(self._found) >= _FOUND:
            self._found.clear()
        self._found[key] = route
        return route
