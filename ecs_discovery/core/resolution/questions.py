"""How a target becomes questions: the network-mode table of ECS.

The plan of a target is a row of groups in the order they are believed. Tasks in awsvpc mode have address
records (and SRV if asked for); bridge and host mode have SRV records only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from operator import attrgetter
from typing import NamedTuple

from ecs_discovery.config.targets import Target
from ecs_discovery.errors import ConfigurationError
from ecs_discovery.models import Endpoint, Question

__all__ = ["Group", "Ported", "plan"]


_SAID = attrgetter("priority", "weight", "zone", "instance_id", "attributes")  # besides address and port

Ported = dict[str, tuple[Endpoint, Endpoint]]
"""By address, an endpoint as an answer named it without a port, and the same with a port."""
_NOTHING: tuple[None, None] = (None, None)


class Group(NamedTuple):
    """Questions whose answers count together."""

    questions: tuple[Question, ...]
    port: int | None
    """The port for endpoints whose answer carries none."""
    source: int
    """Which of the target's sources it belongs to. A failure is passed over only to another source."""
    surprise: str = ""
    """What to tell once when this group is the one that answers."""

    def endpoints(self, found: Iterable[Endpoint], known: Ported | None = None) -> tuple[Endpoint, ...]:
        """The answers as endpoints to connect to, each once, families interleaved as they come.

        `known` is for the next answer, and kept here: those that are as they were are the same objects then, and
        nothing need be compared again.
        """
        known = {} if known is None else known
        ported: list[Endpoint] = []
        port = self.port
        for endpoint in found:
            if endpoint.port:
                ported.append(endpoint)
            elif port is not None:
                host = endpoint.host
                of, made = known.get(host, _NOTHING)
                if made is None or of is not endpoint or made.port != port:
                    said = _SAID(endpoint)
                    if made is None or made.port != port or _SAID(made) != said:
                        # `dataclasses.replace` takes four times as long, which a cold lookup notices.
                        made = Endpoint(host, port, *said)
                    known[host] = endpoint, made
                ported.append(made)
        hosts = {endpoint.host for endpoint in ported}
        if len(hosts) < len(ported):  # some may be the same
            ported = list({endpoint.key: endpoint for endpoint in ported}.values())
        if len(known) > 2 * len(hosts):
            for host in known.keys() - hosts:
                del known[host]
        for endpoint in ported:
            if endpoint.attributes and endpoint.proxied:
                return (endpoint,)  # whatever its addresses, a proxy beside the task is one endpoint
        return tuple(ported)


def plan(
    sources: Sequence[Target],
    *,
    port: int | None,
    default_port: int | None,
    families: Sequence[str],
    schemes: Collection[str] = (),
) -> tuple[Group, ...]:
    """The groups for a target's sources, in order.

    `port` is what the application wrote after the name, `default_port` the scheme's (80 for http),
    `schemes` the registered ones besides DNS. Raises `ConfigurationError` for an unknown scheme.
    """
    groups: list[Group] = []
    for index, target in enumerate(sources):
        wanted = target.port or port
        name = target.name
        addresses = tuple(Question(family, name) for family in families)
        srv = (Question("srv", name),)
        if target.scheme == "srv":
            groups.append(Group(srv, None, index))
        elif target.scheme == "dns":
            groups.append(Group(addresses, wanted or default_port, index))
        elif target.scheme == "auto" and wanted is not None:
            told = f"{name} has no address record; its SRV records' ports are used instead of port {wanted}"
            groups += [Group(addresses, wanted, index), Group(srv, None, index, told)]
        elif target.scheme == "auto":
            groups.append(Group(srv, None, index))
            if default_port is not None:
                groups.append(Group(addresses, default_port, index))
        elif target.scheme == "static":
            groups.append(Group((Question("static", name),), None, index))
        elif target.scheme in schemes:
            groups.append(Group((Question(target.scheme, target.asked),), wanted or default_port, index))
        else:
            allowed = ", ".join(f"{scheme}://" for scheme in sorted({"dns", "srv", "static", *schemes}))
            raise ConfigurationError("target", f"{target.scheme}://{name}", f"a plain name or one of {allowed}")
    return tuple(groups)
