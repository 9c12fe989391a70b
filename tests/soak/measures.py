"""What a process holds, and whether it is more than it held before."""

from __future__ import annotations

import gc
import os
import threading
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Held", "grown", "held", "threads", "unfinished"]

_MORE_MEMORY = 0.25, 24 * 2**20
"""The share and the bytes by which memory may grow, whichever is more: allocators keep some of what is freed."""
_MORE_DESCRIPTORS = 64
"""Idle connections, which pools keep."""
_MORE_THREADS = 8
"""Threads for lookups and races, which end when they have been idle."""
_MORE_OBJECTS = 2, 100
"""The factor and the number by which objects of a type of ours may grow."""


@dataclass(frozen=True)
class Held:
    """What the process holds when no request is in flight."""

    rss: int | None
    """Bytes of memory; None where the system does not say."""
    descriptors: int | None
    threads: int
    objects: dict[str, int] = field(repr=False)
    """Objects of the package by type."""

    def as_dict(self) -> dict[str, Any]:
        most = dict(Counter(self.objects).most_common(8))
        return {**asdict(self), "objects": most}


def held() -> Held:
    gc.collect()
    objects: Counter[str] = Counter()
    for each in gc.get_objects():
        kind = type(each)
        module = kind.__module__
        if isinstance(module, str) and module.startswith("ecs_discovery"):
            objects[f"{module}.{kind.__qualname__}"] += 1
    return Held(_rss(), _descriptors(), len(threads()), dict(objects))


def threads() -> list[str]:
    """The names of the threads, without the thread that pycares (under aiohttp's own resolver) has for the process."""
    return [thread.name for thread in threading.enumerate() if "_run_safe_shutdown_loop" not in thread.name]


def _rss() -> int | None:
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


def _descriptors() -> int | None:
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return None


def grown(before: Held, after: Held) -> list[str]:
    """What grew by more than it may, in words."""
    reasons = []
    if before.rss is not None and after.rss is not None:
        share, least = _MORE_MEMORY
        if after.rss - before.rss > max(least, before.rss * share):
            reasons.append(f"memory grew from {before.rss / 2**20:.0f} to {after.rss / 2**20:.0f} MiB")
    if (after.descriptors or 0) - (before.descriptors or 0) > _MORE_DESCRIPTORS:
        reasons.append(f"descriptors grew from {before.descriptors} to {after.descriptors}")
    if after.threads - before.threads > _MORE_THREADS:
        reasons.append(f"threads grew from {before.threads} to {after.threads}")
    factor, more = _MORE_OBJECTS
    for kind, count in after.objects.items():
        known = before.objects.get(kind, 0)
        if count > factor * known + more:
            reasons.append(f"objects of {kind} grew from {known} to {count}")
    return reasons


def unfinished(engine: Any) -> list[str]:
    """What a discovery believes to be in flight, in words; nothing when no request is."""
    reasons = []
    if len(engine.flights):
        reasons.append(f"{len(engine.flights)} lookups are in flight")
    for service in engine.directory.services():
        reasons += [
            f"{service.target}: {node.pending} uses of {node.endpoint} are pending"
            for node in service.facts()["nodes"]
            if node.pending
        ]
        if service.admission.crowded or len(service.admission):
            reasons.append(f"{service.target}: {len(service.admission)} callers wait for room")
    return reasons
