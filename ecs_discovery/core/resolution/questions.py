"""How a target becomes questions: the network-mode table of ECS.

The plan of a target is a row of groups in the order they are believed. Tasks in awsvpc mode have address
records (and SRV if asked for); bridge and host mode have SRV records only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from operator import attrgetter

from ecs_discovery.config.targets import Target
from ecs_discovery.errors import ConfigurationError
from ecs_discovery.models import Endpoint, Question, Value

__all__ = ["Group", "Ported", "plan"]


_SAID = attrgetter("priority", "weight", "zone", "instance_id", "attributes")  # besides address and port

Ported = dict[int | str, tuple[Endpoint, Endpoint | None]]
"""By identity and by address: an endpoint as an answer named it, and the same with a port, if it is to have one."""


class Group(Value):
    """Questions whose answers count together."""

    questions: tuple[Question, ...]
    port: int | None
    """The port for endpoints whose answer carries none."""
    source: int
    """Which of the target's sources it belongs to. A failure is passed over only to another source."""
    surprise: str = ""
    """What to tell once when this group is the one that answers."""
    is_default: bool = False
    """The port is the scheme's: neither the application nor a record has named it."""

    def endpoints(self, found: Iterable[Endpoint], known: Ported | None = None) -> tuple[Endpoint, ...]:
        """The answers as endpoints to connect to, each once, families interleaved as they come.

        `known` is this group's, for the next answer: those that are as they were are the same objects then, and nothing
        need be compared again.
        """
        ported = tuple(found)
        if 0 in [endpoint.port for endpoint in ported]:
            ported = self._with_port(ported, {} if known is None else known)
        if len({endpoint.host for endpoint in ported}) < len(ported):  # some may be the same
            ported = tuple({endpoint.key: endpoint for endpoint in ported}.values())
        for endpoint in ported:
            if endpoint.attributes and endpoint.proxied:
                return (endpoint,)  # whatever its addresses, a proxy beside the task is one endpoint
        return ported

    def _with_port(self, found: tuple[Endpoint, ...], known: Ported) -> tuple[Endpoint, ...]:
        pairs = list(map(known.get, map(id, found)))
        for at, pair in enumerate(pairs):
            if pair is None:
                pairs[at] = known[id(found[at])] = known[found[at].host] = self._pair(found[at], known)
        if len(known) > 4 * len(found):
            here = set(map(id, found))
            for key in [key for key, (endpoint, _) in known.items() if id(endpoint) not in here]:
                del known[key]
        return tuple([pair[1] for pair in pairs if pair is not None and pair[1] is not None])

    def _pair(self, endpoint: Endpoint, known: Ported) -> tuple[Endpoint, Endpoint | None]:
        if endpoint.port:
            return endpoint, endpoint
        if self.port is None:
            return endpoint, None
        of = known.get(endpoint.host)
        if of is not None and of[1] is not None and of[1].port == self.port and _SAID(of[1]) == _SAID(endpoint):
            return endpoint, of[1]
        # `replace` takes four times as long, which a cold lookup notices.
        return endpoint, Endpoint(endpoint.host, self.port, *_SAID(endpoint))


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
            groups.append(Group(addresses, wanted or default_port, index, is_default=wanted is None))
        elif target.scheme == "auto" and wanted is not None:
            told = f"{name} has no address record; its SRV records' ports are used instead of port {wanted}"
            groups += [Group(addresses, wanted, index), Group(srv, None, index, told)]
        elif target.scheme == "auto":
            groups.append(Group(srv, None, index))
            if default_port is not None:
                groups.append(Group(addresses, default_port, index, is_default=True))
        elif target.scheme == "static":
            groups.append(Group((Question("static", name),), None, index))
        elif target.scheme in schemes:
            groups.append(Group((Question(target.scheme, target.asked),), wanted or default_port, index))
        else:
            allowed = ", ".join(f"{scheme}://" for scheme in sorted({"dns", "srv", "static", *schemes}))
            raise ConfigurationError("target", f"{target.scheme}://{name}", f"a plain name or one of {allowed}")
    return tuple(groups)
