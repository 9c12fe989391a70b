"""What requests' adapter is given for one request as its connection pool: it stands for all of the service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.response import HTTPResponse

from ecs_discovery.core.balancing.node import Node
from ecs_discovery.integrations._requests_exchange import RequestsExchange
from ecs_discovery.integrations._requests_routes import TLS_OPTIONS, RequestsRoute

__all__ = ["ServicePool"]


class ServicePool:
    """What requests' adapter is given for one request as its connection pool: it stands for all of the service."""

    cert_reqs: Any = None
    ca_certs: Any = None
    ca_cert_dir: Any = None
    cert_file: Any = None
    key_file: Any = None
    assert_hostname: Any = None
    assert_fingerprint: Any = None
    proxy: Any = None
    num_connections = num_requests = 0
    """Adapters look at these of a pool; this one is of a single request."""

    def __init__(
        self,
        route: RequestsRoute,
        request: requests.PreparedRequest,
        stream: bool,
        adapter: HTTPAdapter,
        tls: dict[str, Any] | None,
        pinned: Node | None = None,
    ) -> None:
        self.route = route
        self.request = request
        self.stream = stream
        self.pinned = pinned
        self.host = route.host
        self.port = route.port
        self.may_hand_over = False
        """The body may reach requests without being read from the response."""
        self._adapter = adapter
        self._tls = tls

    def __repr__(self) -> str:
        return repr(self.route)

    def urlopen(
        self,
        method: str,
        url: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        retries: Any = None,
        redirect: bool = False,
        assert_same_host: bool = False,
        timeout: Any = None,
        **options: Any,
    ) -> HTTPResponse:
        """Send the request to an endpoint of the service, and to others where that is harmless and may help.

        `retries` is not used: there is one retry layer only. Raises urllib3's errors; on an error of ours
        `ecs_discovery` tells the whole story.
        """
        return RequestsExchange(self, method, url, body, headers, timeout, options).run()

    def tls(self) -> tuple[Any, ...]:
        """What distinguishes connections to one endpoint."""
        if self._tls is None:
            return ()
        context = self._tls.get("ssl_context")
        return (*(getattr(self, name) for name in TLS_OPTIONS), id(context) if context is not None else None)

    def options(self) -> dict[str, Any]:
        """What urllib3's pools are made with: what the application set on its own adapter holds."""
        manager = getattr(self._adapter, "poolmanager", None)
        return {**getattr(manager, "connection_pool_kw", {}), **(self._tls or {})}
