"""The failure table, through a client library that there is not: threads and asyncio, one exchange."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import tenacity

from ecs_discovery import (
    ConnectError,
    ConnectTimeout,
    DeadlineExceeded,
    DiscoveryError,
    DnsPolicy,
    HedgePolicy,
    RequestError,
    ResolutionError,
    RetryPolicy,
    TargetNotFound,
    options,
)
from ecs_discovery.testing.lab import Lab
from tests.integrations.http.made_up import Async, Client, MadeUpError, MadeUpTimeout, Request, Sync
from tests.support import eventually
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


def test_requests_spread_evenly_over_the_tasks(lab: Lab, play: Play):
    service = lab.service("orders", tasks=3)

    async def scenario(client: Client, w: Any) -> None:
        counts = await answering(client, f"orders:{service.port}", 30)
        assert sorted(counts.values()) == [10, 10, 10]
        assert pending(w, f"orders:{service.port}") == 0

    play(scenario)


def test_a_task_that_refuses_is_passed_over_whatever_the_method(lab: Lab, play: Play):
    service = lab.service("orders", tasks=3)
    service.tasks[0].refuse()

    async def scenario(client: Client, w: Any) -> None:
        for method in ("GET", "POST", "PATCH"):
            for _ in range(6):
                assert (await client.send(Request(method, f"orders:{service.port}", body=b"x"))).status == 200
        health = Counter(node.health for node in w.discovery.snapshot(f"orders:{service.port}").nodes)
        assert health == {"healthy": 2, "down": 1}

    play(scenario)


@pytest.mark.parametrize("after", [0, 70])
def test_an_answer_that_is_cut_is_repeated_elsewhere_if_that_is_harmless(lab: Lab, play: Play, after: int):
    service = lab.service("orders", tasks=2)
    service.tasks[0].reset(after_bytes=after)

    async def scenario(client: Client, w: Any) -> None:
        target = f"orders:{service.port}"
        for _ in range(4):
            assert (await client.send(Request("GET", target, "/bytes/400"))).status == 200
        service.tasks[1].reset(after_bytes=after)
        before = service.requests
        for _ in range(3):
            with pytest.raises(RequestError, match="it may have been processed and is not idempotent") as caught:
                await client.send(Request("POST", target, "/bytes/400", body=b"x"))
            assert isinstance(caught.value, MadeUpError)
            assert len(caught.value.attempts) == 1
        assert service.requests - before <= 3  # never sent twice
        assert pending(w, target) == 0

    play(scenario)


def test_a_key_makes_a_post_repeatable_and_a_body_that_is_gone_makes_it_not(lab: Lab, play: Play):
    service = lab.service("orders", tasks=2)
    service.tasks[0].reset()

    async def scenario(client: Client, w: Any) -> None:
        target = f"orders:{service.port}"
        for _ in range(4):
            assert (await client.send(Request("POST", target, body=b"x", Idempotency_Key="7"))).status == 200
        service.tasks[1].reset()
        with pytest.raises(MadeUpError, match="its body cannot be sent again"):
            await client.send(Request("PUT", target, body=iter([b"once"])))

    play(scenario)


def test_statuses_that_ask_to_try_again_are_and_the_last_answer_is_returned(lab: Lab, play: Play):
    service = lab.service("orders", tasks=3)
    service.tasks[0].errors(503)

    async def scenario(client: Client, w: Any) -> None:
        target = f"orders:{service.port}"
        assert service.tasks[0].address not in await answering(client, target, 30)
        for task in service.tasks:
            task.errors(503)
        answer = await client.send(Request("GET", target))
        assert answer.status == 503
        assert answer.history is not None
        assert [attempt.outcome for attempt in answer.history.attempts] == ["status 503"] * 3
        before = service.requests
        assert (await client.send(Request("POST", target))).status == 503
        assert service.requests == before + 1

    play(scenario, retry=RetryPolicy(backoff_min=0.001, backoff_max=0.002))


def test_a_retry_after_is_waited_for_where_no_other_task_is_left(lab: Lab, play: Play):
    service = lab.service("orders", tasks=1)
    service.tasks[0].errors(429, retry_after=1)

    async def scenario(client: Client, w: Any) -> None:
        began = time.monotonic()
        assert (await client.send(Request("GET", f"orders:{service.port}"))).status == 429
        assert time.monotonic() - began >= 1

    play(scenario, retry=RetryPolicy(attempts=2))


def test_a_retry_after_longer_than_the_caller_waits_for_an_answer_is_not_waited_for(lab: Lab, play: Play):
    service = lab.service("orders", tasks=1)
    service.tasks[0].errors(503, retry_after=60)

    async def scenario(client: Client, w: Any) -> None:
        assert (await client.send(Request("GET", f"orders:{service.port}"))).status == 503
        assert service.requests == 1

    play(scenario)


def test_a_read_timeout_is_the_librarys_and_is_not_repeated(lab: Lab, play: Play):
    service = lab.service("orders", tasks=2)
    for task in service.tasks:
        task.hang()

    async def scenario(client: Client, w: Any) -> None:
        with pytest.raises(MadeUpTimeout) as caught:
            await client.send(Request("GET", f"orders:{service.port}"), read=0.4)
        assert isinstance(caught.value, RequestError)
        assert len(caught.value.attempts) == 1

    play(scenario)


def test_where_every_task_refuses_the_error_names_each_of_them(lab: Lab, play: Play):
    service = lab.service("orders", tasks=3)
    for task in service.tasks:
        task.refuse()

    async def scenario(client: Client, w: Any) -> None:
        with pytest.raises(ConnectError) as caught:
            await client.send(Request("GET", f"orders:{service.port}"))
        assert isinstance(caught.value, MadeUpError)
        assert {task.address for task in service.tasks} <= {
            attempt.endpoint.partition(":")[0] for attempt in caught.value.attempts
        }

    play(scenario)


def test_connects_that_meet_silence_end_at_the_limit_for_connecting(lab: Lab, play: Play):
    service = lab.service("orders", tasks=2)
    for task in service.tasks:
        task.vanish()

    async def scenario(client: Client, w: Any) -> None:
        began = time.monotonic()
        with pytest.raises(ConnectTimeout) as caught:
            await client.send(Request("POST", f"orders:{service.port}", body=b"x"), connect=0.8)
        assert isinstance(caught.value, MadeUpTimeout)
        assert time.monotonic() - began < 5  # the kernel's own limit is two minutes

    play(scenario)


def test_a_task_that_vanishes_with_a_request_is_given_up_for_another(lab: Lab, play: Play, world: Worlds):
    service = lab.service("orders", tasks=2)

    async def scenario(client: Client, w: Any) -> None:
        target = f"orders:{service.port}"
        await answering(client, target, 4)
        began = time.monotonic()
        hit: list[Any] = []

        async def one() -> None:
            hit.append(await client.send(Request("GET", target, "/slow/1.0")))

        async def vanish() -> None:
            await w.pause(0.3)
            next(task for task in service.tasks if task.in_flight).vanish()

        works = iter([one, vanish])
        await w.many(2, lambda: next(works)())
        (answer,) = hit
        assert answer.status == 200
        assert time.monotonic() - began < 8  # not the read timeout of 10 s

    play(scenario)


def test_a_deadline_that_the_caller_gives_ends_the_request(lab: Lab, play: Play):
    service = lab.service("orders", tasks=2)

    async def scenario(client: Client, w: Any) -> None:
        target = f"orders:{service.port}"
        with pytest.raises(DeadlineExceeded) as caught, options(deadline=0.4):
            await client.send(Request("GET", target, "/slow/5"))
        assert isinstance(caught.value, MadeUpTimeout)
        assert [attempt.outcome for attempt in caught.value.attempts] == ["deadline"]
        assert caught.value.target == target
        assert pending(w, target) == 0

    play(scenario)


def test_an_unknown_name_is_an_error_of_both(lab: Lab, play: Play):
    async def scenario(client: Client, w: Any) -> None:
        with pytest.raises(TargetNotFound) as caught:
            await client.send(Request("GET", "nothing:80"))
        assert isinstance(caught.value, MadeUpError)

    play(scenario)


def test_a_slow_answer_is_overtaken_by_another_tasks(lab: Lab, play: Play):
    service = lab.service("orders", tasks=2)

    async def scenario(client: Client, w: Any) -> None:
        target = f"orders:{service.port}"
        await answering(client, target, 2)
        inner = w.engine.service(target)
        for _ in range(100):
            inner.hedging.delay(1000)
        for _ in range(200):
            inner.hedging.learn(0.05)
        slow = service.tasks[0]
        slow.slow(3)
        began = time.monotonic()
        for _ in range(2):
            assert (await client.send(Request("GET", target))).status == 200
        assert time.monotonic() - began < 3
        eventually(lambda: pending(w, target) == 0)

    play(scenario, hedge=HedgePolicy(enabled=True))


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


def test_a_cancelled_request_leaves_nothing(lab: Lab):
    service = lab.service("orders", tasks=1)

    async def scenario(w: Any) -> None:
        client = Client(w.discovery, Async)
        task = asyncio.create_task(client.send(Request("GET", f"orders:{service.port}", "/slow/5")))
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert pending(w, f"orders:{service.port}") == 0
        assert w.discovery.snapshot(f"orders:{service.port}").nodes[0].health == "healthy"

    Worlds(Asyncio).run(scenario, namespace="prod.local", dnspolicy=DnsPolicy(nameservers=(lab.nameserver,)))


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


def test_what_the_application_cannot_send_of_its_body_is_not_the_tasks_fault(lab: Lab, play: Play):
    service = lab.service("orders", tasks=1)

    def body() -> Iterator[bytes]:
        raise RuntimeError("no more") from TimeoutError("of the application's own")
        yield b""

    async def scenario(client: Client, w: Any) -> None:
        target = f"orders:{service.port}"
        for _ in range(3):
            with pytest.raises(RuntimeError):
                await client.send(Request("POST", target, body=body()))
        (node,) = w.discovery.snapshot(target).nodes
        assert (node.failures, node.pending) == (0, 0)

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
