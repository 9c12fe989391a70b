"""Tasks that die or are replaced while RPCs come in."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from ecs_discovery import CachePolicy
from ecs_discovery.testing.lab.sockets import can_drop_packets
from tests.integrations.grpc.conftest import AsyncCalls, Play
from tests.integrations.grpc.fleet import Fleet, Front

Make = Callable[..., Fleet]
RATE = 200  # RPCs per second
CALLERS = 10


class Load:
    """`CALLERS` callers, each with its share of the rate: which task answered when, how long the longest took, and
    what failed."""

    def __init__(self, calls: Any) -> None:
        self._calls = calls
        self._ended = threading.Event()
        self.answers: list[tuple[float, bytes]] = []
        self.failed: list[Exception] = []
        self.longest = 0.0

    async def run(self, story: Callable[[], None]) -> None:
        """Play `story` in a thread while RPCs come in."""
        teller = threading.Thread(target=self._tell, args=(story,))
        teller.start()
        if isinstance(self._calls, AsyncCalls):
            await asyncio.gather(*(self._caller() for _ in range(CALLERS)))
        else:
            callers = [threading.Thread(target=self._in_thread) for _ in range(CALLERS)]
            for caller in callers:
                caller.start()
            for caller in callers:
                caller.join()
        teller.join()

    def _tell(self, story: Callable[[], None]) -> None:
        try:
            story()
        finally:
            self._ended.set()

    def _in_thread(self) -> None:
        asyncio.run(self._caller())

    async def _caller(self) -> None:
        while not self._ended.is_set():
            began = time.monotonic()
            try:
                answer = await self._calls.one("Get", timeout=10)
                self.answers.append((began, answer))
            except Exception as error:  # noqa: BLE001  # counted
                self.failed.append(error)
            took = time.monotonic() - began
            self.longest = max(self.longest, took)
            await asyncio.sleep(max(0.0, CALLERS / RATE - took))


def test_one_of_four_is_killed_under_load(fleet: Make, play: Play):
    four = fleet(4)

    async def scenario(calls: Any, w: Any) -> None:
        load = Load(calls)

        def story() -> None:
            time.sleep(1)
            four.end(four.tasks[0])
            time.sleep(2)

        await load.run(story)
        assert load.failed == []
        assert load.longest < 1.5
        assert len(load.answers) > 150

    play(scenario, four)


@pytest.mark.skipif(not can_drop_packets(), reason="needs packet filters")
def test_one_of_four_vanishes_under_load(fleet: Make, play: Play):
    four = fleet(4)
    front = Front(four.tasks[0], "127.9.251.3")
    four.shown[0] = front.endpoint

    async def scenario(calls: Any, w: Any) -> None:
        load = Load(calls)

        def story() -> None:
            time.sleep(1)
            front.vanish()
            time.sleep(3)

        await load.run(story)
        assert load.failed == []
        assert load.longest < 1.5

    play(scenario, four)
    front.close()


def test_all_four_are_replaced_one_after_another(fleet: Make, play: Play):
    four = fleet(4, ttl=0.3)
    old = {task.address.encode() for task in four.tasks}

    async def scenario(calls: Any, w: Any) -> None:
        load = Load(calls)

        def story() -> None:
            for task in list(four.tasks):
                time.sleep(0.5)
                four.start()
                four.show()
                time.sleep(0.2)
                four.end(task)
                four.show()
            time.sleep(2)

        await load.run(story)
        assert load.failed == []
        assert load.longest < 1.5
        end = max(began for began, _ in load.answers)
        late = Counter(task for began, task in load.answers if began > end - 1)
        assert set(late) == {task.address.encode() for task in four.tasks}
        assert not old & set(late)
        route = calls.channel._route
        await w.pause(0.2)
        await calls.one("Get")
        assert {sub.node.endpoint.host.encode() for sub in route.all()} <= set(late)  # the others were closed

    play(scenario, four, cache=CachePolicy(min_ttl=0.2))
