"""Which endpoints a client prefers: those of its own zone, or a subset of very many.

Both are choices of one client that must leave the load of all clients together even.
"""

from __future__ import annotations

from hashlib import blake2b

from ecs_discovery.core.node import Node
from ecs_discovery.policies import BalancingPolicy, ZonePolicy

__all__ = ["by_zone", "subset"]

_Nodes = tuple[Node, ...]


def by_zone(nodes: _Nodes, own: str | None, policy: ZonePolicy) -> list[tuple[float, _Nodes]]:
    """`nodes` by zone, each with its share of the uses; the shares add up to 1.

    A zone takes from its own callers what it can carry without more load than the others (Envoy's zone aware
    routing); the rest goes where there are more endpoints than callers. All in one where that cannot be told.
    """
    whole = [(1.0, nodes)]
    if own is None or len(nodes) < policy.min_endpoints:
        return whole
    zones: dict[str | None, list[Node]] = {}
    for node in nodes:
        zones.setdefault(node.endpoint.zone, []).append(node)
    if own not in zones or len(zones) < 2:
        return whole
    callers = policy.callers or 1 / len(zones)
    local = len(zones[own]) / len(nodes)
    if local >= callers:
        return [(1.0, tuple(zones[own]))]
    elsewhere = (1 - callers) / (len(zones) - 1)
    # What each other zone can carry beyond its own callers. Together that is no less than what is left over here.
    room = {zone: max(0.0, len(members) / len(nodes) - elsewhere) for zone, members in zones.items() if zone != own}
    left, total = 1 - local / callers, sum(room.values())
    shares = {zone: left * part / total for zone, part in room.items() if part}
    return [(local / callers, tuple(zones[own])), *((share, tuple(zones[zone])) for zone, share in shares.items())]


def subset(nodes: _Nodes, client: float, policy: BalancingPolicy) -> tuple[_Nodes, _Nodes]:
    """The nodes that this client uses, and the others, which it keeps in reserve.

    `client` tells clients apart. Each endpoint is in the subset of as many clients as any other, give or take
    chance, and one that comes or leaves changes one place in a subset (rendezvous hashing, gRPC's A68).
    """
    if not policy.subset or len(nodes) <= max(policy.subset_above, policy.subset):
        return nodes, ()
    salt = repr(client).encode()
    ranked = sorted(nodes, key=lambda node: blake2b(str(node.endpoint).encode(), digest_size=8, key=salt).digest())
    chosen = set(ranked[: policy.subset])
    return tuple(n for n in nodes if n in chosen), tuple(n for n in nodes if n not in chosen)
