"""What of each client library `install` replaces, and by what. The replacements load our integrations when they run.

Each falls back to what it replaces: a fault of ours never stops the program.
"""

from __future__ import annotations

import functools
import os
import sys
from _thread import RLock  # `threading` would load what gevent patches
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["AFTER", "AFTER_RESOLVING", "use"]

_MARK = "_ecs_discovery"


class _Installed:
    """The settings in use. Those of the environment are read with the first request, by one thread."""

    settings: Any = None
    known = False
    lock = RLock()


def _forget_lock() -> None:
    """In the child of a fork another thread may have had it."""
    _Installed.lock = RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_lock)


_told: set[str] = set()


def use(given: Mapping[str, Any]) -> bool:
    """Use these settings, or those of the environment where none are given. False if discovery is switched off.

    Raises `ConfigurationError`.
    """
    if _Installed.settings is not None and all(value is None for value in given.values()):
        return True
    settings = _choose(given)
    _Installed.settings, _Installed.known = settings, True
    return settings is not None


def _choose(given: Mapping[str, Any]) -> Any:
    from ecs_discovery.client.sync.discovery import Discovery
    from ecs_discovery.integrations._settings import choose

    chosen = choose(Discovery, None, given)
    return None if chosen is None else chosen.settings


def _settings() -> Any:
    """The settings in use; None if there are none, or discovery is switched off."""
    if not _Installed.known:
        with _Installed.lock:
            if not _Installed.known:
                _Installed.settings = _guarded(_choose, {})
                _Installed.known = True  # what is wrong is told once
    return _Installed.settings


def _guarded(work: Callable[..., Any], *args: Any) -> Any:
    """The result of work of ours; None where it failed, which is told once."""
    try:
        return work(*args)
    except Exception as error:  # noqa: BLE001  # the program goes on without us
        text = f"{type(error).__name__}: {error}"
        if text not in _told and len(_told) < 100:
            _told.add(text)
            sys.stderr.write(f"ecs_discovery: {text}\n")
        return None


