"""What others put into gRPC sees our RPCs under the name of their target."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from ecs_discovery.integrations import grpc as ours
from ecs_discovery.integrations.grpc import aio
from tests.integrations.grpc.fleet import Fleet
from tests.spans import Spans, spans

__all__ = ["spans"]

Make = Callable[..., Fleet]


def shown(fleet: Fleet) -> dict[str, str]:
    return {"orders": "static://" + ",".join(map(str, fleet.shown))}


def test_opentelemetrys_interceptor_makes_one_span_for_an_rpc_of_threads(fleet: Make, spans: Spans):
    instrumentation: Any = pytest.importorskip("opentelemetry.instrumentation.grpc")
    extended: Any = pytest.importorskip("opentelemetry.instrumentation.grpc.grpcext")
    two = fleet(2)
    two.tasks[0].answer = (grpc.StatusCode.UNAVAILABLE, "draining", ())
    with ours.insecure_channel("orders", services=shown(two), idempotent=["shop.Orders"]) as channel:
        theirs = instrumentation.client_interceptor(tracer_provider=spans.provider)
        get = extended.intercept_channel(channel, theirs).unary_unary("/shop.Orders/Get")
        assert {get(b"", timeout=10) for _ in range(4)} == {two.tasks[1].address.encode()}
    assert two.tasks[0].calls["Get"]
    assert spans.names() == ["/shop.Orders/Get"] * 4


def test_opentelemetrys_instrumentor_makes_a_span_for_each_attempt_of_threads(
    fleet: Make, spans: Spans, monkeypatch: pytest.MonkeyPatch
):
    instrumentation: Any = pytest.importorskip("opentelemetry.instrumentation.grpc")
    two = fleet(2)
    two.tasks[0].answer = (grpc.StatusCode.UNAVAILABLE, "draining", ())
    monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER", spans.provider)  # it heeds the global provider only
    with (
        spans.of(instrumentation.GrpcInstrumentorClient()),
        ours.insecure_channel("orders", services=shown(two), idempotent=["shop.Orders"]) as channel,
    ):
        get = channel.unary_unary("/shop.Orders/Get")
        assert {get(b"", timeout=10) for _ in range(4)} == {two.tasks[1].address.encode()}
    attempts = two.tasks[0].calls["Get"] + two.tasks[1].calls["Get"]
    assert attempts > 4
    assert spans.names() == ["/shop.Orders/Get"] * attempts


def test_opentelemetry_makes_a_span_for_each_attempt_of_asyncio(fleet: Make, spans: Spans):
    instrumentation: Any = pytest.importorskip("opentelemetry.instrumentation.grpc")
    two = fleet(2)
    two.tasks[0].answer = (grpc.StatusCode.UNAVAILABLE, "draining", ())

    async def main() -> None:
        async with aio.insecure_channel("orders", services=shown(two), idempotent=["shop.Orders"]) as channel:
            get = channel.unary_unary("/shop.Orders/Get")
            assert {await get(b"", timeout=10) for _ in range(4)} == {two.tasks[1].address.encode()}

    with spans.of(instrumentation.GrpcAioInstrumentorClient()):
        asyncio.run(main())
    attempts = two.tasks[0].calls["Get"] + two.tasks[1].calls["Get"]
    assert attempts > 4
    assert spans.names() == ["/shop.Orders/Get"] * attempts
