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
    from ecs_discovery.client.aio.attempt import AsyncAttempt as AsyncAttempt
    from ecs_discovery.client.aio.discovery import AsyncDiscovery as AsyncDiscovery
    from ecs_discovery.client.aio.lease import AsyncLeaseContext as AsyncLeaseContext
    from ecs_discovery.client.attempt import Attempt as Attempt
    from ecs_discovery.client.snapshot import CandidateSnapshot as CandidateSnapshot
    from ecs_discovery.client.snapshot import CheckSnapshot as CheckSnapshot
    from ecs_discovery.client.snapshot import NodeSnapshot as NodeSnapshot
    from ecs_discovery.client.snapshot import PickSnapshot as PickSnapshot
    from ecs_discovery.client.snapshot import ServiceSnapshot as ServiceSnapshot
    from ecs_discovery.client.sync.discovery import Discovery as Discovery
    from ecs_discovery.client.sync.lease import LeaseContext as LeaseContext
    from ecs_discovery.config.options import options as options
    from ecs_discovery.config.policies import BalancingPolicy as BalancingPolicy
    from ecs_discovery.config.policies import CachePolicy as CachePolicy
    from ecs_discovery.config.policies import CloudMapPolicy as CloudMapPolicy
    from ecs_discovery.config.policies import ConnectionPolicy as ConnectionPolicy
    from ecs_discovery.config.policies import DnsPolicy as DnsPolicy
    from ecs_discovery.config.policies import HealthCheckPolicy as HealthCheckPolicy
    from ecs_discovery.config.policies import HedgePolicy as HedgePolicy
    from ecs_discovery.config.policies import OutlierPolicy as OutlierPolicy
    from ecs_discovery.config.policies import RetryPolicy as RetryPolicy
    from ecs_discovery.config.policies import TimeoutPolicy as TimeoutPolicy
    from ecs_discovery.config.policies import ZonePolicy as ZonePolicy
    from ecs_discovery.config.settings import ServiceConfig as ServiceConfig
    from ecs_discovery.config.settings import Settings as Settings
    from ecs_discovery.errors import AttemptReport as AttemptReport
    from ecs_discovery.errors import ClosedError as ClosedError
    from ecs_discovery.errors import ConfigurationError as ConfigurationError
    from ecs_discovery.errors import ConnectError as ConnectError
    from ecs_discovery.errors import ConnectTimeout as ConnectTimeout
    from ecs_discovery.errors import DeadlineExceeded as DeadlineExceeded
    from ecs_discovery.errors import DiscoveryError as DiscoveryError
    from ecs_discovery.errors import NoEndpoints as NoEndpoints
    from ecs_discovery.errors import NotSent as NotSent
    from ecs_discovery.errors import Overloaded as Overloaded
    from ecs_discovery.errors import RequestError as RequestError
    from ecs_discovery.errors import ResolutionError as ResolutionError
    from ecs_discovery.errors import ResolutionTimeout as ResolutionTimeout
    from ecs_discovery.errors import TargetNotFound as TargetNotFound
    from ecs_discovery.events import Event as Event
    from ecs_discovery.integrations.requests import unwrap_session as unwrap_session
    from ecs_discovery.integrations.requests import wrap_session as wrap_session
    from ecs_discovery.models import Endpoint as Endpoint
    from ecs_discovery.models import Question as Question
    from ecs_discovery.models import Resolution as Resolution
    from ecs_discovery.resolvers.base import AsyncResolver as AsyncResolver
    from ecs_discovery.resolvers.base import Resolver as Resolver

__version__ = "0.1.0"

_HOMES = {
    "client.aio.attempt": ("AsyncAttempt",),
    "client.aio.discovery": ("AsyncDiscovery",),
    "client.aio.lease": ("AsyncLeaseContext",),
    "client.attempt": ("Attempt",),
    "client.snapshot": ("CandidateSnapshot", "CheckSnapshot", "NodeSnapshot", "PickSnapshot", "ServiceSnapshot"),
    "client.sync.discovery": ("Discovery",),
    "client.sync.lease": ("LeaseContext",),
    "config.options": ("options",),
    "config.policies": (
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
    "config.settings": ("ServiceConfig", "Settings"),
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
    "integrations._httpx.clients": ("unwrap_client", "wrap_client"),
    "integrations.install": ("install",),
    "integrations.requests": ("unwrap_session", "wrap_session"),
    "models": ("Endpoint", "Question", "Resolution"),
    "resolvers.base": ("AsyncResolver", "Resolver"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME)]  # the table above says it once


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
    if home == "integrations._httpx.clients" and not module.is_installed():
        raise ImportError(f"{name} needs httpx: from a clone, pip install '.[httpx]' or '.[httpx2]'")
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
