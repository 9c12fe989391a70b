"""The transport of a client: requests to our hosts by discovery, all others as before. For threads."""

from __future__ import annotations

from functools import cache
from typing import Any

from ecs_discovery.client.sync.discovery import Discovery
from ecs_discovery.client.sync.shared import shared_discovery
from ecs_discovery.config.settings import Settings
from ecs_discovery.errors import DiscoveryError
from ecs_discovery.integrations._httpx.exchange import class_of
from ecs_discovery.integrations._httpx.library import Library
from ecs_discovery.integrations._httpx.options import default_options, options_of
from ecs_discovery.integrations._httpx.sync.exchange import HttpxExchange
from ecs_discovery.integrations._httpx.sync.pools import HttpxRoute
from ecs_discovery.integrations.http.errors import as_class
from ecs_discovery.integrations.http.origins import Origins, default_port

__all__ = ["Transport", "transport_class"]


class Transport:
    """`original` serves hosts that are not ours, and shows how connections are to be made."""

    def __init__(self, library: Library, settings: Settings, discovery: Discovery | None, original: Any) -> None:
        self._library = library
        self._client = library.client
        self._discovery = discovery
        self.settings = settings
        self.original = original
        self._pool = getattr(original, "_pool", None)
        self._origins: Origins[HttpxRoute] = Origins(settings, self._host_of, self._route)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.original!r}>"

    @property
    def discovery(self) -> Discovery:
        """The discovery in use: the one given, or the default discovery of the settings."""
        if self._discovery is None:
            self._discovery = shared_discovery(self.settings)
        return self._discovery

    def handle_request(self, request: Any) -> Any:
        """Send a request: to an endpoint of its service if its host is ours."""
        url = request.url
        try:
            route = self._origins.find(f"{url.scheme}://{url.netloc.decode('ascii')}")
        except DiscoveryError as error:
            raise as_class(error, class_of(self._client, error)) from error
        if route is None:
            return self.original.handle_request(request)
        return HttpxExchange(route, request).run()

    def unwrapped(self) -> Any:
        """The transport that was there before. The connections to our endpoints close when they are free."""
        self._origins.close()
        return self.original

    def __enter__(self) -> Any:
        self.original.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close_connections()
        self.original.__exit__(*exc)

    def close(self) -> None:
        """Close the connections. The discovery stays open."""
        self.close_connections()
        self.original.close()

    def close_connections(self) -> None:
        """Close the connections to our endpoints, in use or not."""
        for route in self._origins.pop_all():
            route.cut()

    def _host_of(self, origin: str) -> str:
        return self._client.URL(origin).host  # type: ignore[no-any-return]

    def _route(self, origin: str) -> HttpxRoute:
        """Raises `ClosedError`, and `ConfigurationError` for what is no target."""
        url = self._client.URL(origin)
        target = url.host if url.port is None else f"{url.host}:{url.port}"
        driver = self.discovery._driver
        service = driver.engine.service(target, default_port(url.scheme))
        options = options_of(self.original) or default_options(self._library)
        return HttpxRoute(self._library, options, driver, service, target, url.scheme, url.host)


@cache
def transport_class(library: Library) -> Any:
    """`Transport` as a transport of the library's own kind: tools look at its class, and at its pool."""
    return type("DiscoveryTransport", (Transport, library.client.HTTPTransport), {})
