"""TLS: the name that a certificate is verified for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecs_discovery.core.service import Service
from ecs_discovery.errors import (
    ConfigurationError,
)

if TYPE_CHECKING:
    import ssl

__all__ = ["default_context", "verified_name"]


def default_context() -> ssl.SSLContext:
    """What `ssl=True` means: the system's authorities, and the name verified."""
    import ssl  # most programs get it from their client library, some never need it

    return ssl.create_default_context()


def verified_name(context: ssl.SSLContext | None, given: str | None, service: Service) -> str | None:
    """The name that a TLS connection is to be verified for. Raises `ConfigurationError` if it needs one."""
    name = given or service.tls_name or None
    if name is None and context is not None and context.check_hostname:
        raise ConfigurationError("server_hostname", given, f"the name in the certificate: {service.target} has no name")
    return name if context is not None else None
