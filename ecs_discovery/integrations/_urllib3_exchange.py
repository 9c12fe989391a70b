"""One request over its attempts, sent by urllib3's pools: what all that build on urllib3 have in common.

It speaks urllib3's language: its responses, its timeouts, its errors.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any, Generic, Protocol, TypeVar

import urllib3
from urllib3 import HTTPHeaderDict
from urllib3.exceptions import HTTPError, MaxRetryError
from urllib3.response import HTTPResponse
from urllib3.util import Retry, Timeout

from ecs_discovery.client.sync import race
from ecs_discovery.core.balancing.node import Node
from ecs_discovery.core.lease import Lease
from ecs_discovery.errors import ConfigurationError
from ecs_discovery.integrations._urllib3_pool import PoolUse, UseTimeout
from ecs_discovery.integrations._urllib3_routes import PoolRoute
from ecs_discovery.integrations._urllib3_table import TABLE
from ecs_discovery.integrations.http.endpoint_pools import Overtaken
from ecs_discovery.integrations.http.exchange import add_fields
from ecs_discovery.integrations.http.liveness import Suspicion
from ecs_discovery.integrations.http.sync import SyncExchange
from ecs_discovery.integrations.http.timeouts import read_limit
from ecs_discovery.runtime.sockets import AbortHandle, Tuning

__all__ = ["PoolExchange", "ServicePool", "check_urllib3", "parts_of", "raw_error"]

_NO_RETRIES = Retry(0, read=False)  # one retry layer only, and its errors look as they always do


class ServicePool(Protocol):
    """What a library has in the place of a urllib3 pool, for all of a service."""

    route: PoolRoute
    pinned: Node | None
    """The endpoint that the first attempt prefers."""
    reads_body: bool
    """A library above urllib3 would read the body after the attempt: it is read within."""

    def tls(self) -> object:
        """What distinguishes connections to one endpoint; None without TLS."""

    def options(self) -> dict[str, Any]:
        """What urllib3's pools are made with."""


P = TypeVar("P", bound=ServicePool)


class PoolExchange(SyncExchange[HTTPResponse, PoolUse], Generic[P]):
    """One request over all its attempts. `options` go to urllib3's `urlopen`."""

    __slots__ = (
        "_aborts",
        "_body",
        "_headers",
        "_options",
        "_suspicion",
        "_url",
        "_variant",
        "connect",
        "pool",
        "read",
        "route",
    )

    table = TABLE

    def __init__(
        self, pool: P, method: str, url: str, body: Any, headers: Any, timeout: Any, options: dict[str, Any]
    ) -> None:
        route = pool.route
        SyncExchange.__init__(self, route.driver, route.service, route.target, method, pool.pinned)
        self.connect, self.read = parts_of(timeout)
        self.pool = pool
        self.route = route
        self._variant = pool.tls()
        self._url = url
        self._body = body
        self._headers = headers
        self._options = options
        self._aborts: tuple[AbortHandle, ...] = ()
        self._suspicion: Suspicion | None = None

    # Sending

    def make_use(self, lease: Lease) -> PoolUse:
        use = PoolUse(lease, self.idempotent and self.replayable(), self.connect, self)
        call = self._call
        if call is not None and (call.hard or self.service.hedging is not None):
            use.abort = AbortHandle()
            self._aborts = (*self._aborts[-1:], use.abort)  # two may be in flight
        return use

    def send(self, use: PoolUse) -> HTTPResponse:
        try:
            try:
                response = self._send(use)
            except Overtaken:
                response = self._send(use)
            if self.pool.reads_body:
                self.read_body(response, use)
            # No body, or the answer of a mock; else the pool ends the use when the body was read.
            use.done = getattr(response, "connection", None) is None
            return response
        finally:
            if use.connected is not None:
                use.connected.close()  # the winner's pool had an idle connection

    def _send(self, use: PoolUse) -> HTTPResponse:
        deadline_at = self.deadline_at()
        read = self.read if deadline_at is None else read_limit(self.read, deadline_at, self.engine.clock())
        node, variant = use.lease.node, self._variant
        pool = self.route.pools.find(node, variant)
        if pool is None:
            pool = self.route.make(node, variant, self.pool.options())
        options = self._options
        if pool.block:  # its callers wait for a connection
            limit, given = self.connect_limit(), options.get("pool_timeout")
            if given is not None:  # for all attempts together
                limit = min(limit, max(0.0, given - (self.engine.clock() - self._started_at)))
            options = {**options, "pool_timeout": limit}
        return pool.urlopen(  # type: ignore[return-value]
            self.method,
            self._url,
            self._body,
            self._headers if use.headers is None else use.headers,
            _NO_RETRIES,
            False,
            False,
            UseTimeout(read, use),
            **options,
        )

    def read_body(self, response: HTTPResponse, use: PoolUse) -> None:
        """Read the body of an answer, where `reads_body` of the pool says so."""

    def ended(self, use: PoolUse) -> None:
        use.connector = None  # else the two would keep each other until the collector comes

    def connect_socket(self, lease: Lease, tuning: Tuning | None) -> socket.socket:
        """A connected socket; `lease` is then of the endpoint that it leads to. Raises OSError."""
        return race.connect(self.driver.background, self.call, lease, tuning)

    def suspicion(self) -> Suspicion:
        """What the request may do about a host that may be gone."""
        if self._suspicion is None:
            self._suspicion = Suspicion(self)
        return self._suspicion

    def cut(self) -> None:
        for abort in self._aborts:
            abort.cut()

    def cut_attempt(self, use: PoolUse) -> None:
        if use.abort is not None:
            use.abort.cut()

    def url(self) -> str:
        pool: Any = self.pool
        return f"{pool.scheme}://{pool.host}:{pool.port}{self._url}"

    def carry(self, fields: Mapping[str, str], added: set[str], use: PoolUse) -> None:
        if fields:
            use.headers = HTTPHeaderDict(self._headers or {})  # the application keeps its own
            add_fields(fields, use.headers, set())

    # The answer

    def status(self, response: HTTPResponse) -> int:
        return response.status

    def field(self, response: HTTPResponse, name: str) -> str | None:
        return response.headers.get(name)

    def discard(self, response: HTTPResponse) -> None:
        # What was read has given its connection back; the rest is closed.
        response.close()
        response.release_conn()  # closed, it goes back to its pool: the use of the endpoint ends there

    # Errors

    @property
    def verified(self) -> bool:  # type: ignore[override]
        return self._variant in self.route.verified

    def is_of_connection(self, error: Exception) -> bool:
        return isinstance(error, (HTTPError, OSError))


def check_urllib3() -> None:
    """Raises `ConfigurationError` where another package has taken the place of urllib3."""
    if hasattr(urllib3, "AsyncPoolManager"):
        raise ConfigurationError("urllib3", urllib3, "urllib3 2.x; uninstall urllib3-future and niquests")


def raw_error(error: Exception) -> Exception:
    """What went wrong, out of the error that says that no retry is left."""
    return error.reason if isinstance(error, MaxRetryError) and error.reason is not None else error


def parts_of(timeout: Any) -> tuple[Any, Any]:
    """urllib3's timeout as connect and read parts; None where it says nothing."""
    if not isinstance(timeout, Timeout):
        return timeout, timeout
    connect, read, total = timeout._connect, timeout._read, timeout.total
    # urllib3 says "the default" by an object of its own.
    connect = connect if isinstance(connect, (int, float)) else None
    read = read if isinstance(read, (int, float)) else None
    if not isinstance(total, (int, float)):
        return connect, read
    return min(total, connect or total), min(total, read or total)
