"""A frame of a busy day, for pictures."""

from __future__ import annotations

from typing import Any

from ecs_discovery.cli.watch.document import Count, EndpointSeen, Process, ServiceSeen
from ecs_discovery.cli.watch.frame import Frame, Shares
from ecs_discovery.cli.watch.merge import merge

AT = 1_700_000_000.0
COUNTS = (
    Count("retries", "connect", 9),
    Count("replays", "total", 3),
    Count("retries_denied", "budget", 2),
    Count("retries_denied", "not_idempotent", 1),
    Count("hedges", "total", 4),
    Count("hedges_won", "total", 2),
    Count("ejections", "consecutive_failures", 2),
    Count("ejections", "connect", 1),
)
LOG = [
    "12:00:01 gunicorn: 2 processes (12, 13)",
    "12:00:01 orders:8080: 12 endpoints from dns: 12 healthy",
    "12:00:07 orders:8080: 10.0.2.4:8080 is ejected: 5 failures in a row",
    "12:00:09 orders:8080: 10.0.2.9:8080 is down: connect refused",
]


def service(number: int, *, ticks: int = 0, **values: Any) -> ServiceSeen:
    """`number` endpoints, of which one is ejected and one is down."""
    endpoints = []
    for each in range(1, number + 1):
        trouble = {
            4: {"state": "ejected", "reason": "5 failures in a row", "returns_in": 3.2, "ejections": 1, "failures": 7},
            9: {"state": "down", "reason": "connect refused", "returns_in": 0.8, "failures": 2},
        }.get(each, {"state": "healthy"})
        endpoints.append(
            EndpointSeen(
                f"10.0.2.{each}:8080",
                pending=each % 3,
                uses=100 + each + (ticks * (3 + each % 2) if "reason" not in trouble else 0),
                latency=0.0085 + each / 1000,
                cost=0.01 + each / 1000,
                **trouble,  # type: ignore[arg-type]
            )
        )
    given = {
        "target": "orders:8080",
        "source": "dns",
        "ttl": 10.0,
        "age": 6.8,
        "fresh_for": 3.2,
        "idle_for": 0.0,
        "partial": True,
        "estimate": 15,
        "coverage": 0.8,
        "retries_left": 8.5,
        "counts": COUNTS,
        "total": number,
        "uses": sum(each.uses for each in endpoints),
        **values,
    }
    return ServiceSeen(**given, endpoints=tuple(endpoints))


def frame(*services: ServiceSeen, later: tuple[ServiceSeen, ...] = (), **values: Any) -> Frame:
    """Two workers that know these services alike, five seconds after the first look."""
    shares = Shares()
    programs = ()
    for at, found in ((0.0, services), (5.0, later or services)):
        lookups = (Count("lookups", "ok", 40), Count("lookups", "ResolutionTimeout", 1))
        processes = [
            Process(1, pid, "gunicorn", "a", services=found, lookups=lookups, names=("users",)) for pid in (12, 13)
        ]
        programs = shares.add(merge(processes), at)
    return Frame(AT, "orders", programs, **values)
