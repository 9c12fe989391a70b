"""The adapters of a wrapped session: each mounted `HTTPAdapter` is replaced by one of its own class, with its state.

Only the place where it gets a connection pool is ours.
"""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from datetime import timedelta
from functools import lru_cache
from typing import Any

import requests
from requests.adapters import BaseAdapter, HTTPAdapter
from urllib3.exceptions import LocationValueError
from urllib3.util import parse_url

from ecs_discovery.client.sync.discovery import Discovery
from ecs_discovery.client.sync.shared import shared_discovery
from ecs_discovery.config.settings import Settings
from ecs_discovery.core.balancing.node import Node
from ecs_discovery.errors import ClosedError, ConfigurationError
from ecs_discovery.integrations._requests_errors import FailedRequest, as_requests_error
from ecs_discovery.integrations._requests_pools import ServicePool
from ecs_discovery.integrations._urllib3_pool import PoolUse
from ecs_discovery.integrations._urllib3_routes import PoolRoute
from ecs_discovery.integrations.http.origins import Origins, default_port

__all__ = ["Adapters", "DiscoveryAdapter"]

_NOTICEABLE = 0.0005  # seconds of reading a body that are taken off `elapsed`


class Adapters(OrderedDict[str, BaseAdapter]):
    """The adapters of a wrapped session: what is mounted is wrapped, now and later."""

    def __init__(self, settings: Settings, discovery: Discovery | None = None) -> None:
        super().__init__()
        self._settings = settings
        self._discovery = discovery

    def __setitem__(self, prefix: str, adapter: BaseAdapter) -> None:
        if isinstance(adapter, HTTPAdapter) and not isinstance(adapter, DiscoveryAdapter) and self._may_be_ours(prefix):
            adapter = _wrapped(adapter, _Link(self._settings, adapter, self._discovery))
        super().__setitem__(prefix, adapter)

    def own(self, url: str) -> bool:
        """Is it a URL of ours, that the adapter mounted for it serves?"""
        lowered = url.lower()
        for prefix, adapter in self.items():
            if lowered.startswith(prefix.lower()):
                return isinstance(adapter, DiscoveryAdapter) and adapter.owns(url)
        return False

    def copy(self) -> OrderedDict[str, BaseAdapter]:  # type: ignore[override]
        """The adapters as they are, in a plain mapping."""
        return OrderedDict(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self._settings, tuple(self.items()))

    def __deepcopy__(self, memo: dict[int, Any]) -> Adapters:
        twin = Adapters(self._settings, self._discovery)
        for prefix, adapter in self.items():
            twin[prefix] = adapter.__deepcopy__(memo) if isinstance(adapter, DiscoveryAdapter) else adapter
        return twin

    def _may_be_ours(self, prefix: str) -> bool:
        """Can a URL of ours begin with it? An adapter for another host is to stay the very same object."""
        _, scheme_end, rest = prefix.partition("://")
        authority, slash, _ = rest.partition("/")
        host, colon, _ = authority.partition(":")
        if not scheme_end or not host:
            return True
        return self._settings.owns(host) if slash or colon else self._settings.may_own(host)


def _restored(settings: Settings, adapters: tuple[tuple[str, BaseAdapter], ...]) -> Adapters:
    made = Adapters(settings)
    for prefix, adapter in adapters:
        made[prefix] = adapter
    return made


class _Link:
    """What an adapter needs to serve our hosts: the discovery, and the routes of our origins."""

    def __init__(self, settings: Settings, original: HTTPAdapter, discovery: Discovery | None) -> None:
        self.settings = settings
        self.original = original
        self._discovery = discovery
        self.origins: Origins[PoolRoute] = Origins(settings, _host_of, self._route)

    @property
    def discovery(self) -> Discovery:
        """The discovery in use: the one given, or the default one of its settings."""
        if self._discovery is None:
            self._discovery = shared_discovery(self.settings)
        return self._discovery

    def twin_for(self, adapter: HTTPAdapter) -> _Link:
        """The same for a copy of the adapter."""
        return _Link(self.settings, adapter, self._discovery)

    def _route(self, origin: str) -> PoolRoute:
        """Raises `ClosedError`, and `ConfigurationError` for what is no target."""
        parsed = parse_url(origin)
        host, scheme = parsed.host or "", parsed.scheme or "http"
        target = host if parsed.port is None else f"{host}:{parsed.port}"
        driver = self.discovery._driver
        service = driver.engine.service(target, default_port(scheme))
        return PoolRoute(driver, service, target, scheme, host, parsed.port)


def _host_of(origin: str) -> str:
    return parse_url(origin).host or ""


_sending = threading.local()  # whether the request that this thread sends is streamed


