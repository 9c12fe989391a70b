"""`max_pending`: what finds every endpoint full waits for room, in turn, or fails, in threads and asyncio."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from ecs_discovery import AsyncDiscovery, BalancingPolicy, Discovery, Overloaded, TimeoutPolicy
from tests.worlds import Worlds, world

__all__ = ["world"]

FULL = {"services": {"orders": "static://127.0.0.1:80"}, "balancing": BalancingPolicy(max_pending=1)}


def test_what_finds_no_room_within_its_connect_time_is_overloaded(world: Worlds):
    async def scenario(w) -> None:
        async with w.lease("orders"):
            with pytest.raises(Overloaded, match="max_pending"):
                async with w.lease("orders"):
                    pass
            with pytest.raises(Overloaded):
                await w.call("orders", lambda attempt: None)

    world.run(scenario, **FULL, timeout=TimeoutPolicy(connect=0.05))


def test_without_waiting_it_fails_at_once(world: Worlds):
    async def scenario(w) -> None:
        async with w.lease("orders"):
            began = time.monotonic()
            with pytest.raises(Overloaded):
                await w.call("orders", lambda attempt: None)
            assert time.monotonic() - began < 5

    settings = FULL | {"balancing": BalancingPolicy(max_pending=1, wait_for_room=False)}
    world.run(scenario, **settings, timeout=TimeoutPolicy(connect=10))


def test_fifty_callers_of_one_place_are_served_one_at_a_time_and_all(world: Worlds):
    inside, most, served = [0], [0], [0]

    async def scenario(w) -> None:
        async def use() -> None:
            async with w.lease("orders"):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                await (asyncio.sleep(0.001) if w.name != "threads" else _nap())
                inside[0] -= 1
                served[0] += 1

        await w.many(50, use)
        assert (most[0], served[0]) == (1, 50)
        assert len(w.engine.service("orders").admission) == 0

    world.run(scenario, **FULL, timeout=TimeoutPolicy(connect=30))


async def _nap() -> None:
    time.sleep(0.001)


def test_those_who_wait_are_served_in_the_order_of_their_coming():
    with Discovery(**FULL, timeout=TimeoutPolicy(connect=30)) as discovery:
        room = discovery._driver.engine.service("orders").admission
        order: list[int] = []

        def use(number: int) -> None:
            with discovery.lease("orders"):
                order.append(number)

        callers = [threading.Thread(target=use, args=(number,)) for number in range(5)]
        with discovery.lease("orders"):
            for number, caller in enumerate(callers, 1):
                caller.start()
                while len(room) < number:
                    time.sleep(0.001)
        for caller in callers:
            caller.join(10)
        assert order == [0, 1, 2, 3, 4]


def test_a_task_cancelled_while_it_waits_leaves_the_queue():
    async def scenario() -> None:
        async with AsyncDiscovery(**FULL, timeout=TimeoutPolicy(connect=30)) as discovery:
            room = discovery._driver.engine.service("orders").admission

            async def use() -> None:
                async with discovery.lease("orders"):
                    pass

            async with discovery.lease("orders"):
                waiting = [asyncio.create_task(use()) for _ in range(3)]
                while len(room) < 3:
                    await asyncio.sleep(0.001)
                waiting[0].cancel()
                await asyncio.gather(waiting[0], return_exceptions=True)
                assert len(room) == 2
            await asyncio.wait_for(asyncio.gather(*waiting[1:]), 10)

    asyncio.run(scenario())


@pytest.mark.parametrize(("threads", "tasks", "places"), [(16, 48, 6), (64, 500, 12)])
def test_nobody_is_served_more_often_than_others_who_come_back_as_fast(threads: int, tasks: int, places: int):
    """Threads and tasks of one service with few places: each comes again at once. From when all places are taken and
    all others wait, nobody is served more than twelve times when all have been ten times."""
    total = threads + tasks
    settings = {
        "services": {"orders": "static://127.0.0.1:80,127.0.0.2:80"},
        "balancing": BalancingPolicy(max_pending=places // 2),
        "timeout": TimeoutPolicy(connect=30),
    }
    uses = [0] * total
    everybody = threading.Event()
    with Discovery(**settings) as discovery:

        def served(number: int) -> None:
            if everybody.is_set():
                uses[number] += 1

        def in_thread(number: int) -> None:
            while min(uses) < 10:
                with discovery.lease("orders"):
                    served(number)
                    time.sleep(0.001)

        async def in_task(shared: AsyncDiscovery, number: int) -> None:
            while min(uses) < 10:
                async with shared.lease("orders"):
                    served(number)
                    await asyncio.sleep(0.001)

        async def main() -> None:
            async with AsyncDiscovery(share=discovery) as shared:
                callers = [asyncio.create_task(in_task(shared, number)) for number in range(threads, total)]
                while len(discovery._driver.engine.service("orders").admission) < total - places:
                    await asyncio.sleep(0.001)
                everybody.set()
                await asyncio.gather(*callers)

        running = [threading.Thread(target=in_thread, args=(number,)) for number in range(threads)]
        for thread in running:
            thread.start()
        asyncio.run(main())
        for thread in running:
            thread.join(30)
        assert max(uses) <= 12, uses
        assert len(discovery._driver.engine.service("orders").admission) == 0


def test_a_place_that_was_offered_to_a_closed_loop_goes_to_the_next():
    with Discovery(**FULL, timeout=TimeoutPolicy(connect=30)) as discovery:
        room = discovery._driver.engine.service("orders").admission
        loop = asyncio.new_event_loop()
        shared = AsyncDiscovery(share=discovery)

        async def wait() -> None:
            async with shared.lease("orders"):
                pass

        with discovery.lease("orders"):
            task = loop.create_task(wait())
            while not room.crowded:
                loop.run_until_complete(asyncio.sleep(0.001))
            loop.close()  # with a task in it, as a program does that is in a hurry
            done = threading.Event()

            def use() -> None:
                with discovery.lease("orders"):
                    done.set()

            caller = threading.Thread(target=use)
            caller.start()
            while len(room) < 2:
                time.sleep(0.001)
        assert done.wait(10)
        caller.join(10)
        task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_one_who_gives_up_after_it_was_called_passes_the_call_on():
    """A task that was called and is cancelled before it runs."""

    async def scenario() -> None:
        async with AsyncDiscovery(**FULL, timeout=TimeoutPolicy(connect=30)) as discovery:
            room = discovery._driver.engine.service("orders").admission

            async def use() -> None:
                async with discovery.lease("orders"):
                    pass

            async with discovery.lease("orders"):
                waiting = [asyncio.create_task(use()) for _ in range(3)]
                while len(room) < 3:
                    await asyncio.sleep(0.001)
            waiting[0].cancel()
            await asyncio.wait_for(asyncio.gather(*waiting[1:]), 10)

    asyncio.run(scenario())
