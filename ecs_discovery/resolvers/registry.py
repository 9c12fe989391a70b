"""Resolvers of other packages, found by entry points in the group `ecs_discovery.resolvers`.

The entry point's name is the scheme, what it names is a class (or function) that makes the resolver
when called without arguments. Nothing is loaded before a target uses the scheme.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from ecs_discovery.errors import ConfigurationError
from ecs_discovery.resolvers.base import Resolver

__all__ = ["GROUP", "Schemes", "load", "schemes", "standing_in"]

GROUP = "ecs_discovery.resolvers"

standing_in: list[Resolver] = []
"""The last of these answers every lookup of the process, whatever its scheme (`static` apart). For tests: empty
otherwise."""


def schemes() -> tuple[str, ...]:
    """The schemes that installed packages register."""
    from importlib.metadata import entry_points  # most targets are of a scheme of ours

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
    from importlib.metadata import entry_points

    for point in entry_points(group=GROUP, name=scheme):
        try:
            made = point.load()()
        except Exception as error:
            raise ConfigurationError(f"entry point {GROUP}", f"{scheme} = {point.value}", "a resolver class") from error
        if not callable(getattr(made, "resolve", None)):
            raise ConfigurationError(f"entry point {GROUP}", f"{scheme} = {point.value}", "a class with resolve()")
        return made  # type: ignore[no-any-return]  # checked as far as can be
    raise ConfigurationError("scheme", scheme, f"one of {', '.join(schemes()) or 'the built-in ones'}")
