"""What a client library's client is given by way of discovery: a discovery, or the settings of one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ecs_discovery.client.sync.discovery import Discovery
from ecs_discovery.config.fields import Policy, is_tenacity
from ecs_discovery.config.settings import Settings
from ecs_discovery.errors import ConfigurationError, foreign, unknown_setting
from ecs_discovery.models import Value

if TYPE_CHECKING:
    from ecs_discovery.client.aio.discovery import AsyncDiscovery  # a program of threads never loads asyncio

__all__ = ["Chosen", "check_options", "choose"]

D = TypeVar("D", Discovery, "AsyncDiscovery")

_OF_A_DISCOVERY = ("resolvers", "on_event")  # not of settings: a client that is given them has a discovery of its own
_SETTINGS = ("discovery", "namespace", "services", "nameservers")  # beside a library's options


class Chosen(Value, Generic[D]):
    """How a client is to find services."""

    settings: Settings
    discovery: D | None
    """None: the default discovery of these settings."""


def choose(kind: type[D], discovery: D | None, given: Mapping[str, Any]) -> Chosen[D] | None:
    """What `discovery`, or else the `given` settings, mean to a client; None if discovery is switched off.

    `kind` is the class of discovery that the client uses. `given` may hold `resolvers` and `on_event` too; what is None
    was not given. Raises `ConfigurationError` for settings that cannot be used, and where there is neither a namespace
    nor a service.
    """
    named = {name: value for name, value in given.items() if value is not None}
    if discovery is not None and named:
        raise ConfigurationError("settings", sorted(named), "either discovery= or settings, not both")
    if discovery is not None and not isinstance(discovery, kind):
        allowed = "a Discovery" if kind is Discovery else "an AsyncDiscovery"
        if isinstance(discovery, str):
            allowed += f"; did you mean namespace={foreign(repr(discovery))}?"
        raise ConfigurationError("discovery", discovery, allowed)
    own = {name: named.pop(name) for name in _OF_A_DISCOVERY if name in named}
    settings = discovery.settings if discovery is not None else Settings.make(**named)
    if kind is Discovery:
        settings.check_for_threads()
    if settings.disabled:
        return None
    if settings.namespace is None and not settings.services:
        raise ConfigurationError(
            "namespace",
            None,
            "the DNS namespace of your services, such as 'prod.local' (ECS_DISCOVERY_NAMESPACE), or services={…}",
        )
    if own:
        discovery = kind(settings=settings, **own)
    return Chosen(settings, discovery)


def check_options(
    of: str, kind: type[Any], options: Mapping[str, Any], known: type[Any], taken: Callable[[], Iterable[str]]
) -> None:
    """Raise `ConfigurationError` for options that the library does not take, and for policies among them.

    `of` is what the caller called, `kind` the class of discovery that has policies. `known` is the type of the options;
    `taken` gives the names that the installed version takes, which may be newer.
    """
    for name, value in options.items():
        if isinstance(value, Policy) or is_tenacity(value) or name in _OF_A_DISCOVERY:
            where = f"an argument of the discovery: policies go in discovery={kind.__name__}({name}=…)"
            raise ConfigurationError(name, value, where)
        if name not in known.__annotations__ and name not in taken():
            names = (*_SETTINGS, *known.__annotations__)
            raise unknown_setting(name, value, names, of)
