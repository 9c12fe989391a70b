"""A tenacity object of the application's as the retry policy: it decides, within what is safe."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from tenacity import AsyncRetrying, Retrying, TryAgain, retry, stop_after_attempt, wait_fixed
from tenacity.retry import retry_if_exception_type, retry_if_result, retry_never

from ecs_discovery import (
    BalancingPolicy,
    ConfigurationError,
    Discovery,
    OutlierPolicy,
    RetryPolicy,
    ServiceConfig,
    options,
    wrap_session,
)
from ecs_discovery.errors import Overloaded
from ecs_discovery.testing.lab import Lab
from tests.support import FakeClock, raw
from tests.worlds import Asyncio, Threads, Worlds, world

__all__ = ["world"]

THREE = "static://127.0.0.1:1,127.0.0.1:2,127.0.0.1:3"
ONE = "static://127.0.0.1:1"
RESET = ConnectionResetError(104, "reset")


def own(world: Worlds, clock: FakeClock | None = None, **parts: Any) -> Any:
    """The world's own kind of object, sleeping on the clock of the test."""
    time = clock or FakeClock()
    if world.name == "threads":
        return Retrying(sleep=time.sleep, **parts)
    return AsyncRetrying(sleep=time.asleep, **parts)


class Fetch:
    """Gives these outcomes, one per attempt, the last for ever, and keeps who was asked."""

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = outcomes
        self.ports: list[int] = []

    def __call__(self, attempt: Any) -> Any:
        outcome = self.outcomes[min(len(self.ports), len(self.outcomes) - 1)]
        self.ports.append(attempt.port)
        if isinstance(outcome, BaseException):
            raise type(outcome)(*outcome.args)
        return outcome


async def call(w: Any, fetch: Fetch, target: str = THREE, **options: Any) -> Any:
    if w.name == "threads":
        return await w.call(target, fetch, **options)

    async def awaited(attempt: Any) -> Any:
        return fetch(attempt)

    return await w.discovery.call(target, awaited, **options)


def test_its_stop_says_how_often(world: Worlds):
    async def scenario(w):
        fetch = Fetch(RESET)
        with pytest.raises(ConnectionResetError) as caught:
            await call(w, fetch, idempotent=True)
        assert len(fetch.ports) == 5
        assert set(fetch.ports) == {1, 2, 3}, "on endpoints that were not tried first"
        assert "the policy's stop says so" in caught.value.__notes__[0]

    world.run(scenario, retry=own(world, stop=stop_after_attempt(5)))


def test_its_wait_says_when(world: Worlds):
    clock = FakeClock()

    async def scenario(w):
        began = clock.now
        assert await call(w, Fetch(RESET, RESET, "good"), idempotent=True) == "good"
        assert clock.now - began == 1.5

    world.run(scenario, clock=clock, retry=own(world, clock, wait=wait_fixed(0.75)))


def test_its_predicate_says_which_results_and_exceptions(world: Worlds):
    wanted = retry_if_result(lambda result: result == "again") | retry_if_exception_type(KeyError)

    async def scenario(w):
        assert await call(w, Fetch("again", KeyError("x"), "good"), idempotent=True) == "good"
        assert await call(w, Fetch("again"), idempotent=True) == "again", (
            "the last result, when there is no attempt left"
        )
        fetch = Fetch(RESET, "good")
        with pytest.raises(ConnectionResetError):
            await call(w, fetch, idempotent=True)
        assert len(fetch.ports) == 1, "and which not"

    world.run(scenario, retry=own(world, retry=wanted))


def test_what_it_leaves_at_tenacitys_defaults_is_ours(world: Worlds):
    async def scenario(w):
        fetch = Fetch(RESET)
        with pytest.raises(ConnectionResetError):
            await call(w, fetch, idempotent=True)
        assert len(fetch.ports) == 3
        fetch = Fetch(ValueError("not ours to repeat"))
        with pytest.raises(ValueError, match="not ours"):
            await call(w, fetch, idempotent=True)
        assert len(fetch.ports) == 1

    world.run(scenario, retry=own(world))


def test_what_may_have_been_processed_is_not_repeated_whatever_it_says(world: Worlds):
    async def scenario(w):
        fetch = Fetch(RESET)
        with pytest.raises(ConnectionResetError) as caught:
            await call(w, fetch)
        assert len(fetch.ports) == 1
        assert "is not idempotent" in caught.value.__notes__[0]
        fetch = Fetch("again")
        assert await call(w, fetch) == "again"
        assert len(fetch.ports) == 1

    world.run(scenario, retry=own(world, retry=retry_if_exception_type() | retry_if_result(bool)))


