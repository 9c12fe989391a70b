"""Which URLs are ours, and the route of each origin (`http://orders:8080`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from ecs_discovery.config.settings import Settings
from ecs_discovery.runtime import fork

__all__ = ["Origins", "Route", "default_port", "listening"]

_ROUTES = 1000  # origins with their connections; those beyond are made again
_FOREIGN = 1000  # origins known not to be ours
_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


class Route(Protocol):
    """Where requests to one origin go."""

    def close(self) -> None:
        """Close its idle connections."""


T = TypeVar("T", bound=Route)

listening: list[Callable[[str], object]] = []
"""Each is told the host of a request to one of our origins, mocked requests included; more than once a request, it may
be. What it raises is raised there. For tests: empty otherwise."""


def default_port(scheme: str) -> int | None:
    """The port of URLs of this scheme that name none."""
    return _PORTS.get(scheme)


class Origins(Generic[T]):
    """The routes of one client. `make` gives the route of an origin, `host_of` the host in it."""

    def __init__(self, settings: Settings, host_of: Callable[[str], str], make: Callable[[str], T]) -> None:
        self.settings = settings
        self._host_of = host_of
        self._make = make
        self._routes: dict[str, T] = {}
        self._foreign: set[str] = set()
        self.limit = _ROUTES
        """Routes that are kept."""
        fork.track(self)

    def owns(self, url: str) -> bool:
        """Does the discovery handle it?"""
        origin = _origin(url)
        if origin in self._routes:
            if listening:
                self._tell(origin)
            return True
        if origin in self._foreign:
            return False
        if self.settings.owns(self._host_of(origin)):
            if listening:
                self._tell(origin)
            return True
        if len(self._foreign) >= _FOREIGN:
            self._foreign = set()
        self._foreign.add(origin)
        return False

    def route(self, url: str) -> T:
        """The route of a URL that the discovery handles. Raises what `make` raises."""
        origin = _origin(url)
        route = self._routes.get(origin)
        if route is None:
            made = self._make(origin)
            if len(self._routes) >= self.limit:
                oldest = self._routes.pop(next(iter(self._routes)), None)
                if oldest is not None:
                    oldest.close()
            route = self._routes.setdefault(origin, made)
        return route

    def find(self, origin: str) -> T | None:
        """The route of an origin; None if the discovery does not handle it. Raises what `make` raises."""
        route = self._routes.get(origin)
        if route is not None or origin in self._foreign:
            if listening and route is not None:
                self._tell(origin)
            return route
        return self.route(origin) if self.owns(origin) else None

    def _tell(self, origin: str) -> None:
        for listener in listening:
            listener(self._host_of(origin))

    def close(self) -> None:
        """Close the connections. Requests may follow."""
        for route in self.pop_all():
            route.close()

    def pop_all(self) -> list[T]:
        """The routes, which are forgotten here."""
        routes, self._routes = self._routes, {}
        return list(routes.values())

    def after_fork(self) -> None:
        """In the child of a fork: the connections are the parent's, and go without a word to the other side."""
        self._routes = {}


def _origin(url: str) -> str:
    cut = url.find("/", 8)
    return url[:cut] if cut > 0 else url
