"""Dataclasses from what JSON held, written by others: types and sizes are checked, texts are cut and made printable."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from math import isfinite
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from ecs_discovery.errors import foreign

__all__ = ["Limits", "made"]

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """How much is taken."""

    text: int
    """Characters of a text; what is longer is cut."""
    items: int
    """Items of a list; a longer one is refused."""
    of: Mapping[str, int]
    """The same for lists of these names."""


def made(kind: type[T], value: Mapping[str, Any], limits: Limits) -> T:
    """The dataclass `kind` from its fields by name; what it does not have is left out.

    Raises `TypeError` and `ValueError` for what does not fit.
    """
    hints = _hints(kind)  # type: ignore[arg-type]  # mypy holds a class for unhashable if its metaclass may be another
    given = {
        item.name: _value(hints[item.name], value[item.name], item.name, limits)
        for item in fields(kind)  # type: ignore[arg-type]  # only dataclasses are given
        if item.name in value
    }
    return kind(**given)


@cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    return get_type_hints(kind)


def _value(hint: Any, value: Any, name: str, limits: Limits) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return None if value is None else _value(get_args(hint)[0], value, name, limits)
    if origin is tuple:
        if not isinstance(value, list | tuple) or len(value) > limits.of.get(name, limits.items):
            raise ValueError(f"{name} is no list, or too long")
        return tuple(_value(get_args(hint)[0], each, name, limits) for each in value)
    if is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ValueError(f"{name} is no object")
        return made(hint, value, limits)  # type: ignore[arg-type]  # a class
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value):
        return float(value)
    if hint is int and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
        return value
    if hint is bool and isinstance(value, bool):
        return value
    if hint is str and isinstance(value, str):
        return foreign(value, limits.text)
    raise ValueError(f"{name} is {foreign(repr(value), 60)}, which is no {getattr(hint, '__name__', hint)}")
