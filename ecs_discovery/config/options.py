"""Options of one request, given through any integration by a `with` block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from ecs_discovery.errors import ConfigurationError
from ecs_discovery.models import Value

__all__ = ["Options", "check_flag", "check_key", "check_seconds", "current_options", "options"]


class Options(Value):
    """What a `with options(...)` block says; None where it says nothing."""

    deadline: float | None = None
    idempotent: bool | None = None
    key: str | bytes | None = None


_LONGEST = 1e8  # seconds
NONE = Options()
_current: ContextVar[Options] = ContextVar("ecs_discovery_options", default=NONE)


def check_seconds(field: str, value: float) -> float:
    """The value, or three years if that is less: sockets take no more. 0 and less mean that no time is left.

    Raises `ConfigurationError` for what is no number of seconds.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        raise ConfigurationError(field, value, "a number of seconds")
    return min(value, _LONGEST)


def check_flag(field: str, value: bool | None) -> None:
    """Raises `ConfigurationError` for anything but True and False: a text such as "no" would count as true."""
    if value is not None and not isinstance(value, bool):
        raise ConfigurationError(field, value, "True or False")


def check_key(field: str, key: str | bytes | None) -> None:
    """Raises `ConfigurationError` for what is no key."""
    if key is not None and not isinstance(key, (str, bytes)):
        raise ConfigurationError(field, key, "a string or bytes")


@contextmanager
def options(
    *, deadline: float | None = None, idempotent: bool | None = None, key: str | bytes | None = None
) -> Iterator[None]:
    """Set options for the requests made inside the block, in this thread or task.

    `deadline`: seconds within which every attempt and wait of a request begins. `idempotent`: may a request be sent
    again although it may have been processed (else its method decides)? `key`: requests with one key go to one endpoint
    while it is usable. An inner block adds to an outer block. Raises `ConfigurationError` for values of the wrong kind.
    """
    if deadline is not None:
        deadline = check_seconds("options(deadline=)", deadline)
        if deadline <= 0:
            raise ConfigurationError("options(deadline=)", deadline, "seconds above 0")
    check_flag("options(idempotent=)", idempotent)
    check_key("options(key=)", key)
    outer = _current.get()
    token = _current.set(
        Options(
            outer.deadline if deadline is None else deadline,
            outer.idempotent if idempotent is None else idempotent,
            outer.key if key is None else key,
        )
    )
    try:
        yield
    finally:
        _current.reset(token)


current_options: Callable[[], Options] = _current.get
"""Returns the options in force here."""
