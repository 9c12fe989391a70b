"""Frozen values that everything else speaks in: endpoints, questions, resolutions.

Nothing here does I/O, keeps state or decides anything.
"""

from __future__ import annotations

from dataclasses import MISSING, FrozenInstanceError, dataclass, fields
from typing import Any, TypeVar, dataclass_transform

__all__ = ["MAX_ENDPOINTS", "Endpoint", "Question", "Resolution", "Value", "frozen"]

R = TypeVar("R", bound="Value")

DNS_SCHEMES = ("a", "aaaa", "srv")
"""Schemes of questions that DNS answers."""

MAX_ENDPOINTS = 2_000
"""No answer gives more endpoints than this, nor do answers joined (a Cloud Map namespace holds 2,000 instances)."""

REGISTRIES = ("cloudmap",)
"""Schemes of sources that are the registry DNS is filled from: complete, and ahead of it."""

PROXIED = ("proxy", "service-connect")
"""The attribute of an endpoint that is a proxy beside the task."""


_set = object.__setattr__


class _Signature:
    """What `help` and `inspect` show. Made when they ask."""

    def __get__(self, instance: object, owner: type[Any]) -> Any:
        from inspect import Parameter, Signature

        if owner is Value:
            raise AttributeError("__signature__")
        return Signature(
            [
                Parameter(
                    item.name,
                    Parameter.KEYWORD_ONLY if item.kw_only else Parameter.POSITIONAL_OR_KEYWORD,
                    default=Parameter.empty if item.default is MISSING else item.default,
                    annotation=item.type,
                )
                for item in fields(owner)
            ]
        )


class Value:
    """The base of frozen dataclasses that are made seldom.

    What dataclasses would compile for each class at import is written here once: that takes a millisecond a class.
    """

    __slots__: tuple[str, ...] = ()
    __signature__ = _Signature()

    def __init__(self, *row: Any, **named: Any) -> None:
        names = self.__slots__
        if len(row) == len(names) and not named:  # nearly always
            for name, value in zip(names, row, strict=True):
                _set(self, name, value)
            return
        items = fields(self)  # type: ignore[arg-type]  # only dataclasses derive from it
        given = dict(zip([item.name for item in items], row, strict=False))
        if len(row) > len(items) or given.keys() & named.keys():
            raise TypeError(f"{type(self).__name__} takes {len(items)} values, each once")
        given.update(named)
        for item in items:
            value = given.pop(item.name, item.default)
            if value is MISSING:
                raise TypeError(f"{type(self).__name__} needs {item.name!r}")
            object.__setattr__(self, item.name, value)
        if given:
            raise TypeError(f"{type(self).__name__} has no {next(iter(given))!r}")

    def _values(self) -> tuple[Any, ...]:
        return tuple([getattr(self, name) for name in self.__slots__])

    def __eq__(self, other: object) -> bool:
        return self._values() == other._values() if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"{type(self).__qualname__}({shown})"

    def __setattr__(self, name: str, value: object) -> None:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def __getstate__(self) -> Any:
        return self._values()

    def __setstate__(self, state: Any) -> None:
        for name, value in zip(self.__slots__, state, strict=True):
            object.__setattr__(self, name, value)


@dataclass_transform(frozen_default=True)
def frozen(kind: type[R]) -> type[R]:
    """A `Value` with the fields that the class names."""
    return dataclass(init=False, repr=False, eq=False, slots=True)(kind)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address and port to connect to."""

    host: str
    """An IP address, or for a passed-through host its name."""
    port: int
    """1 to 65535; 0 only in an answer that carries no port."""
    priority: int = 0
    """Lower is used first (RFC 2782)."""
    weight: int = 1
    """Relative share among endpoints of one priority (RFC 2782)."""
    zone: str | None = None
    """Availability zone, where the source knows it."""
    instance_id: str | None = None
    """The source's own id of the instance, if the source has ids. Addresses are reused; ids are not."""
    attributes: tuple[tuple[str, str], ...] = ()
    """Further facts from the source, as pairs."""

    @property
    def proxied(self) -> bool:
        """True for a proxy beside the task (ECS Service Connect), which chooses among the tasks itself."""
        return PROXIED in self.attributes

    @property
    def key(self) -> tuple[str, int, str | None]:
        """What makes it the same endpoint from one answer to the next."""
        return (self.host, self.port, self.instance_id)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Question:
    """One thing a resolver can be asked: a scheme (`a`, `aaaa`, `srv`, …) and a name, without a port."""

    scheme: str
    name: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.name}"


@dataclass(frozen=True, slots=True)
class Resolution:
    """A resolver's answer."""

    endpoints: tuple[Endpoint, ...]
    ttl: float
    """How long the answer holds, in seconds: the smallest TTL of every frozen that led to it."""
    source: str
    """Where it came from, for people: `dns`, `hosts`, `static`, …"""
    partial: bool = False
    """True if the source may know more endpoints than it named."""
    estimate: int | None = None
    """How many endpoints there are by estimate, if the answer is partial and that can be told."""
    named: frozenset[str] | None = None
    """The hosts that the newest answer named, where endpoints of earlier answers are joined with it."""
    stale: bool = False
    """True if it outlived its TTL because the source could not be asked again."""
    refused: tuple[str, ...] = ()
    """Hosts that the source named and that are left out, because no task has such an address. These are link-local
    addresses, and the metadata endpoints of AWS."""

    @property
    def coverage(self) -> float | None:
        """The share of the endpoints that is known, 0 to 1: 1 for a complete answer, None if it cannot be told."""
        if not self.partial:
            return 1.0
        return min(1.0, len(self.endpoints) / self.estimate) if self.estimate else None

    @property
    def hosts(self) -> frozenset[str]:
        """The hosts that the newest answer named."""
        return self.named if self.named is not None else frozenset(endpoint.host for endpoint in self.endpoints)
