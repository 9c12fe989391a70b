"""What a resolver is: one question in, one answer out, within a hard time limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from ecs_discovery.models import Question, Resolution

__all__ = ["AsyncResolver", "Queueing", "Remembering", "Resolver"]


class Resolver(Protocol):
    """A one-shot lookup for threads. It keeps no answers: the caller decides how long an answer holds."""

    def resolve(self, question: Question, timeout: float) -> Resolution:
        """Ask the source now and return at least one endpoint, within `timeout` seconds whatever happens.

        Raises `TargetNotFound` if the name does not exist, and `NoEndpoints` if it has nothing usable. Both have the
        source's negative TTL where the source gives it. Raises `ResolutionTimeout` if no answer came. Raises
        `ResolutionError` for every other failure; it never means "there is none"."""
        ...


class AsyncResolver(Protocol):
    """The same for asyncio. One object serves any number of event loops, one after another or at once."""

    async def resolve(self, question: Question, timeout: float) -> Resolution:
        """As `Resolver.resolve`. Cancelling it leaves nothing behind."""
        ...


@runtime_checkable
class Remembering(Protocol):
    """What a resolver of either kind may offer besides, if it answers from memory where the source says "unchanged"."""

    def forget(self, question: Question) -> None:
        """An endpoint failed: let the next answer to `question` come from the source as a whole.

        Called from any thread, also while the question is being asked. Waits for nothing and raises nothing.
        """
        ...


@runtime_checkable
class Queueing(Protocol):
    """A resolver for asyncio whose lookups may have to wait for their turn."""

    async def resolve_in_turn(self, question: Question, timeout: float, begin: Callable[[], bool]) -> Resolution | None:
        """As `AsyncResolver.resolve`, but the time limit counts from its turn. Before that it waits as long at most.

        `begin` is called when its turn has come, in any thread. If it says False no caller needs the answer any more.
        Then nothing is asked, and the result is None.
        """
        ...
