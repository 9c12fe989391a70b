"""What metrics and spans say of a target and of a failure, in the words of OpenTelemetry's conventions."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ecs_discovery.config.targets import parse_target
from ecs_discovery.errors import DiscoveryError
from ecs_discovery.events import AttemptEnded

__all__ = ["SCHEMA", "Attributes", "attributes_of", "error_type", "word"]

SCHEMA = "https://opentelemetry.io/schemas/1.44.0"
_WORD = re.compile(r"[^a-z0-9]+")

Attributes = Mapping[str, str | int]


def attributes_of(target: str) -> Attributes:
    try:
        parsed = parse_target(target)
    except DiscoveryError:
        return {"server.address": target}
    found: dict[str, str | int] = {"server.address": parsed.name or target}
    if parsed.port is not None:
        found["server.port"] = parsed.port
    return found


def error_type(end: AttemptEnded) -> str:
    """A status as it is, the class of an exception that has no word of ours, else our word (`read_timeout`)."""
    if end.kind == "status" and end.status is not None:
        return str(end.status)
    return end.label if end.label == end.error_type else word(end.label)


def word(label: str) -> str:
    """A label for people as a word for machines."""
    return _WORD.sub("_", label.lower()).strip("_") or "error"
