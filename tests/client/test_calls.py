"""Calls: what is repeated, and what an exception says of the endpoint."""

from __future__ import annotations

import asyncio
import socket
from random import Random

import pytest

from ecs_discovery import (
    AsyncDiscovery,
    ConfigurationError,
    DeadlineExceeded,
    Discovery,
    RetryPolicy,
    options,
)
from tests.client.support import THREE
from tests.support import FakeClock
from tests.worlds import Worlds


def test_an_interrupt_or_the_deadline_ends_a_call_that_was_being_retried(world: Worlds):
    clock = FakeClock()

    async def scenario(w):
        tried = []

        def fetch(attempt):
            tried.append(attempt.port)
            if len(tried) == 2:
                raise KeyboardInterrupt
            raise ConnectionResetError(104, "reset")

        with pytest.raises(KeyboardInterrupt):
            await w.call(THREE, fetch, idempotent=True)
        assert len(tried) == 2

        def overrun(attempt):
            tried.append(attempt.port)
            raise ConnectionResetError(104, "reset")

        begin = w.engine.start_attempt
        w.engine.start_attempt = lambda *args, **options: (clock.advance(1), begin(*args, **options))[1]
        tried.clear()
        with pytest.raises(DeadlineExceeded):
            await w.call(THREE, overrun, idempotent=True, deadline=1.5)
        assert len(tried) == 1

    world.run(scenario, clock=clock)


def test_a_refusal_that_was_not_the_endpoints_is_not_repeated_as_if_nothing_was_sent(world: Worlds):
    with socket.create_server(("127.0.0.1", 0)) as server:
        target = f"static://127.0.0.1:{server.getsockname()[1]}"

        async def scenario(w):
            tried = []

            def fetch(attempt):
                tried.append(attempt.port)
                raise ConnectionRefusedError(111, "somebody else's")

            with pytest.raises(ConnectionRefusedError):
                await w.call(target, fetch)
            assert len(tried) == 1
            with pytest.raises(ConnectionRefusedError):
                async with w.lease(target):
                    raise ConnectionRefusedError(111, "somebody else's")
            await w.pause(0.05)
            assert w.discovery.snapshot(target).nodes[0].health == "healthy"

        world.run(scenario)


def test_a_services_own_policies_replace_the_discoverys(world: Worlds):
    from ecs_discovery import OutlierPolicy, ServiceConfig

    lenient = OutlierPolicy(is_failure=lambda error: False)

    async def scenario(w):
        for name, failures in (("strict", 1), ("lenient", 0)):
            with pytest.raises(ValueError, match="bad"):
                async with w.lease(name):
                    raise ValueError("bad")
            assert w.discovery.snapshot(name).nodes[0].failures == failures

    world.run(
        scenario,
        services={"strict": "static://127.0.0.1:1", "lenient": ServiceConfig("static://127.0.0.1:2", outlier=lenient)},
    )


def test_the_callers_idea_of_a_failure_decides(world: Worlds):
    from ecs_discovery import OutlierPolicy

    async def scenario(w):
        for _ in range(10):
            with pytest.raises(ValueError, match="bad input"):
                async with w.lease("static://127.0.0.1:1"):
                    raise ValueError("bad input")
        (node,) = w.discovery.snapshot("static://127.0.0.1:1").nodes
        assert node.failures == 0

    world.run(scenario, outlier=OutlierPolicy(is_failure=lambda error: not isinstance(error, ValueError)))


def test_a_call_whose_endpoint_refuses_goes_on_with_another(world: Worlds):
    async def scenario(w):
        tried = []

        def fetch(attempt):
            tried.append(attempt.port)
            assert attempt.number == len(tried)
            if len(tried) < 3:
                socket.create_connection((attempt.host, attempt.port), timeout=5)  # refused
            return "answer"

        assert await w.call(THREE, fetch) == "answer"
        assert sorted(tried) == [1, 2, 3]
        states = {node.endpoint: node.health for node in w.discovery.snapshot(THREE).nodes}
        assert sorted(states.values()) == ["down", "down", "healthy"]

    world.run(scenario)


def test_a_broken_call_is_repeated_only_if_idempotent_and_keeps_the_callers_exception(world: Worlds):
    async def scenario(w):
        tried = []

        def fetch(attempt):
            tried.append(attempt.port)
            raise ConnectionResetError(104, "reset")

        with pytest.raises(ConnectionResetError) as caught:
            await w.call(THREE, fetch)
        assert len(tried) == 1
        assert "not idempotent" in caught.value.__notes__[0]

        tried.clear()
        with pytest.raises(ConnectionResetError) as caught:
            await w.call(THREE, fetch, idempotent=True)
        assert sorted(tried) == [1, 2, 3]
        assert caught.value.__notes__[-1].count(" after ") == 3

        tried.clear()
        with options(idempotent=True), pytest.raises(ConnectionResetError):
            await w.call(THREE, fetch)
        assert len(tried) == 3

    world.run(scenario)


def test_an_exception_that_is_no_broken_connection_is_never_repeated(world: Worlds):
    async def scenario(w):
        tried = []

        def fetch(attempt):
            tried.append(attempt.port)
            raise ValueError("a bug")

        with pytest.raises(ValueError, match="a bug"):
            await w.call(THREE, fetch, idempotent=True)
        assert len(tried) == 1

    world.run(scenario)


def test_an_interrupted_call_says_nothing_of_the_endpoint(world: Worlds):
    async def scenario(w):
        def fetch(attempt):
            assert repr(attempt) == "<Attempt 1 on 127.0.0.1:1>"
            assert attempt.host == "127.0.0.1"
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            await w.call("static://127.0.0.1:1", fetch, idempotent=True)
        (node,) = w.discovery.snapshot("static://127.0.0.1:1").nodes
        assert (node.uses, node.failures, node.pending) == (1, 0, 0)

    world.run(scenario)


def test_no_attempt_begins_after_the_deadline(world: Worlds):
    clock = FakeClock()

    async def scenario(w):
        tried = []

        def fetch(attempt):
            tried.append(attempt.remaining)
            clock.advance(2)
            raise ConnectionResetError(104, "reset")

        with pytest.raises(ConnectionResetError):
            await w.call(THREE, fetch, idempotent=True, deadline=3)
        assert tried == [3, 1]

    world.run(scenario, clock=clock)


def test_retries_stop_when_the_budget_is_used_up(world: Worlds):
    async def scenario(w):
        attempts = 0

        def fetch(attempt):
            nonlocal attempts
            attempts += 1
            raise ConnectionResetError(104, "reset")

        for _ in range(100):
            with pytest.raises(ConnectionResetError):
                await w.call(THREE, fetch, idempotent=True)
        assert attempts <= 100 + 10

    world.run(scenario, clock=FakeClock(), rng=Random(1), retry=RetryPolicy())


def test_a_deadline_that_is_given_is_hard_in_asyncio():

    async def main():
        async with AsyncDiscovery() as discovery:

            async def fetch(attempt):
                await asyncio.sleep(30)

            with pytest.raises(DeadlineExceeded, match=r"not done within 0\.05 s"):
                await discovery.call("static://127.0.0.1:1", fetch, deadline=0.05)
            (node,) = discovery.snapshot("static://127.0.0.1:1").nodes
            assert (node.pending, node.failures) == (0, 0)

    asyncio.run(main())


def test_a_coroutine_function_is_no_fetch_for_threads():

    async def fetch(attempt):
        raise AssertionError("not reached")

    with Discovery() as discovery, pytest.raises(ConfigurationError, match="AsyncDiscovery"):
        discovery.call("static://127.0.0.1:1", fetch)
