"""Taking turns, and the clocks."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

__all__ = ["Cost", "cpu_of", "rotated", "seconds_each", "summary", "without_garbage"]


class Cost(NamedTuple):
    """Seconds for one piece of work."""

    wall: float
    cpu: float
    """Of this process and of its proxy."""
    proxy: float = 0.0
    """The proxy's part."""


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process has used, all its threads together (Linux)."""
    nanoseconds = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            nanoseconds += int((task / "schedstat").read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return nanoseconds / 1e9


def rotated(names: list[str], number: int) -> list[str]:
    """The names in another order for each round, so that none is always the first."""
    cut = number % len(names)
    turned = names[cut:] + names[:cut]
    return turned if number % 2 else turned[::-1]


def summary(rounds: Mapping[str, list[Cost]], base: str) -> dict[str, dict[str, float]]:
    """Medians in microseconds, and the medians of the ratios to `base` in the same round."""
    found = {}
    for name, costs in rounds.items():
        pairs = list(zip(costs, rounds[base], strict=True))
        found[name] = {
            "wall_us": median(cost.wall for cost in costs) * 1e6,
            "cpu_us": median(cost.cpu for cost in costs) * 1e6,
            "proxy_cpu_us": median(cost.proxy for cost in costs) * 1e6,
            "wall_ratio": median(cost.wall / plain.wall for cost, plain in pairs),
            "cpu_ratio": median(cost.cpu / plain.cpu for cost, plain in pairs),
        }
    return found


@contextmanager
def without_garbage() -> Generator[None]:
    """The collector comes at times of its own: not inside."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def seconds_each(work: Callable[[], object], number: int, proxy: int | None = None) -> Cost:
    """The cost of one of `number` pieces of work."""
    other = cpu_of(proxy) if proxy is not None else 0.0
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(number):
        work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    other = cpu_of(proxy) - other if proxy is not None else 0.0
    return Cost(wall / number, (cpu + other) / number, other / number)


async def seconds_each_async(work: Callable[[], Awaitable[object]], number: int, proxy: int | None = None) -> Cost:
    """The same of what is awaited."""
    other = cpu_of(proxy) if proxy is not None else 0.0
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(number):
        await work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    other = cpu_of(proxy) - other if proxy is not None else 0.0
    return Cost(wall / number, (cpu + other) / number, other / number)


def machine() -> dict[str, Any]:
    """Where it was measured."""
    info = Path("/proc/cpuinfo")
    model = ""
    if info.exists():
        model = next((line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line), "")
    return {"processors": os.cpu_count(), "model": model}
