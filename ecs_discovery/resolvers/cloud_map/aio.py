"""Lookups at the AWS Cloud Map API for asyncio: `CloudMapResolver`, waited for without blocking."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from ecs_discovery.config.policies import CloudMapPolicy
from ecs_discovery.errors import ConfigurationError
from ecs_discovery.models import Question, Resolution
from ecs_discovery.resolvers.cloud_map.sync import CloudMapResolver, too_slow

__all__ = ["AsyncCloudMapResolver"]


class AsyncCloudMapResolver:
    """`CloudMapResolver` for asyncio. boto3 blocks, so it runs in threads of its own, never in the loop's executor.

    `share` is a `CloudMapResolver` to ask through, with its client and all that it remembers; then nothing else may
    be given.
    """

    def __init__(
        self,
        policy: CloudMapPolicy | None = None,
        *,
        client: Any = None,
        share: CloudMapResolver | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if share is not None and (policy is not None or client is not None):
            raise ConfigurationError("share", share, "a CloudMapResolver, and then neither policy nor client")
        self._resolver = share if share is not None else CloudMapResolver(policy, client=client, clock=clock)

    def __repr__(self) -> str:
        return f"<Async{repr(self._resolver)[1:]}"

    async def resolve(self, question: Question, timeout: float) -> Resolution:
        """See `AsyncResolver.resolve`. Raises `ConfigurationError` for what is no Cloud Map target."""
        waiter = asyncio.wrap_future(self._resolver.submit(question))
        try:
            done, _ = await asyncio.wait((waiter,), timeout=timeout)
            if not done:
                raise too_slow(question, timeout)
            return waiter.result()
        finally:
            waiter.cancel()

    def forget(self, question: Question) -> None:
        """See `Remembering.forget`."""
        self._resolver.forget(question)

    def close(self) -> None:
        """As `CloudMapResolver.close`."""
        self._resolver.close()
