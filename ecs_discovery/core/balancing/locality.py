"""Locality: how the uses of one client divide over the zones, so that the load of all clients together stays even."""

from __future__ import annotations

from collections.abc import Mapping

from ecs_discovery.config.policies import ZonePolicy

__all__ = ["by_zone"]


def by_zone(counts: Mapping[str | None, int], own: str, policy: ZonePolicy) -> list[tuple[float, str | None]] | None:
    """The zones that uses go to, each with its share of them; the shares add up to 1.

    `counts` are the endpoints of each zone. A zone takes from its own callers what it can carry without more load than
    the others (Envoy's zone aware routing); the rest goes where there are more endpoints than callers. None where that
    cannot be told: then zones make no difference.
    """
    total = sum(counts.values())
    if total < policy.min_endpoints or own not in counts or len(counts) < 2:
        return None
    callers = policy.callers or 1 / len(counts)
    local = counts[own] / total
    if local >= callers:
        return [(1.0, own)]
    elsewhere = (1 - callers) / (len(counts) - 1)
    # What each other zone can carry beyond its own callers. Together that is no less than what is left over here.
    room = {zone: max(0.0, count / total - elsewhere) for zone, count in counts.items() if zone != own}
    left, spare_capacity = 1 - local / callers, sum(room.values())
    return [(local / callers, own), *((left * part / spare_capacity, zone) for zone, part in room.items() if part)]
