"""What every way in promises, played with each client library, in threads and in asyncio."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any
from urllib.parse import quote

import pytest
import trustme

from ecs_discovery import (
    BalancingPolicy,
    ConnectError,
    ConnectTimeout,
    DeadlineExceeded,
    DiscoveryError,
    HedgePolicy,
    NoEndpoints,
    RequestError,
    RetryPolicy,
    TargetNotFound,
    options,
)
from ecs_discovery.events import AttemptStarted
from ecs_discovery.integrations.http.exchange import Exchange
from ecs_discovery.testing.lab import Lab, LabService, LabTask
from tests.integrations.clients import ClientUnderTest, Once
from tests.integrations.playing import Play, complete, in_tasks, kind, lab, play, url_of
from tests.recorder import Recorder
from tests.support import eventually

__all__ = ["kind", "lab", "play"]


def pending(w: Any, service: LabService) -> int:
    return sum(node.pending for node in w.discovery.snapshot(f"{service.name}.prod.local:{service.port}").nodes)


def hedge_after(w: Any, service: LabService, seconds: float) -> None:
    """Have the service's idempotent requests hedged after about this long."""
    inner = w.engine.service(f"{service.name}.prod.local:{service.port}")
    for _ in range(100):
        inner.hedging.delay(1000)
    for _ in range(200):
        inner.hedging.learn(seconds)


def record_fields(task: LabTask, name: str, found: list[str]) -> None:
    """Put this header field of each request that the task reads into `found`."""
    answer = task.answer

    def recorded(request: Any) -> Any:
        found.append(request.header(name))
        return answer(request)

    task.answer = recorded  # type: ignore[method-assign]


async def tasks_of(client: ClientUnderTest, service: LabService, count: int) -> Counter[str]:
    """Which task answered how many of so many GETs, one after another."""
    found = [await client.send("GET", url_of(service)) for _ in range(count)]
    assert {answer.status for answer in found} == {200}
    return Counter(answer.task for answer in found)


def test_requests_spread_evenly_over_the_tasks(lab: Lab, play: Play):
    service = lab.service("orders", tasks=3)

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        counts = await tasks_of(client, service, 30)
        assert len(counts) == 3
        assert all(7 <= count <= 13 for count in counts.values()), counts  # an answer that is late costs a task a few
        assert pending(w, service) == 0

    play(scenario)


@complete
def test_connections_are_kept_while_each_request_goes_to_the_next_task(lab: Lab, play: Play):
    service = lab.service("orders", tasks=3)

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        counts = await tasks_of(client, service, 300)
        assert len(counts) == 3
        assert all(85 <= count <= 115 for count in counts.values()), counts
        assert [task.connections for task in service.tasks] == [1, 1, 1]

    play(scenario)


@complete
def test_twelve_tasks_are_twelve_connections(lab: Lab, play: Play):
    service = lab.service("orders", tasks=12)
    static = ",".join(f"{task.address}:{task.port}" for task in service.tasks)

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        for _ in range(120):
            assert (await client.send("GET", "http://orders/")).status == 200
        assert [task.connections for task in service.tasks] == [1] * 12

    play(scenario, services={"orders": f"static://{static}"})


def test_a_task_that_refuses_is_passed_over_whatever_the_method(lab: Lab, play: Play):
    service = lab.service("orders", tasks=3)
    service.tasks[0].refuse()

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        for method in ("GET", "POST", "PATCH"):
            for _ in range(6):
                assert (await client.send(method, url_of(service), body=b"x")).status == 200
        nodes = w.discovery.snapshot(f"orders.prod.local:{service.port}").nodes
        assert Counter(node.health for node in nodes) == {"healthy": 2, "down": 1}

    play(scenario)


def test_a_task_that_was_replaced_is_left_although_dns_still_names_it(lab: Lab, play: Play):
    service = lab.service("orders", tasks=2, deregistration_lag=60)

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        await tasks_of(client, service, 4)
        gone = service.tasks[0]
        service.kill(gone)
        for method in ("GET", "POST"):
            for _ in range(4):
                assert (await client.send(method, url_of(service), body=b"x")).task != gone.id

    play(scenario)


