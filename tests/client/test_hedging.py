"""Hedging: a slow call goes to a second endpoint as well, and the first good answer counts; in threads and asyncio."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest

from ecs_discovery import AsyncDiscovery, Discovery, HedgePolicy, RetryPolicy, ServiceConfig, TimeoutPolicy
from ecs_discovery.core.balancing.node import Outcome
from tests.recorder import Recorder
from tests.support import eventually
from tests.worlds import Worlds, world

__all__ = ["world"]

DELAY = 0.05
LONG = 20.0  # an attempt that takes so long is never waited for
THREE = {
    "services": {"orders": ["static://127.0.0.1:81,127.0.0.1:82,127.0.0.1:83"]},
    "hedge": HedgePolicy(enabled=True),
}
Plan = Callable[[Any], tuple[float, Any]]


def taught(w: Any, target: str = "orders") -> Any:
    """The service, which has seen many calls that took a twentieth of a second, and may hedge."""
    service = getattr(w, "_driver", w).engine.service(target)
    for _ in range(100):
        service.hedging.delay(1000)
    for _ in range(200):
        service.hedging.learn(DELAY)
    return service


class Fetch:
    """What a call does: `plan(number of the attempt, from 0)` says how long it takes and what comes of it."""

    def __init__(self, w: Any, plan: Callable[[int], tuple[float, Any]]) -> None:
        self.attempts: list[Any] = []
        self.ended: list[tuple[int, bool]] = []
        """Which attempts have ended, and whether they were cancelled."""
        self.enough = threading.Event()
        self._plan = plan
        self._async = w.name == "asyncio"

    def __call__(self, attempt: Any) -> Any:
        number = len(self.attempts)
        self.attempts.append(attempt)
        return self._task(number) if self._async else self._thread(number)

    def _thread(self, number: int) -> Any:
        seconds, result = self._plan(number)
        self.enough.wait(seconds)
        self.ended.append((number, False))
        if isinstance(result, BaseException):
            raise result
        return result

    async def _task(self, number: int) -> Any:
        seconds, result = self._plan(number)
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.ended.append((number, True))
            raise
        self.ended.append((number, False))
        if isinstance(result, BaseException):
            raise result
        return result


def quiet(service: Any) -> bool:
    """No use of any of its endpoints is in flight."""
    return all(node.pending == 0 for node in service.nodes)


async def at_rest(w: Any, service: Any, fetch: Fetch) -> None:
    """Let what nobody waits for end; fails if a use is still counted then."""
    fetch.enough.set()
    for _ in range(1000):
        if quiet(service) and len(fetch.ended) == len(fetch.attempts):
            return
        await w.pause(0.005)
    raise AssertionError(f"{service.nodes} {fetch.ended}")


def test_a_slow_call_is_answered_by_another_endpoint(world: Worlds):
    async def scenario(w) -> None:
        service = taught(w)
        fetch = Fetch(w, lambda number: [(LONG, "slow"), (0, "fast")][number])
        assert await w.call("orders", fetch, idempotent=True) == "fast"
        first, second = fetch.attempts
        assert first.endpoint != second.endpoint
        assert second.number == 2
        await at_rest(w, service, fetch)
        assert fetch.ended[-1] == (0, w.name == "asyncio")

    world.run(scenario, **THREE)


def test_the_loser_is_no_failure_and_its_latency_is_not_the_endpoints(world: Worlds):
    async def scenario(w) -> None:
        service = taught(w)
        fetch = Fetch(w, lambda number: [(LONG, OSError("too late")), (0, "fast")][number])
        await w.call("orders", fetch, idempotent=True)
        await at_rest(w, service, fetch)
        (loser,) = [node for node in service.nodes if node.endpoint == fetch.attempts[0].endpoint]
        assert (loser.failures, loser.successes, loser.latency) == (0, 0, None)

    world.run(scenario, **THREE)


def test_a_call_that_is_fast_enough_is_made_once(world: Worlds):
    async def scenario(w) -> None:
        service = taught(w)
        fetch = Fetch(w, lambda number: (0, number))
        assert [await w.call("orders", fetch, idempotent=True) for _ in range(10)] == list(range(10))
        await at_rest(w, service, fetch)
        assert sum(node.successes for node in service.nodes) == 10

    world.run(scenario, **THREE)


def test_the_first_attempt_wins_if_it_is_done_before_its_hedge(world: Worlds):
    async def scenario(w) -> None:
        service = taught(w)
        fetch = Fetch(w, lambda number: [(4 * DELAY, "first"), (LONG, "second")][number])
        assert await w.call("orders", fetch, idempotent=True) == "first"
        assert len(fetch.attempts) == 2
        await at_rest(w, service, fetch)
        assert service.hedging._ranked[-1] > 3 * DELAY  # its latency is learnt
        winner, loser = (next(n for n in service.nodes if n.endpoint == a.endpoint) for a in fetch.attempts)
        assert (winner.successes, loser.successes, loser.failures) == (1, 0, 0)

    world.run(scenario, **THREE)


def test_a_first_attempt_that_lost_is_remembered_as_slower_than_all(world: Worlds):
    async def scenario(w) -> None:
        service = taught(w)
        fetch = Fetch(w, lambda number: [(LONG, "slow"), (0, "fast")][number])
        await w.call("orders", fetch, idempotent=True)
        assert service.hedging._ranked[-1] == float("inf")
        await at_rest(w, service, fetch)

    world.run(scenario, **THREE)


@pytest.mark.parametrize("failing", [0, 1])
def test_the_failure_of_one_waits_for_the_other(world: Worlds, failing: int):
    async def scenario(w) -> None:
        service = taught(w)
        plans = [(8 * DELAY, "good"), (8 * DELAY, "good")]
        plans[failing] = (6 * DELAY if failing == 0 else 0, ConnectionResetError("gone"))
        fetch = Fetch(w, plans.__getitem__)
        budget = service.budget.balance(w.engine.clock())
        assert await w.call("orders", fetch, idempotent=True) == "good"
        await at_rest(w, service, fetch)
        bad = next(node for node in service.nodes if node.endpoint == fetch.attempts[failing].endpoint)
        assert bad.failures == 1
        # One hedge and no retry; what came in meanwhile is a call's share and a part of a second's.
        assert budget - 1.01 <= service.budget.balance(w.engine.clock()) < budget + 0.9

    world.run(scenario, **THREE, retry=RetryPolicy(budget_floor=0.2))


def test_where_both_fail_the_error_names_both_and_no_third_is_made_beyond_the_attempts(world: Worlds):
    async def scenario(w) -> None:
        service = taught(w)
        fetch = Fetch(w, lambda number: [(3 * DELAY, OSError("first")), (4 * DELAY, OSError("second"))][number])
        with pytest.raises(OSError, match="second") as raised:
            await w.call("orders", fetch, idempotent=True)
        (note,) = raised.value.__notes__
        assert all(str(attempt.endpoint) in note for attempt in fetch.attempts)
        assert "all 2 attempts of RetryPolicy are used" in note
        await at_rest(w, service, fetch)

    world.run(scenario, **THREE, retry=RetryPolicy(attempts=2))


def test_after_two_failures_a_third_endpoint_is_tried(world: Worlds):
    async def scenario(w) -> None:
        service = taught(w)
        failures = [(6 * DELAY, OSError("first")), (8 * DELAY, OSError("second")), (0, "third")]
        fetch = Fetch(w, failures.__getitem__)
        assert await w.call("orders", fetch, idempotent=True) == "third"
        assert len({attempt.endpoint for attempt in fetch.attempts}) == 3
        await at_rest(w, service, fetch)

    world.run(scenario, **THREE)


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        pytest.param({}, {"idempotent": False}, id="not idempotent"),
        pytest.param({"services": {"orders": "static://127.0.0.1:81"}}, {"idempotent": True}, id="one endpoint"),
        pytest.param({}, {"idempotent": True, "deadline": 0.95}, id="no time for the median"),
        pytest.param({"retry": RetryPolicy(budget=0, budget_floor=0)}, {"idempotent": True}, id="no budget"),
    ],
)
def test_what_is_not_hedged(world: Worlds, settings: dict[str, Any], options: dict[str, Any]):
    async def scenario(w) -> None:
        service = taught(w)
        seconds = 3 * DELAY
        if "deadline" in options:
            seconds = 0.6
            for _ in range(500):
                service.hedging.learn(0.5)
        fetch = Fetch(w, lambda number: (seconds, "done"))
        assert await w.call("orders", fetch, **options) == "done"
        assert len(fetch.attempts) == 1
        assert quiet(service)

    world.run(scenario, **THREE | settings)


def test_an_endpoint_that_is_down_is_no_hedge(world: Worlds):
    async def scenario(w) -> None:
        service = taught(w)
        down = service.nodes[0]
        service.observe(down, Outcome.CONNECT, w.engine.clock())
        fetch = Fetch(w, lambda number: (3 * DELAY, "done"))
        assert await w.call("orders", fetch, idempotent=True) == "done"
        assert len(fetch.attempts) == 1
        assert quiet(service)

    world.run(scenario, **THREE | {"services": {"orders": "static://127.0.0.1:81,127.0.0.1:82"}})


def test_with_a_key_the_hedge_goes_to_the_next_endpoint_of_that_key(world: Worlds):
    async def scenario(w) -> None:
        service = taught(w)
        fetch = Fetch(w, lambda number: [(LONG, "slow"), (0, "fast")][number % 2])
        for _ in range(3):
            assert await w.call("orders", fetch, idempotent=True, key="user-17") == "fast"
        assert len({attempt.endpoint for attempt in fetch.attempts[::2]}) == 1
        assert len({attempt.endpoint for attempt in fetch.attempts}) == 2
        await at_rest(w, service, fetch)

    world.run(scenario, **THREE)


def test_a_service_may_hedge_alone(world: Worlds):
    async def scenario(w) -> None:
        assert w.engine.service("orders").hedging is not None
        assert w.engine.service("users:80").hedging is None

    world.run(scenario, services={"orders": ServiceConfig("static://127.0.0.1:81", hedge=HedgePolicy(enabled=True))})


def test_latencies_are_learnt_from_ordinary_calls(world: Worlds):
    async def scenario(w) -> None:
        hedging = w.engine.service("orders").hedging
        for number in range(20):
            assert hedging.delay(1000) is None, number
            await w.call("orders", Fetch(w, lambda number: (0, None)), idempotent=True)
        with pytest.raises(OSError, match="quick"):
            await w.call("orders", Fetch(w, lambda number: (0, OSError("quick"))), idempotent=True)
        assert len(hedging._ranked) == 20  # failures are no latencies
        assert hedging.delay(1000) is not None

    world.run(scenario, **THREE, retry=RetryPolicy(attempts=1))


def test_hedges_are_at_most_their_share_of_the_calls(world: Worlds):
    async def scenario(w) -> None:
        service = taught(w)
        while service.hedging.try_acquire(w.engine.clock()):
            pass
        fetch = Fetch(w, lambda number: (2 * DELAY, None))
        calls = 60

        async def use() -> None:
            await w.call("orders", fetch, idempotent=True)

        if w.name == "threads":
            await w.many(calls, lambda: use())
        else:
            await w.many(calls, use)
        assert calls < len(fetch.attempts) <= calls + 0.05 * calls + 1
        await at_rest(w, service, fetch)

    world.run(scenario, **THREE)


def test_context_variables_reach_both_attempts(world: Worlds):
    user: ContextVar[str] = ContextVar("user", default="nobody")
    seen = []

    async def scenario(w) -> None:
        service = taught(w)

        def plan(number: int) -> tuple[float, Any]:
            seen.append(user.get())
            return [(LONG, "slow"), (0, "fast")][number]

        fetch = Fetch(w, plan)
        token = user.set("ann")
        await w.call("orders", fetch, idempotent=True)
        user.reset(token)
        assert seen == ["ann", "ann"]
        await at_rest(w, service, fetch)

    world.run(scenario, **THREE)


def test_a_hundred_hedged_calls_leave_no_use_task_or_thread(world: Worlds):
    async def scenario(w) -> None:
        service = taught(w)
        fetch = Fetch(w, lambda number: (0.3 if number % 2 else 0.0, number))
        results = await w.many(100, lambda: w.call("orders", fetch, idempotent=True))
        assert all(isinstance(result, int) for result in results), results
        await at_rest(w, service, fetch)
        if w.name == "asyncio":
            await asyncio.sleep(0)
            assert asyncio.all_tasks() == {asyncio.current_task()}
            assert not w.discovery._driver.background.tasks

    world.run(scenario, **THREE)
    eventually(lambda: not [thread for thread in threading.enumerate() if thread.name == "ecs_discovery"])


def test_a_closed_discovery_finishes_the_calls_it_has_begun():
    with Discovery(**THREE) as discovery:
        service = taught(discovery)

        def fetch(attempt: Any) -> str:
            discovery.close()
            if attempt.number == 1:
                time.sleep(3 * DELAY)
            return "done"

        assert discovery.call("orders", fetch, idempotent=True) == "done"
    eventually(lambda: quiet(service))


def test_an_interrupt_of_the_waiting_thread_leaves_no_use(monkeypatch: pytest.MonkeyPatch):
    with Discovery(**THREE) as discovery:
        service = taught(discovery)
        enough = threading.Event()

        def pick(*_: Any) -> None:
            raise KeyboardInterrupt

        def fetch(attempt: Any) -> None:
            monkeypatch.setattr(service, "pick", pick)  # what the waiting thread does next
            enough.wait(LONG)

        with pytest.raises(KeyboardInterrupt):
            discovery.call("orders", fetch, idempotent=True)
        enough.set()
        eventually(lambda: quiet(service))


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_raised_in_an_attempt_reaches_the_caller(kind: type[BaseException]):
    with Discovery(**THREE) as discovery:
        service = taught(discovery)

        def fetch(attempt: Any) -> None:
            raise kind

        with pytest.raises(kind):
            discovery.call("orders", fetch, idempotent=True)
        eventually(lambda: quiet(service))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_the_child_of_a_fork_hedges_with_threads_and_locks_of_its_own():
    """At the fork, threads of attempts are idle and a lock is held."""
    code = """
