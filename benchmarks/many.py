"""(e) A process that uses 1,000 services: what it costs while it waits, and what it asks."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ecs_discovery import Discovery
from ecs_discovery.testing.lab import Lab

__all__ = ["run"]

SERVICES = 1000
SECONDS = 15.0


def run(services: int = SERVICES, seconds: float = SECONDS) -> dict[str, Any]:
    """Figures of a process of its own, which resolves all services once and then waits, and then uses each again."""
    with Lab(namespace="prod.local", seed=1) as lab:
        for number in range(services):
            lab.service(f"s{number}", tasks=1, records="A", port=8080, ttl=10.0)
        command = [sys.executable, "-m", "benchmarks.many", lab.nameserver, str(services), str(seconds)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120 + 4 * seconds)
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        return dict(json.loads(done.stdout))


def resident() -> int:
    """Bytes of memory of this process (Linux)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def main(nameserver: str, services: int, seconds: float) -> dict[str, Any]:
    with Discovery(namespace="prod.local", nameservers=[nameserver]) as discovery:
        targets = [f"s{number}:8080" for number in range(services)]
        discovery.resolve(targets[0])
        memory, began, cpu = resident(), time.perf_counter(), time.process_time()
        discovery.warm(*targets, timeout=120)  # at no more than 200 lookups a second
        wall, first = time.perf_counter() - began, time.process_time() - cpu
        memory = resident() - memory
        asked = lookups(discovery)
        cpu = time.process_time()
        time.sleep(seconds)
        idle, while_idle = time.process_time() - cpu, lookups(discovery) - asked
        asked, cpu, end = lookups(discovery), time.process_time(), time.monotonic() + seconds
        uses = 0
        while time.monotonic() < end:
            with discovery.lease(targets[uses % services]):
                uses += 1
            time.sleep(0.001)
        return {
            "services": services,
            "bytes for a service": memory / services,
            "first lookups, ms each": wall / services * 1e3,
            "first lookups, ms of CPU each": first / services * 1e3,
            "idle, % of a processor": idle / seconds * 100,
            "idle, lookups/s": while_idle / seconds,
            "in use, uses/s": uses / seconds,
            "in use, % of a processor": (time.process_time() - cpu) / seconds * 100,
            "in use, lookups/s": (lookups(discovery) - asked) / seconds,
        }


def lookups(discovery: Discovery) -> int:
    """Lookups that were answered."""
    counted = discovery._driver.engine.counters.read().get("lookups", {})
    return sum(number for kind, number in counted.items() if kind.endswith(" ok"))


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))))
