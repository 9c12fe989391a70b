"""Addresses as a source in a row: `["srv://orders", "static://10.0.0.1:8080"]`."""

from __future__ import annotations

from math import inf

from ecs_discovery.config.targets import parse_target
from ecs_discovery.models import Question, Resolution

__all__ = ["AsyncStaticResolver", "StaticResolver"]


class StaticResolver:
    """Answers `static` questions with the addresses they name. Sends no query."""

    def resolve(self, question: Question, timeout: float) -> Resolution:
        return Resolution(parse_target(f"static://{question.name}").addresses, inf, "static")


class AsyncStaticResolver:
    """The same for asyncio."""

    async def resolve(self, question: Question, timeout: float) -> Resolution:
        return StaticResolver().resolve(question, timeout)
