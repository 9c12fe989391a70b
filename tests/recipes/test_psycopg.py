"""psycopg and psycopg_pool: connections that a discovery chooses, and the primary of a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ecs_discovery.testing.lab import Lab
from tests.recipes.conftest import Recipe
from tests.recipes.programs import Postgres
from tests.servers import required_module

required_module("psycopg_pool", "psycopg[binary,pool]")
import psycopg  # noqa: E402

WHO = "SELECT host(inet_server_addr()), pg_is_in_recovery()"


@pytest.fixture
def opened(recipe: Recipe) -> Iterator[Callable[[str], Any]]:
    """The pool of a recipe, open."""
    made: list[Any] = []

    def read(heading: str) -> Any:
        found = recipe(heading)
        made.append(found)
        found.pool.open()
        return found.pool

    yield read
    for each in made:
        each.pool.close()
        each.discovery.close()


def serving(pool: Any) -> tuple[str, bool]:
    """The address of the server that answers, and whether it is a standby."""
    with pool.connection(timeout=10) as connection:
        found: tuple[str, bool] = connection.execute(WHO).fetchone()
        return found


def test_readers_spread_over_the_standbys_and_leave_one_that_is_killed(opened: Any, cluster: list[Postgres]):
    readers = opened("## psycopg and psycopg_pool")
    readers.resize(4, 10)
    readers.wait(10)
    held = [readers.getconn() for _ in range(4)]
    assert {each.execute(WHO).fetchone() for each in held} == {(standby.address, True) for standby in cluster[1:]}
    for each in held:
        readers.putconn(each)
    cluster[1].kill()
    for _ in range(12):
        assert serving(readers) == (cluster[2].address, True)


def test_readers_of_asyncio_leave_a_standby_that_is_killed(recipe: Recipe, cluster: list[Postgres]):
    found = recipe("With asyncio:")

    async def scenario() -> None:
        async with found.open_pool() as readers:
            served = set()
            for number in range(12):
                if number == 3:
                    cluster[1].kill()
                async with readers.connection(timeout=10) as connection:
                    served.add(await (await connection.execute(WHO)).fetchone())
            assert (cluster[2].address, True) in served
            assert served <= {(standby.address, True) for standby in cluster[1:]}
        await found.discovery.aclose()

    asyncio.run(scenario())


def test_writers_find_the_standby_that_was_promoted(opened: Any, cluster: list[Postgres]):
    writers = opened("## The primary of a PostgreSQL cluster")
    primary, standby, _ = cluster
    assert serving(writers) == (primary.address, False)
    primary.kill()
    standby.promote()
    assert serving(writers) == (standby.address, False)


def test_the_certificate_is_verified_for_the_name(
    recipe: Recipe, lab: Lab, addresses: Any, started: Any, certificates: Any
):
    files = certificates("db.prod.local")
    server = started(Postgres(addresses(), tls=files))
    for name in ("db", "other"):
        lab.dns.add(f"{name}.prod.local", "A", server.address, ttl=1)
    found = recipe("## psycopg and psycopg_pool")
    where = f"dbname=shop user=shop sslmode=verify-full sslrootcert={files.ca}"
    with found.Connection.connect(f"host=db.prod.local {where}") as connection:
        assert connection.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone() == (True,)
    with pytest.raises(psycopg.OperationalError, match="does not match host name"):
        found.Connection.connect(f"host=other.prod.local {where}")
    found.discovery.close()
