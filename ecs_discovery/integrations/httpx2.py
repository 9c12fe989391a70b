"""httpx2: `wrap_client` for clients, and transports for `transport=` and `mounts=`."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Any, TypedDict, Unpack

from ecs_discovery.integrations._libraries import needs

with needs("httpx2"):
    import httpx2

from ecs_discovery.client.aio.discovery import AsyncDiscovery
from ecs_discovery.client.sync.discovery import Discovery
from ecs_discovery.integrations._httpx.aio.transport import AsyncTransport
from ecs_discovery.integrations._httpx.clients import unwrap_client, wrap_client
from ecs_discovery.integrations._httpx.library import library
from ecs_discovery.integrations._httpx.options import choose_transport
from ecs_discovery.integrations._httpx.sync.transport import Transport

__all__ = ["AsyncDiscoveryTransport", "DiscoveryTransport", "unwrap_client", "wrap_client"]


class TransportOptions(TypedDict, total=False):
    """What httpx2's own transports take."""

    verify: ssl.SSLContext | str | bool
    cert: str | tuple[str, str] | tuple[str, str, str] | None
    trust_env: bool
    http1: bool
    http2: bool
    limits: httpx2.Limits
    local_address: str | None
    retries: int
    socket_options: Iterable[Any] | None


class DiscoveryTransport(Transport, httpx2.BaseTransport):
    """Sends requests to handled hosts by discovery: `httpx2.Client(transport=DiscoveryTransport(discovery))`.

    Other hosts go through `transport`, by default an `httpx2.HTTPTransport` made with the other arguments. Its
    `verify`, `cert`, `http1`, `http2`, `limits`, `local_address` and `socket_options` hold for our hosts too. The
    limits count for each endpoint. A client that is given a transport reads no proxies from the environment: use
    `mounts=` or `wrap_client` to keep them for other hosts.

    Closing it closes its connections. The discovery stays open. Raises `ConfigurationError` for what is no `Discovery`.
    """

    def __init__(
        self,
        discovery: Discovery,
        *,
        transport: httpx2.BaseTransport | None = None,
        **options: Unpack[TransportOptions],
    ) -> None:
        chosen = choose_transport(Discovery, discovery, transport, options, httpx2.HTTPTransport)
        super().__init__(library("httpx2"), discovery.settings, discovery, chosen)


class AsyncDiscoveryTransport(AsyncTransport, httpx2.AsyncBaseTransport):
    """As `DiscoveryTransport`, for `httpx2.AsyncClient` under asyncio.

    It takes an `AsyncDiscovery`, or a `Discovery` whose state it shares. Other hosts go through `transport`, by default
    an `httpx2.AsyncHTTPTransport`.
    """

    def __init__(
        self,
        discovery: AsyncDiscovery | Discovery,
        *,
        transport: httpx2.AsyncBaseTransport | None = None,
        **options: Unpack[TransportOptions],
    ) -> None:
        if isinstance(discovery, Discovery):
            discovery = AsyncDiscovery(share=discovery)
        chosen = choose_transport(AsyncDiscovery, discovery, transport, options, httpx2.AsyncHTTPTransport)
        super().__init__(library("httpx2"), discovery.settings, discovery, chosen)