@pytest.mark.parametrize("after", [0, 150])
def test_an_answer_that_is_cut_is_repeated_elsewhere_if_the_request_is_idempotent(lab: Lab, play: Play, after: int):
    service = lab.service("orders", tasks=2)
    service.tasks[0].reset(after_bytes=after)

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        url = url_of(service, "/bytes/400")
        for _ in range(4):
            assert len((await client.send("GET", url)).body) == 400
        service.tasks[1].reset(after_bytes=after)
        before = service.requests
        for _ in range(3):
            with pytest.raises(client.error) as caught:
                await client.send("POST", url, body=b"x")
            if after == 0:
                assert isinstance(caught.value, RequestError)
                assert "it may have been processed and is not idempotent" in str(caught.value)
                assert len(caught.value.attempts) == 1
        assert service.requests - before <= 3  # never sent twice
        eventually(lambda: pending(w, service) == 0)

    play(scenario)


def test_a_key_makes_a_post_repeatable_and_a_body_that_is_gone_makes_it_not(lab: Lab, play: Play):
    service = lab.service("orders", tasks=2)
    service.tasks[0].reset()

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        url = url_of(service)
        for _ in range(4):
            assert (await client.send("POST", url, body=b"x", headers={"Idempotency-Key": "7"})).status == 200
        service.tasks[1].reset()
        with pytest.raises(client.error, match="its body cannot be sent again"):
            await client.send("PUT", url, body=Once(b"once"))

    play(scenario)


def test_a_body_that_can_be_read_once_is_still_sent_past_a_task_that_refuses(lab: Lab, play: Play):
    service = lab.service("orders", tasks=2)
    service.tasks[0].refuse()

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        for _ in range(4):
            assert (await client.send("POST", url_of(service, "/echo"), body=Once(b"on", b"ce"))).body == b"once"

    play(scenario)


@complete
def test_a_connection_that_the_task_closed_while_it_was_idle_costs_no_request(lab: Lab, play: Play):
    service = lab.service("orders", tasks=2)

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        await tasks_of(client, service, 4)
        for task in service.tasks:
            task.drain(close_idle=True)
        eventually(lambda: sum(task.open_connections for task in service.tasks) == 0)
        for task in service.tasks:
            task.heal()
        for method in ("POST", "GET", "POST", "GET"):
            assert (await client.send(method, url_of(service), body=b"x")).status == 200
        assert all(node.failures == 0 for node in w.discovery.snapshot(f"orders.prod.local:{service.port}").nodes)

    play(scenario)


def test_statuses_that_ask_to_try_again_are_and_the_last_answer_is_returned(lab: Lab, play: Play):
    service = lab.service("orders", tasks=3)
    service.tasks[0].errors(503)

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        assert service.tasks[0].id not in await tasks_of(client, service, 30)
        for task in service.tasks:
            task.errors(503)
        answer = await client.send("GET", url_of(service))
        assert answer.status == 503
        attempts = answer.history.attempts
        assert [attempt.outcome for attempt in attempts] == ["status 503"] * 3
        assert [(attempt.kind, attempt.number) for attempt in attempts] == [("status", 1), ("status", 2), ("status", 3)]
        assert 0 <= attempts[0].start < attempts[1].start < attempts[2].start < 5
        before = service.requests
        assert (await client.send("POST", url_of(service))).status == 503
        assert service.requests == before + 1
        assert pending(w, service) == 0

    play(scenario, retry=RetryPolicy(backoff_min=0.001, backoff_max=0.002))


def test_a_retry_after_is_waited_for_where_no_other_task_is_left(lab: Lab, play: Play):
    service = lab.service("orders", tasks=1)
    service.tasks[0].errors(429, retry_after=1)

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        began = time.monotonic()
        assert (await client.send("GET", url_of(service))).status == 429
        assert time.monotonic() - began >= 1

    play(scenario, retry=RetryPolicy(attempts=2))


def test_a_retry_after_longer_than_the_caller_waits_for_an_answer_is_not_waited_for(lab: Lab, play: Play):
    service = lab.service("orders", tasks=1)
    service.tasks[0].errors(503, retry_after=60)

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        assert (await client.send("GET", url_of(service))).status == 503
        assert service.requests == 1

    play(scenario)


