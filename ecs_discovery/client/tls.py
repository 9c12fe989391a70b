"""TLS: the name that a certificate is verified for."""

from __future__ import annotations

import ssl

from ecs_discovery.core.service import Service
from ecs_discovery.errors import (
    ConfigurationError,
)

__all__ = ["verified_name"]


def verified_name(context: ssl.SSLContext | None, given: str | None, service: Service) -> str | None:
    """The name that a TLS connection is to be verified for. Raises `ConfigurationError` if it needs one."""
    name = given or service.tls_name or None
    if name is None and context is not None and context.check_hostname:
        raise ConfigurationError("server_hostname", given, f"the name in the certificate: {service.target} has no name")
    return name if context is not None else None
