"""Lookups that end without an answer: their loop ends, or their resolver does what no resolver should."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from ecs_discovery import AsyncDiscovery, CachePolicy, Discovery, ResolutionError, TimeoutPolicy
from ecs_discovery.models import Endpoint, Question, Resolution
from tests.support import FakeClock, answer
from tests.worlds import Worlds, world

__all__ = ["world"]

CALM = CachePolicy(jitter=0)
PATIENT = TimeoutPolicy(connect=30)


class Slow:
    """Answers after a while with the newest address."""

    def __init__(self) -> None:
        self.address = "10.0.0.1"
        self.begun = self.ended = 0
        self.seconds = 0.05

    async def resolve(self, question: Question, timeout: float) -> Resolution:
        self.begun += 1
        address = self.address
        await asyncio.sleep(self.seconds)
        self.ended += 1
        return answer(address)


def addresses(found: Resolution) -> list[str]:
    return [endpoint.host for endpoint in found.endpoints]


def test_a_loop_per_request_learns_of_new_tasks_although_no_look_up_outlasts_a_loop():
    clock, source = FakeClock(), Slow()
    discovery = AsyncDiscovery(clock=clock, cache=CALM, timeout=PATIENT)
    discovery._driver.background.asker.dns = source

    def request() -> list[str]:
        return addresses(asyncio.run(discovery.resolve("dns://orders:80")))

    assert request() == ["10.0.0.1"]
    source.address = "10.0.0.2"
    clock.advance(11)
    assert request() == ["10.0.0.1"], "what is known serves, and the loop ends before the refresh does"
    assert request() == ["10.0.0.2"], "somebody has to wait for it"
    asyncio.run(discovery.aclose())


@pytest.mark.parametrize("stopped", ["closed", "stopped"])
@pytest.mark.parametrize("already", [True, False], ids=["who waits", "who comes"])
def test_a_look_up_whose_loop_runs_no_more_is_made_by_somebody_else(stopped: str, already: bool):
    """A thread that waits for it, and a thread that comes later."""

    class Quick:
        def resolve(self, question: Question, timeout: float) -> Resolution:
            return answer("10.0.0.2")

    with Discovery(timeout=PATIENT) as discovery:
        discovery._driver.background.asker.dns = Quick()
        shared, source = AsyncDiscovery(share=discovery), Slow()
        shared._driver.background.asker.dns, source.seconds = source, 3600
        loop, found = asyncio.new_event_loop(), list[Any]()
        waiting = threading.Thread(target=lambda: found.append(discovery.resolve("dns://orders:80")))

        async def begin() -> None:
            for question in discovery._driver.engine.due(discovery._driver.engine.service("dns://orders:80")).wait:
                shared._driver.background.ask(question)
            while source.begun < 2:
                await asyncio.sleep(0.001)
            if already:
                waiting.start()
                await asyncio.sleep(0.05)

        loop.run_until_complete(begin())
        if stopped == "closed":
            for each in shared._driver.background.tasks:
                each._log_destroy_pending = False  # type: ignore[attr-defined]
            loop.close()
        if not already:
            waiting.start()
        waiting.join(20)
        assert [addresses(each) for each in found] == [["10.0.0.2"]]
        if stopped == "stopped":
            loop.run_until_complete(shared.aclose())
            loop.close()


class Odd:
    """A resolver that does this whenever it is asked."""

    def __init__(self, does: Any) -> None:
        self.does = does
        self.asked = 0

    def resolve(self, question: Question, timeout: float) -> Any:
        self.asked += 1
        if isinstance(self.does, BaseException):
            raise self.does
        return self.does


ODDITIES = {
    "nothing": None,
    "no endpoints": Resolution((), 10.0, "own"),
    "a ttl that is text": Resolution((Endpoint("10.0.0.1", 80),), "10", "own"),  # type: ignore[arg-type]
    "a ttl that is no number": Resolution((Endpoint("10.0.0.1", 80),), float("nan"), "own"),
    "a ttl below zero": Resolution((Endpoint("10.0.0.1", 80),), -1.0, "own"),
    "endpoints that are text": Resolution(("10.0.0.1:80",), 10.0, "own"),  # type: ignore[arg-type]
    "raises CancelledError": asyncio.CancelledError(),
    "raises an error": ZeroDivisionError("no"),
}


@pytest.mark.parametrize("does", ODDITIES.values(), ids=ODDITIES.keys())
def test_a_resolver_that_does_what_it_should_not_is_an_error_and_is_not_asked_again_at_once(world: Worlds, does: Any):
    odd = Odd(does)

    async def scenario(w: Any) -> None:
        for _ in range(5):
            with pytest.raises(ResolutionError, match="its resolver failed"):
                await w.resolve("own://orders:80")

    world.run(scenario, resolvers={"own": odd}, timeout=PATIENT)
    assert odd.asked == 1


def test_a_resolver_that_ends_its_thread_is_an_error_and_is_not_asked_again_at_once():
    odd = Odd(SystemExit())
    with Discovery(resolvers={"own": odd}, timeout=PATIENT) as discovery:
        for _ in range(5):
            with pytest.raises(ResolutionError, match="its resolver failed"):
                discovery.resolve("own://orders:80")
    assert odd.asked == 1


def test_a_resolver_that_blocks_does_not_stop_dns():
    """On more names than there are threads for it."""
    over = threading.Event()

    class Blocking:
        def resolve(self, question: Question, timeout: float) -> Resolution:
            over.wait(30)
            return answer("10.0.0.1", port=80)

    class Quick:
        def resolve(self, question: Question, timeout: float) -> Resolution:
            return answer("10.0.0.2")

    with Discovery(resolvers={"own": Blocking()}, timeout=PATIENT) as discovery:
        discovery._driver.background.asker.dns = Quick()
        for number in range(40):
            discovery._driver.background.ask(Question("own", f"name{number}"))
        assert addresses(discovery.resolve("dns://orders:80", timeout=10)) == ["10.0.0.2"]
        over.set()