def test_a_read_timeout_is_the_librarys_and_is_not_repeated(lab: Lab, play: Play):
    service = lab.service("orders", tasks=2)
    for task in service.tasks:
        task.hang()

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        with pytest.raises(client.read_timeout) as caught:
            await client.send("GET", url_of(service), read=0.4)
        assert isinstance(caught.value, RequestError)
        assert len(caught.value.attempts) == 1
        assert pending(w, service) == 0

    play(scenario)


def test_a_slow_task_is_chosen_less(lab: Lab, play: Play):
    service = lab.service("orders", tasks=3)
    service.tasks[0].slow(0.1)

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        counts = await tasks_of(client, service, 60)
        assert counts[service.tasks[0].id] <= 10

    play(scenario)


def test_where_every_task_refuses_the_error_names_each_of_them(lab: Lab, play: Play):
    service = lab.service("orders", tasks=3)
    for task in service.tasks:
        task.refuse()

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        with pytest.raises(ConnectError) as caught:
            await client.send("GET", url_of(service))
        assert isinstance(caught.value, client.error)
        assert f"orders.prod.local:{service.port}" in str(caught.value)
        assert {task.address for task in service.tasks} <= {
            attempt.endpoint.partition(":")[0] for attempt in caught.value.attempts
        }

    play(scenario)


def test_connects_that_meet_silence_end_at_the_limit_for_connecting(lab: Lab, play: Play):
    service = lab.service("orders", tasks=2)
    for task in service.tasks:
        task.vanish()

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        began = time.monotonic()
        with pytest.raises(ConnectTimeout) as caught:
            await client.send("POST", url_of(service), body=b"x", connect=0.8)
        assert isinstance(caught.value, client.connect_timeout)
        assert time.monotonic() - began < 5  # the kernel's own limit is two minutes

    play(scenario)


def test_a_connect_that_meets_silence_is_overtaken_by_another_tasks(lab: Lab, play: Play):
    service = lab.service("orders", tasks=2)
    service.tasks[0].vanish()

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        began = time.monotonic()
        for _ in range(3):
            assert (await client.send("POST", url_of(service), body=b"x")).task == service.tasks[1].id
        assert time.monotonic() - began < 4  # the limit for connecting is 5 s

    play(scenario)


def test_a_task_that_vanishes_with_a_request_is_given_up_for_another(lab: Lab, play: Play):
    service = lab.service("orders", tasks=2)

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        await tasks_of(client, service, 4)
        began = time.monotonic()
        hit: list[Any] = []

        async def one() -> None:
            hit.append(await client.send("GET", url_of(service, "/slow/1.0")))

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

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        with pytest.raises(DeadlineExceeded) as caught, options(deadline=0.4):
            await client.send("GET", url_of(service, "/slow/5"))
        assert isinstance(caught.value, client.deadline_error)
        assert [attempt.outcome for attempt in caught.value.attempts] == ["deadline"]
        assert caught.value.target == f"orders.prod.local:{service.port}"
        eventually(lambda: pending(w, service) == 0)

    play(scenario)


def test_an_unknown_name_is_an_error_of_both(lab: Lab, play: Play):
    async def scenario(client: ClientUnderTest, w: Any) -> None:
        with pytest.raises(TargetNotFound) as caught:
            await client.send("GET", "http://nothing.prod.local:80/")
        assert isinstance(caught.value, client.error)

    play(scenario)


def test_a_port_that_no_caller_named_is_called_the_default_in_the_error(lab: Lab, play: Play):
    lab.service("orders", tasks=2)

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        recorder = Recorder()
        w.engine.observe(recorder)
        with pytest.raises(ConnectError, match="port 80 is the default, since there is no SRV record"):
            await client.send("GET", "http://orders.prod.local/")
        assert recorder.calls[0].error_type == "ConnectError"  # for metrics: ours, whatever the library makes of it

    play(scenario)


def test_a_port_that_was_named_is_not_called_the_default(lab: Lab, play: Play):
    service = lab.service("orders", tasks=2)
    for task in service.tasks:
        task.refuse()

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        with pytest.raises(ConnectError) as caught:
            await client.send("GET", url_of(service))
        assert "is the default" not in str(caught.value)

    play(scenario)


