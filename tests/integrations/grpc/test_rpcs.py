"""RPCs through channels of ours: which task answers, what is repeated, what is raised."""

from __future__ import annotations

import asyncio
import gc
import pickle
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

from ecs_discovery import (
    ConfigurationError,
    ConnectError,
    DeadlineExceeded,
    DiscoveryError,
    Endpoint,
    NoEndpoints,
    RequestError,
    options,
)
from ecs_discovery.integrations.grpc import insecure_channel, secure_channel
from ecs_discovery.testing.lab.sockets import can_drop_packets
from tests.integrations.grpc.conftest import AsyncCalls, Play
from tests.integrations.grpc.fleet import Fleet, Front

Make = Callable[..., Fleet]


def calls_of(fleet: Fleet, name: str) -> int:
    return sum(task.calls[name] for task in fleet.tasks)


def test_rpcs_spread_evenly_over_the_tasks(fleet: Make, play: Play):
    three = fleet(3)

    async def scenario(calls: Any, w: Any) -> None:
        found = Counter([await calls.one("Get") for _ in range(300)])
        assert len(found) == 3
        assert all(85 <= count <= 115 for count in found.values())

    play(scenario, three)


def test_a_task_that_refuses_is_passed_over_whatever_the_method(fleet: Make, play: Play):
    three = fleet(3)
    gone = three.tasks[0]
    three.end(gone)

    async def scenario(calls: Any, w: Any) -> None:
        for _ in range(4):
            assert await calls.one("Put") != gone.address.encode()
            assert await calls.one("Upload", iter([b"1", b"2"])) != gone.address.encode()
            assert await calls.all(calls.call("List")) == [b"0", b"1", b"2"]
            assert await calls.all(calls.call("Chat", iter([b"1", b"2"]))) == [b"re:1", b"re:2"]
        assert all(task.received in ([], [b"1", b"2"]) for task in three.tasks)
        down = [node for node in w.engine.known("fleet://orders").nodes if node.health.value == "down"]
        assert [node.endpoint.host for node in down] == [gone.address]

    play(scenario, three)


@pytest.mark.parametrize(
    "code", ["UNAVAILABLE", "INTERNAL", "UNKNOWN", "DATA_LOSS", "NOT_FOUND", "ABORTED", "UNIMPLEMENTED"]
)
def test_only_unavailable_is_repeated_and_what_counts_is_the_code(fleet: Make, play: Play, code: str):
    two = fleet(2)
    for task in two.tasks:
        task.answer = (grpc.StatusCode[code], "as told", (("x-why", "because"),))

    async def scenario(calls: Any, w: Any) -> None:
        with pytest.raises(grpc.RpcError) as caught:
            await calls.one("Get")
        error: Any = caught.value
        assert error.code() is grpc.StatusCode[code]
        assert error.details() == "as told"
        assert ("x-why", "because") in [tuple(each) for each in error.trailing_metadata()]
        assert isinstance(error, grpc.aio.AioRpcError if isinstance(calls, AsyncCalls) else grpc.Call)
        failure = code in ("UNAVAILABLE", "INTERNAL", "UNKNOWN", "DATA_LOSS")
        assert isinstance(error, RequestError) is failure
        assert calls_of(two, "Get") == (3 if code == "UNAVAILABLE" else 1)
        if failure:
            assert "fleet://orders" in str(error)
            assert len(error.attempts) == calls_of(two, "Get")
            assert pickle.loads(pickle.dumps(error)).code() is grpc.StatusCode[code]

    play(scenario, two)


