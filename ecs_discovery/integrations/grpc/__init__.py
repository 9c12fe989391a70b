"""gRPC: channels that choose an endpoint for each RPC. For asyncio see `ecs_discovery.integrations.grpc.aio`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack

from ecs_discovery.integrations._libraries import needs

with needs("grpc", "grpcio"):
    import grpc

from ecs_discovery.client.sync.discovery import Discovery
from ecs_discovery.client.sync.shared import shared_discovery
from ecs_discovery.config.settings import Policies, ServiceConfig
from ecs_discovery.errors import ConfigurationError
from ecs_discovery.events import Event
from ecs_discovery.integrations._grpc.idempotence import Idempotent
from ecs_discovery.integrations._grpc.route import default_port, our_target, plan
from ecs_discovery.integrations._grpc.sync.channel import DiscoveryChannel
from ecs_discovery.integrations._grpc.sync.route import Route
from ecs_discovery.integrations._settings import choose
from ecs_discovery.resolvers.base import Resolver

__all__ = ["insecure_channel", "secure_channel"]

Option = tuple[str, Any]


def insecure_channel(
    target: str,
    options: Sequence[Option] | None = None,
    compression: grpc.Compression | None = None,
    *,
    discovery: Discovery | None = None,
    idempotent: Idempotent | None = None,
    namespace: str | None = None,
    services: Mapping[str, str | Sequence[str] | ServiceConfig] | None = None,
    nameservers: Sequence[str] | None = None,
    resolvers: Mapping[str, Resolver] | None = None,
    on_event: Callable[[Event], object] | None = None,
    **policies: Unpack[Policies],
) -> grpc.Channel:
    """A channel without TLS that finds the endpoints of `target` (`orders:50051`) and chooses one for each RPC.

    `target`, `options` and `compression` are the arguments of `grpc.insecure_channel`. `idempotent` names the methods
    that are retried even after they were sent: a set of names, or a function of a method's name. A name is
    `/shop.Orders/Get`, or `shop.Orders` for all methods of a service. Beside these count `options(idempotent=…)` and
    protobuf's `idempotency_level`. The other arguments are the same as for `Discovery`; `discovery` takes the place of
    all of them. Channels with equal settings share one default discovery. With `resolvers` or `on_event` the channel
    has a discovery of its own. A target that the discovery does not handle gets a plain channel of gRPC's. With
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
    made = _channel(target, None, options, compression, idempotent, discovery, given)
    return made if made is not None else grpc.insecure_channel(target, options, compression)


def secure_channel(
    target: str,
    credentials: grpc.ChannelCredentials,
    options: Sequence[Option] | None = None,
    compression: grpc.Compression | None = None,
    *,
    discovery: Discovery | None = None,
    idempotent: Idempotent | None = None,
    namespace: str | None = None,
    services: Mapping[str, str | Sequence[str] | ServiceConfig] | None = None,
    nameservers: Sequence[str] | None = None,
    resolvers: Mapping[str, Resolver] | None = None,
    on_event: Callable[[Event], object] | None = None,
    **policies: Unpack[Policies],
) -> grpc.Channel:
    """As `insecure_channel`, with TLS: the certificate is verified for the service's fully qualified name, or for the
    `tls_name` of its `ServiceConfig`. `credentials` are the same as for `grpc.secure_channel`."""
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
    made = _channel(target, credentials, options, compression, idempotent, discovery, given)
    return made if made is not None else grpc.secure_channel(target, credentials, options, compression)


def _channel(
    target: str,
    credentials: grpc.ChannelCredentials | None,
    options: Sequence[Option] | None,
    compression: grpc.Compression | None,
    idempotent: Idempotent | None,
    discovery: Discovery | None,
    given: dict[str, Any],
) -> grpc.Channel | None:
    """A channel of ours; None if the target is not ours."""
    chosen = choose(Discovery, discovery, given)
    if chosen is None:
        return None
    found = chosen.discovery or shared_discovery(chosen.settings)
    driver = found._driver
    ours = our_target(chosen.settings, target, driver.engine.resolvers)
    if ours is None:
        return None
    service = driver.engine.service(ours, default_port(secure=credentials is not None))
    made = plan(driver.engine, service, ours, credentials, options, compression, idempotent)
    return DiscoveryChannel(Route(found, service, made))
