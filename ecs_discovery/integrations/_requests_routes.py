"""The route of one origin of ours, for requests: its service, and a connection pool for each endpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ecs_discovery.client.sync.driver import Driver
from ecs_discovery.core.balancing.node import Health, Node
from ecs_discovery.core.service import Service
from ecs_discovery.integrations._urllib3_pool import HttpEndpointPool, HttpsEndpointPool

__all__ = ["TLS_OPTIONS", "RequestsRoute"]

_VARIANTS = 64  # connection pools to one endpoint with different TLS options
TLS_OPTIONS = ("cert_reqs", "ca_certs", "ca_cert_dir", "cert_file", "key_file", "assert_hostname", "assert_fingerprint")
"""What distinguishes connections to one endpoint, beside an SSLContext."""
_DEFAULT_SIZE = 10  # of requests' pools: the application did not say


class RequestsRoute:
    """One origin (`http://orders:8080`) of ours: its service, and connection pools per endpoint."""

    def __init__(self, driver: Driver, service: Service, target: str, scheme: str, host: str, port: int | None) -> None:
        self.driver = driver
        self.service = service
        self.target = target
        """The name and port of the URL: another caller may have named the same service in another way first."""
        self.scheme = scheme
        self.host = host
        self.port = port
        self._generation = service.generation
        self._closed = False
        self._pools: dict[tuple[Any, ...], HttpEndpointPool] = {}
        self.verified: set[tuple[Any, ...]] = set()
        """TLS options with which an endpoint has answered: where these fail elsewhere, the endpoint is to blame."""

    def __repr__(self) -> str:
        return f"{self.scheme.upper()}ConnectionPool(host={self.host!r}, port={self.port!r})"

    def pool(self, node: Node, tls: tuple[Any, ...], options: Callable[[], dict[str, Any]]) -> HttpEndpointPool:
        """The pool of an endpoint and these TLS options, made if there is none."""
        if self._generation != self.service.generation:
            self._sweep()
        key = (node, *tls)
        pool = self._pools.get(key)
        if pool is None:
            pool = self._make(node, tls, options())
            if not self._closed:  # else a request in flight when the session was closed: kept for that request only
                pool = self._pools.setdefault(key, pool)
                if tls:
                    self._bound(node)
        return pool

    def close(self) -> None:
        """Close idle connections; connections in use close when they are free."""
        self._closed = True
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.close()

    def _sweep(self) -> None:
        """Close the idle connections of endpoints that left or went down."""
        self._generation = self.service.generation
        self._drop([key for key in list(self._pools) if key[0].removed or key[0].health is Health.DOWN])

    def _bound(self, node: Node) -> None:
        """A program that varies `verify=` without end must not keep a connection for each."""
        variants = [key for key in list(self._pools) if key[0] is node]
        self._drop(variants[:-_VARIANTS])
        if len(self.verified) > _VARIANTS:
            self.verified = set()

    def _drop(self, keys: list[tuple[Any, ...]]) -> None:
        for key in keys:
            gone = self._pools.pop(key, None)
            if gone is not None:
                gone.close()

    def _make(self, node: Node, tls: tuple[Any, ...], options: dict[str, Any]) -> HttpEndpointPool:
        policy = self.driver.engine.settings.connection
        # What the application set on its own adapter (a pool size, socket options) holds for our pools too.
        size = options.get("maxsize", _DEFAULT_SIZE)
        options = {**options, "maxsize": policy.max_idle if size == _DEFAULT_SIZE else size}
        engine = self.driver.engine
        arguments = (node.endpoint, policy, self.host, self.port)
        if self.scheme != "https":
            return HttpEndpointPool(*arguments, clock=engine.clock, rng=engine.rng, **options)
        pool = HttpsEndpointPool(
            *arguments, clock=engine.clock, rng=engine.rng, tls_name=self.service.tls_name, **options
        )
        for name, value in zip(TLS_OPTIONS, tls, strict=False):
            if value is not None:
                setattr(pool, name, value)
        return pool  # type: ignore[return-value]  # both kinds behave alike