import os, time
from ecs_discovery import Discovery, HedgePolicy
discovery = Discovery(services={"orders": "static://127.0.0.1:81,127.0.0.1:82"}, hedge=HedgePolicy(enabled=True))
hedging = discovery._driver.engine.service("orders").hedging
def hedge():
    for _ in range(100):
        hedging.delay(1000)
        hedging.learn(0.02)
    def fetch(attempt):
        time.sleep(0.3 if attempt.number == 1 else 0)
        return attempt.number
    return discovery.call("orders", fetch, idempotent=True)
assert hedge() == 2
hedging._lock.acquire()
pid = os.fork()
if pid == 0:
    os._exit(hedge())
hedging._lock.release()
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), hedge())
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout == "2 2\n", result.stderr


def test_cancelling_a_hedged_call_ends_both_attempts_before_it_returns():
    async def main() -> None:
        async with AsyncDiscovery(**THREE) as discovery:
            service = taught(discovery)
            ended = []
            both = asyncio.Event()

            async def fetch(attempt: Any) -> None:
                if attempt.number == 2:
                    both.set()
                try:
                    await asyncio.sleep(LONG)
                finally:
                    await asyncio.sleep(0.01)  # as closing a connection may take
                    ended.append(attempt.number)

            recorder = Recorder()
            discovery._engine.observe(recorder)
            call = asyncio.create_task(discovery.call("orders", fetch, idempotent=True))
            await both.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert recorder.kinds == ["cancelled", "cancelled"]
            assert sorted(ended) == [1, 2]
            assert quiet(service)
            assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_the_deadline_of_an_asyncio_call_ends_both_attempts():
    async def main() -> None:
        async with AsyncDiscovery(**THREE) as discovery:
            service = taught(discovery)
            cancelled = []

            async def fetch(attempt: Any) -> None:
                try:
                    await asyncio.sleep(LONG)
                except asyncio.CancelledError:
                    cancelled.append(attempt.number)
                    raise

            with pytest.raises(TimeoutError) as raised:
                await discovery.call("orders", fetch, idempotent=True, deadline=4 * DELAY)
            assert sorted(cancelled) == [1, 2]
            attempts: Any = raised.value.attempts  # type: ignore[attr-defined]
            assert [(each.outcome, each.kind) for each in attempts] == [("overtaken", "overtaken")] * 2
            assert sorted(each.number for each in attempts) == [1, 2]
            assert quiet(service)

    asyncio.run(main())


def test_closing_ends_losers_that_take_their_time():
    async def main() -> None:
        discovery = AsyncDiscovery(**THREE)
        service = taught(discovery)
        ended = []

        async def fetch(attempt: Any) -> str:
            if attempt.number == 1:
                try:
                    await asyncio.sleep(LONG)
                finally:
                    await asyncio.sleep(0.05)
                    ended.append(1)
            return "fast"

        assert await discovery.call("orders", fetch, idempotent=True) == "fast"
        assert not ended
        await discovery.aclose()
        assert quiet(service)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_a_connection_is_raced_and_never_hedged(world: Worlds):
    async def scenario(w) -> None:
        taught(w)
        with pytest.raises(OSError, match="orders"):
            await w.connect("orders", timeout=0.5)

    world.run(scenario, **THREE, timeout=TimeoutPolicy(connect=0.5))