def test_a_refused_connection_goes_elsewhere_whatever_it_says(world: Worlds, monkeypatch: pytest.MonkeyPatch):
    async def scenario(w):
        fetch = Fetch(ConnectionRefusedError(111, "refused"), "good")
        assert await call(w, fetch) == "good"
        assert len(set(fetch.ports)) == 2

    world.run(scenario, retry=own(world, retry=retry_never))


def test_the_function_may_ask_for_another_attempt_itself(world: Worlds):
    async def scenario(w):
        fetch = Fetch(TryAgain(), "good")
        assert await call(w, fetch) == "good"

    world.run(scenario, retry=own(world, stop=stop_after_attempt(5)))


def test_the_budget_holds(world: Worlds):
    async def scenario(w):
        fetch = Fetch(RESET)
        for _ in range(100):
            with pytest.raises(ConnectionResetError):
                await call(w, fetch, idempotent=True)
        assert len(fetch.ports) <= 100 + 10

    world.run(scenario, clock=FakeClock(), retry=own(world, stop=stop_after_attempt(9)))


def test_the_deadline_holds(world: Worlds):
    clock = FakeClock()

    async def scenario(w):
        fetch = Fetch(RESET)
        with options(deadline=2), pytest.raises(ConnectionResetError) as caught:
            await call(w, fetch, idempotent=True)
        assert len(fetch.ports) == 3
        assert "no time left" in caught.value.__notes__[0]

    world.run(scenario, clock=clock, retry=own(world, clock, stop=stop_after_attempt(9), wait=wait_fixed(0.9)))


def test_an_interrupt_ends_the_call():
    async def scenario(w):
        fetch = Fetch(SystemExit())
        with pytest.raises(SystemExit):
            await call(w, fetch, idempotent=True)
        assert len(fetch.ports) == 1

    Worlds(Threads).run(scenario, retry=Retrying(retry=retry_if_exception_type(BaseException)))


def test_a_look_up_that_failed_can_be_tried_again(world: Worlds):
    """Nothing was sent then, so no word on idempotence is needed."""

    async def scenario(w):
        async with w.lease(ONE):
            with pytest.raises(Overloaded):
                await call(w, Fetch("never"), target=ONE)
        assert attempts == 4

    attempts = 0

    def count(state: Any) -> None:
        nonlocal attempts
        attempts += 1

    wanted = own(world, before=count, retry=retry_if_exception_type(Overloaded), stop=stop_after_attempt(4))
    world.run(scenario, retry=wanted, balancing=BalancingPolicy(max_pending=1, wait_for_room=False))


def test_two_hundred_callers_at_once_do_not_mix_up_its_state(world: Worlds):
    """tenacity keeps a call's state in the object: shared by tasks, most of them get another's outcome."""

    async def scenario(w):
        async def one() -> int:
            fetch = Fetch(RESET, RESET, "good")
            assert await call(w, fetch, idempotent=True) == "good"
            return len(fetch.ports)

        assert await w.many(200, one) == [3] * 200

    policy = RetryPolicy(tenacity=own(world, stop=stop_after_attempt(3)), budget_floor=100)
    world.run(scenario, retry=policy)


def test_its_hooks_and_its_last_word_are_called(world: Worlds):
    numbers = []

    async def scenario(w):
        assert await call(w, Fetch(RESET), idempotent=True) == "nothing"
        assert numbers == [1, 2]

    hooks = {
        "before_sleep": lambda state: numbers.append(state.attempt_number),
        "retry_error_callback": lambda state: "nothing",
    }
    world.run(scenario, retry=own(world, stop=stop_after_attempt(3), **hooks))


def test_asyncio_takes_predicates_that_are_awaited():
    async def wanted(state: Any) -> bool:
        return bool(state.outcome.result() == "again")

    async def scenario(w):
        assert await call(w, Fetch("again", "good"), idempotent=True) == "good"

    Worlds(Asyncio).run(scenario, retry=AsyncRetrying(retry=wanted))


def test_asyncio_takes_the_parts_of_one_for_threads():
    """Its sleep would hold up the loop: it is not called."""

    def sleep(seconds: float) -> None:
        raise AssertionError("not called")

    async def scenario(w):
        fetch = Fetch(RESET)
        with pytest.raises(ConnectionResetError):
            await call(w, fetch, idempotent=True)
        assert len(fetch.ports) == 2

    Worlds(Asyncio).run(scenario, retry=Retrying(sleep=sleep, stop=stop_after_attempt(2), wait=wait_fixed(0.001)))


