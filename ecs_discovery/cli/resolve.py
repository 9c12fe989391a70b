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
from ecs_discovery.cli.trace import Trace
from ecs_discovery.client.sync.discovery import Discovery
from ecs_discovery.config.targets import parse_target
from ecs_discovery.errors import ConfigurationError, DiscoveryError, foreign, plain
from ecs_discovery.models import Endpoint, Resolution

__all__ = ["as_dict", "as_table", "headline", "resolve_target"]


def resolve_target(
    target: str,
    namespace: str | None,
    nameservers: Sequence[str],
    timeout: float | None,
    *,
    as_json: bool,
    with_trace: bool = False,
) -> int:
    """Resolve and print; returns the exit status: 1 if it cannot be resolved, 2 for input that makes no sense."""
    traced: dict[str, Any] = {}
    try:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            discovery = Discovery(namespace=namespace, nameservers=nameservers or None)
        for warning in found:  # of a misspelt variable, say: where Python warned of it says nothing here
            click.echo(f"ecs-discovery: {warning.message}", err=True)
        with discovery:
            trace = Trace(discovery) if with_trace else None
            try:
                resolution = discovery.resolve(target, timeout=timeout)
            finally:
                if trace is not None:
                    trace.wait()
                    traced = _shown(trace, target, as_json=as_json)
    except ConfigurationError as error:
        return _failed(error, target, 2, traced, as_json=as_json)
    except DiscoveryError as error:
        return _failed(error, target, 1, traced, as_json=as_json)
    port = parse_target(target).port
    notices = []
    if port is not None and any(endpoint.port != port for endpoint in resolution.endpoints):
        notices.append(f"the SRV records have ports of their own, which go before {port}")
    if as_json:
        _echo({**as_dict(target, resolution), "notices": notices, **traced})
    else:
        console = output()
        console.print(as_table(resolution.endpoints))
        console.print(headline(resolution))
        for notice in notices:
            console.print(f"note: {notice}")
    return 0


def _shown(trace: Trace, target: str, *, as_json: bool) -> dict[str, Any]:
    """Print the trace, or return it for JSON."""
    try:
        names = trace.names(parse_target(target))
    except ConfigurationError:
        return {}
    if as_json:
        return {"trace": {"names": names, "queries": trace.queries}}
    for line in (names, *trace.lines()):
        click.echo(line)
    return {}


def _failed(error: DiscoveryError, target: str, status: int, traced: dict[str, Any], *, as_json: bool) -> int:
    if not as_json:
        return fail(str(error), status)
    told = {"type": type(error).__name__, "message": plain(error.message), "hint": error.hint and plain(error.hint)}
    _echo({"target": foreign(target), "error": told, **traced})
    return status


def _echo(found: dict[str, Any]) -> None:
    click.echo(json.dumps(found, allow_nan=False, indent=2))


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
