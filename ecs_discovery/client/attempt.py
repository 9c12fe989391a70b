"""Attempts: what a caller's function is handed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any

from ecs_discovery.core.calls.call import Call
from ecs_discovery.errors import (
    ConfigurationError,
)
from ecs_discovery.models import Endpoint

__all__ = ["Attempt", "check_fetch"]

# The flags of a function's code, as `inspect` has them: importing it takes several milliseconds.
CO_GENERATOR, CO_COROUTINE, CO_ITERABLE_COROUTINE, CO_ASYNC_GENERATOR = 0x20, 0x80, 0x100, 0x200
_NOT_PLAIN = CO_ASYNC_GENERATOR | CO_COROUTINE | CO_GENERATOR | CO_ITERABLE_COROUTINE


def check_fetch(fetch: Any, *, asynchronous: bool) -> None:
    """Raises `ConfigurationError` for what cannot be called, and for a function of the wrong kind, before it is called.

    A plain function may give an awaitable: of that nothing is known before.
    """
    if type(fetch) is FunctionType and not fetch.__code__.co_flags & _NOT_PLAIN and not asynchronous:
        return  # nearly always
    inner = fetch
    while isinstance(inner, partial):
        inner = inner.func
    if not hasattr(inner, "__code__") and callable(inner) and not isinstance(inner, type):
        inner = type(inner).__call__  # a bound method has the code of its function
    flags = getattr(getattr(inner, "__code__", None), "co_flags", 0)
    if not isinstance(flags, int):  # an object that has every attribute
        flags = 0
    if asynchronous:
        wrong = flags & CO_ASYNC_GENERATOR or (flags & (CO_GENERATOR | CO_ITERABLE_COROUTINE)) == CO_GENERATOR
    else:
        wrong = flags & (CO_COROUTINE | CO_ASYNC_GENERATOR)
    if wrong or not callable(fetch):
        need = (
            "a coroutine function (async def); Discovery takes plain functions"
            if asynchronous
            else "a plain function; AsyncDiscovery takes coroutine functions"
        )
        raise ConfigurationError("fetch", fetch, need)


class Attempt:
    """One try of a call on one endpoint."""

    __slots__ = ("_call", "_clock", "endpoint", "number")

    def __init__(self, endpoint: Endpoint, call: Call, clock: Callable[[], float]) -> None:
        self.endpoint = endpoint
        self.number = call.number
        """1 for the first."""
        self._call = call
        self._clock = clock

    @property
    def host(self) -> str:
        """The endpoint's address."""
        return self.endpoint.host

    @property
    def port(self) -> int:
        """The endpoint's port."""
        return self.endpoint.port

    @property
    def remaining(self) -> float:
        """Seconds until the deadline, 0 when it has passed."""
        return max(0.0, self._call.deadline_at - self._clock())

    def __repr__(self) -> str:
        return f"<Attempt {self.number} on {self.endpoint}>"