class DiscoveryAdapter(HTTPAdapter):
    """What stands between an application's adapter and requests' own: sends to our hosts by discovery.

    `wrap_session` makes these; they are not constructed by hand.
    """

    _link: _Link
    _pinned: Node | None

    @property
    def original(self) -> HTTPAdapter:
        """The adapter that was mounted, with which this one shares its state."""
        return self._link.original

    @property
    def settings(self) -> Settings:
        """The settings of the discovery."""
        return self._link.settings

    @property
    def discovery(self) -> Discovery:
        """The discovery in use."""
        return self._link.discovery

    def owns(self, url: str) -> bool:
        """Is it a URL of ours?"""
        return self._link.origins.owns(url)

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        link = self._link
        if not link.origins.owns(request.url or ""):
            return super().send(request, stream=stream, timeout=timeout, verify=verify, cert=cert, proxies=proxies)
        _sending.request, _sending.stream = request, stream
        try:
            return super().send(request, stream=stream, timeout=timeout, verify=verify, cert=cert, proxies=proxies)
        except requests.RequestException as error:
            told = as_requests_error(error, request)
        finally:
            _sending.request = None  # else the thread would keep the request and its body
        raise told  # outside of the block: else each error would be shown twice

    def get_connection_with_tls_context(
        self, request: requests.PreparedRequest, verify: Any, proxies: Any = None, cert: Any = None
    ) -> Any:
        url = request.url or ""
        if not self._link.origins.owns(url):
            return super().get_connection_with_tls_context(request, verify, proxies=proxies, cert=cert)
        try:
            route = self._link.origins.route(url)
        except (ClosedError, ConfigurationError) as error:
            wrong = LocationValueError(str(error))
            wrong.ecs_discovery = FailedRequest(error)  # type: ignore[attr-defined]
            raise wrong from None
        tls: Any = None
        if route.scheme == "https":
            tls = self.build_connection_pool_key_attributes(request, verify, cert)[1]
        stream = _sending.stream if getattr(_sending, "request", None) is request else True
        pool = ServicePool(route, request, stream, self, tls, self._pinned)
        # Where no code looks at the body before requests does, it need not look unread.
        pool.may_hand_over = type(self) is _PLAIN and not request.hooks.get("response")
        return pool

    def request_url(self, request: requests.PreparedRequest, proxies: Any) -> str:
        if proxies and self._link.origins.owns(request.url or ""):
            proxies = None  # a proxy of the environment is for other hosts
        return super().request_url(request, proxies)

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
        response: Any = super().build_response(req, resp)
        use: PoolUse | None = getattr(resp, "ecs_discovery", None)
        if use is not None:
            response.ecs_discovery = use.history  # for people: not part of a pickled one
            response.connection = _wrapped(self._link.original, self._link, use.lease.node)
            if use.body is not None:
                response._content, response._content_consumed = use.body, True
            if use.late > _NOTICEABLE and type(response) is requests.Response:
                response.__class__ = Response
                response.__dict__["_late"] = use.late
        return response  # type: ignore[no-any-return]

    def close_pools(self) -> None:
        """Close the connections to our endpoints. The adapter works on; the discovery stays open."""
        self._link.origins.close()

    def __deepcopy__(self, memo: dict[int, Any]) -> DiscoveryAdapter:
        original = copy.deepcopy(self._link.original, memo)
        return _wrapped(original, self._link.twin_for(original))


class Response(requests.Response):
    """A response whose body was read before it was handed on. That time is no part of `elapsed`."""

    _late = 0.0

    @property
    def elapsed(self) -> timedelta:
        found: timedelta = self.__dict__["elapsed"]
        return found

    @elapsed.setter
    def elapsed(self, value: timedelta) -> None:
        late, self._late = self._late, 0.0
        self.__dict__["elapsed"] = max(timedelta(0), value - timedelta(seconds=late)) if late else value

    def __reduce__(self) -> tuple[Any, ...]:
        return _plain_response, (), self.__getstate__()


def _plain_response() -> requests.Response:
    return requests.Response()


def _wrapped(original: HTTPAdapter, link: _Link, pinned: Node | None = None) -> DiscoveryAdapter:
    """An adapter of the class of `original`, that shares its state and serves our hosts too.

    With `pinned` it sends to that endpoint first, as long as that takes connections.
    """
    kind: Any = type(original)
    kind = _kind_for(kind)
    # By way of `object`: the class may ask for arguments, or be particular about its attributes.
    made: Any = object.__new__(kind)
    put = object.__setattr__
    put(made, "__dict__", original.__dict__)
    for name in kind.own_slots:
        if hasattr(original, name):
            put(made, name, getattr(original, name))
    put(made, "_link", link)
    put(made, "_pinned", pinned)
    return made  # type: ignore[no-any-return]


@lru_cache(maxsize=128)
def _kind_for(kind: Any) -> type[DiscoveryAdapter]:
    def close(self: Any) -> None:
        self._link.origins.close()
        kind.close(self)

    def reduce(self: Any, _: Any = None) -> tuple[Any, ...]:
        return _rewrapped, (self._link.settings, self._link.original)

    names = {
        "__slots__": ("_link", "_pinned"),
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
        "own_slots": _slots_of(kind),
        "__reduce__": reduce,
        "__reduce_ex__": reduce,
        "close": close,
    }
    bases = (DiscoveryAdapter,) if kind is HTTPAdapter else (kind, DiscoveryAdapter)
    try:
        return type(kind.__name__, bases, names)
    except TypeError as error:
        raise ConfigurationError(
            "adapter", kind, f"an HTTPAdapter of which a subclass without arguments can be made ({error})"
        ) from error


def _slots_of(kind: Any) -> tuple[str, ...]:
    """The slots of a class, whose values are no part of its instances' dict."""
    found: list[str] = []
    for each in kind.__mro__:
        slots = vars(each).get("__slots__", ())
        found += [slots] if isinstance(slots, str) else slots
    return tuple(name for name in found if not name.startswith("__"))


_PLAIN = _kind_for(HTTPAdapter)


def serving(adapter: BaseAdapter, url: str, settings: Settings) -> DiscoveryAdapter | None:
    """What serves a URL of ours in the place of an adapter, made once for it; None if the URL is not ours."""
    if not isinstance(adapter, HTTPAdapter) or isinstance(adapter, DiscoveryAdapter):
        return None
    found: DiscoveryAdapter | None = vars(adapter).get("_ecs_discovery")
    if found is None or found.settings is not settings:
        found = _wrapped(adapter, _Link(settings, adapter, None))
        vars(adapter)["_ecs_discovery"] = found
    return found if found.owns(url) else None


def _rewrapped(settings: Settings, original: HTTPAdapter) -> DiscoveryAdapter:
    return _wrapped(original, _Link(settings, original, None))
