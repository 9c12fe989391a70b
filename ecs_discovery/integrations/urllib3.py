"""urllib3: `DiscoveryPoolManager` is a `PoolManager` whose pools lead to the endpoints of our services."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, Unpack

from ecs_discovery.integrations._libraries import needs

with needs("urllib3"):
    from urllib3 import BaseHTTPResponse, HTTPConnectionPool, PoolManager
    from urllib3._collections import RecentlyUsedContainer
    from urllib3.poolmanager import SSL_KEYWORDS, PoolKey
    from urllib3.util import Retry, Timeout

from ecs_discovery.client.sync.discovery import Discovery
from ecs_discovery.client.sync.shared import shared_discovery
from ecs_discovery.config.settings import ServiceConfig, Settings
from ecs_discovery.errors import DiscoveryError
from ecs_discovery.integrations._settings import check_options, choose
from ecs_discovery.integrations._urllib3_exchange import check_urllib3
from ecs_discovery.integrations._urllib3_manager import (
    ANSWERED,
    HttpServicePool,
    HttpsServicePool,
    ServicePool,
    class_of,
)
from ecs_discovery.integrations._urllib3_routes import PoolRoute
from ecs_discovery.integrations.http.errors import as_class
from ecs_discovery.integrations.http.origins import default_port
from ecs_discovery.runtime import fork

__all__ = ["DiscoveryPoolManager"]

_KNOWN = 1000  # hosts and origins of which something is remembered
# A URL that urllib3 would neither encode nor shorten: its origin, the host in that, and the rest.
_SIMPLE = re.compile(
    r"(https?://([a-z0-9.-]+)(?::[0-9]{1,5})?)"
    r"((?:/(?!\.)[A-Za-z0-9_~.+:@!$&'()*,;=-]*)+(?:\?[A-Za-z0-9_~./+:@!$'()*,;=&?-]*)?)"
)


class ManagerOptions(TypedDict, total=False):
    """What `urllib3.PoolManager` takes."""

    num_pools: int
    headers: Mapping[str, str] | None
    timeout: Timeout | float | None
    maxsize: int
    block: bool
    retries: Retry | bool | int | None
    blocksize: int
    source_address: tuple[str, int] | None
    socket_options: Sequence[tuple[int, int, int | bytes]] | None
    cert_reqs: int | str | None
    ca_certs: str | None
    ca_cert_dir: str | None
    ca_cert_data: str | bytes | None
    cert_file: str | None
    key_file: str | None
    key_password: str | None
    ssl_context: ssl.SSLContext | None
    ssl_version: int | str | None
    ssl_minimum_version: ssl.TLSVersion | None
    ssl_maximum_version: ssl.TLSVersion | None
    server_hostname: str | None
    assert_hostname: str | bool | None
    assert_fingerprint: str | None


def _taken() -> set[str]:
    """What the installed version takes. Its manager passes on any name, and looks at names with the first request."""
    return {"strict", *(name.removeprefix("key_") for name in PoolKey._fields)}


class DiscoveryPoolManager(PoolManager):
    """A `urllib3.PoolManager` that finds services by itself, and chooses an endpoint for each request.

    `discovery` is the discovery in use. In its place `namespace`, `services` and `nameservers` may be given; policies
    are given through a discovery. Managers with equal settings share one default discovery, also with wrapped sessions
    and clients. All other arguments are the arguments of `PoolManager`. `num_pools` counts services; `maxsize` and
    `block` hold for each endpoint. `retries` says how many redirects are followed; the policy of the discovery is what
    retries. With `retries=False` or 0 a request is sent once. Hosts that the discovery does not handle are served as by
    a plain manager. With `ECS_DISCOVERY_DISABLED=1` all hosts are.

    `clear()` closes the connections, and leaves the discovery open. Raises `ConfigurationError` for settings that
    cannot be used, when there is neither a namespace nor a service, and when another package has replaced urllib3.
    """

    def __init__(
        self,
        discovery: Discovery | None = None,
        *,
        namespace: str | None = None,
        services: Mapping[str, str | Sequence[str] | ServiceConfig] | None = None,
        nameservers: Sequence[str] | None = None,
        **options: Unpack[ManagerOptions],
    ) -> None:
        check_urllib3()
        check_options("DiscoveryPoolManager", Discovery, options, ManagerOptions, _taken)
        chosen = choose(
            Discovery, discovery, {"namespace": namespace, "services": services, "nameservers": nameservers}
        )
        self._settings: Settings | None = None if chosen is None else chosen.settings
        self._discovery = None if chosen is None else chosen.discovery
        self._known: dict[str, bool] = {}
        self._keys: dict[str, PoolKey] = {}  # of the pools of our origins, for as long as the pools' options are these:
        self._keys_for: dict[str, Any] = {}
        self._num_pools = options.get("num_pools", 10)
        super().__init__(**options)
        fork.track(self)

    @property
    def discovery(self) -> Discovery | None:
        """The discovery in use: the one given, or the default discovery of the settings. None if it is switched off."""
        if self._discovery is None and self._settings is not None:
            return shared_discovery(self._settings)
        return self._discovery

    def urlopen(  # type: ignore[override]
        self, method: str, url: str, redirect: bool = True, **options: Any
    ) -> BaseHTTPResponse:
        """As `PoolManager`'s."""
        options.pop(ANSWERED, None)
        found = _SIMPLE.fullmatch(url)
        if found is None or not self._owns(found[2]):
            return super().urlopen(method, url, redirect, **options)
        pool, target = self._pool_of(found[1]), found[3]
        if "headers" not in options:
            options["headers"] = self.headers
        options["assert_same_host"] = False
        response = pool.urlopen(method, target, redirect=False, **options)
        if redirect and response.get_redirect_location():
            # Where it leads to, and what is not to be sent there, is urllib3's to say.
            return super().urlopen(method, url, redirect, **options, **{ANSWERED: [response]})
        return response

    def connection_from_host(
        self,
        host: str | None,
        port: int | None = None,
        scheme: str | None = "http",
        pool_kwargs: dict[str, Any] | None = None,
    ) -> HTTPConnectionPool:
        """As `PoolManager`'s. For a handled host it is the pool of the service; a URL without a port has its own."""
        if port or not host or not self._owns(host):
            return super().connection_from_host(host, port, scheme, pool_kwargs)
        # urllib3 would fill in the scheme's port. What names none may have another port, by SRV records.
        context = self._merge_pool_kwargs(pool_kwargs)
        context.update(scheme=scheme or "http", host=host, port=None)
        return self.connection_from_context(context)

    def clear(self) -> None:
        """Close the connections; those in use close when they are free. The manager works on."""
        for pool in [self.pools.get(key) for key in list(self.pools.keys())]:
            if isinstance(pool, ServicePool):
                pool.route.close()
        super().clear()

    def after_fork(self) -> None:
        """In the child of a fork: the connections are the parent's, and a thread of the parent may hold the lock."""
        self.pools = RecentlyUsedContainer(self._num_pools)

    def _pool_of(self, origin: str) -> HTTPConnectionPool:
        """The pool of an origin of ours. urllib3 parses each URL for it, and makes a key of 29 parts."""
        if self._keys_for != self.connection_pool_kw:  # the application has changed them since
            self._keys, self._keys_for = {}, self.connection_pool_kw.copy()
        key = self._keys.get(origin)
        pool = self.pools.get(key) if key is not None else None
        if pool is None:
            pool = self.connection_from_url(origin)
            if len(self._keys) >= _KNOWN:
                self._keys = {}
            if isinstance(pool, ServicePool) and pool.key is not None:
                self._keys[origin] = pool.key
        return pool

    def connection_from_pool_key(self, pool_key: PoolKey, request_context: dict[str, Any]) -> HTTPConnectionPool:
        pool = super().connection_from_pool_key(pool_key, request_context)
        if isinstance(pool, ServicePool):
            pool.key = pool_key
        return pool

    def _owns(self, host: str) -> bool:
        settings = self._settings
        if settings is None:
            return False
        known = self._known.get(host)
        if known is None:
            if len(self._known) >= _KNOWN:
                self._known = {}
            known = self._known[host] = settings.owns(host)
        return known

    def _new_pool(
        self, scheme: str, host: str, port: int | None, request_context: dict[str, Any] | None = None
    ) -> HTTPConnectionPool:
        discovery = self.discovery
        if discovery is None or not self._owns(host):
            return super()._new_pool(scheme, host, port, request_context)  # type: ignore[arg-type]  # a plain pool has a port
        given = self.connection_pool_kw if request_context is None else request_context
        without = {"scheme", "host", "port", *(SSL_KEYWORDS if scheme == "http" else ())}
        options = {name: value for name, value in given.items() if name not in without}
        if options.get("blocksize") is None:
            options.pop("blocksize", None)
        target = host if port is None else f"{host}:{port}"
        driver = discovery._driver
        try:
            service = driver.engine.service(target, default_port(scheme))
        except DiscoveryError as error:
            raise as_class(error, class_of(error)) from error
        route = PoolRoute(driver, service, target, scheme, host, port)
        return (HttpsServicePool if scheme == "https" else HttpServicePool)(route, options)


def beside(manager: PoolManager, settings: Settings) -> DiscoveryPoolManager | None:
    """What serves our hosts in the place of a manager, made once for it; None for a manager of ours."""
    if isinstance(manager, DiscoveryPoolManager):
        return None
    found: DiscoveryPoolManager | None = vars(manager).get("_ecs_discovery")
    if found is None or found._settings is not settings:
        options: Any = {**manager.connection_pool_kw, "num_pools": getattr(manager.pools, "_maxsize", 10)}
        for name in ("_proxy", "_proxy_headers", "_proxy_config"):  # tasks are reached directly
            options.pop(name, None)
        found = DiscoveryPoolManager(shared_discovery(settings), headers=manager.headers, **options)
        vars(manager)["_ecs_discovery"] = found
    return found
