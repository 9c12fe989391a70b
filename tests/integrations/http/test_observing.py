"""Observers are told of requests and their attempts, through a client library that there is not."""

from __future__ import annotations

from typing import Any

import pytest

from ecs_discovery import HedgePolicy, RetryPolicy, options
from ecs_discovery.events import CallStarted
from ecs_discovery.testing.lab import Lab
from tests.client.test_hedging import taught
from tests.integrations.http.made_up import Client, MadeUpError, Request
from tests.integrations.http.test_failure_table import Play, lab, play
from tests.recorder import FAULTS, Broken, Recorder
from tests.worlds import world

__all__ = ["lab", "play", "world"]


def observed(w: Any) -> Recorder:
    recorder = Recorder()
    w.engine.observe(recorder)
    return recorder


def test_a_request_is_told_with_its_method_target_and_status(lab: Lab, play: Play):
    service = lab.service("orders", tasks=2)

    async def scenario(client: Client, w: Any) -> None:
        recorder = observed(w)
        for _ in range(2):  # cold and warm
            await client.send(Request("GET", f"orders:{service.port}"))
        assert recorder.story == ["call", "start 1", "left 1", "end 1", "over"] * 2
        assert recorder.started[0] == CallStarted("http", f"orders:{service.port}", "GET")
        assert [(end.kind, end.status) for end in recorder.attempts] == [("", 200)] * 2
        assert [end.last for end in recorder.calls] == recorder.attempts

    play(scenario)


def test_attempts_that_are_repeated_are_told_with_status_and_pause(lab: Lab, play: Play):
    service = lab.service("orders", tasks=3)
    for task in service.tasks[:2]:
        task.errors(503)

    async def scenario(client: Client, w: Any) -> None:
        recorder = observed(w)
        for _ in range(6):
            assert (await client.send(Request("GET", f"orders:{service.port}"))).status == 200
        failed = [end for end in recorder.attempts if end.kind]
        assert failed
        assert {(end.kind, end.status) for end in failed} == {("status", 503)}
        assert all(end.pause is not None and end.pause >= 0 for end in failed)
        assert sum(end.attempts for end in recorder.calls) == len(recorder.attempts) == 6 + len(failed)
        assert all(end.last is not None and end.last.status == 200 for end in recorder.calls)

    play(scenario, retry=RetryPolicy(backoff_min=0.001, backoff_max=0.002))


def test_a_request_that_fails_is_told_with_the_librarys_error(lab: Lab, play: Play):
    service = lab.service("orders", tasks=1)
    service.tasks[0].reset()

    async def scenario(client: Client, w: Any) -> None:
        recorder = observed(w)
        with pytest.raises(MadeUpError) as caught:
            await client.send(Request("POST", f"orders:{service.port}", body=b"x"))
        assert recorder.kinds == ["closed"]
        assert recorder.attempts[0].error_type == "ConnectionResetError"
        assert recorder.calls[0].error_type == type(caught.value).__name__
        assert recorder.story[-1] == "over"

    play(scenario)


def test_a_request_that_its_deadline_cuts_is_told_so(lab: Lab, play: Play):
    service = lab.service("orders", tasks=1)
    service.tasks[0].hang()

    async def scenario(client: Client, w: Any) -> None:
        recorder = observed(w)
        with options(deadline=0.3), pytest.raises(MadeUpError):
            await client.send(Request("GET", f"orders:{service.port}"))
        assert [(end.kind, end.label) for end in recorder.attempts] == [("error", "deadline")]
        assert recorder.story.count("over") == 1

    play(scenario)


def test_a_request_whose_name_does_not_exist_ends_without_an_attempt(lab: Lab, play: Play):
    async def scenario(client: Client, w: Any) -> None:
        recorder = observed(w)
        with pytest.raises(MadeUpError):
            await client.send(Request("GET", "nobody"))
        assert recorder.story == ["call", "over"]

    play(scenario)


def test_of_two_requests_in_flight_the_loser_is_told_as_overtaken(lab: Lab, play: Play):
    service = lab.service("orders", tasks=2)

    async def scenario(client: Client, w: Any) -> None:
        target = f"orders:{service.port}"
        await client.send(Request("GET", target))
        taught(w, target)
        recorder = observed(w)
        service.tasks[0].slow(10)
        for _ in range(4):
            await client.send(Request("GET", target))
        lost = [end for end in recorder.attempts if end.kind]
        assert {(end.number, end.kind) for end in lost} == {(1, "overtaken")}
        assert len(recorder.calls) == 4
        assert all(end.last is not None and end.last.kind == "" for end in recorder.calls)

    play(scenario, hedge=HedgePolicy(enabled=True))


@pytest.mark.parametrize("method", FAULTS)
def test_an_observer_that_fails_breaks_no_request(lab: Lab, play: Play, method: str, caplog: pytest.LogCaptureFixture):
    service = lab.service("orders", tasks=2)
    service.tasks[0].errors(503)

    async def scenario(client: Client, w: Any) -> None:
        w.engine.observe(Broken(method))
        for _ in range(4):
            assert (await client.send(Request("GET", f"orders:{service.port}"))).status == 200
        assert caplog.text.count("what it raises is not logged again") == 1

    play(scenario)
