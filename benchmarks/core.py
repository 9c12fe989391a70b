"""(c) What the core's steps cost at 4, 100 and 10,000 endpoints, and how the cost grows."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from math import log
from statistics import median
from typing import Any

from benchmarks.measure import without_garbage
from ecs_discovery import Discovery, Endpoint, Resolution
from ecs_discovery.core.balancing.node import Outcome
from ecs_discovery.core.service import Service

__all__ = ["SIZES", "run"]

SIZES = (4, 100, 10_000)
Step = Callable[[int], Callable[[], object]]


def addresses(count: int, first: int = 0) -> list[str]:
    """So many addresses of loopback."""
    return [f"127.{n // 62500}.{n // 250 % 250}.{n % 250 + 1}" for n in range(first, first + count)]


def discovery_of(count: int, clock: Callable[[], float] = time.monotonic) -> Discovery:
    hosts = ",".join(f"{each}:80" for each in addresses(count))
    return Discovery(services={"orders": f"static://{hosts}"}, clock=clock)


def service_of(count: int) -> Service:
    """With times of its own."""
    discovery = discovery_of(count, lambda: 0.0)
    discovery.resolve("orders")
    return discovery._driver.engine.service("orders")


def _resolve(count: int) -> Callable[[], object]:
    discovery = discovery_of(count)
    return lambda: discovery.resolve("orders")


def _pick(count: int) -> Callable[[], object]:
    service = service_of(count)

    def work() -> None:
        node = service.pick(0.0)
        assert node is not None
        service.release(node)

    return work


def _lease(count: int) -> Callable[[], object]:
    discovery = discovery_of(count)

    def work() -> None:
        with discovery.lease("orders"):
            pass

    return work


def _call(count: int) -> Callable[[], object]:
    discovery = discovery_of(count)
    return lambda: discovery.call("orders", lambda attempt: None)


def _eject(count: int) -> Callable[[], object]:
    """One endpoint is ejected by a failed connect, and comes back by a good one."""
    service = service_of(count)
    node, now = service.nodes[0], 0.0

    def work() -> None:
        nonlocal now
        now += 1.0
        service.observe(node, Outcome.CONNECT, now)
        service.observe(node, Outcome.SUCCESS, now + 0.5)

    return work


def _change(count: int) -> Callable[[], object]:
    """An answer in which one endpoint has left and another has come."""
    discovery = discovery_of(count, lambda: 0.0)
    discovery.resolve("orders")
    engine = discovery._driver.engine
    service = engine.service("orders")
    here = addresses(count)[:-1]
    answers = [
        Resolution(tuple(Endpoint(host, 80) for host in (*here, last)), 10.0, "static") for last in addresses(2, count)
    ]
    number = 0

    def work() -> None:
        nonlocal number
        number += 1
        service._accept(answers[number % 2], float(number))
        engine.emit(service)

    return work


STEPS: dict[str, Step] = {
    "cached resolve": _resolve,
    "pick and release": _pick,
    "lease": _lease,
    "call": _call,
    "one ejection and return": _eject,
    "a change of one endpoint": _change,
}
REPEATS = {"one ejection and return": 200, "a change of one endpoint": 5}


def run(rounds: int) -> dict[str, Any]:
    """Microseconds for each step and size, the exponent of growth, and bytes for an endpoint."""
    found: dict[str, Any] = {}
    for name, step in STEPS.items():
        works = {size: step(size) for size in SIZES}
        number = REPEATS.get(name, 2000)
        times: dict[int, list[float]] = {size: [] for size in SIZES}
        for work in works.values():
            for _ in range(number):
                work()
        with without_garbage():
            for _ in range(rounds):
                for size, work in works.items():
                    began = time.perf_counter()
                    for _ in range(number):
                        work()
                    times[size].append((time.perf_counter() - began) / number)
        micros = {size: median(values) * 1e6 for size, values in times.items()}
        found[name] = {**{str(size): value for size, value in micros.items()}, "exponent": exponent(micros)}
    found["bytes for an endpoint"] = bytes_each()
    return found


def exponent(micros: dict[int, float]) -> float:
    """The slope of the straight line through the logarithms: 0 is constant, 1 is linear."""
    points = [(log(size), log(value)) for size, value in micros.items()]
    x, y = (sum(each) / len(points) for each in zip(*points, strict=True))
    slope: float = sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)
    return slope


def bytes_each() -> float:
    """What 10,000 endpoints take more than 100, by endpoint: its node, its place in the cache and in the balancer."""
    sizes = []
    for count in (100, 10_000):
        tracemalloc.start()
        kept = service_of(count)
        sizes.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        assert kept.nodes
    return (sizes[1] - sizes[0]) / 9_900