def test_what_was_sent_is_not_repeated_unless_it_is_idempotent(fleet: Make, play: Play):
    two = fleet(2)
    for task in two.tasks:
        task.answer = (grpc.StatusCode.UNAVAILABLE, "draining", ())

    async def scenario(calls: Any, w: Any) -> None:
        for _ in range(3):
            with pytest.raises(RequestError, match="it may have been processed and is not idempotent"):
                await calls.one("Put")
        assert calls_of(two, "Put") == 3
        with options(idempotent=True), pytest.raises(RequestError):
            await calls.one("Put")
        assert calls_of(two, "Put") == 6
        with options(idempotent=False), pytest.raises(RequestError):
            await calls.one("Get")
        assert calls_of(two, "Get") == 1
        with options(idempotent=True), pytest.raises(RequestError, match="its body cannot be sent again"):
            await calls.one("Upload", iter([b"1"]))
        assert calls_of(two, "Upload") == 1

    play(scenario, two)


def test_a_task_that_ends_in_the_middle_of_an_rpc_is_left_if_that_is_idempotent(fleet: Make, play: Play):
    two = fleet(2)
    two.tasks[0].dies = two.tasks[1].dies = True
    survivor = two.start()

    async def scenario(calls: Any, w: Any) -> None:
        assert await calls.one("Get") == survivor.address.encode()

    two.show()
    play(scenario, two)


@pytest.mark.parametrize("name", ["Get", "Upload", "List"])
def test_a_stream_that_its_server_cuts_counts_as_sent(fleet: Make, play: Play, name: str):
    two = fleet(2)
    for task in two.tasks:
        task.cuts = True

    async def scenario(calls: Any, w: Any) -> None:
        request = iter([b"1"]) if name == "Upload" else b""
        with options(idempotent=name != "Upload"):
            call = calls.call(name, request)
        with pytest.raises(RequestError) as caught:
            await (calls.all(call) if name == "List" else calls.result(call))
        assert caught.value.code() is grpc.StatusCode.CANCELLED  # type: ignore[attr-defined]
        attempts = 1 if name == "Upload" else 3
        assert [each.outcome for each in caught.value.attempts] == ["cancelled by the server"] * attempts
        two.tasks[0].cuts = two.tasks[1].cuts = False
        assert await calls.one("Get")

    play(scenario, two)


def test_a_connection_that_is_cut_counts_as_sent(fleet: Make, play: Play):
    two = fleet(2)
    front = Front(two.tasks[0], "127.9.251.1")
    two.shown = [front.endpoint]

    async def scenario(calls: Any, w: Any) -> None:
        await calls.one("Get")
        call = calls.call("Slow", b"3", timeout=10)
        with options(idempotent=False):
            unsafe = calls.call("Slow", b"3", timeout=10)
        while two.tasks[0].calls["Slow"] < 2:
            await w.pause(0.02)
        front.cut()
        for each in (call, unsafe):
            with pytest.raises(DiscoveryError) as caught:
                await calls.result(each)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
        assert len(caught.value.attempts) == 1

    play(scenario, two)
    front.close()


def test_an_exhausted_task_is_spared_as_long_as_it_asks_to_be(fleet: Make, play: Play):
    two = fleet(2)
    full = two.tasks[0]
    full.answer = (grpc.StatusCode.RESOURCE_EXHAUSTED, "full", (("grpc-retry-pushback-ms", "60000"),))

    async def scenario(calls: Any, w: Any) -> None:
        assert {await calls.one("Get") for _ in range(20)} == {two.tasks[1].address.encode()}
        assert full.calls["Get"] == 1
        nodes = {node.endpoint.host: node for node in w.engine.known("fleet://orders").nodes}
        left = nodes[full.address].pushback_ends_at - w.engine.clock()
        assert 50 < left <= 60
        assert nodes[full.address].health.value == "healthy"

    play(scenario, two)


def test_a_pushback_below_zero_forbids_another_attempt(fleet: Make, play: Play):
    two = fleet(2)
    for task in two.tasks:
        task.answer = (grpc.StatusCode.UNAVAILABLE, "never", (("grpc-retry-pushback-ms", "-1"),))

    async def scenario(calls: Any, w: Any) -> None:
        with pytest.raises(RequestError):
            await calls.one("Get")
        assert calls_of(two, "Get") == 1

    play(scenario, two)


