"""(a) for gRPC: a unary RPC through a channel of ours beside one through a plain channel."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from benchmarks.measure import Cost, rotated, seconds_each, without_garbage
from ecs_discovery import Discovery
from ecs_discovery.integrations.grpc import insecure_channel

__all__ = ["run"]

CALLS = 100
METHOD = "/shop.Orders/Get"


def serve(ports: Any) -> None:
    """Runs in a process of its own."""

    async def main() -> None:
        async def answer(request: bytes, context: Any) -> bytes:
            return request

        server = grpc.aio.server()
        handlers: dict[str, Any] = {"Get": grpc.unary_unary_rpc_method_handler(answer)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Orders", handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        ports.put(port)
        await server.wait_for_termination()

    asyncio.run(main())


def run(rounds: int) -> dict[str, list[Cost]]:
    """What a call costs each way."""
    context = multiprocessing.get_context("spawn")
    ports = context.Queue()
    server = context.Process(target=serve, args=(ports,), daemon=True)
    server.start()
    try:
        port = ports.get(timeout=30)
        with (
            Discovery(services={"orders": f"static://127.0.0.1:{port}"}) as discovery,
            insecure_channel("orders", discovery=discovery, idempotent=[METHOD]) as channel,
            grpc.insecure_channel(f"ipv4:127.0.0.1:{port}") as bare,
        ):
            ours: Any = channel.unary_unary(METHOD)
            plain: Any = bare.unary_unary(METHOD)
            ways: dict[str, Callable[[], object]] = {
                "wrapped": lambda: ours(b"x", timeout=5),
                "plain": lambda: plain(b"x", timeout=5),
            }
            for work in ways.values():
                seconds_each(work, 20)
            costs: dict[str, list[Cost]] = {name: [] for name in ways}
            with without_garbage():
                for number in range(rounds):
                    for name in rotated(list(ways), number):
                        costs[name].append(seconds_each(ways[name], CALLS))
            return costs
    finally:
        server.terminate()
        server.join()
