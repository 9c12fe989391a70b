"""requests: `wrap_session` puts the choice of an endpoint below the session's own adapters.

Each mounted `HTTPAdapter` is replaced by an object of its own class that shares its state. Only the
place where it gets a connection pool is ours. So the adapter's methods see every request once, and
what they answer or wait for touches no endpoint. The URL stays as it is written.
"""

from __future__ import annotations

import copy
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import lru_cache
from typing import Any, Unpack
from weakref import ref

import requests
import urllib3
from requests.adapters import BaseAdapter, HTTPAdapter
from requests.sessions import merge_setting
from urllib3.exceptions import LocationValueError
from urllib3.util import parse_url

from ecs_discovery.client.sync.discovery import Discovery
from ecs_discovery.client.sync.shared import shared_discovery
from ecs_discovery.config.settings import Policies, ServiceConfig, Settings
from ecs_discovery.core.balancing.node import Node
from ecs_discovery.errors import ClosedError, ConfigurationError
from ecs_discovery.events import Event
from ecs_discovery.integrations._requests_errors import FailedRequest, as_requests_error
from ecs_discovery.integrations._requests_pools import ServicePool
from ecs_discovery.integrations._requests_routes import Route
from ecs_discovery.integrations._settings import choose
from ecs_discovery.integrations._urllib3_pool import PoolUse
from ecs_discovery.integrations.http.origins import Origins, default_port
from ecs_discovery.resolvers.base import Resolver

__all__ = ["DiscoveryAdapter", "unwrap_session", "wrap_session"]

_NOTICEABLE = 0.0005  # seconds of reading a body that are taken off `elapsed`


def wrap_session(
    session: requests.Session,
    discovery: Discovery | None = None,
    *,
    namespace: str | None = None,
    services: Mapping[str, str | Sequence[str] | ServiceConfig] | None = None,
    nameservers: Sequence[str] | None = None,
    resolvers: Mapping[str, Resolver] | None = None,
    on_event: Callable[[Event], object] | None = None,
    **policies: Unpack[Policies],
) -> requests.Session:
    """Make `session` find services by itself: in place, and returned for convenience.

    The arguments are those of `Discovery`; `discovery` takes the place of all of them. Sessions with equal
    settings share one default discovery. With `resolvers` or `on_event` the session has a discovery of its own.
    Adapters that are mounted, now or later, keep their class and settings, and serve our hosts too. Hosts that
    are not ours are untouched. Wrapping again replaces the discovery; with nothing given it changes nothing.
    With `ECS_DISCOVERY_DISABLED=1` the session stays as it is.

    Raises `ConfigurationError` for settings that cannot be used, and when there is neither a namespace nor a service.
    """
    if not isinstance(session, requests.Session):
        raise ConfigurationError(
            "session", session, "a requests.Session; for other clients there are Discovery.call and Discovery.lease"
        )
    if hasattr(urllib3, "AsyncPoolManager"):
        raise ConfigurationError("urllib3", urllib3, "urllib3 2.x; uninstall urllib3-future and niquests")
    given: dict[str, Any] = {"namespace": namespace, "services": services, "nameservers": nameservers, **policies}
    given |= {"resolvers": resolvers, "on_event": on_event}
    already = isinstance(session.adapters, _Adapters)
    if already and discovery is None and not any(value is not None for value in given.values()):
        return session
    chosen = choose(Discovery, discovery, given)
    if chosen is None:
        return session
    if already:
        unwrap_session(session)
    plain = session.adapters
    adapters = session.adapters = _Adapters(chosen.settings, chosen.discovery)
    for prefix, adapter in plain.items():
        adapters[prefix] = adapter
    _merge_in_place(session, adapters)
    return session


def unwrap_session(session: requests.Session) -> requests.Session:
    """Undo `wrap_session`. Does nothing to a session that is not wrapped."""
    wrapped = session.adapters
    if isinstance(wrapped, _Adapters):
        vars(session).pop("merge_environment_settings", None)
        session.adapters = OrderedDict()
        for prefix, adapter in wrapped.items():
            if isinstance(adapter, DiscoveryAdapter):
                adapter.close_pools()
                adapter = adapter.original
            session.adapters[prefix] = adapter
    return session


_MERGE = requests.Session.merge_environment_settings
_merged: Any = merge_setting


def _merge_in_place(session: requests.Session, adapters: _Adapters) -> None:
    """Spare requests to our hosts the search for proxies in the environment.

    They are never sent to a proxy, and the search takes a fifth of the instructions of a plain request. A copy or a
    pickled session goes without.

    A session's class that has a method of its own for it keeps that.
    """
    here = ref(session)

    def merge(url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        there: Any = here()
        theirs = type(there).merge_environment_settings
        if theirs is not _MERGE or there.adapters is not adapters or not adapters.own(url):
            return theirs(there, url, proxies, stream, verify, cert)
        if there.trust_env and (verify is True or verify is None):
            verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or verify
        # As requests' `merge_setting`, which takes its time over what is no mapping.
        return {
            "proxies": _merged(proxies, there.proxies) if proxies or there.proxies else {},
            "stream": there.stream if stream is None else stream,
            "verify": there.verify if verify is None else verify,
            "cert": there.cert if cert is None else cert,
        }

    if type(session).merge_environment_settings is _MERGE:
        vars(session)["merge_environment_settings"] = merge


class _Adapters(OrderedDict[str, BaseAdapter]):
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

    def __deepcopy__(self, memo: dict[int, Any]) -> _Adapters:
        twin = _Adapters(self._settings, self._discovery)
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


def _restored(settings: Settings, adapters: tuple[tuple[str, BaseAdapter], ...]) -> _Adapters:
    made = _Adapters(settings)
    for prefix, adapter in adapters:
        made[prefix] = adapter
    return made


class _Link:
    """What an adapter needs to serve our hosts: the discovery, and the routes of our origins."""

    def __init__(self, settings: Settings, original: HTTPAdapter, discovery: Discovery | None) -> None:
        self.settings = settings
        self.original = original
        self._discovery = discovery
        self.origins: Origins[Route] = Origins(settings, _host_of, self._route)

    @property
    def discovery(self) -> Discovery:
        """The discovery in use: the one given, or the default one of its settings."""
        if self._discovery is None:
            self._discovery = shared_discovery(self.settings)
        return self._discovery

    def twin_for(self, adapter: HTTPAdapter) -> _Link:
        """The same for a copy of the adapter."""
        return _Link(self.settings, adapter, self._discovery)

    def _route(self, origin: str) -> Route:
        """Raises `ClosedError`, and `ConfigurationError` for what is no target."""
        parsed = parse_url(origin)
        host, scheme = parsed.host or "", parsed.scheme or "http"
        target = host if parsed.port is None else f"{host}:{parsed.port}"
        driver = self.discovery._driver
        service = driver.engine.service(target, default_port(scheme))
        return Route(driver, service, target, scheme, host, parsed.port)


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


def _rewrapped(settings: Settings, original: HTTPAdapter) -> DiscoveryAdapter:
    return _wrapped(original, _Link(settings, original, None))


def _origin(url: str) -> str:
    cut = url.find("/", 8)
    return url[:cut] if cut > 0 else url
