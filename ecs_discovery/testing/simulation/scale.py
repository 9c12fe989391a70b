"""The proof at scale: thousands of clients beside a thousand tasks, in virtual time, over several processes.

    python -m ecs_discovery.testing.simulation.scale --out docs/pictures

Clients are dealt to shards. Each shard is a world of its own that plays the same history with all the tasks; what its
clients did is added to what the others did. Clients meet at tasks only, and a task has room for all of them, so that a
client cannot tell how many worlds there are. Each shard has DNS resolvers of its own, three of them.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import multiprocessing
import os
import platform
import resource
import sys
import time
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Any

from ecs_discovery.cli.demo.charts import Mark
from ecs_discovery.testing.simulation.histories import HISTORIES, RATE, SECONDS, START
from ecs_discovery.testing.simulation.pictures import Curve, picture
from ecs_discovery.testing.simulation.report import percentile
from ecs_discovery.testing.simulation.tasks import lognormal
from ecs_discovery.testing.simulation.world import World

__all__ = ["AMPLIFICATION", "DISCOVER_INSTANCES", "DNS_PACKETS", "WAVE", "Outcome", "judge", "main", "play", "play_all"]

_PRELOADED = [f"ecs_discovery.testing.simulation.{name}" for name in ("histories", "pictures")]  # all but this one
TTL, LAG, CACHES = 10.0, 5.0, 3
SHARD = 250  # clients in one world: more would not fit the caches of a processor, and each step would take longer
SLOT = 0.1  # seconds
LATE = 2.0  # seconds after the tasks answer again by which every request succeeds
TARGETS = {"dns": "orders:8080", "cloudmap": "cloudmap://prod/orders"}

AMPLIFICATION = 1.2
"""Requests that reach tasks per request of the application, and one a second from each client besides."""
WAVE = 3.0
"""The busiest slot, in units of the mean."""
DNS_PACKETS = 1024
"""Packets per second that the VPC resolver takes from one network interface."""
DISCOVER_INSTANCES = 1000
"""Calls per second that Cloud Map takes from one account in one Region, steadily."""


@dataclass
class Outcome:
    """What became of one history, of one shard or of all. Counts are per slot of 0.1 s."""

    history: str
    clients: int
    tasks: int
    began: list[int] = field(default_factory=list)
    served: list[int] = field(default_factory=list)
    lookups: list[int] = field(default_factory=list)
    connects: list[int] = field(default_factory=list)
    lost: list[tuple[float, str]] = field(default_factory=list)
    """When each lost request began, in seconds from the beginning, and its error."""
    seconds: array[float] = field(default_factory=lambda: array("f"))
    """How long each request took."""
    attempts: int = 0
    most_lookups: int = 0
    """Of one client, in all."""
    known: int = 0
    """Endpoints that the clients knew at the end."""
    cpu: float = 0.0
    memory: float = 0.0
    """MiB, of the process that took most."""

    def add(self, other: Outcome) -> None:
        """Take in another shard."""
        self.clients += other.clients
        for name in ("began", "served", "lookups", "connects"):
            mine, theirs = getattr(self, name), getattr(other, name)
            length = max(len(mine), len(theirs))
            filled = [[*counts, *[0] * (length - len(counts))] for counts in (mine, theirs)]
            setattr(self, name, [a + b for a, b in zip(*filled, strict=True)])
        self.lost += other.lost
        self.seconds.extend(other.seconds)
        self.attempts += other.attempts
        self.most_lookups = max(self.most_lookups, other.most_lookups)
        self.known += other.known
        self.cpu += other.cpu
        self.memory = max(self.memory, other.memory)

    @property
    def amplification(self) -> float:
        """Requests that reached tasks, per request."""
        return sum(self.served) / max(1, sum(self.began))

    def lost_in_light(self) -> list[tuple[float, str]]:
        """The lost requests that began while a task answered."""
        dark = HISTORIES[self.history].dark
        return [each for each in self.lost if dark is None or not dark[0] - 1 <= each[0] < dark[1] + LATE]

    def width(self) -> int:
        """Slots in one look at how busy it is: as many as hold 20 requests, so that chance alone makes no wave."""
        return max(1, ceil(20 / (RATE * self.clients * SLOT)))

    def busiest(self) -> tuple[int, float]:
        """What reached tasks in the busiest look of a part of the history (between its marks), and the mean of that
        part. Of all parts the one where these two differ most."""
        width = self.width()
        edges = [0.0, *(at for at, _ in HISTORIES[self.history].marks), SECONDS]
        found = []
        for start, end in pairwise(edges):
            part = together(self.served[round(start / SLOT) : round(end / SLOT)], width)
            part = part[: max(1, int((end - start) / SLOT) // width)]  # whole ones
            found.append((max(part), sum(part) / len(part)))
        return max(found, key=lambda each: each[0] / max(each[1], 1e-9))

    def busiest_lookups(self) -> int:
        """Lookups of all clients in the busiest second."""
        return max(together(self.lookups, round(1 / SLOT)), default=0)

    def figures(self) -> dict[str, Any]:
        """For JSON and tables."""
        most, mean = self.busiest()
        times = sorted(self.seconds)
        return {
            "history": self.history,
            "source": HISTORIES[self.history].source,
            "clients": self.clients,
            "tasks": self.tasks,
            "requests": sum(self.began),
            "reached": sum(self.served),
            "lost": len(self.lost),
            "lost_while_a_task_answered": len(self.lost_in_light()),
            "amplification": round(self.amplification, 4),
            "p50_ms": round(percentile(times, 0.5) * 1000, 1),
            "p99_ms": round(percentile(times, 0.99) * 1000, 1),
            "longest_ms": round(times[-1] * 1000, 1),
            "look_seconds": round(self.width() * SLOT, 3),
            "busiest_look": most,
            "mean_look": round(mean, 2),
            "wave": round(most / mean, 3),
            "lookups": sum(self.lookups),
            "lookups_in_the_busiest_second": self.busiest_lookups(),
            "lookups_of_the_busiest_client": self.most_lookups,
            "connects": sum(self.connects),
            "endpoints_known_per_client": round(self.known / max(1, self.clients), 1),
            "cpu_seconds": round(self.cpu, 1),
            "cpu_microseconds_per_request": round(self.cpu / max(1, sum(self.began)) * 1e6),
            "memory_mib_of_a_process": round(self.memory),
        }


def together(counts: Sequence[int], width: int) -> list[int]:
    """The sums of `width` neighbours each."""
    return [sum(counts[index : index + width]) for index in range(0, len(counts), width)]


def play(history: str, clients: int, tasks: int, seed: int) -> Outcome:
    """One shard, in this process."""
    logging.getLogger("ecs_discovery").disabled = True
    began = time.process_time()
    world = World(seed, ttl=TTL, lag=LAG, caches=CACHES)
    orders = world.service("orders", tasks, lognormal(0.02, 0.5))
    played = HISTORIES[history]
    callers = [world.client(TARGETS[played.source]) for _ in range(clients)]
    was_on = gc.isenabled()
    gc.disable()  # a process plays one shard and ends: looking for circles takes a sixth of its time, and frees 3 MiB
    try:
        world.run(lambda: played.play(world, orders, callers))
    finally:
        if was_on:
            gc.enable()
    asked = world.cloud_map.asked if played.source == "cloudmap" else [at for each in world.dns for at in each.packets]
    return Outcome(
        history,
        clients,
        tasks,
        began=_counted(request.began for request in world.requests),
        served=_counted(at for task in orders.all_tasks for at in task.served),
        lookups=_counted(asked),
        connects=_counted(at for at, _ in world.connects),
        lost=[(round(request.began - START, 2), request.error or str(request.status)) for request in world.failed],
        seconds=array("f", (request.seconds for request in world.requests)),
        attempts=sum(request.attempts for request in world.requests),
        most_lookups=max(caller.discovery._driver.engine.queries for caller in callers),
        known=sum(len(caller.service.nodes) for caller in callers),
        cpu=time.process_time() - began,
        memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10),
    )


def play_all(history: str, clients: int, tasks: int, seed: int, processes: int = 1, shard: int = SHARD) -> Outcome:
    """One history with all clients, over so many processes."""
    sizes = [min(shard, clients - first) for first in range(0, clients, shard)]
    jobs = [(history, size, tasks, seed * 1_000_003 + index) for index, size in enumerate(sizes)]
    total = Outcome(history, 0, tasks)
    if processes == 1 or len(jobs) == 1:
        for job in jobs:
            total.add(play(*job))
        return total
    # A process plays one shard and ends: its memory goes with it.
    with _context().Pool(processes, maxtasksperchild=1) as pool:
        for done, outcome in enumerate(pool.imap_unordered(_play, jobs), 1):
            total.add(outcome)
            _say(f"{history}: {done} of {len(jobs)} shards")
    return total


def judge(outcome: Outcome) -> list[str]:
    """What does not hold; empty if all does."""
    found = []
    lost = outcome.lost_in_light()
    if lost:
        found.append(f"{len(lost)} requests were lost while a task answered: {lost[:3]}")
    bound = AMPLIFICATION * sum(outcome.began) + SECONDS * outcome.clients
    if sum(outcome.served) > bound:
        found.append(f"{sum(outcome.served)} requests reached tasks, over {bound:.0f}")
    most, mean = outcome.busiest()
    if most > WAVE * mean:
        found.append(f"a wave: {most:g} requests in {outcome.width() * SLOT:g} s, with a mean of {mean:.3g}")
    source = HISTORIES[outcome.history].source
    if source == "cloudmap" and outcome.busiest_lookups() > DISCOVER_INSTANCES:
        found.append(f"{outcome.busiest_lookups()} calls to Cloud Map in one second")
    if source == "dns" and outcome.most_lookups > DNS_PACKETS:
        found.append(f"{outcome.most_lookups} DNS lookups of one client")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Play the histories, judge them, and write figures and pictures. 0 if everything holds."""
    options = _options(arguments)
    began = time.monotonic()
    rows, faults = [], []
    for history in options.histories:
        started = time.monotonic()
        outcome = play_all(history, options.clients, options.tasks, options.seed, options.processes, options.shard)
        wrong = judge(outcome)
        faults += [f"{history}: {each}" for each in wrong]
        figures = {**outcome.figures(), "wall_seconds": round(time.monotonic() - started, 1), "faults": wrong}
        rows.append(figures)
        _say(json.dumps(figures))
        if options.out is not None:
            _draw(outcome, options.out)
            _write(options, rows, time.monotonic() - began)
    for each in faults:
        _say(f"does not hold: {each}")
    return 1 if faults else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ecs_discovery.testing.simulation.scale", description=__doc__)
    parser.add_argument("--clients", type=int, default=10_000)
    parser.add_argument("--tasks", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="processes at once")
    parser.add_argument("--shard", type=int, default=SHARD, help="clients in one process")
    parser.add_argument("--histories", choices=[*HISTORIES], nargs="+", default=[*HISTORIES])
    parser.add_argument("--out", type=Path, help="directory for scale.json and the pictures")
    return parser.parse_args(arguments)


