"""`install`: client libraries find services without a change of the program, whenever they are imported.

This module is loaded at the start of every Python process below `ecs-discovery run`. It imports nothing heavy: what a
library needs is loaded with its first request.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from ecs_discovery.integrations import _patches
from ecs_discovery.integrations._import_hook import ImportHook

if TYPE_CHECKING:
    from ecs_discovery.config.settings import Policies, ServiceConfig

__all__ = ["ASKED", "if_asked", "install"]

ASKED = "ECS_DISCOVERY_INSTALL"
"""The variable by which `ecs-discovery run` asks the processes below it to install: `1`, or `getaddrinfo`."""

_hook = ImportHook(_patches.AFTER)
_resolving = ImportHook(_patches.AFTER_RESOLVING)


def install(
    *,
    namespace: str | None = None,
    services: Mapping[str, str | Sequence[str] | ServiceConfig] | None = None,
    nameservers: Sequence[str] | None = None,
    getaddrinfo: bool = False,
    **policies: Unpack[Policies],
) -> None:
    """Have the client libraries of this process find services by themselves.

    That is requests, urllib3, httpx, httpx2, aiohttp and grpcio: those imported already, and those imported later.
    Objects made before and after behave alike, but for aiohttp's sessions and gRPC's channels: those made before stay
    as they are. The arguments are the same as for `Discovery`. In each process, all libraries with these settings share
    one discovery. Installing again changes the settings if any are given, and else nothing: a hook that runs after a
    fork may do it. With `ECS_DISCOVERY_DISABLED=1` nothing is changed.

    With `getaddrinfo` names of our services are found by `socket.getaddrinfo` too. That serves libraries that only
    resolve names: the choice is made for each connection, and nothing is retried. It does not reach aiohttp with
    aiodns, uvloop, gRPC, and `connect((name, port))` of a socket.

    Raises `ConfigurationError` for settings that cannot be used, and when there is neither a namespace nor a service.
    """
    given: dict[str, Any] = {"namespace": namespace, "services": services, "nameservers": nameservers, **policies}
    if _patches.use(given):
        _hook.begin()
        if getaddrinfo:
            _resolving.begin()


def if_asked() -> None:
    """Install if the environment asks for it. What is wrong with the settings is told at the first request."""
    asked = os.environ.get(ASKED)
    if asked:
        _hook.begin()
        if asked == "getaddrinfo":
            _resolving.begin()
