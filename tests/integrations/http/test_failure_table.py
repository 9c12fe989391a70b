"""The exchange through a client library that there is not: what the scenarios of all libraries do not ask."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import tenacity

from ecs_discovery import (
    DeadlineExceeded,
    DiscoveryError,
    DnsPolicy,
    ResolutionError,
    RetryPolicy,
    options,
)
from ecs_discovery.testing.lab import Lab
from tests.integrations.http.made_up import Answer, Async, Client, MadeUpError, Request, Sync
from tests.worlds import Asyncio, Worlds, world

__all__ = ["world"]

KINDS = {"threads": Sync, "asyncio": Async}
Play = Callable[..., None]


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(namespace="prod.local", seed=7) as lab:
        yield lab


@pytest.fixture
def play(lab: Lab, world: Worlds) -> Play:
    """Run `await scenario(client, w)`, in threads or in asyncio."""

    def run(scenario: Callable[..., Any], **settings: Any) -> None:
        async def inner(w: Any) -> None:
            await scenario(Client(w.discovery, KINDS[world.name]), w)

        asked = DnsPolicy(nameservers=(lab.nameserver,))
        world.run(inner, namespace="prod.local", dnspolicy=asked, **settings)

    return run


def pending(w: Any, target: str) -> int:
    return sum(node.pending for node in w.discovery.snapshot(target).nodes)


async def answering(client: Client, target: str, count: int) -> Counter[str]:
    """Which task answered how many of so many requests."""
    found = [await client.send(Request("GET", target)) for _ in range(count)]
    assert {answer.status for answer in found} == {200}
    return Counter(str(answer.history.endpoint.host) for answer in found if answer.history)


def test_a_tenacity_object_of_the_application_decides_within_what_is_safe(lab: Lab, play: Play, world: Worlds):
    service = lab.service("orders", tasks=2)
    for task in service.tasks:
        task.errors(503)
    kind = tenacity.Retrying if world.name == "threads" else tenacity.AsyncRetrying
    own = kind(stop=tenacity.stop_after_attempt(5), wait=tenacity.wait_none())

    async def scenario(client: Client, w: Any) -> None:
        target = f"orders:{service.port}"
        assert (await client.send(Request("GET", target))).status == 503
        assert service.requests == 5
        assert (await client.send(Request("POST", target))).status == 503
        assert service.requests == 6

    play(scenario, retry=RetryPolicy(tenacity=own, budget_floor=100))


def test_a_request_that_succeeds_at_once_makes_no_state_of_a_call(lab: Lab, world: Worlds):
    """A first attempt allocates as little as possible. The made-up client connects each time, which needs a call."""
    service = lab.service("orders", tasks=1)
    seen: list[Any] = []

    class Kept(KINDS[world.name]):  # type: ignore[misc]
        def send(self, use: Any) -> Any:
            seen.append(self._call)
            return super().send(use)

    async def scenario(w: Any) -> None:
        await Client(w.discovery, Kept).send(Request("GET", f"orders:{service.port}"))  # resolves
        await Client(w.discovery, Kept).send(Request("GET", f"orders:{service.port}"))

    world.run(scenario, namespace="prod.local", dnspolicy=DnsPolicy(nameservers=(lab.nameserver,)))
    assert seen[-1] is None


def test_nothing_of_a_failed_request_is_kept(lab: Lab, play: Play):
    service = lab.service("orders", tasks=2)
    for task in service.tasks:
        task.reset()

    async def scenario(client: Client, w: Any) -> None:
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                with pytest.raises(DiscoveryError):
                    await client.send(Request("GET", f"orders:{service.port}"))
            kept = [thing for thing in gc.get_objects() if isinstance(thing, (Sync, Async))]
        finally:
            gc.enable()
        assert not kept

    play(scenario, retry=RetryPolicy(backoff_max=0.001, backoff_min=0.001))


def test_a_task_that_hangs_is_blamed_for_the_deadlines_that_pass(lab: Lab, play: Play):
    service = lab.service("orders", tasks=3)

    async def scenario(client: Client, w: Any) -> None:
        target = f"orders:{service.port}"
        await answering(client, target, 3)
        service.tasks[0].hang()
        failed = 0
        for _ in range(20):
            try:
                with options(deadline=0.2):
                    await client.send(Request("GET", target))
            except DeadlineExceeded:
                failed += 1
        assert sum(node.failures for node in w.discovery.snapshot(target).nodes) == failed
        assert failed <= 5  # then it costs too much to be chosen

    play(scenario)


class Tracked(Async):
    """Remembers its answers, and which of them were let go."""

    made: list[Any]
    dropped: list[Any]

    async def send(self, use: Any) -> Any:
        answer = await super().send(use)
        self.made.append(answer)
        return answer

    async def discard(self, response: Any) -> None:
        self.dropped.append(response)


def test_an_answer_held_while_the_next_attempt_waits_is_let_go(lab: Lab):
    service = lab.service("orders", tasks=1)
    service.tasks[0].errors(503, retry_after=5)

    class Mine(Tracked):
        made: list[Any] = []  # noqa: RUF012  # of this test alone
        dropped: list[Any] = []  # noqa: RUF012

    async def scenario(w: Any) -> None:
        request = Client(w.discovery, Mine).send(Request("GET", f"orders:{service.port}"))
        task = asyncio.create_task(request)
        while not Mine.made:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.05)
        assert Mine.dropped == Mine.made
        assert pending(w, f"orders:{service.port}") == 0

    Worlds(Asyncio).run(scenario, namespace="prod.local", dnspolicy=DnsPolicy(nameservers=(lab.nameserver,)))


def test_an_error_of_a_service_with_two_names_says_the_name_that_was_asked_for_and_leaves_the_other_as_it_is(
    lab: Lab, play: Play
):
    async def scenario(client: Client, w: Any) -> None:
        service = w.engine.service("nobody", 80)
        for _ in range(2):
            with pytest.raises(MadeUpError) as caught:
                await client.send(Request("GET", "nobody.prod.local"))
            assert str(caught.value).startswith("nobody.prod.local: ")
            with pytest.raises(MadeUpError) as caught:
                await client.send(Request("GET", service.target))
            assert str(caught.value).startswith(f"{service.target}: ")

    play(scenario)


def test_an_error_about_another_name_is_another_error_with_the_same_cause():
    first = ResolutionError("no answer", target="orders", hint="wait")
    first.__cause__ = OSError("network down")
    second = first.about("orders.prod.local")
    assert (first.target, second.target) == ("orders", "orders.prod.local")
    assert (type(second), second.hint, second.__cause__) == (ResolutionError, "wait", first.__cause__)
    assert str(second) == "orders.prod.local: no answer (wait)"


def test_an_answer_that_was_to_be_followed_is_let_go_when_the_pause_is_interrupted(lab: Lab, world: Worlds):
    service = lab.service("orders", tasks=2)
    for task in service.tasks:
        task.errors(503)
    discarded: list[int] = []

    class InThreads(Sync):
        def discard(self, response: Answer) -> None:
            discarded.append(response.status)

    class InTasks(Async):
        async def discard(self, response: Answer) -> None:
            discarded.append(response.status)

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    async def cancelled(seconds: float) -> None:
        raise asyncio.CancelledError

    in_threads = world.name == "threads"

    async def scenario(w: Any) -> None:
        client = Client(w.discovery, InThreads if in_threads else InTasks)
        with pytest.raises(KeyboardInterrupt if in_threads else asyncio.CancelledError):
            await client.send(Request("GET", f"orders:{service.port}"))
        for _ in range(3):
            await asyncio.sleep(0)
        assert discarded == [503]

    asked = DnsPolicy(nameservers=(lab.nameserver,))
    sleep = interrupted if in_threads else cancelled
    world.run(scenario, namespace="prod.local", dnspolicy=asked, sleep=sleep)
