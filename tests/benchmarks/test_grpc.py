"""A unary RPC through a channel of ours beside one through a plain channel, in one run: the ratio is the result."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Iterator
from statistics import median
from typing import Any

import grpc
import grpc.aio
import pytest

from ecs_discovery import AsyncDiscovery, Discovery
from ecs_discovery.integrations.grpc import aio, insecure_channel

pytestmark = pytest.mark.benchmark

ROUNDS, REQUESTS = 40, 200
METHOD = "/shop.Orders/Get"


def serve(ports: Any) -> None:
    async def main() -> None:
        async def answer(request: bytes, context: Any) -> bytes:
            return request

        server = grpc.aio.server()
        handlers = {"Get": grpc.unary_unary_rpc_method_handler(answer)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Orders", handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        ports.put(port)
        await server.wait_for_termination()

    asyncio.run(main())


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    context = multiprocessing.get_context("spawn")
    ports = context.Queue()
    process = context.Process(target=serve, args=(ports,), daemon=True)
    process.start()
    yield ports.get(timeout=20)
    process.terminate()
    process.join()


def shown(rounds: list[tuple[tuple[float, float], tuple[float, float]]], name: str, capsys: Any) -> None:
    wall = median(o[0] / p[0] for o, p in rounds)
    cpu = median(o[1] / p[1] for o, p in rounds)
    micros = [median(values) * 1e6 for values in zip(*((o[1], p[1]) for o, p in rounds), strict=True)]
    with capsys.disabled():
        print(f"\n{name}: ours {micros[0]:.0f} us of CPU, plain {micros[1]:.0f} us")
        print(f"{name}: ratio {wall:.3f} of time, {cpu:.3f} of CPU")


def measured(call: Any) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(REQUESTS):
        call(b"x", timeout=5)
    return (time.perf_counter() - wall) / REQUESTS, (time.process_time() - cpu) / REQUESTS


@pytest.mark.parametrize("idempotent", [False, True])
def test_a_unary_rpc(port: int, capsys: Any, idempotent: bool):
    with (
        Discovery(services={"orders": f"static://127.0.0.1:{port}"}) as discovery,
        insecure_channel("orders", discovery=discovery, idempotent=[METHOD] if idempotent else None) as channel,
        grpc.insecure_channel(f"ipv4:127.0.0.1:{port}") as bare,
    ):
        ours, plain = channel.unary_unary(METHOD), bare.unary_unary(METHOD)
        rounds = []
        for each in (ours, plain):
            measured(each)
        for number in range(ROUNDS):
            if number % 2:
                first = measured(ours)
                rounds.append((first, measured(plain)))
            else:
                last = measured(plain)
                rounds.append((measured(ours), last))
    shown(rounds, f"gRPC, unary{', idempotent' if idempotent else ''}", capsys)


def test_a_unary_rpc_of_asyncio(port: int, capsys: Any):
    async def timed(call: Any) -> tuple[float, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(REQUESTS):
            await call(b"x", timeout=5)
        return (time.perf_counter() - wall) / REQUESTS, (time.process_time() - cpu) / REQUESTS

    async def main() -> list[tuple[tuple[float, float], tuple[float, float]]]:
        rounds = []
        async with (
            AsyncDiscovery(services={"orders": f"static://127.0.0.1:{port}"}) as discovery,
            aio.insecure_channel("orders", discovery=discovery) as channel,
            grpc.aio.insecure_channel(f"ipv4:127.0.0.1:{port}") as bare,
        ):
            ours, plain = channel.unary_unary(METHOD), bare.unary_unary(METHOD)
            for each in (ours, plain):
                await timed(each)
            for number in range(ROUNDS):
                if number % 2:
                    first = await timed(ours)
                    rounds.append((first, await timed(plain)))
                else:
                    last = await timed(plain)
                    rounds.append((await timed(ours), last))
        return rounds

    shown(asyncio.run(main()), "gRPC, unary under asyncio", capsys)
