"""The transport of a client: requests to our hosts by discovery, all others as before. For asyncio."""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop as Loop
from asyncio import _get_running_loop
from functools import cache
from typing import Any

from ecs_discovery.client.aio.discovery import AsyncDiscovery
from ecs_discovery.client.aio.shared import shared_async_discovery
from ecs_discovery.config.settings import Settings
from ecs_discovery.errors import ConfigurationError, DiscoveryError
from ecs_discovery.integrations._httpx.aio.exchange import AsyncHttpxExchange
from ecs_discovery.integrations._httpx.aio.pools import AsyncHttpxRoute
from ecs_discovery.integrations._httpx.exchange import class_of
from ecs_discovery.integrations._httpx.library import Library
from ecs_discovery.integrations._httpx.options import default_options, options_of
from ecs_discovery.integrations.http.errors import as_class
from ecs_discovery.integrations.http.origins import Origins, default_port

__all__ = ["AsyncTransport", "transport_class"]


class AsyncTransport:
    """`original` serves hosts that are not ours, and shows how connections are to be made."""

    def __init__(self, library: Library, settings: Settings, discovery: AsyncDiscovery | None, original: Any) -> None:
        self._library = library
        self._client = library.client
        self._discovery = discovery
        self.settings = settings
        self.original = original
        self._pool = getattr(original, "_pool", None)
        self._of_loop: dict[Loop | None, Origins[AsyncHttpxRoute]] = {}
        self._here: tuple[Loop | None, Origins[AsyncHttpxRoute]] = (None, self._make_origins())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.original!r}>"

    @property
    def discovery(self) -> AsyncDiscovery:
        """The discovery in use: the one given, or the default discovery of the settings."""
        if self._discovery is None:
            self._discovery = shared_async_discovery(self.settings)
        return self._discovery

    async def handle_async_request(self, request: Any) -> Any:
        """Send a request: to an endpoint of its service if its host is ours."""
        url, here = request.url, self._here
        loop = _get_running_loop()
        if here[0] is not loop:
            here = self._move_to(loop)
        try:
            route = here[1].find(f"{url.scheme}://{url.netloc.decode('ascii')}")
        except DiscoveryError as error:
            raise as_class(error, class_of(self._client, error)) from error
        if route is None:
            return await self.original.handle_async_request(request)
        return await AsyncHttpxExchange(route, request).run()

    def unwrapped(self) -> Any:
        """The transport that was there before. The connections to our endpoints close when they are free."""
        loop = _get_running_loop()
        self._move_to(loop)[1].close()
        for other, origins in self._pop_others(loop):
            other.call_soon_threadsafe(origins.close)
        return self.original

    async def __aenter__(self) -> Any:
        await self.original.__aenter__()
        return self

    async def __aexit__(self, *exc: Any) -> None:
        await self.close_connections()
        await self.original.__aexit__(*exc)

    async def aclose(self) -> None:
        """Close the connections. The discovery stays open."""
        await self.close_connections()
        await self.original.aclose()

    async def close_connections(self) -> None:
        """Close the connections to our endpoints, in use or not. Those of another event loop close there, later."""
        loop = _get_running_loop()
        others = self._pop_others(loop)
        for route in self._move_to(loop)[1].pop_all():
            await route.cut()
        for other, origins in others:
            for route in origins.pop_all():
                cutting = route.cut()
                try:
                    asyncio.run_coroutine_threadsafe(cutting, other)
                except RuntimeError:  # it was closed just now
                    cutting.close()
                    route.abandon()
        for _ in range(2 if loop is not None else 0):
            await asyncio.sleep(0)  # the event loop closes them in its next turns

    def _make_origins(self) -> Origins[AsyncHttpxRoute]:
        return Origins(self.settings, self._host_of, self._route)

    def _move_to(self, loop: Loop | None) -> tuple[Loop | None, Origins[AsyncHttpxRoute]]:
        """The origins of an event loop: connections belong to the loop that opened them.

        Connections of loops that are closed end here: programs call `asyncio.run` again and again.
        """
        for each, dead in list(self._of_loop.items()):
            if each is not None and each.is_closed():
                self._of_loop.pop(each, None)
                for route in dead.pop_all():
                    route.abandon()
        self._here = here = loop, self._of_loop.setdefault(loop, self._make_origins())
        return here

    def _pop_others(self, loop: Loop | None) -> list[tuple[Loop, Origins[AsyncHttpxRoute]]]:
        """The origins of other loops that run, which are forgotten here."""
        self._move_to(loop)
        others = [each for each in list(self._of_loop) if each is not loop and each is not None]
        return [(each, self._of_loop.pop(each)) for each in others]

    def _host_of(self, origin: str) -> str:
        return self._client.URL(origin).host  # type: ignore[no-any-return]

    def _route(self, origin: str) -> AsyncHttpxRoute:
        """Raises `ClosedError`, and `ConfigurationError` for what is no target, and where asyncio does not run."""
        if _get_running_loop() is None:
            raise ConfigurationError("event loop", "none of asyncio", "asyncio: trio is not supported")
        url = self._client.URL(origin)
        target = url.host if url.port is None else f"{url.host}:{url.port}"
        driver = self.discovery._driver
        service = driver.engine.service(target, default_port(url.scheme))
        options = options_of(self.original) or default_options(self._library)
        return AsyncHttpxRoute(self._library, options, driver, service, target, url.scheme, url.host)


@cache
def transport_class(library: Library) -> Any:
    """`AsyncTransport` as a transport of the library's own kind: tools look at its class, and at its pool."""
    return type("AsyncDiscoveryTransport", (AsyncTransport, library.client.AsyncHTTPTransport), {})