def test_a_timeout_is_one_for_all_attempts(fleet: Make, play: Play):
    two = fleet(2)

    async def scenario(calls: Any, w: Any) -> None:
        for limit in ({"timeout": 0.3}, {}):
            began = time.monotonic()
            with pytest.raises(DeadlineExceeded) as caught, options(deadline=0.3 if not limit else 30):
                await calls.one("Slow", b"1.5", **limit)
            assert time.monotonic() - began < 1.2
            error: Any = caught.value
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert isinstance(error, grpc.RpcError)
            assert len(error.attempts) == 1

    play(scenario, two)


def test_wait_for_ready_waits_until_there_is_a_task(fleet: Make, play: Play):
    one = fleet(1)
    (task,) = one.tasks
    port = task.port
    one.end(task)

    async def scenario(calls: Any, w: Any) -> None:
        with pytest.raises(ConnectError):
            await calls.one("Put")
        with pytest.raises(DeadlineExceeded) as caught:
            await calls.one("Put", timeout=0.4, wait_for_ready=True)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # type: ignore[attr-defined]
        call = calls.call("Put", timeout=20, wait_for_ready=True)
        await w.pause(0.2)
        one.port = port
        one.start()
        one._number = iter(())  # type: ignore[assignment]
        one.show()
        assert await calls.result(call) == one.tasks[0].address.encode()

    play(scenario, one)


def test_no_endpoints_is_an_error_of_grpc_too(fleet: Make, play: Play):
    none = fleet(1)
    none.shown = []

    async def scenario(calls: Any, w: Any) -> None:
        for make in (lambda: calls.one("Get"), lambda: calls.all(calls.call("List"))):
            with pytest.raises(NoEndpoints) as caught:
                await make()
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
            assert isinstance(caught.value, grpc.RpcError)

    play(scenario, none)


def test_a_cancelled_rpc_says_nothing_of_its_task(fleet: Make, play: Play):
    one = fleet(1)

    async def scenario(calls: Any, w: Any) -> None:
        await calls.one("Get")
        for _ in range(8):
            call = calls.call("Slow", b"0.3")
            await w.pause(0.02)
            assert call.cancel()
            with pytest.raises((grpc.FutureCancelledError, asyncio.CancelledError)):
                await calls.result(call)
            assert await calls.told(call.code()) is grpc.StatusCode.CANCELLED
        await w.pause(0.1)
        (node,) = w.engine.known("fleet://orders").nodes
        assert node.health.value == "healthy"
        assert node.pending == 0
        assert one.tasks[0].calls["Slow"] == 8

    play(scenario, one)


def test_metadata_reach_the_task_and_come_back(fleet: Make, play: Play):
    one = fleet(1)

    async def scenario(calls: Any, w: Any) -> None:
        call = calls.call("Said", metadata=(("x-key", "7"),), compression=grpc.Compression.Gzip)
        assert b"'x-key', value='7'" in await calls.result(call)
        assert ("x-task", one.tasks[0].address) in [tuple(each) for each in await calls.told(call.trailing_metadata())]

    play(scenario, one)


def test_a_stream_of_responses_goes_elsewhere_until_its_first(fleet: Make, play: Play):
    two = fleet(2)
    bad = two.tasks[0]
    bad.answer = (grpc.StatusCode.UNAVAILABLE, "draining", ())

    async def scenario(calls: Any, w: Any) -> None:
        for _ in range(4):
            assert await calls.all(calls.call("List")) == [b"0", b"1", b"2"]
        assert bad.calls["List"]
        bad.answer = None
        call = calls.call("List", b"100000")
        assert await calls.read(call) == b"0"
        for task in list(two.tasks):
            two.end(task)
        with pytest.raises(RequestError, match="responses had been read"):
            [await calls.read(call) for _ in range(100_000)]

    play(scenario, two)


