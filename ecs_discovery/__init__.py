"""Client-side service discovery for Amazon ECS: a name in, an answer from a live task out.

    import requests
    from ecs_discovery import wrap_session

    session = wrap_session(requests.Session(), namespace="prod.local")
    session.get("http://orders/v1/42")

Importing this package opens no socket, starts no thread and loads nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ecs_discovery.aio import AsyncDiscovery
    from ecs_discovery.attempts import AsyncAttempt, Attempt
    from ecs_discovery.client import Discovery
    from ecs_discovery.context import options
    from ecs_discovery.errors import (
        AttemptReport,
        ClosedError,
        ConfigurationError,
        ConnectError,
        ConnectTimeout,
        DeadlineExceeded,
        DiscoveryError,
        NoEndpoints,
        NotSent,
        Overloaded,
        RequestError,
        ResolutionError,
        ResolutionTimeout,
        TargetNotFound,
    )
    from ecs_discovery.events import Event
    from ecs_discovery.integrations.requests import unwrap_session, wrap_session
    from ecs_discovery.leases import AsyncLeaseContext, LeaseContext
    from ecs_discovery.models import Endpoint, Question, Resolution
    from ecs_discovery.policies import (
        BalancingPolicy,
        CachePolicy,
        CloudMapPolicy,
        ConnectionPolicy,
        DnsPolicy,
        HealthCheckPolicy,
        HedgePolicy,
        OutlierPolicy,
        RetryPolicy,
        TimeoutPolicy,
        ZonePolicy,
    )
    from ecs_discovery.resolvers.base import AsyncResolver, Resolver
    from ecs_discovery.settings import ServiceConfig, Settings
    from ecs_discovery.snapshot import CandidateSnapshot, CheckSnapshot, NodeSnapshot, PickSnapshot, ServiceSnapshot

__version__ = "0.1.0"

_HOMES = {
    "aio": ("AsyncDiscovery",),
    "attempts": ("AsyncAttempt", "Attempt"),
    "client": ("Discovery",),
    "errors": (
        "AttemptReport",
        "ClosedError",
        "ConfigurationError",
        "ConnectError",
        "ConnectTimeout",
        "DeadlineExceeded",
        "DiscoveryError",
        "NoEndpoints",
        "NotSent",
        "Overloaded",
        "RequestError",
        "ResolutionError",
        "ResolutionTimeout",
        "TargetNotFound",
    ),
    "events": ("Event",),
    "integrations.requests": ("unwrap_session", "wrap_session"),
    "leases": ("AsyncLeaseContext", "LeaseContext"),
    "models": ("Endpoint", "Question", "Resolution"),
    "context": ("options",),
    "policies": (
        "BalancingPolicy",
        "CachePolicy",
        "CloudMapPolicy",
        "ConnectionPolicy",
        "DnsPolicy",
        "HealthCheckPolicy",
        "HedgePolicy",
        "OutlierPolicy",
        "RetryPolicy",
        "TimeoutPolicy",
        "ZonePolicy",
    ),
    "resolvers.base": ("AsyncResolver", "Resolver"),
    "settings": ("ServiceConfig", "Settings"),
    "snapshot": ("CandidateSnapshot", "CheckSnapshot", "NodeSnapshot", "PickSnapshot", "ServiceSnapshot"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AsyncAttempt",
    "AsyncDiscovery",
    "AsyncLeaseContext",
    "AsyncResolver",
    "Attempt",
    "AttemptReport",
    "BalancingPolicy",
    "CachePolicy",
    "CandidateSnapshot",
    "CheckSnapshot",
    "ClosedError",
    "CloudMapPolicy",
    "ConfigurationError",
    "ConnectError",
    "ConnectTimeout",
    "ConnectionPolicy",
    "DeadlineExceeded",
    "Discovery",
    "DiscoveryError",
    "DnsPolicy",
    "Endpoint",
    "Event",
    "HealthCheckPolicy",
    "HedgePolicy",
    "LeaseContext",
    "NoEndpoints",
    "NodeSnapshot",
    "NotSent",
    "OutlierPolicy",
    "Overloaded",
    "PickSnapshot",
    "Question",
    "RequestError",
    "Resolution",
    "ResolutionError",
    "ResolutionTimeout",
    "Resolver",
    "RetryPolicy",
    "ServiceConfig",
    "ServiceSnapshot",
    "Settings",
    "TargetNotFound",
    "TimeoutPolicy",
    "ZonePolicy",
    "__version__",
    "options",
    "unwrap_session",
    "wrap_session",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(f"{__name__}.{home}")
    except ModuleNotFoundError as error:
        if home == "integrations.requests" and error.name in ("requests", "urllib3"):
            raise ImportError(f"{name} needs requests: from a clone, pip install '.[requests]'") from error
        raise
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
