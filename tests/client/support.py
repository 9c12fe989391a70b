"""What several of these tests need."""

from __future__ import annotations

from ecs_discovery import NoEndpoints, TargetNotFound
from tests.support import FakeResolver, a, aaaa, answer, srv

NODATA = NoEndpoints("no such record")
NXDOMAIN = TargetNotFound("no such name")
THREE = "static://127.0.0.1:1,127.0.0.1:2,127.0.0.1:3"


def dns_of(*hosts: str, ttl: float = 10.0) -> FakeResolver:
    return FakeResolver({a(): answer(*hosts, ttl=ttl), aaaa(): NODATA, srv(): NODATA})
