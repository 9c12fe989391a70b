"""urllib3: `DiscoveryPoolManager` is a `PoolManager` whose pools lead to the endpoints of our services."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, Unpack

from urllib3 import HTTPConnectionPool, PoolManager
from urllib3._collections import RecentlyUsedContainer
from urllib3.poolmanager import SSL_KEYWORDS
from urllib3.util import Retry, Timeout

from ecs_discovery.client.sync.discovery import Discovery
from ecs_discovery.client.sync.shared import shared_discovery
from ecs_discovery.config.settings import ServiceConfig, Settings
from ecs_discovery.errors import DiscoveryError
from ecs_discovery.integrations._settings import choose
from ecs_discovery.integrations._urllib3_exchange import check_urllib3
from ecs_discovery.integrations._urllib3_manager import HttpServicePool, HttpsServicePool, ServicePool, class_of
from ecs_discovery.integrations._urllib3_routes import PoolRoute
from ecs_discovery.integrations.http.errors import as_class
from ecs_discovery.integrations.http.origins import default_port
from ecs_discovery.runtime import fork

__all__ = ["DiscoveryPoolManager"]

_KNOWN = 1000  # hosts of which it is remembered whether they are ours


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


class DiscoveryPoolManager(PoolManager):
    """A `urllib3.PoolManager` that finds services by itself, and chooses an endpoint for each request.

    `discovery` is the discovery in use. In its place `namespace`, `services` and `nameservers` may be given; policies
    are given through a discovery. Managers with equal settings share one default discovery, and so do wrapped sessions
    and clients. All other arguments are those of `PoolManager`. `num_pools` counts services; `maxsize` and `block` hold
    for each endpoint. `retries` says how many redirects are followed; the policy of the discovery is what retries.
    With `retries=False` or 0 a request is sent once. Hosts that are not ours are served as by a plain manager, and so
    are all hosts with `ECS_DISCOVERY_DISABLED=1`.

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
        chosen = choose(
            Discovery, discovery, {"namespace": namespace, "services": services, "nameservers": nameservers}
        )
        self._settings: Settings | None = None if chosen is None else chosen.settings
        self._discovery = None if chosen is None else chosen.discovery
        self._known: dict[str, bool] = {}
        self._num_pools = options.get("num_pools", 10)
        super().__init__(**options)
        fork.track(self)

    @property
    def discovery(self) -> Discovery | None:
        """The discovery in use: the one given, or the default discovery of the settings. None if it is switched off."""
        if self._discovery is None and self._settings is not None:
            return shared_discovery(self._settings)
        return self._discovery

    def connection_from_host(
        self,
        host: str | None,
        port: int | None = None,
        scheme: str | None = "http",
        pool_kwargs: dict[str, Any] | None = None,
    ) -> HTTPConnectionPool:
        """As `PoolManager`'s. For a host of ours it is the pool of the service; a URL without a port has its own."""
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
        """In the child of a fork: the connections are the parent's, and so is whoever holds the lock."""
        self.pools = RecentlyUsedContainer(self._num_pools)

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
