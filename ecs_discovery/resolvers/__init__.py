"""One-shot lookups: a question in, an answer or a `ResolutionError` out, within a hard time limit.

Nothing here caches, except that Cloud Map's last answer is remembered with its revision. `DnsResolver` and
`CloudMapResolver` are for threads, `Async…` for asyncio; both answer alike. The libraries behind them are imported
when a resolver is first named or used, not with the package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ecs_discovery.resolvers.base import AsyncResolver, Remembering, Resolver

if TYPE_CHECKING:
    from ecs_discovery.resolvers.cloud_map.aio import AsyncCloudMapResolver
    from ecs_discovery.resolvers.cloud_map.sync import CloudMapResolver
    from ecs_discovery.resolvers.dns.aio import AsyncDnsResolver
    from ecs_discovery.resolvers.dns.sync import DnsResolver
    from ecs_discovery.resolvers.hosts import HostsFile

__all__ = [
    "AsyncCloudMapResolver",
    "AsyncDnsResolver",
    "AsyncResolver",
    "CloudMapResolver",
    "DnsResolver",
    "HostsFile",
    "Remembering",
    "Resolver",
]

_WHERE = {
    "AsyncCloudMapResolver": "cloud_map.aio",
    "AsyncDnsResolver": "dns.aio",
    "CloudMapResolver": "cloud_map.sync",
    "DnsResolver": "dns.sync",
    "HostsFile": "hosts",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return __all__