def test_a_stream_that_is_abandoned_ends_its_use_of_the_task(fleet: Make, play: Play):
    one = fleet(1)

    async def scenario(calls: Any, w: Any) -> None:
        call = calls.call("List", b"100000")
        assert await calls.read(call) == b"0"
        (node,) = w.engine.known("fleet://orders").nodes
        assert node.pending == 1
        del call
        gc.collect()
        for _ in range(100):
            if not node.pending:
                break
            await w.pause(0.02)
        assert node.pending == 0

    play(scenario, one)


def test_a_source_of_requests_that_fails_is_not_held_against_the_task(fleet: Make, play: Play):
    one = fleet(1)

    def broken() -> Iterator[bytes]:
        yield b"1"
        raise RuntimeError("a bug of the application's")

    async def scenario(calls: Any, w: Any) -> None:
        for _ in range(6):
            with pytest.raises((grpc.RpcError, asyncio.CancelledError)):
                await calls.one("Upload", broken())
        (node,) = w.engine.known("fleet://orders").nodes
        assert node.health.value == "healthy"

    play(scenario, one)


def test_a_closed_channel_leaves_the_discovery_open(fleet: Make, play: Play):
    one = fleet(1)

    async def scenario(calls: Any, w: Any) -> None:
        await calls.one("Get")
        await calls.close()
        with pytest.raises((ValueError, grpc.aio.UsageError)):
            await calls.one("Get")
        await w.resolve("fleet://orders")

    play(scenario, one)


@pytest.mark.skipif(not can_drop_packets(), reason="needs packet filters")
def test_a_task_that_vanishes_is_left_by_an_idempotent_rpc(fleet: Make, play: Play):
    two = fleet(2)
    front = Front(two.tasks[0], "127.9.251.2")
    two.shown = [front.endpoint, two.tasks[1].endpoint]

    async def scenario(calls: Any, w: Any) -> None:
        for _ in range(20):
            await calls.one("Get")
        front.vanish()
        began = time.monotonic()
        for _ in range(10):
            assert await calls.one("Get") == two.tasks[1].address.encode()
        assert time.monotonic() - began < 5

    play(scenario, two)
    front.close()


def test_the_name_of_the_service_is_what_the_task_and_its_certificate_see(fleet: Make, play: Play):
    import trustme

    authority = trustme.CA()
    issued = authority.issue_cert("orders.prod.local")
    server = grpc.ssl_server_credentials(
        [(issued.private_key_pem.bytes(), b"".join(each.bytes() for each in issued.cert_chain_pems))]
    )
    two = fleet(2, credentials=server)
    static = "static://" + ",".join(map(str, two.shown))
    trusting = grpc.ssl_channel_credentials(authority.cert_pem.bytes())

    async def scenario(calls: Any, w: Any) -> None:
        assert {await calls.one("Get") for _ in range(4)} == {task.address.encode() for task in two.tasks}
        assert two.tasks[0].authorities == {"orders.prod.local"}

    async def refused(calls: Any, w: Any) -> None:
        with pytest.raises(ConnectError) as caught:
            await calls.one("Get")
        assert {attempt.outcome for attempt in caught.value.attempts} <= {"certificate", "tls", "connect"}

    play(scenario, two, target="orders", credentials=trusting, services={"orders": static})
    play(refused, two, target="users", credentials=trusting, services={"users": static})


@pytest.mark.parametrize(
    ("target", "authority"),
    [("orders", "orders"), ("orders:50051", "orders:50051"), ("dns:///orders.prod.local", "orders.prod.local")],
)
def test_the_authority_is_the_target_as_written(fleet: Make, play: Play, target: str, authority: str):
    one = fleet(1)

    async def scenario(calls: Any, w: Any) -> None:
        await calls.one("Get")
        assert one.tasks[0].authorities == {authority}

    play(scenario, one, target=target, services={"orders": f"static://{one.shown[0]}"})


