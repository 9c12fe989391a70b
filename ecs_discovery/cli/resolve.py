"""`ecs-discovery resolve`: what a name resolves to."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from math import isfinite
from typing import Any

import click
from rich import box
from rich.table import Table

from ecs_discovery.cli.console import fail, output
from ecs_discovery.client.sync.discovery import Discovery
from ecs_discovery.config.targets import parse_target
from ecs_discovery.errors import ConfigurationError, DiscoveryError, foreign
from ecs_discovery.models import Endpoint, Resolution

__all__ = ["as_dict", "as_table", "headline", "resolve_target"]


def resolve_target(
    target: str, namespace: str | None, nameservers: Sequence[str], timeout: float | None, *, as_json: bool
) -> int:
    """Resolve and print; returns the exit status: 1 if it cannot be resolved, 2 for input that makes no sense."""
    try:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            discovery = Discovery(namespace=namespace, nameservers=nameservers or None)
        for warning in found:  # of a misspelt variable, say: where Python warned of it says nothing here
            click.echo(f"ecs-discovery: {warning.message}", err=True)
        with discovery:
            resolution = discovery.resolve(target, timeout=timeout)
    except ConfigurationError as error:
        return fail(str(error), 2)
    except DiscoveryError as error:
        return fail(str(error), 1)
    port = parse_target(target).port
    notices = []
    if port is not None and any(endpoint.port != port for endpoint in resolution.endpoints):
        notices.append(f"the SRV records have ports of their own, which go before {port}")
    if as_json:
        click.echo(json.dumps({**as_dict(target, resolution), "notices": notices}, allow_nan=False, indent=2))
    else:
        console = output()
        console.print(as_table(resolution.endpoints))
        console.print(headline(resolution))
        for notice in notices:
            console.print(f"note: {notice}")
    return 0


def as_dict(target: str, resolution: Resolution) -> dict[str, Any]:
    """A resolution as plain values; an unlimited TTL is None."""
    return {
        "target": target,
        "source": resolution.source,
        "ttl": resolution.ttl if isfinite(resolution.ttl) else None,
        "partial": resolution.partial,
        "stale": resolution.stale,
        "refused": list(resolution.refused),
        "endpoints": [
            {
                "host": endpoint.host,
                "port": endpoint.port,
                "priority": endpoint.priority,
                "weight": endpoint.weight,
                "zone": endpoint.zone,
                "instance_id": endpoint.instance_id,
            }
            for endpoint in resolution.endpoints
        ],
    }


def headline(resolution: Resolution) -> str:
    """`3 endpoints from dns, TTL 10 s`, and what else is to be known of the answer."""
    count = len(resolution.endpoints)
    lifetime = f"TTL {resolution.ttl:g} s" if isfinite(resolution.ttl) else "no TTL"
    remarks = [
        text
        for flag, text in (
            (resolution.partial, "there may be more endpoints"),
            (resolution.stale, "older than its TTL: the source could not be asked again"),
            (bool(resolution.refused), f"refused: {', '.join(map(foreign, resolution.refused[:3]))}"),
        )
        if flag
    ]
    return ", ".join(
        (f"{count} endpoint{'' if count == 1 else 's'} from {foreign(resolution.source)}", lifetime, *remarks)
    )


def as_table(endpoints: Sequence[Endpoint]) -> Table:
    """The endpoints with what is known of them; what is default for all has no column."""
    columns = [
        ("zone", [foreign(endpoint.zone or "-") for endpoint in endpoints], any(e.zone for e in endpoints)),
        (
            "instance id",
            [foreign(endpoint.instance_id or "-") for endpoint in endpoints],
            any(e.instance_id for e in endpoints),
        ),
        ("priority", [str(endpoint.priority) for endpoint in endpoints], any(e.priority != 0 for e in endpoints)),
        ("weight", [str(endpoint.weight) for endpoint in endpoints], any(e.weight != 1 for e in endpoints)),
    ]
    shown = [
        ("endpoint", [foreign(endpoint) for endpoint in endpoints]),
        *((n, c) for n, c, wanted in columns if wanted),
    ]
    table = Table(*(name for name, _ in shown), box=box.SIMPLE_HEAD)
    for row in zip(*(cells for _, cells in shown), strict=True):
        table.add_row(*row)
    return table