def _replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Put `make(what is there)` in the place of a function, once."""
    plain = getattr(owner, name)
    if getattr(plain, _MARK, False):
        return
    made = functools.wraps(plain)(make(plain))
    setattr(made, _MARK, True)
    setattr(owner, name, made)


def _owns(host: str | None) -> bool:
    settings = _settings()
    return settings is not None and bool(host) and settings.owns(host)


# requests


def _requests(module: Any) -> None:
    """Where a session looks for the adapter of a URL: what an application mounts, now or later, is found there."""

    def get_adapter(plain: Any) -> Any:
        def replacement(self: Any, url: Any) -> Any:
            adapter = plain(self, url)
            return _guarded(_requests_adapter, adapter, url) or adapter

        return replacement

    def close(plain: Any) -> Any:
        def replacement(self: Any) -> None:
            plain(self)
            ours = vars(self).get(_MARK)
            if ours is not None:
                ours.close_pools()

        return replacement

    _replace(module.Session, "get_adapter", get_adapter)
    _replace(sys.modules["requests.adapters"].HTTPAdapter, "close", close)


def _requests_adapter(adapter: Any, url: str) -> Any:
    settings = _settings()
    if settings is None:
        return None
    from ecs_discovery.integrations._requests_adapters import serving

    return serving(adapter, url, settings)


# urllib3


def _urllib3(module: Any) -> None:
    """The managers of pools: `PoolManager`, and those derived from it."""

    def urlopen(plain: Any) -> Any:
        def replacement(self: Any, method: str, url: str, *args: Any, **options: Any) -> Any:
            ours = _guarded(_urllib3_manager, self, url)
            return (
                plain(self, method, url, *args, **options)
                if ours is None
                else ours.urlopen(method, url, *args, **options)
            )

        return replacement

    def connection_from_host(plain: Any) -> Any:
        def replacement(self: Any, host: Any, port: Any = None, scheme: Any = "http", pool_kwargs: Any = None) -> Any:
            ours = _guarded(_urllib3_manager, self, f"{scheme or 'http'}://{host}") if host else None
            return (plain if ours is None else type(ours).connection_from_host)(
                ours or self, host, port, scheme, pool_kwargs
            )

        return replacement

    def clear(plain: Any) -> Any:
        def replacement(self: Any) -> None:
            plain(self)
            ours = vars(self).get(_MARK)
            if ours is not None:
                ours.clear()

        return replacement

    _replace(module.PoolManager, "urlopen", urlopen)
    _replace(module.PoolManager, "connection_from_host", connection_from_host)
    _replace(module.PoolManager, "clear", clear)


def _urllib3_manager(manager: Any, url: str) -> Any:
    host = sys.modules["urllib3.util"].parse_url(url).host
    if not _owns(host):
        return None
    from ecs_discovery.integrations.urllib3 import beside

    return beside(manager, _settings())


# httpx and httpx2


def _httpx(module: Any) -> None:
    """The library's own transports, wherever they are: in a client, mounted, or inside of another."""

    def handle_request(plain: Any) -> Any:
        def replacement(self: Any, request: Any) -> Any:
            ours = _guarded(_httpx_transport, self, request, "sync")
            return plain(self, request) if ours is None else ours.handle_request(request)

        return replacement

    def handle_async_request(plain: Any) -> Any:
        async def replacement(self: Any, request: Any) -> Any:
            ours = _guarded(_httpx_transport, self, request, "aio")
            return await (plain(self, request) if ours is None else ours.handle_async_request(request))

        return replacement

    def close(plain: Any) -> Any:
        def replacement(self: Any, *args: Any) -> None:
            plain(self, *args)
            ours = vars(self).get(_MARK)
            if ours is not None:
                ours.close_connections()

        return replacement

    def aclose(plain: Any) -> Any:
        async def replacement(self: Any, *args: Any) -> None:
            await plain(self, *args)
            ours = vars(self).get(_MARK)
            if ours is not None:
                await ours.close_connections()

        return replacement

    _replace(module.HTTPTransport, "handle_request", handle_request)
    _replace(module.HTTPTransport, "close", close)
    _replace(module.HTTPTransport, "__exit__", close)
    _replace(module.AsyncHTTPTransport, "handle_async_request", handle_async_request)
    _replace(module.AsyncHTTPTransport, "aclose", aclose)
    _replace(module.AsyncHTTPTransport, "__aexit__", aclose)


def _httpx_transport(transport: Any, request: Any, world: str) -> Any:
    if getattr(transport, "of_endpoint", False) or not _owns(request.url.host):
        return None
    settings, found = _settings(), vars(transport).get(_MARK)
    if found is None or found.settings is not settings:
        from ecs_discovery.integrations._httpx.library import library_of
        from ecs_discovery.runtime import fork

        home: Any = fork.load(f"ecs_discovery.integrations._httpx.{world}.transport")
        library = library_of(transport)
        with _Installed.lock:  # one for all threads, so that it is closed with the client
            found = vars(transport).get(_MARK)
            if found is None or found.settings is not settings:
                found = home.transport_class(library)(library, settings, None, transport)
                setattr(transport, _MARK, found)
    return found


# aiohttp


def _aiohttp(module: Any) -> None:
    """Each new session."""

    def init(plain: Any) -> Any:
        def replacement(self: Any, *args: Any, **options: Any) -> None:
            plain(self, *args, **options)
            _guarded(_adopt_session, self)

        return replacement

    _replace(module.ClientSession, "__init__", init)


def _adopt_session(session: Any) -> None:
    settings = _settings()
    if settings is not None:
        from ecs_discovery.integrations.aiohttp import adopt

        adopt(session, settings)


# gRPC


def _grpc(module: Any) -> None:
    """The functions that make channels, to targets of ours."""
    for home, names in ((module, "grpc"), (module.aio, "grpc.aio")):
        for name in ("insecure_channel", "secure_channel"):
            _replace(home, name, _channel_maker(names, name))


def _channel_maker(home: str, name: str) -> Callable[[Any], Any]:
    def make(plain: Any) -> Any:
        def replacement(target: Any, *args: Any, **options: Any) -> Any:
            ours = _guarded(_grpc_maker, home, name, target)
            return plain(target, *args, **options) if ours is None else ours(target, *args, **options)

        return replacement

    return make


