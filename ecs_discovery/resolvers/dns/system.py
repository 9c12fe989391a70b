"""The servers of this system: resolv.conf, or the registry of Windows."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import lru_cache

from ecs_discovery.config.targets import is_address, parse_host_port
from ecs_discovery.errors import ResolutionError
from ecs_discovery.models import Question
from ecs_discovery.resolvers.dns.servers import _DNS_PORT, Server
from ecs_discovery.runtime.files import read_text

__all__ = ["configured_servers"]

_RESOLV_CONF = "/etc/resolv.conf"

_MAX_BYTES = 65_536  # of resolv.conf; what follows is ignored

_MAX_SYSTEM_SERVERS = 3  # glibc's MAXNS


def configured_servers(question: Question, nameservers: Sequence[str]) -> tuple[Server, ...]:
    """The given servers, or else the system's as it names them at this moment.

    Raises `ResolutionError` if there are none.
    """
    if nameservers:
        return _given(tuple(nameservers))
    cause: OSError | None = None
    try:
        servers = _registry_servers() if sys.platform == "win32" else system_servers(_RESOLV_CONF)
    except OSError as exc:
        servers, cause = (), exc
    if servers:
        return servers
    raise ResolutionError(
        f"no nameserver is configured in {_RESOLV_CONF}",
        target=str(question),
        hint="set DnsPolicy(nameservers=…) or ECS_DISCOVERY_DNS_NAMESERVERS",
    ) from cause


@lru_cache(64)
def _given(nameservers: tuple[str, ...]) -> tuple[Server, ...]:
    return tuple(Server(*parse_host_port("nameserver", text, _DNS_PORT)) for text in nameservers)


def system_servers(path: str) -> tuple[Server, ...]:
    """The servers a resolv.conf names, the first three as for glibc. Raises `OSError` if it cannot be read."""
    found: list[Server] = []
    for line in read_text(path, _MAX_BYTES).splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver" and is_address(words[1]) and words[1].isprintable():
            found.append(Server(words[1]))
    return tuple(found[:_MAX_SYSTEM_SERVERS])


def _registry_servers() -> tuple[Server, ...]:
    from ecs_discovery.resolvers.dns.dnspython import registry_servers

    return tuple(map(Server, registry_servers()))
