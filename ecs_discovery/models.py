"""Frozen values that everything else speaks in: endpoints, questions, resolutions.

Nothing here does I/O, keeps state or decides anything.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MAX_ENDPOINTS", "Endpoint", "Question", "Resolution"]

DNS_SCHEMES = ("a", "aaaa", "srv")
"""Schemes of questions that DNS answers."""

MAX_ENDPOINTS = 2_000
"""No answer gives more endpoints than this, nor do answers joined (a Cloud Map namespace holds 2,000 instances)."""

REGISTRIES = ("cloudmap",)
"""Schemes of sources that are the registry DNS is filled from: complete, and ahead of it."""

PROXIED = ("proxy", "service-connect")
"""The attribute of an endpoint that is a proxy beside the task."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address and port to connect to."""

    host: str
    """An IP address, or for a passed-through host its name."""
    port: int
    """1 to 65535; 0 only in an answer that carries no port."""
    priority: int = 0
    """Lower is used first (RFC 2782)."""
    weight: int = 1
    """Relative share among endpoints of one priority (RFC 2782)."""
    zone: str | None = None
    """Availability zone, where the source knows it."""
    instance_id: str | None = None
    """The source's own id of the instance, where it has one. Addresses are reused; ids are not."""
    attributes: tuple[tuple[str, str], ...] = ()
    """Further facts from the source, as pairs."""

    @property
    def proxied(self) -> bool:
        """True for a proxy beside the task (ECS Service Connect), which chooses among the tasks itself."""
        return PROXIED in self.attributes

    @property
    def key(self) -> tuple[str, int, str | None]:
        """What makes it the same endpoint from one answer to the next."""
        return (self.host, self.port, self.instance_id)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Question:
    """One thing a resolver can be asked: a scheme (`a`, `aaaa`, `srv`, …) and a name, without a port."""

    scheme: str
    name: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.name}"


@dataclass(frozen=True, slots=True)
class Resolution:
    """A resolver's answer."""

    endpoints: tuple[Endpoint, ...]
    ttl: float
    """How long the answer holds, in seconds: the smallest TTL of every record that led to it."""
    source: str
    """Where it came from, for people: `dns`, `hosts`, `static`, …"""
    partial: bool = False
    """True if the source may know more endpoints than it named."""
    estimate: int | None = None
    """How many endpoints there are by estimate, if the answer is partial and that can be told."""
    named: frozenset[str] | None = None
    """The hosts that the newest answer named, where endpoints of earlier answers are joined with it."""
    stale: bool = False
    """True if it outlived its TTL because the source could not be asked again."""
    refused: tuple[str, ...] = ()
    """Hosts that the source named and that are left out, because no task has such an address. These are link-local
    addresses, and the metadata endpoints of AWS."""

    @property
    def hosts(self) -> frozenset[str]:
        """The hosts that the newest answer named."""
        return self.named if self.named is not None else frozenset(endpoint.host for endpoint in self.endpoints)