def test_a_service_whose_tasks_have_all_left_is_an_error_of_both(lab: Lab, play: Play):
    lab.service("orders", tasks=0)
    lab.dns.add("orders.prod.local", "TXT", '"here"')

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        with pytest.raises((NoEndpoints, TargetNotFound)) as caught:
            await client.send("GET", "http://orders.prod.local:80/")
        assert isinstance(caught.value, client.error)

    play(scenario)


def test_a_slow_answer_is_overtaken_by_another_tasks(lab: Lab, play: Play):
    service = lab.service("orders", tasks=2)

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        await tasks_of(client, service, 2)
        hedge_after(w, service, 0.05)
        service.tasks[0].slow(3)
        began = time.monotonic()
        for _ in range(2):
            assert (await client.send("GET", url_of(service))).status == 200
        assert time.monotonic() - began < 3
        await w.pause(0.01)  # whoever lost hears of it in a turn of its loop
        eventually(lambda: pending(w, service) == 0)

    play(scenario, hedge=HedgePolicy(enabled=True))


@complete
def test_each_of_two_attempts_in_flight_carries_its_own_header_fields(lab: Lab, play: Play):
    service = lab.service("orders", tasks=3)
    tasks = {(task.address, task.port): task for task in service.tasks}
    found: list[str] = []
    for task in service.tasks:
        record_fields(task, "x-attempt", found)

    class Observer(Recorder):
        """The task that is chosen first vanishes: the attempt goes elsewhere once the second attempt is in flight."""

        def attempt_started(self, attempt: AttemptStarted) -> Any:
            if attempt.number == 1:
                first = tasks[attempt.endpoint.host, attempt.endpoint.port]
                for task in service.tasks:
                    task.slow(3)
                first.vanish()
            made: Any = super().attempt_started(attempt)
            made.headers = {"X-Attempt": str(attempt.number)}
            return made

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        hedge_after(w, service, 0.005)
        w.engine.observe(Observer())
        assert (await client.send("GET", url_of(service))).status == 200
        await w.pause(0.5)  # the loser may arrive
        assert sorted(found) == ["1", "2"]

    play(scenario, hedge=HedgePolicy(enabled=True))


def test_many_callers_at_once_share_the_tasks_evenly(lab: Lab, play: Play):
    service = lab.service("orders", tasks=3)

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        await tasks_of(client, service, 3)

        async def caller() -> Counter[str]:
            return await tasks_of(client, service, 30)

        found = await w.many(8, caller)
        total = sum(found, Counter())
        assert sum(total.values()) == 240
        assert all(60 <= count <= 100 for count in total.values()), total
        if client.is_complete:
            assert sum(task.connections for task in service.tasks) <= 3 * 8
        assert pending(w, service) == 0

    # What a busy machine adds to a task's latency is no difference between tasks.
    play(scenario, balancing=BalancingPolicy(least_latency=1))


@in_tasks
def test_a_cancelled_request_leaves_nothing(lab: Lab, play: Play):
    service = lab.service("orders", tasks=1)

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        task = asyncio.create_task(client.send("GET", url_of(service, "/slow/5")))
        while not service.tasks[0].in_flight:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert pending(w, service) == 0
        assert w.discovery.snapshot(f"orders.prod.local:{service.port}").nodes[0].health == "healthy"

    play(scenario)


@complete
def test_host_url_and_cookies_show_the_logical_name(lab: Lab, play: Play):
    service = lab.service("orders", tasks=3)

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        answer = await client.send("GET", url_of(service, "/v1/42?a=1"))
        assert answer.url == url_of(service, "/v1/42?a=1")
        assert json.loads(answer.body)["host"] == f"orders.prod.local:{service.port}"
        if client.keeps_cookies:
            await client.send("GET", url_of(service, "/cookie/flavour/mint"))
            seen = json.loads((await client.send("GET", url_of(service))).body)
            assert seen["headers"]["cookie"] == "flavour=mint"
        answer = await client.send("GET", url_of(service, "/redirect?to=%2Fthere"))
        assert answer.url == url_of(service, "/there")

    play(scenario)


