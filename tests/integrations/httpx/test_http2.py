"""HTTP/2: one connection for each endpoint, whose end counts once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from random import Random
from typing import Any

import h2.errors
import pytest

from ecs_discovery import AsyncDiscovery, Discovery, DiscoveryError, RetryPolicy, wrap_client
from tests.integrations.httpx.http2 import Http2Server, serving


@pytest.fixture
def servers() -> Iterator[list[Http2Server]]:
    with serving(2) as servers:
        yield servers


def services(servers: list[Http2Server]) -> dict[str, str]:
    return {"orders": "static://" + ",".join(f"{each.address}:{each.port}" for each in servers)}


def test_many_requests_at_once_share_a_connection_to_each_endpoint(library: Any, servers: list[Http2Server]):
    async def main() -> None:
        async with AsyncDiscovery(services=services(servers), rng=Random(7)) as discovery:
            client = wrap_client(library.AsyncClient(http1=False, http2=True), discovery)
            async with client:
                for _ in range(2):
                    await client.get("http://orders/")
                found = await asyncio.gather(*(client.get("http://orders/") for _ in range(20)))
        assert {each.http_version for each in found} == {"HTTP/2"}
        assert {each.text for each in found} == {f"{each.address}:{each.port}" for each in servers}

    asyncio.run(main())
    assert [each.connections for each in servers] == [1, 1]


def test_a_refused_stream_was_not_processed_and_goes_elsewhere_whatever_its_method(
    library: Any, servers: list[Http2Server]
):
    def refuse(server: Http2Server, conn: Any, stream: int) -> None:
        conn.reset_stream(stream, error_code=h2.errors.ErrorCodes.REFUSED_STREAM)

    servers[0].say = refuse
    with Discovery(services=services(servers), rng=Random(7)) as discovery:
        with wrap_client(library.Client(http1=False, http2=True), discovery) as client:
            for _ in range(6):
                assert client.post("http://orders/", content=b"x").status_code == 200
        assert all(node.failures == 0 for node in discovery.snapshot("orders").nodes)
    assert servers[0].requests


def test_a_stream_reset_for_another_reason_may_have_been_processed(library: Any, servers: list[Http2Server]):
    def reset(server: Http2Server, conn: Any, stream: int) -> None:
        conn.reset_stream(stream, error_code=h2.errors.ErrorCodes.INTERNAL_ERROR)

    for server in servers:
        server.say = reset
    discovery = Discovery(services=services(servers), rng=Random(7))
    with discovery, wrap_client(library.Client(http1=False, http2=True), discovery) as client:
        with pytest.raises(library.RemoteProtocolError, match="it may have been processed") as caught:
            client.post("http://orders/", content=b"x")
        assert isinstance(caught.value, DiscoveryError)
    assert sum(each.requests for each in servers) == 1


def test_the_end_of_a_connection_with_many_requests_counts_once(library: Any):
    with serving(1) as (server,):

        def hold(server: Http2Server, conn: Any, stream: int) -> None:
            if server.requests < 10:
                return
            server.close_now = True

        async def main() -> None:
            retry = RetryPolicy(attempts=1)
            async with AsyncDiscovery(services=services([server]), retry=retry, rng=Random(7)) as discovery:
                async with wrap_client(library.AsyncClient(http1=False, http2=True), discovery) as client:
                    assert (await client.get("http://orders/")).status_code == 200
                    server.requests = 0
                    server.say = hold
                    found = await asyncio.gather(
                        *(client.get("http://orders/") for _ in range(10)), return_exceptions=True
                    )
                    assert all(isinstance(each, library.TransportError) for each in found), found
                    assert all(isinstance(each, DiscoveryError) for each in found)
                (node,) = discovery.snapshot("orders").nodes
                assert node.failures == 1
                assert node.health == "healthy"
                assert node.pending == 0

        asyncio.run(main())


def test_a_connection_that_says_goodbye_is_replaced_and_costs_no_request(library: Any):
    with serving(1) as (server,):

        def goodbye(server: Http2Server, conn: Any, stream: int) -> None:
            server.answer(conn, stream)
            conn.close_connection()

        server.say = goodbye
        discovery = Discovery(services=services([server]), rng=Random(7))
        with discovery, wrap_client(library.Client(http1=False, http2=True), discovery) as client:
            for _ in range(5):
                assert client.post("http://orders/", content=b"x").status_code == 200
        assert server.connections == 5