def _context() -> Any:
    """How processes are begun: where that is possible, as forks of one process that has imported what is needed."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


def _play(job: tuple[str, int, int, int]) -> Outcome:
    return play(*job)


def _counted(moments: Iterable[float]) -> list[int]:
    counts: list[int] = []
    for moment in moments:
        index = int((moment - START) / SLOT)
        if index >= len(counts):
            counts += [0] * (index + 1 - len(counts))
        counts[index] += 1
    return counts


def _draw(outcome: Outcome, out: Path) -> None:
    second = round(1 / SLOT)
    played = HISTORIES[outcome.history]
    lost = _counted(at + START for at, _ in outcome.lost)
    curves = [
        Curve("requests that reached tasks, per second", "#b58900", together(outcome.served, second)),
        Curve("requests", "#268bd2", together(outcome.began, second)),
        Curve("lookups", "#2aa198", together(outcome.lookups, second)),
        Curve("lost", "#dc322f", together(lost, second)),
    ]
    marks = [Mark(at, str(number)) for number, (at, _) in enumerate(played.marks, 1)]
    size = f"{outcome.clients:,} clients, {outcome.tasks:,} tasks"
    drawn = picture(f"{played.title}: {size}", curves, SECONDS, marks=marks)
    (out / f"scale-{outcome.history}.svg").write_text(drawn + "\n", encoding="utf-8")


def _write(options: argparse.Namespace, rows: list[dict[str, Any]], seconds: float) -> None:
    document = {
        "date": datetime.now(UTC).date().isoformat(),
        "seed": options.seed,
        "processors": os.cpu_count(),
        "processes": options.processes,
        "machine": platform.machine(),
        "python": platform.python_version(),
        "ecs_discovery": version("ecs_discovery"),
        "ttl_seconds": TTL,
        "dns_lag_seconds": LAG,
        "requests_per_second_and_client": RATE,
        "clients_in_a_process": options.shard,
        "simulated_seconds": SECONDS,
        "wall_seconds": round(seconds, 1),
        "cpu_seconds": round(sum(row["cpu_seconds"] for row in rows), 1),
        "histories": rows,
    }
    (options.out / "scale.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
