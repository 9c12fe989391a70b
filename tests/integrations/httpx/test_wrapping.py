"""`wrap_client`, `unwrap_client` and the transports: what they take, and what they leave as it was."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest

from ecs_discovery import (
    AsyncDiscovery,
    ConfigurationError,
    Discovery,
    DnsPolicy,
    unwrap_client,
    wrap_client,
    wrap_session,
)
from ecs_discovery.testing.lab import Lab
from tests.support import eventually


def transports(library: Any) -> Any:
    return import_module(f"ecs_discovery.integrations.{library.__name__}")


@pytest.fixture
def discovery(lab: Lab) -> Iterator[Discovery]:
    with Discovery(namespace="prod.local", nameservers=[lab.nameserver]) as discovery:
        yield discovery


def test_a_client_is_changed_in_place_and_back_again(library: Any, discovery: Discovery):
    client = library.Client()
    before, mounts = client._transport, dict(client._mounts)
    assert wrap_client(client, discovery) is client
    assert client._transport is not before
    assert wrap_client(client) is client  # nothing given: nothing changes
    assert unwrap_client(unwrap_client(client)) is client
    assert (client._transport, client._mounts) == (before, mounts)


def test_wrapping_again_replaces_the_discovery(library: Any, lab: Lab, discovery: Discovery):
    service = lab.service("orders", tasks=1)
    client = wrap_client(library.Client(), namespace="elsewhere.local", nameservers=[lab.nameserver])
    wrap_client(client, discovery)
    with client:
        assert client.get(service.url()).status_code == 200
    assert unwrap_client(client)._transport.__class__ is library.HTTPTransport


def test_equal_settings_share_one_state_across_worlds_and_libraries(library: Any, lab: Lab):
    service = lab.service("orders", tasks=1)
    requests: Any = pytest.importorskip("requests")
    settings: Any = {"namespace": "prod.local", "dns": DnsPolicy(nameservers=(lab.nameserver,))}
    with wrap_client(library.Client(), **settings) as client:
        assert client.get(service.url()).status_code == 200

    async def main() -> None:
        async with wrap_client(library.AsyncClient(), **settings) as client:
            assert (await client.get(service.url())).status_code == 200

    asyncio.run(main())
    with wrap_session(requests.Session(), **settings) as session:
        assert session.get(service.url(), timeout=10).status_code == 200
    assert lab.dns.total == 3  # A, AAAA and SRV, once


@pytest.mark.parametrize("wrong", [object(), None, 7])
def test_what_is_no_client_is_refused(wrong: Any):
    with pytest.raises(ConfigurationError, match="a Client or AsyncClient of httpx or httpx2"):
        wrap_client(wrong, namespace="prod.local")


def test_settings_and_a_discovery_are_not_taken_together(library: Any, discovery: Discovery):
    with pytest.raises(ConfigurationError, match="either discovery= or settings"):
        wrap_client(library.Client(), discovery, namespace="prod.local")
    with pytest.raises(ConfigurationError, match="a Discovery"):
        wrap_client(library.Client(), AsyncDiscovery(namespace="prod.local"))
    with pytest.raises(ConfigurationError, match="namespace"):
        wrap_client(library.Client())
    with pytest.raises(ConfigurationError, match="namespace"):
        wrap_client(library.Client(), namespce="prod.local")


def test_an_asynchronous_client_takes_a_discovery_of_threads(library: Any, lab: Lab, discovery: Discovery):
    service = lab.service("orders", tasks=2)

    async def main() -> None:
        async with wrap_client(library.AsyncClient(), discovery) as client:
            for _ in range(4):
                assert (await client.get(service.url())).status_code == 200

    asyncio.run(main())
    assert len(discovery.snapshot(service.url().split("/")[2]).nodes) == 2


def test_switched_off_the_client_stays_as_it_is(library: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ECS_DISCOVERY_DISABLED", "1")
    client = library.Client()
    before = client._transport
    assert wrap_client(client, namespace="prod.local")._transport is before


def test_transports_that_send_nothing_keep_answering(library: Any, discovery: Discovery):
    mock = library.MockTransport(lambda request: library.Response(207, text=str(request.url)))
    client = wrap_client(library.Client(transport=mock), discovery)
    found = client.get("http://orders/v1")
    assert (found.status_code, found.text) == (207, "http://orders/v1")


def test_a_transport_of_another_package_is_refused_and_takes_ours_inside(library: Any, lab: Lab, discovery: Discovery):
    service = lab.service("orders", tasks=1)

    class Outer(library.BaseTransport):  # type: ignore[misc]
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def handle_request(self, request: Any) -> Any:
            request.headers["X-Outer"] = "1"
            return self.inner.handle_request(request)

        def close(self) -> None:
            self.inner.close()

    with pytest.raises(ConfigurationError, match="DiscoveryTransport"):
        wrap_client(library.Client(transport=Outer(library.HTTPTransport())), discovery)
    with library.Client(transport=Outer(transports(library).DiscoveryTransport(discovery))) as client:
        found = client.get(service.url()).json()
    assert found["headers"]["x-outer"] == "1"


def test_transports_go_where_the_library_takes_them(library: Any, lab: Lab, discovery: Discovery):
    service = lab.service("orders", tasks=2)
    ours = transports(library)
    with library.Client(transport=ours.DiscoveryTransport(discovery)) as client:
        assert client.get(service.url()).status_code == 200
    with library.Client(mounts={"all://*.prod.local": ours.DiscoveryTransport(discovery)}) as client:
        assert client.get(service.url()).status_code == 200

    async def main() -> None:
        async with library.AsyncClient(transport=ours.AsyncDiscoveryTransport(discovery)) as client:
            assert (await client.get(service.url())).status_code == 200

    asyncio.run(main())


def test_a_transport_says_what_it_cannot_take(library: Any, discovery: Discovery):
    ours = transports(library)
    with pytest.raises(ConfigurationError, match="a Discovery"):
        ours.DiscoveryTransport("prod.local")
    with pytest.raises(ConfigurationError, match="either transport= or the options of one"):
        ours.DiscoveryTransport(discovery, transport=library.HTTPTransport(), http2=True)
    with pytest.raises(TypeError, match="http3"):
        ours.DiscoveryTransport(discovery, http3=True)


def test_proxies_hold_for_other_hosts_alone(library: Any, lab: Lab, discovery: Discovery):
    service, proxy = lab.service("orders", tasks=1), lab.service("proxy", tasks=1).tasks[0]
    address = f"http://{proxy.address}:{proxy.port}"
    with wrap_client(library.Client(proxy=address), discovery) as client:
        assert json.loads(client.get(service.url()).text)["address"] == service.tasks[0].address
        found = client.get("http://elsewhere.example/there").json()
    assert (found["address"], found["path"]) == (proxy.address, "http://elsewhere.example/there")


def test_trio_is_told_that_it_is_not_served(library: Any, lab: Lab):
    trio: Any = pytest.importorskip("trio")
    discovery = AsyncDiscovery(namespace="prod.local", nameservers=[lab.nameserver])

    async def main() -> None:
        async with wrap_client(library.AsyncClient(), discovery) as client:
            with pytest.raises(ConfigurationError, match="asyncio"):
                await client.get("http://orders/")

    trio.run(main)


def test_wrapping_again_that_fails_leaves_the_client_as_it_was(library: Any, lab: Lab, discovery: Discovery):
    service = lab.service("orders", tasks=1)

    class Foreign(library.BaseTransport):  # type: ignore[misc]
        pass

    mounts = {"all://elsewhere.example": library.HTTPTransport()}
    with wrap_client(library.Client(mounts=mounts), discovery) as client:
        (pattern,) = client._mounts
        client._mounts[pattern].close()
        client._mounts[pattern] = Foreign()
        with pytest.raises(ConfigurationError, match="DiscoveryTransport"):
            wrap_client(client, Discovery(namespace="elsewhere.local"))
        assert client.get(service.url()).status_code == 200


def test_a_limit_of_no_idle_connections_holds(library: Any, lab: Lab, discovery: Discovery):
    service = lab.service("orders", tasks=1)
    with wrap_client(library.Client(limits=library.Limits(max_keepalive_connections=0)), discovery) as client:
        for _ in range(3):
            assert client.get(service.url()).status_code == 200
        eventually(lambda: service.tasks[0].open_connections == 0)
    assert service.tasks[0].connections == 3


def test_requests_that_were_cancelled_leave_no_connection(library: Any, lab: Lab, discovery: Discovery):
    service = lab.service("orders", tasks=1)

    async def main() -> None:
        client = wrap_client(library.AsyncClient(), discovery)
        for number in range(60):
            try:
                await asyncio.wait_for(client.get(service.url()), 0.001 + number % 12 / 1000)
            except TimeoutError:
                pass
        await client.aclose()
        until = asyncio.get_running_loop().time() + 5
        while service.tasks[0].open_connections and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(0.01)
        assert service.tasks[0].open_connections == 0

    asyncio.run(main())
