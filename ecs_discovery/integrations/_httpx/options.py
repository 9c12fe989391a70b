"""What an application wants of its connections, read off a transport of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ecs_discovery.errors import ConfigurationError
from ecs_discovery.integrations._httpx.library import Library

__all__ = ["PoolOptions", "choose_transport", "default_options", "options_of"]

_DEFAULT_CONNECTIONS = 100
_DEFAULT_IDLE = 20  # as the expiry
_DEFAULT_EXPIRY = 5.0  # seconds: httpx's, where the application did not say


class PoolOptions(NamedTuple):
    """How the connections to each endpoint are made. The limits hold for each endpoint."""

    ssl_context: Any
    http1: bool
    http2: bool
    max_connections: int
    max_idle: int | None
    """None where the application did not say."""
    keepalive_expiry: float | None
    local_address: str | None
    socket_options: Any


def options_of(transport: Any) -> PoolOptions | None:
    """The options of a transport of the library's own; None if it is of another kind, or leads to a Unix socket."""
    # Of a private attribute, as the library shows them nowhere else. All are there from its oldest version that is
    # supported to the newest.
    pool = getattr(transport, "_pool", None)
    if pool is None or getattr(pool, "_uds", None) is not None:
        return None
    expiry = pool._keepalive_expiry
    return PoolOptions(
        pool._ssl_context,
        pool._http1,
        pool._http2,
        pool._max_connections,
        None if pool._max_keepalive_connections == _DEFAULT_IDLE else pool._max_keepalive_connections,
        None if expiry == _DEFAULT_EXPIRY else expiry,
        getattr(pool, "_local_address", None),
        getattr(pool, "_socket_options", None),
    )


def default_options(library: Library) -> PoolOptions:
    """The options where the application's transport shows none."""
    return PoolOptions(library.client.create_ssl_context(), True, False, _DEFAULT_CONNECTIONS, None, None, None, None)


def choose_transport(kind: type[Any], discovery: object, transport: Any, options: Mapping[str, Any], own: Any) -> Any:
    """The transport for other hosts: the one given, or the library's `own` with these options.

    Raises `ConfigurationError` where `discovery` is of another kind, and where both are given.
    """
    if not isinstance(discovery, kind):
        raise ConfigurationError("discovery", discovery, f"a {kind.__name__}")
    if transport is None:
        return own(**options)
    if options:
        raise ConfigurationError("transport", sorted(options), "either transport= or the options of one")
    return transport
