"""Options of one request, given through any integration by a `with` block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from ecs_discovery.errors import ConfigurationError

__all__ = ["Options", "current_options", "options"]


@dataclass(frozen=True, slots=True)
class Options:
    """What a `with options(...)` block says; None where it says nothing."""

    deadline: float | None = None
    idempotent: bool | None = None
    key: str | bytes | None = None


NONE = Options()
_current: ContextVar[Options] = ContextVar("ecs_discovery_options", default=NONE)


@contextmanager
def options(
    *, deadline: float | None = None, idempotent: bool | None = None, key: str | bytes | None = None
) -> Iterator[None]:
    """Set options for the requests made inside the block, in this thread or task.

    `deadline`: seconds within which every attempt and wait of a request begins. `idempotent`: may a request be
    sent again although it may have been processed (else its method decides)? `key`: requests with one key
    go to one endpoint while it is usable. An inner block adds to an outer one.
    Raises `ConfigurationError` for values of the wrong kind.
    """
    number = isinstance(deadline, (int, float)) and not isinstance(deadline, bool)
    if deadline is not None and not (number and deadline > 0):
        raise ConfigurationError("options(deadline=)", deadline, "seconds above 0")
    if idempotent is not None and not isinstance(idempotent, bool):
        raise ConfigurationError("options(idempotent=)", idempotent, "True or False")
    if key is not None and not isinstance(key, (str, bytes)):
        raise ConfigurationError("options(key=)", key, "a string or bytes")
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
