"""What a discovery counts adds up, in threads as in asyncio."""

from __future__ import annotations

import os
from random import Random

import pytest

from ecs_discovery import Discovery, HedgePolicy, RetryPolicy
from ecs_discovery.core.counters import Counted, Counters
from tests.client.support import THREE
from tests.support import FakeClock
from tests.worlds import Worlds


def follow_ups(counters: Counters) -> int:
    return sum(counters.total(each) for each in (Counted.RETRIES, Counted.REPLAYS, Counted.HEDGES))


def test_attempts_are_calls_and_what_followed_them(world: Worlds):
    """A thousand calls of which some are refused, reset, or answered with an error."""
    chance = Random(11)
    attempts = calls = 0

    async def scenario(w):
        nonlocal attempts, calls

        def fetch(attempt):
            nonlocal attempts
            attempts += 1
            drawn = chance.random()
            if drawn < 0.1:
                raise ConnectionResetError(104, "reset")
            if drawn < 0.15:
                raise ValueError("not of the connection")
            return attempt.port

        for _ in range(1000):
            calls += 1
            try:
                await w.call(THREE, fetch, idempotent=chance.random() < 0.8)
            except (OSError, ValueError):
                pass
        counters = w.engine.service(THREE).counters
        assert attempts == calls + follow_ups(counters)
        counts = w.discovery.snapshot(THREE).counts
        assert counts["retries"]["closed"] > 20
        assert counts["retries_denied"]["not_idempotent"] > 5
        assert counts["members"] == {"added": 3}

    world.run(scenario, retry=RetryPolicy(budget=1.0))


def test_lookups_are_counted_by_scheme_and_outcome(world: Worlds):
    from ecs_discovery.errors import ResolutionError
    from ecs_discovery.models import Endpoint, Resolution

    class Fleet:
        answers = True

        def resolve(self, question, timeout):
            if not self.answers:
                raise ResolutionError("gone", target=str(question))
            return Resolution((Endpoint("127.0.0.1", 1),), 60, "fleet")

    fleet = Fleet()

    async def scenario(w):
        await w.resolve("fleet://orders")
        fleet.answers = False
        with pytest.raises(ResolutionError):
            await w.resolve("fleet://users")
        assert w.engine.counters.read() == {"lookups": {"fleet ok": 1, "fleet ResolutionError": 1}}

    world.run(scenario, resolvers={"fleet": fleet}, clock=FakeClock())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_counts_its_own_only():
    with Discovery(hedge=HedgePolicy()) as discovery:

        def once() -> None:
            failures = iter([ConnectionResetError(104, "reset")])

            def fetch(attempt: object) -> None:
                for failure in failures:
                    raise failure

            discovery.call(THREE, fetch, idempotent=True)

        once()
        child = os.fork()
        if not child:
            try:
                once()
                counts = discovery.snapshot(THREE).counts
                os._exit(0 if counts == {"retries": {"closed": 1}} else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert discovery.snapshot(THREE).counts["retries"] == {"closed": 1}
