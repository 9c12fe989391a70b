"""What is asked of dnspython: the servers that Windows is set to use."""

from __future__ import annotations

__all__ = ["registry_servers"]


def registry_servers() -> list[str]:
    """The nameservers that Windows is set to use. Raises `OSError` if it names none."""
    import dns.resolver

    try:
        return [str(server) for server in dns.resolver.Resolver().nameservers]
    except dns.resolver.NoResolverConfiguration as exc:
        raise OSError(str(exc)) from exc
