"""What a channel of ours is for: its target, the options of the channels to its endpoints, its idempotent methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import grpc

from ecs_discovery.client.engine import Engine
from ecs_discovery.config.settings import Settings
from ecs_discovery.config.targets import parse_target
from ecs_discovery.core.service import Service
from ecs_discovery.errors import ConfigurationError
from ecs_discovery.integrations._grpc.idempotence import Idempotent, Methods
from ecs_discovery.models import Endpoint

__all__ = ["Plan", "address_of", "arguments_of", "default_port", "our_target", "plan"]

Option = tuple[str, Any]
_LEAST_CONNECT, _LONGEST_CONNECT = 100, 1000  # milliseconds
_OURS = ("srv", "cloudmap", "static")


class Plan(NamedTuple):
    """How the channel to each endpoint is made."""

    target: str
    credentials: grpc.ChannelCredentials | None
    options: tuple[Option, ...]
    compression: grpc.Compression | None
    interceptors: tuple[Any, ...]
    methods: Methods


def plan(
    engine: Engine,
    service: Service,
    target: str,
    credentials: grpc.ChannelCredentials | None,
    options: Sequence[Option] | None,
    compression: grpc.Compression | None,
    idempotent: Idempotent | None,
    interceptors: Sequence[Any] = (),
) -> Plan:
    """The plan of a channel. Raises `ConfigurationError` for options that are none."""
    given = _checked(options)
    names = {name for name, _ in given}
    share = int(service.timeout.connect * 250)  # a quarter: three attempts and what lies between them
    connect = max(_LEAST_CONNECT, min(_LONGEST_CONNECT, share))
    ours: dict[str, Any] = {
        # This is the limit on connecting, too. The pauses between are ours to decide, by setting an endpoint aside.
        "grpc.initial_reconnect_backoff_ms": _LEAST_CONNECT,
        "grpc.min_reconnect_backoff_ms": connect,
        "grpc.max_reconnect_backoff_ms": _LONGEST_CONNECT,
    }
    authority = _authority(engine.settings, service, target, secure=credentials is not None)
    if authority and "grpc.ssl_target_name_override" not in names:  # the two would contradict each other
        ours["grpc.default_authority"] = authority
    made = tuple((name, value) for name, value in ours.items() if name not in names)
    return Plan(target, credentials, (*made, *given), compression, tuple(interceptors), Methods(idempotent))


def our_target(settings: Settings, target: Any, known: Mapping[str, Any] | None) -> str | None:
    """The target as discovery knows it; None if it is not ours. Raises `ConfigurationError` for what is no target.

    gRPC's own form `dns:///orders:50051` is understood. `known` are the registered resolvers.
    """
    if not isinstance(target, str) or not target.strip():
        raise ConfigurationError("target", target, "a string such as 'orders:50051' or 'srv://orders.prod.local'")
    scheme, colon, _ = target.partition("://")
    if colon and (scheme.lower() in _OURS or scheme.lower() in (known or {})):
        return target
    name = target
    if target.startswith("dns:"):
        name = target.removeprefix("dns:").removeprefix("///")
        if name.startswith("//"):  # `dns://server/name` of gRPC's names a server; `dns://name` is a target of ours
            if "/" in name[2:] or not settings.owns(_host(name[2:])):
                return None
            return target
    if "/" in name or not settings.owns(_host(name)):
        return None
    parse_target(name)
    return name


def default_port(*, secure: bool) -> int | None:
    """The port of a target that names none, where no SRV record does either. gRPC takes 443. Without TLS
    that is hardly what is meant, and there is no default."""
    return 443 if secure else None


def address_of(endpoint: Endpoint) -> str:
    """An endpoint as gRPC names it."""
    host = endpoint.host
    return f"ipv6:[{host}]:{endpoint.port}" if ":" in host else f"ipv4:{host}:{endpoint.port}"


def arguments_of(
    request_serializer: Any = None, response_deserializer: Any = None, *args: Any, **more: Any
) -> dict[str, Any]:
    """Arguments for the methods of gRPC's own channels; generated code passes `_registered_method` from 1.63 on."""
    if args:
        more = {"_registered_method": args[0], **more}
    return {"request_serializer": request_serializer, "response_deserializer": response_deserializer, **more}


def _host(name: str) -> str:
    host, colon, port = name.rpartition(":")
    return host if colon and port.isdigit() else name


def _authority(settings: Settings, service: Service, target: str, *, secure: bool) -> str:
    parsed = parse_target(target)
    port = f":{parsed.port}" if parsed.port else ""
    name = parsed.name if parsed.scheme in ("auto", "dns", "srv") else service.tls_name
    if secure:
        name = service.tls_name  # the certificate's
    return f"{name}{port}" if name else ""


def _checked(options: Any) -> tuple[Option, ...]:
    if options is None:
        return ()
    allowed = "pairs of a name and a value: [('grpc.max_receive_message_length', 1000000)]"
    if isinstance(options, (str, bytes)):
        raise ConfigurationError("options", options, allowed)
    try:
        pairs = tuple(options)
    except TypeError:
        raise ConfigurationError("options", options, allowed) from None
    for pair in pairs:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not isinstance(pair[0], str):
            raise ConfigurationError("options", pair, allowed)
    return tuple((name, value) for name, value in pairs)