def _grpc_maker(home: str, name: str, target: Any) -> Any:
    settings = _settings()
    if settings is None:
        return None
    from ecs_discovery.client.sync.shared import shared_discovery
    from ecs_discovery.integrations._grpc.route import our_target
    from ecs_discovery.runtime import fork

    if our_target(settings, target, None) is None:
        return None
    ours: Any = fork.load(f"ecs_discovery.integrations.{home}")
    discovery: Any = shared_discovery(settings)
    if home == "grpc.aio":
        discovery = fork.load("ecs_discovery.client.aio.shared").shared_async_discovery(settings)
    return functools.partial(getattr(ours, name), discovery=discovery)


# Names


def _socket(module: Any) -> None:
    """`socket.getaddrinfo`: for libraries that only resolve names."""

    def getaddrinfo(plain: Any) -> Any:
        def replacement(host: Any, port: Any, *args: Any, **options: Any) -> Any:
            found = None
            name = _name_in(host)
            if name is not None and _owns(name):
                found = _guarded(_resolved, plain, name, port, args, options)
            return found or plain(host, port, *args, **options)

        return replacement

    _replace(module, "getaddrinfo", getaddrinfo)


_UNKNOWN = 9
"""Stands for a port that neither the caller nor the service's records name. Nothing is served there (discard)."""


def _name_in(host: Any) -> str | None:
    """The host as text; None if it is none."""
    if isinstance(host, (bytes, bytearray)):
        return bytes(host).decode("ascii", "replace")
    return host if isinstance(host, str) else None


def _resolved(plain: Any, host: str, port: Any, args: tuple[Any, ...], options: Mapping[str, Any]) -> list[Any]:
    """The addresses of a service, in another order each time: callers take the first.

    Without a port (None or 0) they have the port of the SRV records, or none if there are no such records.
    """
    from concurrent.futures import FIRST_COMPLETED
    from concurrent.futures import wait as wait_for_flights

    from ecs_discovery.client.sync.shared import shared_discovery

    asked: dict[str, Any] = {**dict(zip(("family", "type", "proto", "flags"), args, strict=False)), **options}
    flags = asked.get("flags", 0)
    library = sys.modules["socket"]
    if flags & library.AI_NUMERICHOST:
        return []  # a name is an error then
    if isinstance(port, (bytes, bytearray)):
        port = bytes(port).decode()
    if isinstance(port, str):
        port = int(port) if port.isdigit() else plain(None, port)[0][4][1]  # the name of a port
    discovery = shared_discovery(_settings())
    engine = discovery._driver.engine
    service = engine.service(f"{host}:{port}") if port else engine.service(host, _UNKNOWN)
    found: list[Any] = []
    deadline_at = engine.clock() + service.timeout.connect
    while True:
        now = engine.clock()
        if now >= service.refresh_at:
            discovery._background.ready(service, deadline_at)
        for endpoint in sorted(engine.use(service).endpoints, key=lambda _: engine.rng()):
            number = endpoint.port if port or endpoint.port != _UNKNOWN else port
            try:
                found += plain(endpoint.host, number, **asked)
            except OSError:
                pass  # of the other address family
        flights = [] if found else engine.flights.in_flight(service.wanted())
        left = deadline_at - engine.clock()
        if not flights or left <= 0:
            break
        wait_for_flights(flights, left, FIRST_COMPLETED)  # the answer of the family that is asked for may follow
    if found and flags & library.AI_CANONNAME:
        found[0] = (*found[0][:3], host, found[0][4])
    return found


def _after(patch: Callable[[Any], None]) -> Callable[[Any], None]:
    """The patch, which never breaks the import of the program: a module of that name may be another's."""
    return lambda module: _guarded(patch, module)


_PATCHES: Mapping[str, Callable[[Any], None]] = {
    "requests.sessions": _requests,
    "urllib3.poolmanager": _urllib3,
    "httpx": _httpx,
    "httpx2": _httpx,
    "aiohttp.client": _aiohttp,
    "grpc": _grpc,
}
AFTER = {name: _after(patch) for name, patch in _PATCHES.items()}
"""What to do after the import of a module."""
AFTER_RESOLVING = {"socket": _after(_socket)}
