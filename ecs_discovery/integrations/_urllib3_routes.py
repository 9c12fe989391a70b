"""The route of one origin of ours, for what builds on urllib3: its service, and a connection pool for each endpoint."""

from __future__ import annotations

from typing import Any

from ecs_discovery.client.sync.driver import Driver
from ecs_discovery.core.balancing.node import Node
from ecs_discovery.core.service import Service
from ecs_discovery.integrations._urllib3_pool import EndpointPool, HttpEndpointPool, HttpsEndpointPool
from ecs_discovery.integrations.http.endpoint_pools import EndpointPools

__all__ = ["PoolRoute"]

_VARIANTS = 64  # of TLS options that are known to be accepted


class PoolRoute:
    """One origin (`http://orders:8080`) of ours: its service, and connection pools per endpoint."""

    def __init__(self, driver: Driver, service: Service, target: str, scheme: str, host: str, port: int | None) -> None:
        self.driver = driver
        self.service = service
        self.target = target
        """The name and port of the URL: another caller may have named the same service in another way first."""
        self.scheme = scheme
        self.host = host
        self.port = port
        self.verified: set[object] = set()
        """TLS options with which an endpoint has answered: where these fail elsewhere, the endpoint is to blame."""
        self.pools: EndpointPools[HttpEndpointPool] = EndpointPools(service, _retire)
        """The pools of its endpoints, one for each way to verify them."""

    def __repr__(self) -> str:
        return f"{self.scheme.upper()}ConnectionPool(host={self.host!r}, port={self.port!r})"

    def make(self, node: Node, variant: object, options: dict[str, Any]) -> HttpEndpointPool:
        """The pool of an endpoint, made if there is none. `options` are those of urllib3's pools."""
        return self.pools.get(node, variant, lambda: self._make(node, options))

    def close(self) -> None:
        """Close idle connections; connections in use close when they are free."""
        self.pools.close()

    def forget(self) -> None:
        """In the child of a fork: the connections are the parent's."""
        self.pools = EndpointPools(self.service, _retire)

    def _make(self, node: Node, options: dict[str, Any]) -> HttpEndpointPool:
        if len(self.verified) > _VARIANTS:
            self.verified = set()
        engine = self.driver.engine
        policy = engine.settings.connection
        # What the application wants of its pools (a size, socket options) holds for our pools too.
        options.setdefault("maxsize", policy.max_idle)
        name = options.pop("server_hostname", None) or self.service.tls_name
        arguments = (node.endpoint, policy, self.host, self.port)
        if self.scheme != "https":
            return HttpEndpointPool(*arguments, clock=engine.clock, rng=engine.rng, **options)
        return HttpsEndpointPool(*arguments, clock=engine.clock, rng=engine.rng, tls_name=name, **options)  # type: ignore[return-value]  # both kinds behave alike


def _retire(pool: EndpointPool) -> None:
    if pool.num_connections:  # a pool without any is for one request; its connection ends with it
        pool.close()
