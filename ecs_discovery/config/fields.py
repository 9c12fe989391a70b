"""What the fields of policies accept, how their text is read, and how they check themselves."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import ip_network
from math import inf
from typing import Any, TypeVar, dataclass_transform

from ecs_discovery.config.targets import parse_host_port
from ecs_discovery.errors import ConfigurationError, unknown_setting
from ecs_discovery.models import Value, ValueType, named_in

P = TypeVar("P", bound="Policy")


class Rule(Value):
    """What a field accepts (`check`, which may normalise), how its text form is read, and both in words."""

    check: Callable[[Any], Any]
    read: Callable[[str], Any]
    words: str


def ruled(default: Any, rule: Rule) -> Any:
    return default, rule


def number(default: float, low: float, high: float, unit: str = "seconds") -> Any:
    def check(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise ValueError
        return float(value)

    return ruled(default, Rule(check, float, f"{unit} from {low:g} to {high:g}"))


def whole(default: int, low: int, high: int) -> Any:
    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError
        return value

    return ruled(default, Rule(check, int, f"a whole number from {low} to {high}"))


def choices(default: tuple[str, ...], of: tuple[str, ...]) -> Any:
    def check(value: Any) -> tuple[str, ...]:
        items = tuple(value) if isinstance(value, (tuple, list)) else ()
        if not items or len(set(items)) != len(items) or not set(items) <= set(of):
            raise ValueError
        return items

    return ruled(default, Rule(check, split, f"one or more of {', '.join(of)}, each once"))


def one_of(default: str, of: tuple[str, ...]) -> Any:
    def check(value: Any) -> str:
        if value not in of:
            raise ValueError
        return str(value)

    def read(text: str) -> str:
        return next((item for item in of if item.lower() == text.strip().lower()), text)

    return ruled(default, Rule(check, read, f"one of {', '.join(of)}"))


def text(words: str) -> Any:
    def check(value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError
        return value

    return ruled("", Rule(check, str, words))


_SWITCH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def switch(default: bool) -> Any:
    def check(value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError
        return value

    return ruled(default, Rule(check, lambda text: _SWITCH[text.strip().lower()], "true or false"))


def port(value: Any) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 65536):
        raise ValueError
    return value


def split(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",") if item.strip())


def nameservers(value: Any) -> tuple[str, ...]:
    if not isinstance(value, (tuple, list)) or not all(isinstance(item, str) for item in value):
        raise ValueError
    for item in value:
        parse_host_port("nameserver", item, 53)
    return tuple(value)


def networks(value: Any) -> tuple[str, ...]:
    if not isinstance(value, (tuple, list)) or not all(isinstance(item, str) for item in value):
        raise ValueError
    return tuple(str(ip_network(item)) for item in value)


def statuses(value: Any) -> tuple[int, ...]:
    items = tuple(value) if isinstance(value, (tuple, list, set, frozenset)) else None
    if items is None or not all(isinstance(item, int) and 400 <= item <= 599 for item in items):
        raise ValueError
    return tuple(sorted(set(items)))


def final_statuses(value: Any) -> frozenset[int]:
    """The statuses that text such as `200-299,304` names. Raises `ValueError`."""
    found: set[int] = set()
    for item in split(value):
        match = re.fullmatch(r"([0-9]{3})(?:-([0-9]{3}))?", item)
        if match is None:
            raise ValueError
        first, last = int(match[1]), int(match[2] or match[1])
        if not 200 <= first <= last <= 599:
            raise ValueError
        found.update(range(first, last + 1))
    if not found:
        raise ValueError
    return frozenset(found)


def status_ranges(value: Any) -> str:
    if not isinstance(value, str) or not final_statuses(value):
        raise ValueError
    return value


def path(value: Any) -> str:
    """What may stand in a request line: no space, no line end, nothing that would have to be encoded."""
    if not isinstance(value, str) or not re.fullmatch(r"/[!-~]*", value) or "#" in value:
        raise ValueError
    return value


def file_path(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError
    return value


def predicate(value: Any) -> Any:
    if value is not None and not callable(value):
        raise ValueError
    return value


def subset(value: Any) -> int:
    """0, or enough endpoints that a few dead ones among them do not matter (Finagle's aperture)."""
    if isinstance(value, bool) or not isinstance(value, int) or not (value == 0 or 12 <= value <= 100_000):
        raise ValueError
    return value


def unreadable(text: str) -> Any:
    raise ValueError


def tenacity(value: Any) -> Any:
    if value is not None and not is_tenacity(value):
        raise ValueError
    return value


def is_tenacity(value: Any) -> bool:
    """Is this a `tenacity.Retrying` or `AsyncRetrying`? Told by what it can do: importing tenacity takes a while."""
    if isinstance(value, type):
        return False
    return all(callable(getattr(value, part, None)) for part in ("copy", "retry", "stop", "wait", "iter"))


FUNCTION = Rule(predicate, unreadable, "a function of the exception, or None")
NETWORKS = Rule(networks, split, "networks such as '169.254.8.0/24' or 'fe80::/64'")
TENACITY = Rule(tenacity, unreadable, "a tenacity.Retrying or AsyncRetrying object, or None")


@dataclass_transform(frozen_default=True, kw_only_default=True)
class _PolicyType(ValueType):
    """The type of policies: beside the defaults it keeps the rules of the fields."""

    keyword_only = True
    _rules: dict[str, Rule]

    def __new__(mcs, name: str, bases: tuple[type, ...], space: dict[str, Any]) -> _PolicyType:
        ruled: dict[str, tuple[Any, Rule]] = {field: space[field] for field in named_in(space)}
        rules: dict[str, Rule] = {}
        for base in reversed(bases):
            rules.update(getattr(base, "_rules", {}))
        space["_rules"] = rules | {field: rule for field, (_, rule) in ruled.items()}
        space.update({field: default for field, (default, _) in ruled.items()})
        return super().__new__(mcs, name, bases, space)  # type: ignore[return-value]  # of `mcs`


class Policy(Value, metaclass=_PolicyType):
    """Runs every field through its rule. Raises `ConfigurationError` for a value out of range and an unknown field."""

    __slots__ = ()

    def __init__(self, **named: Any) -> None:
        kind = type(self)
        for field, rule in kind._rules.items():
            value = named.pop(field, kind._defaults[field])
            try:
                checked = rule.check(value)
            except (ValueError, TypeError):
                raise ConfigurationError(f"{kind.__name__}.{field}", value, rule.words) from None
            object.__setattr__(self, field, checked)
        for field, value in named.items():
            raise unknown_setting(field, value, kind._rules, of=kind.__name__)
        for field in kind._rules:
            if "_min" in field or "min_" in field:
                upper = field.replace("min", "max")
                if getattr(self, upper, inf) < getattr(self, field):
                    raise ConfigurationError(f"{kind.__name__}.{field}", getattr(self, field), f"at most {upper}")


def variables(cls: type[Policy]) -> frozenset[str]:
    """The environment variables that a policy's fields can be set by."""
    return frozenset(_variable(cls, field) for field in cls._rules)


def _variable(cls: type[Policy], name: str) -> str:
    return f"ECS_DISCOVERY_{cls.__name__.removesuffix('Policy').upper()}_{name.upper()}"


def from_environment(cls: type[P], environ: Mapping[str, str]) -> P:
    """The policy with what `ECS_DISCOVERY_<POLICY>_<FIELD>` variables say, defaults elsewhere.

    Raises `ConfigurationError` naming the variable when its text cannot be used.
    """
    found: dict[str, Any] = {}
    for field, rule in cls._rules.items():
        variable = _variable(cls, field)
        text = environ.get(variable)
        if text is None:
            continue
        try:
            found[field] = rule.check(rule.read(text))
        except (ValueError, TypeError, KeyError):
            raise ConfigurationError(variable, text, rule.words) from None
    return cls(**found)
