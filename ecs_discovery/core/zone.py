"""Which endpoints a client prefers: those of its own zone, or a subset of very many.

Both are choices of one client that must leave the load of all clients together even.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

from ecs_discovery.core.node import Node
from ecs_discovery.policies import BalancingPolicy, ZonePolicy

__all__ = ["by_zone", "subset"]

_Nodes = tuple[Node, ...]


def by_zone(counts: Mapping[str | None, int], own: str, policy: ZonePolicy) -> list[tuple[float, str | None]] | None:
    """The zones that uses go to, each with its share of them; the shares add up to 1.

    `counts` are the endpoints of each zone. A zone takes from its own callers what it can carry without more load than
    the others (Envoy's zone aware routing); the rest goes where there are more endpoints than callers. None where that
    cannot be told: then zones make no difference.
    """
    total = sum(counts.values())
    if total < policy.min_endpoints or own not in counts or len(counts) < 2:
        return None
    callers = policy.callers or 1 / len(counts)
    local = counts[own] / total
    if local >= callers:
        return [(1.0, own)]
    elsewhere = (1 - callers) / (len(counts) - 1)
    # What each other zone can carry beyond its own callers. Together that is no less than what is left over here.
    room = {zone: max(0.0, count / total - elsewhere) for zone, count in counts.items() if zone != own}
    left, spare = 1 - local / callers, sum(room.values())
    return [(local / callers, own), *((left * part / spare, zone) for zone, part in room.items() if part)]


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
