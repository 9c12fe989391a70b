"""What `aiohttp.ClientSession` and `aiohttp.TCPConnector` take, for editors and type checkers."""

from __future__ import annotations

import asyncio
import socket
import ssl as ssl_module
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypedDict

from aiohttp import (
    BaseConnector,
    BasicAuth,
    ClientMiddlewareType,
    ClientRequest,
    ClientResponse,
    ClientTimeout,
    ClientWebSocketResponse,
    Fingerprint,
    HttpVersion,
    TraceConfig,
)
from aiohttp.abc import AbstractCookieJar, AbstractResolver
from yarl import URL

__all__ = ["ConnectorOptions", "SessionOptions"]


class SessionOptions(TypedDict, total=False):
    """The arguments of `aiohttp.ClientSession`."""

    base_url: str | URL | None
    connector: BaseConnector | None
    loop: asyncio.AbstractEventLoop | None
    cookies: Any
    headers: Any
    proxy: str | URL | None
    proxy_auth: BasicAuth | None
    skip_auto_headers: Iterable[str] | None
    auth: BasicAuth | None
    json_serialize: Callable[[Any], str]
    json_serialize_bytes: Callable[[Any], bytes] | None
    request_class: type[ClientRequest]
    response_class: type[ClientResponse]
    ws_response_class: type[ClientWebSocketResponse[Any]]
    version: HttpVersion
    cookie_jar: AbstractCookieJar | None
    connector_owner: bool
    raise_for_status: bool | Callable[[ClientResponse], Awaitable[None]]
    timeout: ClientTimeout | None
    auto_decompress: bool
    trust_env: bool
    requote_redirect_url: bool
    trace_configs: list[TraceConfig] | None
    read_bufsize: int
    max_line_size: int
    max_field_size: int
    max_headers: int
    fallback_charset_resolver: Callable[[ClientResponse, bytes], str]
    middlewares: Sequence[ClientMiddlewareType]
    ssl_shutdown_timeout: float | None


class ConnectorOptions(TypedDict, total=False):
    """The arguments of `aiohttp.TCPConnector`."""

    verify_ssl: bool
    fingerprint: bytes | None
    use_dns_cache: bool
    ttl_dns_cache: int | None
    dns_cache_max_size: int
    family: socket.AddressFamily
    ssl_context: ssl_module.SSLContext | None
    ssl: bool | Fingerprint | ssl_module.SSLContext
    local_addr: tuple[str, int] | None
    resolver: AbstractResolver | None
    keepalive_timeout: float | None
    force_close: bool
    limit: int
    limit_per_host: int
    enable_cleanup_closed: bool
    loop: asyncio.AbstractEventLoop | None
    timeout_ceil_threshold: float
    happy_eyeballs_delay: float | None
    interleave: int | None
    socket_factory: Callable[[Any], socket.socket] | None
    ssl_shutdown_timeout: float | None
