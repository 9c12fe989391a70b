"""gRPC for asyncio: channels of `grpc.aio` that choose an endpoint for each RPC."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack

import grpc
import grpc.aio

from ecs_discovery.client.aio.discovery import AsyncDiscovery
from ecs_discovery.client.aio.shared import shared_async_discovery
from ecs_discovery.client.sync.discovery import Discovery
from ecs_discovery.config.settings import Policies, ServiceConfig
from ecs_discovery.errors import ConfigurationError
from ecs_discovery.events import Event
from ecs_discovery.integrations._grpc.aio.channel import AsyncDiscoveryChannel
from ecs_discovery.integrations._grpc.aio.route import AsyncRoute
from ecs_discovery.integrations._grpc.idempotence import Idempotent
from ecs_discovery.integrations._grpc.route import default_port, our_target, plan
from ecs_discovery.integrations._settings import choose
from ecs_discovery.resolvers.base import AsyncResolver, Resolver

__all__ = ["insecure_channel", "secure_channel"]

Option = tuple[str, Any]


def insecure_channel(
    target: str,
    options: Sequence[Option] | None = None,
    compression: grpc.Compression | None = None,
    interceptors: Sequence[grpc.aio.ClientInterceptor] | None = None,
    *,
    discovery: AsyncDiscovery | Discovery | None = None,
    idempotent: Idempotent | None = None,
    namespace: str | None = None,
    services: Mapping[str, str | Sequence[str] | ServiceConfig] | None = None,
    nameservers: Sequence[str] | None = None,
    resolvers: Mapping[str, AsyncResolver | Resolver] | None = None,
    on_event: Callable[[Event], object] | None = None,
    **policies: Unpack[Policies],
) -> grpc.aio.Channel:
    """A channel without TLS that finds the endpoints of `target` (`orders:50051`) and chooses one for each RPC.

    `target`, `options`, `compression` and `interceptors` are the arguments of `grpc.aio.insecure_channel`. Interceptors
    see each attempt. `idempotent` names the methods that are retried even after they were sent: a set of names, or a
    function of a method's name. A name is `/shop.Orders/Get`, or `shop.Orders` for all methods of a service. Beside
    these count `options(idempotent=…)` and protobuf's `idempotency_level`. The other arguments are the same as for
    `AsyncDiscovery`. `discovery` takes the place of all of them, and may be a `Discovery`, whose state it then shares.
    Channels with equal settings share one default discovery. With `resolvers` or `on_event` the channel has a discovery
    of its own. A target that the discovery does not handle gets a plain channel of gRPC's. With
    `ECS_DISCOVERY_DISABLED=1` every target gets a plain channel.

    Closing the channel leaves the discovery open. Raises `ConfigurationError` for what cannot be used, and where there
    is neither a namespace nor a service.
    """
    given = {
        "namespace": namespace,
        "services": services,
        "nameservers": nameservers,
        "resolvers": resolvers,
        "on_event": on_event,
        **policies,
    }
    made = _channel(target, None, options, compression, interceptors, idempotent, discovery, given)
    return made if made is not None else grpc.aio.insecure_channel(target, options, compression, interceptors)


def secure_channel(
    target: str,
    credentials: grpc.ChannelCredentials,
    options: Sequence[Option] | None = None,
    compression: grpc.Compression | None = None,
    interceptors: Sequence[grpc.aio.ClientInterceptor] | None = None,
    *,
    discovery: AsyncDiscovery | Discovery | None = None,
    idempotent: Idempotent | None = None,
    namespace: str | None = None,
    services: Mapping[str, str | Sequence[str] | ServiceConfig] | None = None,
    nameservers: Sequence[str] | None = None,
    resolvers: Mapping[str, AsyncResolver | Resolver] | None = None,
    on_event: Callable[[Event], object] | None = None,
    **policies: Unpack[Policies],
) -> grpc.aio.Channel:
    """As `insecure_channel`, with TLS: the certificate is verified for the service's fully qualified name, or for the
    `tls_name` of its `ServiceConfig`. `credentials` are the same as for `grpc.aio.secure_channel`."""
    given = {
        "namespace": namespace,
        "services": services,
        "nameservers": nameservers,
        "resolvers": resolvers,
        "on_event": on_event,
        **policies,
    }
    if not isinstance(credentials, grpc.ChannelCredentials):
        raise ConfigurationError("credentials", credentials, "grpc.ChannelCredentials: grpc.ssl_channel_credentials()")
    made = _channel(target, credentials, options, compression, interceptors, idempotent, discovery, given)
    return (
        made if made is not None else grpc.aio.secure_channel(target, credentials, options, compression, interceptors)
    )


def _channel(
    target: str,
    credentials: grpc.ChannelCredentials | None,
    options: Sequence[Option] | None,
    compression: grpc.Compression | None,
    interceptors: Sequence[grpc.aio.ClientInterceptor] | None,
    idempotent: Idempotent | None,
    discovery: AsyncDiscovery | Discovery | None,
    given: dict[str, Any],
) -> grpc.aio.Channel | None:
    """A channel of ours; None if the target is not ours."""
    if isinstance(discovery, Discovery):
        discovery = AsyncDiscovery(share=discovery)
    chosen = choose(AsyncDiscovery, discovery, given)
    if chosen is None:
        return None
    found = chosen.discovery or shared_async_discovery(chosen.settings)
    driver = found._driver
    ours = our_target(chosen.settings, target, driver.engine.resolvers)
    if ours is None:
        return None
    service = driver.engine.service(ours, default_port(secure=credentials is not None))
    made = plan(driver.engine, service, ours, credentials, options, compression, idempotent, interceptors or ())
    return AsyncDiscoveryChannel(AsyncRoute(found, service, made))
