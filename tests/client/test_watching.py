"""`attempt.watch`: calls of an `AsyncDiscovery` whose task vanishes."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest

from ecs_discovery import AsyncDiscovery, OutlierPolicy, RequestError, RetryPolicy
from ecs_discovery.core.balancing.node import Health
from ecs_discovery.testing.lab import Lab

CALM = OutlierPolicy(connect_min=30)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(namespace="prod.local", seed=3) as lab:
        if not lab.can_vanish:
            pytest.skip("no socket filter here")
        yield lab


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Awaitable[None]], None]:
    if request.param == "asyncio":
        return asyncio.run
    if sys.platform == "win32":
        pytest.skip("uvloop is not for Windows")
    import uvloop

    return lambda main: uvloop.run(main, debug=False)


def target(tasks) -> str:
    return "static://" + ",".join(f"{task.address}:{task.port}" for task in tasks)


async def get(attempt, path: str = "/", before: Callable[[str], None] = lambda host: None) -> str:
    reader, writer = await asyncio.open_connection(attempt.host, attempt.port)
    try:
        before(attempt.host)
        attempt.watch(writer)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        return attempt.host
    finally:
        writer.close()


def test_a_request_to_a_task_that_vanished_goes_elsewhere(lab: Lab, run):
    tasks = lab.service("orders", tasks=2).tasks

    async def main() -> None:
        async with AsyncDiscovery(outlier=CALM) as discovery:

            def vanish(host: str) -> None:
                if host == tasks[0].address and not tasks[0].faults:
                    tasks[0].vanish()

            began = time.monotonic()
            for _ in range(4):
                host = await discovery.call(target(tasks), lambda a: get(a, before=vanish), idempotent=True)
                assert host == tasks[1].address or not tasks[0].faults
            assert tasks[0].faults
            assert time.monotonic() - began < 3
            health = {node.health for node in discovery._driver.engine.service(target(tasks)).nodes}
            assert health == {Health.DOWN, Health.HEALTHY}

    run(main())


def test_a_request_in_hand_goes_elsewhere_once_others_have_met_silence(lab: Lab, run):
    tasks = lab.service("orders", tasks=2).tasks

    async def main() -> None:
        async with AsyncDiscovery(outlier=CALM) as discovery:
            slow = [
                asyncio.create_task(discovery.call(target(tasks), lambda a: get(a, "/slow/1"), idempotent=True))
                for _ in tasks
            ]
            while sum(task.in_flight for task in tasks) < 2:
                await asyncio.sleep(0.005)
            tasks[0].vanish()
            for _ in range(3):
                _, writer = await discovery.open_connection(target(tasks), timeout=5)
                writer.close()
            assert await asyncio.gather(*slow) == [tasks[1].address] * 2

    run(main())


def test_a_slow_handler_is_left_alone(lab: Lab, run):
    tasks = lab.service("orders", tasks=1).tasks

    async def main() -> None:
        async with AsyncDiscovery() as discovery:
            await discovery.call(target(tasks), lambda a: get(a, "/slow/0.8"), idempotent=True)
        assert tasks[0].requests == 1

    run(main())


def test_what_may_not_be_repeated_waits_on(lab: Lab, run):
    tasks = lab.service("orders", tasks=2).tasks

    async def main() -> None:
        async with AsyncDiscovery() as discovery:
            with pytest.raises(TimeoutError):
                await discovery.call(target(tasks), lambda a: get(a, before=lambda _: vanish()), deadline=0.8)

    def vanish() -> None:
        for task in tasks:
            task.vanish()

    run(main())


def test_when_all_have_vanished_the_error_says_so(lab: Lab, run):
    tasks = lab.service("orders", tasks=1).tasks

    async def fetch(attempt) -> None:
        sock = socket.create_connection((attempt.host, attempt.port))
        with sock:
            tasks[0].vanish()
            attempt.watch(sock)
            attempt.watch(sock)  # as good as once
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            await asyncio.Event().wait()  # until it is cancelled

    async def main() -> None:
        async with AsyncDiscovery(retry=RetryPolicy(attempts=1)) as discovery:
            with pytest.raises(RequestError, match="has vanished") as caught:
                await discovery.call(target(tasks), fetch, idempotent=True)
            assert isinstance(caught.value, ConnectionError)

    run(main())