def test_a_target_that_is_not_ours_gets_a_plain_channel(fleet: Make, play: Play):
    one = fleet(1)

    async def scenario(calls: Any, w: Any) -> None:
        assert type(calls.channel).__module__.startswith("grpc")
        assert await calls.one("Get") == one.tasks[0].address.encode()

    play(scenario, one, target=str(one.shown[0]))


@pytest.mark.parametrize(
    "bad",
    [
        {"target": ""},
        {"target": 7},
        {"idempotent": "Get"},
        {"idempotent": [7]},
        {"options": "grpc.x"},
        {"options": [("one",)]},
    ],
)
def test_bad_input_is_refused_when_the_channel_is_made(bad: dict[str, Any]):
    with pytest.raises(ConfigurationError):
        insecure_channel(**{"target": "orders", "namespace": "prod.local", **bad})


def test_credentials_that_are_none_are_refused():
    with pytest.raises(ConfigurationError, match="ssl_channel_credentials"):
        secure_channel("orders", None, namespace="prod.local")  # type: ignore[arg-type]


def test_discovery_that_is_switched_off_gives_a_plain_channel(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ECS_DISCOVERY_DISABLED", "1")
    with insecure_channel("orders:1") as channel:
        assert type(channel).__module__ == "grpc._channel"


def test_endpoints_of_ipv6_are_named_as_grpc_names_them():
    from ecs_discovery.integrations._grpc.route import address_of

    assert address_of(Endpoint("::1", 5)) == "ipv6:[::1]:5"
    assert address_of(Endpoint("127.0.0.1", 5)) == "ipv4:127.0.0.1:5"


class _Counting(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    def __init__(self) -> None:
        self.seen = 0

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        self.seen += 1
        return continuation(details, request)


def test_an_interceptor_of_threads_sees_each_rpc_once(fleet: Make):
    two = fleet(2)
    two.tasks[0].answer = (grpc.StatusCode.UNAVAILABLE, "draining", ())
    static = "static://" + ",".join(map(str, two.shown))
    counting = _Counting()
    with insecure_channel("orders", services={"orders": static}, idempotent=["shop.Orders"]) as channel:
        get = grpc.intercept_channel(channel, counting).unary_unary("/shop.Orders/Get")
        alive = two.tasks[1].address.encode()
        for _ in range(3):
            assert get(b"") == alive
            assert get.with_call(b"")[0] == alive
            assert get.future(b"").result() == alive
        assert counting.seen == 9
        two.tasks[1].answer = two.tasks[0].answer
        with pytest.raises(RequestError):
            get(b"")
    assert two.tasks[0].calls["Get"]


class _CountingAttempts(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self) -> None:
        self.seen = 0

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        self.seen += 1
        return await continuation(details, request)


def test_an_interceptor_of_asyncio_sees_each_attempt(fleet: Make):
    from ecs_discovery.integrations.grpc import aio

    two = fleet(2)
    two.tasks[0].answer = (grpc.StatusCode.UNAVAILABLE, "draining", ())
    static = "static://" + ",".join(map(str, two.shown))
    counting = _CountingAttempts()

    async def main() -> None:
        async with aio.insecure_channel(
            "orders", services={"orders": static}, idempotent=["shop.Orders"], interceptors=[counting]
        ) as channel:
            get = channel.unary_unary("/shop.Orders/Get")
            assert {await get(b"") for _ in range(6)} == {two.tasks[1].address.encode()}

    asyncio.run(main())
    assert counting.seen == 6 + two.tasks[0].calls["Get"]
    assert two.tasks[0].calls["Get"]


def test_a_channel_is_ready_when_an_endpoint_is(fleet: Make):
    two = fleet(2)
    static = "static://" + ",".join(map(str, two.shown))
    with insecure_channel("orders", services={"orders": static}) as channel:
        grpc.channel_ready_future(channel).result(timeout=10)