@complete
def test_a_redirect_to_another_host_carries_nothing_of_ours(lab: Lab, play: Play):
    service, other = lab.service("orders", tasks=1), lab.service("other", tasks=1)
    foreign = other.tasks[0]

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        await client.send("GET", url_of(service, "/cookie/secret/1"))
        there = quote(f"http://{foreign.address}:{foreign.port}/", safe="")
        headers = {"Authorization": "Bearer secret"}
        if not client.keeps_cookies:  # the application sends its own
            headers["Cookie"] = "secret=1"
        answer = await client.send("GET", url_of(service, f"/redirect?to={there}"), headers=headers)
        seen = json.loads(answer.body)
        assert seen["host"] == f"{foreign.address}:{foreign.port}"
        assert not {"cookie", "authorization"} & set(seen["headers"])

    play(scenario)


@complete
def test_a_host_header_of_the_application_is_sent_as_it_is(lab: Lab, play: Play):
    service = lab.service("orders", tasks=1)

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        answer = await client.send("GET", url_of(service), headers={"Host": "mine.example"})
        assert json.loads(answer.body)["host"] == "mine.example"

    play(scenario)


@complete
def test_a_proxy_of_the_environment_is_not_used_for_our_hosts(lab: Lab, play: Play, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    service = lab.service("orders", tasks=1)

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        assert (await client.send("GET", url_of(service))).status == 200

    play(scenario)


@complete
def test_hosts_that_are_not_ours_go_their_own_way(lab: Lab, play: Play):
    service = lab.service("orders", tasks=1)
    task = service.tasks[0]

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        answer = await client.send_foreign("GET", f"http://{task.address}:{task.port}/")
        assert answer.status == 200
        assert lab.dns.total == 0
        with pytest.raises(client.error) as caught:
            await client.send_foreign("GET", "http://prod.local.example.invalid:1/")
        assert not isinstance(caught.value, DiscoveryError)

    play(scenario)


@complete
def test_a_stream_that_is_closed_early_ends_its_use(lab: Lab, play: Play):
    service = lab.service("orders", tasks=2)

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        for _ in range(6):
            opened = await client.open("GET", url_of(service, "/stream/2000"))
            assert pending(w, service) == 1
            await opened.close()
            eventually(lambda: pending(w, service) == 0)
        await tasks_of(client, service, 4)
        assert all(node.failures == 0 for node in w.discovery.snapshot(f"orders.prod.local:{service.port}").nodes)

    play(scenario)


@complete
def test_the_use_of_a_stream_lasts_until_its_body_is_read(lab: Lab, play: Play):
    service = lab.service("orders", tasks=2)

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        opened = await client.open("GET", url_of(service, "/stream/300"))
        assert pending(w, service) == 1
        assert len(await opened.read()) == 300 * 1024
        eventually(lambda: pending(w, service) == 0)
        await opened.close()

    play(scenario)


@complete
def test_a_closed_client_leaves_the_discovery_open_and_no_connection(lab: Lab, play: Play):
    service = lab.service("orders", tasks=2)

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        await tasks_of(client, service, 4)
        await client.close()
        eventually(lambda: sum(task.open_connections for task in service.tasks) == 0)
        assert len((await w.resolve(f"orders.prod.local:{service.port}")).endpoints) == 2

    play(scenario)


@complete
def test_connections_of_a_task_that_left_are_closed_and_its_answer_in_flight_is_finished(lab: Lab, play: Play):
    service = lab.service("orders", tasks=2, ttl=1)

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        await tasks_of(client, service, 4)
        opened = await client.open("GET", url_of(service, "/stream/500"))  # five seconds
        left = next(task for task in service.tasks if task.in_flight)
        service.deregister(left)
        service.flush()
        until = time.monotonic() + 10
        # Requests in any case: without one, no answer is asked for again and no connection is looked at.
        while left.id in await tasks_of(client, service, 4) or left.open_connections > 1:
            known = w.discovery.snapshot(f"{service.name}.prod.local:{service.port}")
            assert time.monotonic() < until, f"{left} has {left.open_connections} connections; {known.as_dict()}"
            await w.pause(0.1)
        assert len(await opened.read()) == 500 * 1024
        await opened.close()
        until = time.monotonic() + 5
        while left.open_connections:
            await tasks_of(client, service, 1)
            assert time.monotonic() < until
            await w.pause(0.05)

    play(scenario)


@complete
def test_tls_is_verified_for_the_services_name(lab: Lab, play: Play):
    authority = trustme.CA()
    mine = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("orders.prod.local").configure_cert(mine)
    service = lab.service("orders", tasks=2, ssl_context=mine)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        for _ in range(4):
            assert (await client.send("GET", url_of(service, scheme="https"))).status == 200
        assert [task.connections for task in service.tasks] == [1, 1]

    play(scenario, verify=trusting)


@complete
def test_a_certificate_of_another_name_is_refused_and_its_connection_never_serves_that_name(lab: Lab, play: Play):
    authority = trustme.CA()
    other = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("other.prod.local").configure_cert(other)
    service = lab.service("other", tasks=1, ssl_context=other)
    (task,) = service.tasks
    lab.dns.add("orders.prod.local", "A", task.address)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        assert (await client.send("GET", url_of(service, scheme="https"))).status == 200
        with pytest.raises(client.error) as caught:
            await client.send("GET", f"https://orders.prod.local:{task.port}/")
        assert isinstance(caught.value, DiscoveryError)
        assert "certificate" in str(caught.value)
        (node,) = w.discovery.snapshot(f"orders.prod.local:{task.port}").nodes
        assert node.pending == 0

    play(scenario, verify=trusting)


def test_nothing_of_a_repeated_request_is_kept(lab: Lab, play: Play):
    service = lab.service("orders", tasks=2)
    service.tasks[0].reset()

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        await tasks_of(client, service, 4)
        gc.collect()
        gc.disable()
        try:
            for _ in range(10):
                assert (await client.send("GET", url_of(service))).status == 200
            await w.pause(0.05)
            kept = [thing for thing in gc.get_objects() if isinstance(thing, Exchange)]
        finally:
            gc.enable()
        assert not kept

    play(scenario, retry=RetryPolicy(backoff_max=0.001, backoff_min=0.001, budget_floor=100))


def test_no_descriptor_thread_or_task_is_left(lab: Lab, play: Play, kind: type[ClientUnderTest]):
    if "aiohttp" in kind.__module__ and tuple(map(int, version("aiohttp").split("."))) < (3, 12, 15):
        pytest.skip("a session of aiohttp 3.12.0 leaves its resolver open, ours or not")
    service = lab.service("orders", tasks=3)

    async def first(client: ClientUnderTest, w: Any) -> None:
        await tasks_of(client, service, 1)

    play(first)  # libraries open what a process has once: pycares its thread
    descriptors, threads = set(os.listdir("/dev/fd")), set(threading.enumerate())
    left: list[Any] = []

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        await tasks_of(client, service, 6)
        service.tasks[0].reset()
        await tasks_of(client, service, 6)
        with pytest.raises(client.error):
            await client.send("GET", url_of(service, "/slow/3"), read=0.1)
        await client.close()
        if kind.world.name == "asyncio":
            await w.discovery.aclose()
            await asyncio.sleep(0.05)
            left.extend(asyncio.all_tasks() - {asyncio.current_task()})

    play(scenario)
    assert left == []
    eventually(lambda: not set(threading.enumerate()) - threads)
    gc.collect()
    eventually(lambda: len(set(os.listdir("/dev/fd")) - descriptors) <= 1)  # the lab may keep a closing one


def test_what_the_application_cannot_send_of_its_body_is_not_the_tasks_fault(lab: Lab, play: Play):
    service = lab.service("orders", tasks=1)

    class Broken(Once):
        @property
        def pieces(self) -> Any:  # type: ignore[override]
            def fail() -> Iterator[bytes]:
                yield b"first"
                raise RuntimeError("no more") from TimeoutError("of the application's own")

            return fail()

        @pieces.setter
        def pieces(self, value: Any) -> None:
            pass

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        for _ in range(3):
            with pytest.raises(client.body_error):
                await client.send("POST", url_of(service), body=Broken())
        (node,) = w.discovery.snapshot(f"orders.prod.local:{service.port}").nodes
        assert (node.failures, node.pending) == (0, 0)

    play(scenario)
