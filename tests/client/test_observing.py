"""Observers are told of each call and each attempt, in threads and asyncio."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from typing import Any

import pytest

from ecs_discovery import ConnectError, DeadlineExceeded, NoEndpoints, RetryPolicy
from ecs_discovery.core.lease import Lease
from ecs_discovery.events import CallStarted, Idle
from ecs_discovery.testing.lab import Lab
from tests.client.support import NODATA, THREE
from tests.client.test_hedging import LONG, Fetch, at_rest, taught
from tests.client.test_hedging import THREE as HEDGED
from tests.recorder import FAULTS, SPAN, Broken, Recorder
from tests.support import FakeResolver, a, aaaa, answer, srv
from tests.worlds import Asyncio, Worlds, refused_port, world

__all__ = ["refused_port", "world"]


def observed(w: Any) -> Recorder:
    recorder = Recorder()
    w.engine.observe(recorder)
    return recorder


def failing(times: int, error: BaseException) -> Any:
    """A `fetch` that raises `error` so many times, then gives what tracing sees."""
    left = [error] * times

    def fetch(attempt: Any) -> str:
        if left:
            raise left.pop()
        return SPAN.get()

    return fetch


def test_a_call_and_each_of_its_attempts_are_told_with_their_start_and_their_end(world: Worlds):
    async def scenario(w: Any) -> None:
        recorder = observed(w)
        await w.call(THREE, failing(1, ConnectionResetError("gone")), idempotent=True)
        assert recorder.story == ["call", "start 1", "left 1", "end 1", "start 2", "left 2", "end 2", "over"]
        assert recorder.started[0] == CallStarted("call", THREE, "")
        first, second = recorder.attempts
        assert (first.kind, first.error_type, first.pause) == ("closed", "ConnectionResetError", 0.0)
        assert (second.kind, second.error_type, second.pause) == ("", "", None)
        assert first.endpoint != second.endpoint
        assert [each.endpoint for each in recorder.started[1:]] == [first.endpoint, second.endpoint]  # type: ignore[union-attr]
        (end,) = recorder.calls
        assert (end.attempts, end.last, end.error_type) == (2, second, "")
        assert end.seconds >= first.seconds + second.seconds >= 0

    world.run(scenario)


def test_context_variables_set_at_the_start_of_an_attempt_are_seen_in_it_and_not_after_it(world: Worlds):
    async def scenario(w: Any) -> None:
        observed(w)
        assert await w.call(THREE, failing(1, ConnectionResetError()), idempotent=True) == "attempt 2"
        assert SPAN.get() == ""

    world.run(scenario)


def test_a_failed_call_tells_the_error_and_its_last_attempt(world: Worlds):
    async def scenario(w: Any) -> None:
        recorder = observed(w)
        with pytest.raises(ValueError, match="bad"):
            await w.call(THREE, failing(9, ValueError("bad")))
        assert recorder.kinds == ["error"]
        (end,) = recorder.calls
        assert (end.attempts, end.last, end.error_type, end.error) == (1, recorder.attempts[0], "ValueError", "bad")

    world.run(scenario)


def test_connects_and_lookups_are_told_with_their_outcome_and_their_time(world: Worlds, refused_port: int):
    with Lab(seed=7) as lab:
        task = lab.service("orders", tasks=1).tasks[0]

        async def scenario(w: Any) -> None:
            recorder = observed(w)
            await w.connect(f"static://{task.address}:{task.port}")
            with pytest.raises(ConnectError):
                await w.connect(f"static://127.0.0.1:{refused_port}", timeout=1)
            with pytest.raises(NoEndpoints):
                await w.connect("users:80")
            await w.connect(f"orders:{task.port}")
            outcomes = [(end.endpoint.port, end.outcome) for end in recorder.connects]
            assert outcomes[0] == outcomes[-1] == (task.port, "ok")
            assert set(outcomes[1:-1]) == {(refused_port, "connect")}
            asked = {(str(end.question), end.outcome) for end in recorder.lookups}
            assert {("a://users", "NoEndpoints"), ("a://orders", "ok")} <= asked
            assert all(0 <= end.seconds < 5 for end in (*recorder.connects, *recorder.lookups))

        users = {a("users"): NODATA, aaaa("users"): NODATA, srv("users"): NODATA}
        orders = {a(): answer(task.address), aaaa(): NODATA, srv(): NODATA}
        world.run(scenario, dns=FakeResolver({**users, **orders}))


def test_an_observer_that_is_idle_is_not_told_of_a_call_until_its_time_is_over(world: Worlds):
    class Sleepy:
        calls = 0

        def call_started(self, call: CallStarted) -> Idle:
            self.calls += 1
            return Idle(60.0)

    async def scenario(w: Any) -> None:
        sleepy, recorder = Sleepy(), Recorder()
        w.engine.observe(sleepy)
        for _ in range(3):
            await w.call(THREE, failing(0, OSError()))
        assert sleepy.calls == 1
        w.engine.observe(recorder)
        for _ in range(3):
            await w.call(THREE, failing(0, OSError()))
        assert (sleepy.calls, len(recorder.calls)) == (2, 3)

    world.run(scenario)


def test_a_call_whose_name_has_no_endpoint_ends_without_an_attempt(world: Worlds):
    async def scenario(w: Any) -> None:
        recorder = observed(w)
        with pytest.raises(NoEndpoints):
            await w.call("orders:80", failing(0, OSError()))
        assert recorder.story == ["call", "over"]
        assert (recorder.calls[0].error_type, recorder.calls[0].last) == ("NoEndpoints", None)

    world.run(scenario, dns=FakeResolver({a(): NODATA, aaaa(): NODATA, srv(): NODATA}))


def test_a_connect_is_a_call_whose_attempt_ends_at_the_endpoint_that_it_led_to(world: Worlds, refused_port: int):
    with Lab(seed=7) as lab:
        port = lab.service("orders", tasks=1).tasks[0]

        async def scenario(w: Any) -> None:
            recorder = observed(w)
            target = f"static://127.0.0.1:{refused_port},{port.address}:{port.port}"
            for _ in range(2):  # one of the two begins at the endpoint that refuses
                await w.connect(target)
            assert recorder.started[0] == CallStarted("connect", target, "")
            assert recorder.kinds == ["", ""]
            assert {end.endpoint.port for end in recorder.attempts} == {port.port}
            with pytest.raises(ConnectError):
                await w.connect(f"static://127.0.0.1:{refused_port}", timeout=1)
            assert set(recorder.kinds[2:]) == {"connect"}
            assert recorder.calls[-1].error_type == "ConnectionRefusedError"

        world.run(scenario)


def test_of_two_attempts_in_flight_the_loser_is_told_as_overtaken_and_each_ends_once(world: Worlds):
    async def scenario(w: Any) -> None:
        recorder = observed(w)
        service = taught(w)
        fetch = Fetch(w, lambda number: [(LONG, "slow"), (0, "fast")][number])
        assert await w.call("orders", fetch, idempotent=True) == "fast"
        await at_rest(w, service, fetch)
        assert sorted((end.number, end.kind) for end in recorder.attempts) == [(1, "overtaken"), (2, "")]
        assert recorder.calls[0].last is not None
        assert recorder.calls[0].last.number == 2
        assert {"left 1", "left 2"} <= set(recorder.story)
        assert recorder.story.count("over") == 1

    world.run(scenario, **HEDGED)


def test_of_two_attempts_in_flight_each_that_fails_is_told_with_its_error(world: Worlds):
    async def scenario(w: Any) -> None:
        recorder = observed(w)
        service = taught(w)
        fetch = Fetch(w, lambda number: [(0.3, "slow"), (0, ConnectionResetError())][number])
        assert await w.call("orders", fetch, idempotent=True) == "slow"
        await at_rest(w, service, fetch)
        assert sorted((end.number, end.kind, end.error_type) for end in recorder.attempts) == [
            (1, "", ""),
            (2, "closed", "ConnectionResetError"),
        ]

    world.run(scenario, **HEDGED)


def test_what_several_observers_set_around_an_attempt_is_taken_back_by_each(world: Worlds):
    async def scenario(w: Any) -> None:
        observed(w), observed(w)
        assert await w.call(THREE, failing(1, ConnectionResetError()), idempotent=True) == "attempt 2"
        assert SPAN.get() == ""

    world.run(scenario)


def test_both_attempts_of_a_hedged_call_that_fails_have_their_own_number(world: Worlds):
    async def scenario(w: Any) -> None:
        taught(w)
        fetch = Fetch(w, lambda number: [(0.3, ConnectionResetError(1)), (0.4, ConnectionResetError(2))][number])
        with pytest.raises(ConnectionResetError) as caught:
            await w.call("orders", fetch, idempotent=True)
        assert "2" in str(caught.value)

    recorder = Recorder()

    async def watched(w: Any) -> None:
        w.engine.observe(recorder)
        await scenario(w)
        assert sorted(end.number for end in recorder.attempts) == [1, 2]

    world.run(watched, retry=RetryPolicy(attempts=1), **HEDGED)


@pytest.mark.parametrize("method", FAULTS)
def test_an_observer_that_fails_breaks_no_call_and_is_logged_once(
    world: Worlds, method: str, caplog: pytest.LogCaptureFixture
):
    async def scenario(w: Any) -> None:
        w.engine.observe(Broken(method))
        recorder = observed(w)  # the next is told all the same
        for _ in range(3):
            await w.call(THREE, failing(1, ConnectionResetError()), idempotent=True)
        assert recorder.kinds == ["closed", ""] * 3
        assert [record.levelno for record in caplog.records if "observer" in record.message] == [logging.ERROR]

    world.run(scenario)


def test_an_observer_that_has_no_interest_in_a_call_hears_nothing_of_its_attempts(world: Worlds):
    class Indifferent(Recorder):
        def call_started(self, call: CallStarted) -> Any:
            self.started.append(call)

    async def scenario(w: Any) -> None:
        recorder = Indifferent()
        w.engine.observe(recorder)
        await w.call(THREE, failing(1, ConnectionResetError()), idempotent=True)
        assert len(recorder.started) == 1
        assert recorder.story == []

    world.run(scenario)


def test_an_interrupted_call_is_told_as_cancelled(world: Worlds):
    async def scenario(w: Any) -> None:
        recorder = observed(w)
        if w.name == "threads":
            with pytest.raises(KeyboardInterrupt):
                await w.call(THREE, failing(1, KeyboardInterrupt()))
        else:
            task = asyncio.create_task(w.call(THREE, lambda attempt: asyncio.sleep(LONG)))
            while len(recorder.started) < 2:
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert recorder.kinds == ["cancelled"]
        assert recorder.calls[0].error_type in ("KeyboardInterrupt", "CancelledError")
        assert recorder.story == ["call", "start 1", "left 1", "end 1", "over"]

    world.run(scenario)


def test_a_call_that_its_deadline_cuts_is_told_so():
    async def scenario(w: Any) -> None:
        recorder = observed(w)
        with pytest.raises(DeadlineExceeded):
            await w.call(THREE, lambda attempt: asyncio.sleep(LONG), deadline=0.05)
        assert [(end.kind, end.label) for end in recorder.attempts] == [("error", "deadline")]
        assert recorder.calls[0].error_type == "DeadlineExceeded"

    Worlds(Asyncio).run(scenario)


def test_observers_that_come_and_go_in_many_threads_at_once_lose_none(world: Worlds):
    async def scenario(w: Any) -> None:
        stay = [Recorder() for _ in range(8)]

        def come(recorder: Recorder) -> None:
            for _ in range(200):
                passing = Recorder()
                w.engine.observe(passing)
                w.engine.unobserve(passing)
            w.engine.observe(recorder)

        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            threads = [threading.Thread(target=come, args=(each,)) for each in stay]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            sys.setswitchinterval(before)
        assert {id(each) for each in w.engine.observers.each} == {id(each) for each in stay}

    world.run(scenario)


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (None, ("overtaken", "overtaken")),
        (DeadlineExceeded("not done in time"), ("error", "deadline")),
        (ValueError("no such thing"), ("error", "error")),
        (KeyboardInterrupt(), ("cancelled", "cancelled")),
    ],
)
def test_an_attempt_that_is_open_when_its_call_ends_is_told_what_ended_the_call(
    raised: BaseException | None, told: tuple[str, str]
):
    async def scenario(w: Any) -> None:
        recorder = observed(w)
        call = w.engine.observed("call", THREE, 0.0)
        service = w.engine.service(THREE)
        await w.resolve(THREE)
        lease = Lease(service, w.engine.clock())
        assert lease.pick() is not None
        with call.attempt(lease):
            pass
        call.ended(raised)
        lease.release()
        assert [(end.kind, end.label) for end in recorder.attempts] == [told]

    Worlds(Asyncio).run(scenario)
