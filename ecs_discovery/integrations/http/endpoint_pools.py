"""A library's connection pools, one for each endpoint of a service and each way to verify it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from ecs_discovery.core.balancing.node import Health, Node
from ecs_discovery.core.service import Service

__all__ = ["EndpointPools", "Overtaken"]

P = TypeVar("P")
_VARIANTS = 64  # pools to one endpoint


class Overtaken(Exception):
    """Another endpoint connected first: the request belongs in the pool of that endpoint, which takes the socket."""


class EndpointPools(Generic[P]):
    """The pools of one origin. `retire` closes the idle connections of a pool and lets those in use finish."""

    def __init__(self, service: Service, retire: Callable[[P], object]) -> None:
        self._service = service
        self._retire = retire
        self._generation = service.generation
        self._closed = False
        self._pools: dict[tuple[Node, object], P] = {}

    def __len__(self) -> int:
        return len(self._pools)

    def __iter__(self) -> Iterator[P]:
        return iter(list(self._pools.values()))

    def find(self, node: Node, variant: object) -> P | None:
        """The pool of an endpoint, or None. `variant` tells apart what must not share a connection."""
        if self._generation != self._service.generation:
            self._generation = self._service.generation
            self._drop([each for each in list(self._pools) if each[0].removed or each[0].health is Health.DOWN])
        return self._pools.get((node, variant))

    def get(self, node: Node, variant: object, make: Callable[[], P]) -> P:
        """The pool of an endpoint, made if it is missing."""
        pool = self.find(node, variant)
        if pool is None:
            pool = make()
            if self._closed:  # a request in flight when the client was closed: kept for that request only
                self._retire(pool)
                return pool
            pool = self._pools.setdefault((node, variant), pool)
            if variant is not None:  # a program that varies it without end must not keep a connection for each
                self._drop([each for each in list(self._pools) if each[0] is node][:-_VARIANTS])
        return pool

    def close(self) -> None:
        """Close idle connections; connections in use close when they are free."""
        self._closed = True
        self._drop(list(self._pools))

    def _drop(self, keys: list[tuple[Node, object]]) -> None:
        for key in keys:
            pool = self._pools.pop(key, None)
            if pool is not None:
                self._retire(pool)
