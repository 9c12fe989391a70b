"""redis-py: pools that connect through a discovery."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ecs_discovery.testing.lab import Lab
from tests.recipes.conftest import Recipe
from tests.recipes.programs import Redis
from tests.servers import required_module

required_module("redis", "redis")
import redis  # noqa: E402
import redis.asyncio  # noqa: E402

WORLDS = ["## redis-py", "## redis-py with asyncio"]


class Cache:
    """The client of a recipe, as blocking calls."""

    def __init__(self, recipe: Any, **options: Any) -> None:
        arguments = {**recipe.pool.connection_kwargs, "decode_responses": True, **options}
        connection = recipe.TlsConnection if "ssl_ca_certs" in options else recipe.Connection
        self._loop: asyncio.AbstractEventLoop | None = None
        if issubclass(recipe.Connection, redis.asyncio.Connection):
            self._loop = asyncio.new_event_loop()
            self._pool: Any = redis.asyncio.ConnectionPool(connection_class=connection, **arguments)
            self._client: Any = redis.asyncio.Redis(connection_pool=self._pool)
        else:
            self._pool = redis.ConnectionPool(connection_class=connection, **arguments)
            self._client = redis.Redis(connection_pool=self._pool)
        self._discovery = recipe.discovery

    def serving(self) -> str:
        """The address of the server that answers."""
        address: str = self._done(self._client.config_get("bind"))["bind"]
        return address

    def drop(self) -> None:
        """Close the connections of the pool."""
        self._done(self._pool.disconnect())

    def close(self) -> None:
        self.drop()
        if self._loop is None:
            self._discovery.close()
        else:
            self._done(self._discovery.aclose())
            self._loop.close()

    def _done(self, result: Any) -> Any:
        return result if self._loop is None else self._loop.run_until_complete(result)


@pytest.fixture
def cache(recipe: Recipe) -> Iterator[Callable[..., Cache]]:
    made: list[Cache] = []

    def make(world: str, **options: Any) -> Cache:
        made.append(Cache(recipe(world), **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def two(lab: Lab, addresses: Callable[[], str], started: Callable[[Any], Any]) -> list[Redis]:
    """Two servers that `cache` names."""
    servers = [started(Redis(addresses())) for _ in range(2)]
    lab.dns.add("cache.prod.local", "A", *(each.address for each in servers), ttl=1)
    return servers


@pytest.mark.parametrize("world", WORLDS)
def test_each_new_connection_chooses(cache: Any, two: list[Redis], world: str):
    client = cache(world)
    found = set()
    for _ in range(30):
        found.add(client.serving())
        client.drop()
    assert found == {each.address for each in two}


@pytest.mark.parametrize("world", WORLDS)
def test_commands_go_on_when_a_server_is_killed(cache: Any, two: list[Redis], world: str):
    client = cache(world)
    one = client.serving()
    next(each for each in two if each.address == one).kill()
    for _ in range(20):
        assert client.serving() != one
        client.drop()


@pytest.mark.parametrize("world", WORLDS)
def test_a_pool_follows_the_servers_that_dns_names(
    cache: Any, lab: Lab, two: list[Redis], addresses: Any, started: Any, world: str
):
    client = cache(world)
    assert client.serving() in {each.address for each in two}
    new = started(Redis(addresses()))
    lab.dns.add("cache.prod.local", "A", new.address, ttl=1)
    for each in two:
        each.kill()
    assert client.serving() == new.address


@pytest.mark.parametrize("world", WORLDS)
def test_the_certificate_is_verified_for_the_name(
    cache: Any, lab: Lab, addresses: Any, started: Any, certificates: Any, world: str
):
    files = certificates("cache.prod.local")
    server = started(Redis(addresses(), tls=files))
    for name in ("cache", "other"):
        lab.dns.add(f"{name}.prod.local", "A", server.address, ttl=1)
    client = cache(world, ssl_ca_certs=files.ca)
    assert client.serving() == server.address
    stranger = cache(world, ssl_ca_certs=files.ca, host="other.prod.local")
    with pytest.raises(redis.ConnectionError, match=r"other\.prod\.local"):
        stranger.serving()
