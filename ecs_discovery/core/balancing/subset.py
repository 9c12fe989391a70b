"""Subset: the endpoints that one client uses of very many, so that the load of all clients together stays even."""

from __future__ import annotations

from ecs_discovery.config.policies import BalancingPolicy
from ecs_discovery.core.balancing.node import Node

__all__ = ["subset"]

_Nodes = tuple[Node, ...]


def subset(nodes: _Nodes, client: float, policy: BalancingPolicy) -> tuple[_Nodes, _Nodes]:
    """The nodes that this client uses, and the others, which it keeps in reserve.

    `client` tells clients apart. Each endpoint is in the subset of as many clients as any other, give or take
    chance. An endpoint that comes or leaves changes one place in a subset (rendezvous hashing, gRPC's A68).
    """
    if not policy.subset or len(nodes) <= max(policy.subset_above, policy.subset):
        return nodes, ()
    from hashlib import blake2b  # not before it is needed: it loads OpenSSL

    salt = repr(client).encode()
    ranked = sorted(nodes, key=lambda node: blake2b(str(node.endpoint).encode(), digest_size=8, key=salt).digest())
    chosen = set(ranked[: policy.subset])
    return tuple(n for n in nodes if n in chosen), tuple(n for n in nodes if n not in chosen)
