"""What requests' adapter is given for one request as its connection pool: it stands for all of the service."""

from __future__ import annotations

from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.response import HTTPResponse

from ecs_discovery.core.balancing.node import Node
from ecs_discovery.integrations._requests_exchange import RequestsExchange
from ecs_discovery.integrations._urllib3_routes import PoolRoute

__all__ = ["ServicePool"]

_TLS_OPTIONS = (
    "cert_reqs",
    "ca_certs",
    "ca_cert_dir",
    "cert_file",
    "key_file",
    "assert_hostname",
    "assert_fingerprint",
)
"""What distinguishes connections to one endpoint, beside an SSLContext."""
_DEFAULT_SIZE = 10  # of requests' pools: the application did not say


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
        route: PoolRoute,
        request: requests.PreparedRequest,
        stream: bool,
        adapter: HTTPAdapter,
        tls: dict[str, Any] | None,
        pinned: Node | None = None,
    ) -> None:
        self.route = route
        self.request = request
        self.reads_body = not stream
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
        headers: Any = None,
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
        if "Proxy-Authorization" in headers:
            headers = headers.copy()  # requests adds it for a proxy of the environment: no task may see it
            del headers["Proxy-Authorization"]
        return RequestsExchange(self, method, url, body, headers, timeout, options).run()

    def tls(self) -> tuple[Any, ...] | None:
        """What distinguishes connections to one endpoint; None without TLS."""
        if self._tls is None:
            return None
        context = self._tls.get("ssl_context")
        return (*(getattr(self, name) for name in _TLS_OPTIONS), id(context) if context is not None else None)

    def options(self) -> dict[str, Any]:
        """What urllib3's pools are made with: what the application set on its own adapter holds."""
        manager = getattr(self._adapter, "poolmanager", None)
        options = {**getattr(manager, "connection_pool_kw", {}), **(self._tls or {})}
        if options.get("maxsize") == _DEFAULT_SIZE:
            del options["maxsize"]
        options.pop("server_hostname", None)  # the names of our services are known
        if self._tls is not None:  # what the adapter has set on this object, as it does on a pool of urllib3's
            given = ((name, getattr(self, name)) for name in _TLS_OPTIONS)
            options |= {name: value for name, value in given if value is not None}
        return options
