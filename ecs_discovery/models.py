"""Frozen values that everything else speaks in: endpoints, questions, resolutions.

Nothing here does I/O, keeps state or decides anything.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from operator import attrgetter
from typing import Any, TypeVar, dataclass_transform

__all__ = ["MAX_ENDPOINTS", "Endpoint", "Question", "Resolution", "Value", "ValueType", "named_in", "replace"]

V = TypeVar("V", bound="Value")

DNS_SCHEMES = ("a", "aaaa", "srv")
"""Schemes of questions that DNS answers."""

MAX_ENDPOINTS = 2_000
"""No answer gives more endpoints than this, nor do answers joined (a Cloud Map namespace holds 2,000 instances)."""

REGISTRIES = ("cloudmap",)
"""Schemes of sources that are the registry DNS is filled from: complete, and ahead of it."""

PROXIED = ("proxy", "service-connect")
"""The attribute of an endpoint that is a proxy beside the task."""


@dataclass_transform(frozen_default=True)
class ValueType(type):
    """The type of values: what a class names become its slots, and their defaults stand apart."""

    keyword_only = False
    _fields: dict[str, Any]  # their annotations
    _defaults: dict[str, Any]

    def __new__(mcs, name: str, bases: tuple[type, ...], space: dict[str, Any]) -> ValueType:
        named = named_in(space)
        fields: dict[str, Any] = {}
        defaults: dict[str, Any] = {}
        for base in reversed(bases):
            fields.update(getattr(base, "_fields", {}))
            defaults.update(getattr(base, "_defaults", {}))
        fields.update(named)
        defaults.update({field: space.pop(field) for field in named if field in space})
        space.update(_fields=fields, _defaults=defaults)
        space["__match_args__"] = () if mcs.keyword_only else tuple(fields)
        if not named:
            return super().__new__(mcs, name, bases, space)
        space["__slots__"] = tuple(named)
        equal, hashed = _compared_by(attrgetter(*fields))
        if "__eq__" not in space:
            space["__eq__"] = equal
            space.setdefault("__hash__", hashed)
        initialised = "__init__" in space or mcs.keyword_only
        made = super().__new__(mcs, name, bases, space)
        if not initialised:
            made.__init__ = _written_when_called(made)  # type: ignore[misc]
        return made


def named_in(space: dict[str, Any]) -> dict[str, Any]:
    """The fields that a class body names, with their annotations."""
    found: dict[str, Any] = space.get("__annotations__", {})
    if sys.version_info >= (3, 14) and not found:
        # Without the import of `annotations`, a module's annotations are worked out when they are asked for.
        # They are asked for as text: a name in them need not exist.
        from annotationlib import Format, call_annotate_function, get_annotate_from_class_namespace

        annotate = get_annotate_from_class_namespace(space)
        if annotate is not None:
            found = call_annotate_function(annotate, Format.STRING)
    return {name: each for name, each in found.items() if not str(each).removeprefix("typing.").startswith("ClassVar")}


class _Described:
    """What `dataclasses`, `inspect` and `help` read of a class, made when they ask.

    A dataclass compiles six methods at import, and needs `inspect`. That took a third of the time of our own import.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: ValueType) -> Any:
        from dataclasses import field, make_dataclass
        from inspect import signature

        if not owner._fields:
            raise AttributeError(self._name)
        described = owner.__dict__.get("_described")
        if described is None:
            fields: list[tuple[str, Any, Any]] = []
            for name, annotation in owner._fields.items():
                default = {"default": owner._defaults[name]} if name in owner._defaults else {}
                fields.append((name, annotation, field(**default)))
            described = make_dataclass(owner.__name__, fields, frozen=True, kw_only=owner.keyword_only)
            owner._described = described  # type: ignore[attr-defined]
        return signature(described) if self._name == "__signature__" else getattr(described, self._name)


class Value(metaclass=ValueType):
    """The base of frozen values. The functions of `dataclasses` take them as dataclasses.

    A class that derives from a value has the fields of both. It is not decorated.
    """

    __slots__ = ()

    __dataclass_fields__ = _Described("__dataclass_fields__")
    __dataclass_params__ = _Described("__dataclass_params__")
    __signature__ = _Described("__signature__")

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in type(self)._fields)
        return f"{type(self).__qualname__}({shown})"

    def __setattr__(self, name: str, value: object) -> None:
        from dataclasses import FrozenInstanceError

        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        from dataclasses import FrozenInstanceError

        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def __replace__(self: V, /, **changes: Any) -> V:
        return type(self)(**{name: getattr(self, name) for name in type(self)._fields} | changes)

    def __getstate__(self) -> Any:
        return tuple([getattr(self, name) for name in type(self)._fields])

    def __setstate__(self, state: Any) -> None:
        for name, value in zip(type(self)._fields, state, strict=True):
            object.__setattr__(self, name, value)


def _compared_by(row: Callable[[Any], Any]) -> tuple[Callable[[Any, object], bool], Callable[[Any], int]]:
    """How values of one kind are compared and hashed: by all their fields, which `row` gives."""

    def equal(value: Any, other: object) -> bool:
        return row(value) == row(other) if type(other) is type(value) else NotImplemented

    def hashed(value: Any) -> int:
        return hash(row(value))

    return equal, hashed


def _written_when_called(kind: Any) -> Any:
    """The `__init__` of a class that has made no value yet. Called in two threads at once, it is written twice."""

    def first(self: Any, *row: Any, **named: Any) -> None:
        written = kind.__init__ = _initialiser(kind)
        written(self, *row, **named)

    return first


def _initialiser(kind: ValueType) -> Any:
    """The `__init__` of a class, compiled as `dataclasses` compiles it: the quickest that Python has."""
    taken = [f"{name}=_defaults[{name!r}]" if name in kind._defaults else name for name in kind._fields]
    body = [f" _set(self, {name!r}, {name})" for name in kind._fields]
    space = {"_defaults": kind._defaults, "_set": object.__setattr__}
    exec("\n".join([f"def __init__(self, {', '.join(taken)}):", *body]), space)
    made: Any = space["__init__"]
    made.__module__, made.__qualname__ = kind.__module__, f"{kind.__qualname__}.__init__"
    return made


def replace(value: V, /, **changes: Any) -> V:
    """The value with other fields, as `dataclasses.replace`."""
    return value.__replace__(**changes)


class Endpoint(Value):
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


class Question(Value):
    """One thing a resolver can be asked: a scheme (`a`, `aaaa`, `srv`, …) and a name, without a port."""

    scheme: str
    name: str

    def __hash__(self) -> int:  # as of any value, in half the time: a cold lookup needs it 50 times
        return hash((self.scheme, self.name))

    def __str__(self) -> str:
        return f"{self.scheme}://{self.name}"


class Resolution(Value):
    """A resolver's answer."""

    endpoints: tuple[Endpoint, ...]
    ttl: float
    """How long the answer holds, in seconds: the smallest TTL of the records that led to it."""
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
