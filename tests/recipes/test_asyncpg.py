"""asyncpg: pools that connect through a discovery."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest

from ecs_discovery.testing.lab import Lab
from tests.recipes.conftest import Recipe
from tests.recipes.programs import Postgres
from tests.servers import required_module

required_module("asyncpg", "asyncpg")
import asyncpg  # noqa: E402

WHO = "SELECT host(inet_server_addr())"


def test_a_pool_spreads_over_the_standbys_and_leaves_one_that_is_killed(recipe: Recipe, cluster: list[Postgres]):
    found = recipe("## asyncpg")

    async def scenario() -> None:
        async with found.open_pool() as pool:
            held = [await pool.acquire() for _ in range(6)]
            served = {await each.fetchval(WHO) for each in held}
            for each in held:
                await pool.release(each)
            assert served == {standby.address for standby in cluster[1:]}
            cluster[1].kill()
            served = set()
            for _ in range(12):
                try:
                    served.add(await pool.fetchval(WHO))
                except (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError):
                    continue  # one for each connection that the server cut
            assert served == {cluster[2].address}
            assert [await pool.fetchval(WHO) for _ in range(6)] == 6 * [cluster[2].address]
        await found.discovery.aclose()

    asyncio.run(scenario())


def test_the_certificate_is_verified_for_the_name(
    recipe: Recipe, lab: Lab, addresses: Any, started: Any, certificates: Any
):
    files = certificates("db-read.prod.local")
    server = started(Postgres(addresses(), tls=files))
    lab.dns.add("db-read.prod.local", "A", server.address, ttl=1)
    found = recipe("## asyncpg")

    async def scenario() -> None:
        async with found.open_pool(ssl=found.verified("db-read.prod.local", files.ca)) as pool:
            assert await pool.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        with pytest.raises(ssl.SSLCertVerificationError, match=r"other\.prod\.local"):
            async with found.open_pool(ssl=found.verified("other.prod.local", files.ca)):
                pass
        await found.discovery.aclose()

    asyncio.run(scenario())
