"""Resolvers of other packages, found by entry points in the group `ecs_discovery.resolvers`.

The entry point's name is the scheme, what it names is a class (or function) that makes the resolver
when called without arguments. Nothing is loaded before a target uses the scheme.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, InvalidStateError
from importlib.metadata import entry_points
from typing import Any

from ecs_discovery.errors import ConfigurationError
from ecs_discovery.models import Question, Resolution
from ecs_discovery.resolvers.base import AsyncResolver, Remembering, Resolver

__all__ = ["GROUP", "InThreads", "Schemes", "for_asyncio", "load", "schemes"]

GROUP = "ecs_discovery.resolvers"


def schemes() -> tuple[str, ...]:
    """The schemes that installed packages register."""
    return tuple(sorted({point.name for point in entry_points(group=GROUP)}))


class Schemes(Collection[str]):
    """The schemes given, and those of installed packages: these are looked for when another one is met."""

    def __init__(self, given: Iterable[str]) -> None:
        self._given = frozenset(given)

    def __contains__(self, scheme: object) -> bool:
        return scheme in self._given or scheme in schemes()

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._given, *schemes()}))

    def __len__(self) -> int:
        return len({*self._given, *schemes()})


def load(scheme: str) -> Resolver:
    """The resolver registered for a scheme. Raises `ConfigurationError` if there is none or it cannot be made."""
    for point in entry_points(group=GROUP, name=scheme):
        try:
            made = point.load()()
        except Exception as error:
            raise ConfigurationError(f"entry point {GROUP}", f"{scheme} = {point.value}", "a resolver class") from error
        if not callable(getattr(made, "resolve", None)):
            raise ConfigurationError(f"entry point {GROUP}", f"{scheme} = {point.value}", "a class with resolve()")
        return made  # type: ignore[no-any-return]  # checked as far as can be
    raise ConfigurationError("scheme", scheme, f"one of {', '.join(schemes()) or 'the built-in ones'}")


def for_asyncio(resolver: Any, spawn: Callable[[Callable[[], object]], object]) -> AsyncResolver:
    """A resolver as asyncio can use it: itself, if its `resolve` is a coroutine function, else in threads."""
    if inspect.iscoroutinefunction(resolver.resolve):
        return resolver  # type: ignore[no-any-return]  # it says so itself
    return InThreads(resolver, spawn)


class InThreads:
    """A resolver for threads, for asyncio: `spawn` runs a job in a thread that is not the loop's executor."""

    def __init__(self, resolver: Resolver, spawn: Callable[[Callable[[], object]], object]) -> None:
        self._resolver = resolver
        self._spawn = spawn

    def forget(self, question: Question) -> None:
        """See `Remembering.forget`."""
        if isinstance(self._resolver, Remembering):
            self._resolver.forget(question)

    async def resolve(self, question: Question, timeout: float) -> Resolution:
        """As the resolver itself; given up after `timeout` seconds, whatever it does."""
        done: Future[Resolution] = Future()

        def job() -> None:
            try:
                done.set_result(self._resolver.resolve(question, timeout))
            except InvalidStateError:
                pass  # nobody waits any more
            except Exception as error:  # noqa: BLE001  # handed to whoever awaits
                if not done.cancelled():
                    done.set_exception(error)

        self._spawn(job)
        async with asyncio.timeout(timeout):
            return await asyncio.wrap_future(done)
