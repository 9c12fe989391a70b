"""Fixtures: the scripted server, the real servers, and the worlds that every behaviour is checked in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ecs_discovery.resolvers.dns import aio as dns_async
from tests.resolvers.support import ScriptedDns, World
from tests.servers import KnotServer, UnboundServer, required


@pytest.fixture(params=["threads", "asyncio", "asyncio-transports"])
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> World:
    name: str = request.param
    if name == "asyncio-transports":
        monkeypatch.setattr(dns_async, "_loops_without_readers", _Everything())
    return World(name)


class _Everything(set[type]):
    def __contains__(self, item: object) -> bool:
        return True


@pytest.fixture
def server() -> Iterator[ScriptedDns]:
    with ScriptedDns() as running:
        yield running


@pytest.fixture(scope="session")
def knot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KnotServer]:
    """Knot DNS, authoritative for `prod.local`."""
    program = required("knotd", "knot")
    with KnotServer(program, tmp_path_factory.mktemp("knot"), ZONE) as running:
        yield running


@pytest.fixture(scope="session")
def unbound(knot: KnotServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[UnboundServer]:
    """Unbound in front of Knot; its cache holds what earlier tests asked for."""
    program = required("unbound", "unbound")
    with UnboundServer(program, tmp_path_factory.mktemp("unbound"), "prod.local", knot.address) as running:
        yield running


_TASKS = "\n".join(
    f"big 60 SRV 1 1 {8000 + i} task{i:032d}.big\ntask{i:032d}.big 60 A 10.2.0.{i}" for i in range(1, 41)
)
ZONE = f"""
$ORIGIN prod.local.
@ 15 SOA ns.prod.local. admin.prod.local. 1 3600 600 86400 900
@ 300 NS ns
ns 300 A 127.0.0.1
orders 60 A 10.0.0.1
orders 60 A 10.0.0.2
orders 60 AAAA fd00::1
alias 20 CNAME orders
dangling 20 CNAME gone
web 30 SRV 1 1 8080 0a1b2c.web
web 30 SRV 1 1 8081 3d4e5f.web
0a1b2c.web 10 A 10.1.0.1
3d4e5f.web 40 A 10.1.0.2
short 3 A 10.0.0.3
absent 60 SRV 0 0 0 .
{_TASKS}
"""