def test_one_service_may_have_its_own(world: Worlds):
    async def scenario(w):
        fetch = Fetch(RESET)
        with pytest.raises(ConnectionResetError):
            await call(w, fetch, target="orders", idempotent=True)
        assert len(fetch.ports) == 2

    world.run(scenario, services={"orders": ServiceConfig(THREE, retry=own(world, stop=stop_after_attempt(2)))})


@pytest.mark.parametrize("bad", [Retrying, retry(lambda: None), 3, "tenacity"], ids=["class", "function", "int", "str"])
def test_what_is_no_tenacity_object_is_told_at_construction(bad: Any):
    with pytest.raises(ConfigurationError, match="retry"):
        Discovery(retry=bad)
    with pytest.raises(ConfigurationError, match=r"RetryPolicy\.tenacity"):
        RetryPolicy(tenacity=bad)


def test_one_for_asyncio_is_refused_where_there_is_no_loop():
    with pytest.raises(ConfigurationError, match="AsyncRetrying is for AsyncDiscovery"):
        Discovery(retry=AsyncRetrying())
    with pytest.raises(ConfigurationError, match="AsyncRetrying is for AsyncDiscovery"):
        wrap_session(requests.Session(), namespace="prod.local", retry=AsyncRetrying())
    with pytest.raises(ConfigurationError, match="AsyncRetrying is for AsyncDiscovery"):
        Discovery(services={"orders": ServiceConfig(THREE, retry=AsyncRetrying())})


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(namespace="prod.local", seed=7) as lab:
        yield lab


def test_a_wrapped_session_repeats_the_answers_that_it_names(lab: Lab):
    """A 500 is not repeated by itself. Answers that are not wanted leave their connections for others."""
    service = lab.service("orders", tasks=3)
    service.tasks[0].errors(500)
    service.tasks[1].errors(500)
    wanted = Retrying(retry=retry_if_result(lambda response: response.status_code == 500))
    settings: dict[str, Any] = {"namespace": "prod.local", "nameservers": [lab.nameserver], "retry": wanted}
    with wrap_session(requests.Session(), **settings) as session:
        url = f"http://orders:{service.port}/"
        assert [session.get(url, timeout=10).status_code for _ in range(4)] == [200] * 4
        assert session.post(url, data=b"x", timeout=10).status_code in (200, 500)
        assert sum(task.connections for task in service.tasks) == 3


def test_a_session_that_has_one_pickles(lab: Lab):
    service = lab.service("orders", tasks=2)
    settings: dict[str, Any] = {"namespace": "prod.local", "nameservers": [lab.nameserver]}
    policy = Retrying(stop=stop_after_attempt(2))
    try:
        pickle.dumps(policy)
    except (AttributeError, TypeError):
        pytest.skip("a policy of tenacity before 9.1 cannot be pickled")
    with wrap_session(requests.Session(), retry=policy, **settings) as session:
        copy = pickle.loads(pickle.dumps(session))
        assert copy.get(f"http://orders:{service.port}/", timeout=10).status_code == 200
        copy.close()


def test_a_request_that_ended_in_any_way_counts_as_sent():
    """An answer that cannot be understood, a predicate that fails: the server may have acted all the same."""
    doubled = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok"
    wanted = Retrying(retry=retry_if_exception_type((requests.RequestException, OSError)), stop=stop_after_attempt(3))
    with raw(doubled) as (address, received), Discovery(services={"orders": f"static://{address}"}, retry=wanted) as d:
        session = wrap_session(requests.Session(), d)
        for send in (
            lambda: session.post("http://orders/", data=b"x", timeout=10),
            lambda: session.put("http://orders/", data=iter([b"x"]), timeout=10),
        ):
            received.clear()
            with pytest.raises(requests.RequestException):
                send()
            assert len(received) == 1
        session.close()


def test_a_call_whose_judgement_fails_is_not_repeated(world: Worlds):
    def fails(error: BaseException) -> bool:
        raise AttributeError("a bug")

    async def scenario(w):
        fetch = Fetch(RESET)
        with pytest.raises(AttributeError):
            await call(w, fetch)
        assert len(fetch.ports) == 1

    wanted = own(world, retry=retry_if_exception_type((OSError, AttributeError)), stop=stop_after_attempt(5))
    world.run(scenario, retry=wanted, outlier=OutlierPolicy(is_failure=fails))
