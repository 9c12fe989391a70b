"""Sessions and connectors: how they are made, what they take, what they leave open."""

from __future__ import annotations

import asyncio
import gc
import warnings
from typing import Any

import aiohttp
import pytest

from ecs_discovery import AsyncDiscovery, ClosedError, ConfigurationError, Discovery
from ecs_discovery.client.sync.shared import shared_discovery
from ecs_discovery.config.settings import Settings
from ecs_discovery.integrations.aiohttp import DiscoveryConnector, client_session
from ecs_discovery.testing.lab import Lab, LabService
from tests.integrations.aiohttp.conftest import Play


def url_of(service: LabService, path: str = "/") -> str:
    return f"http://{service.name}.prod.local:{service.port}{path}"


def run(work: Any) -> Any:
    return asyncio.run(work())


def test_sessions_with_equal_settings_share_one_default_with_each_other_and_with_threads():
    async def work() -> None:
        async with client_session(namespace="shared.test") as one, client_session(namespace="shared.test") as two:
            first: Any = one.connector
            second: Any = two.connector
            assert first._routes.discovery is second._routes.discovery
            shared = shared_discovery(Settings.make(namespace="shared.test"))
            assert first._routes.discovery._driver.engine is shared._driver.engine

    run(work)


def test_a_plain_session_comes_out_whose_class_is_aiohttps_own():
    async def work() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            session = client_session(namespace="prod.local", headers={"X": "1"}, base_url="http://orders/")
        assert type(session) is aiohttp.ClientSession
        assert session.headers["X"] == "1"
        await session.close()

    run(work)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"namespace": "prod.local", "discovery": "both"},
        {"discovery": Discovery(namespace="prod.local")},
        {"namespace": "prod.local", "connector": "unix"},
        {"namespace": "prod.local", "connector": "with one"},
        {"namespace": "not a name"},
    ],
)
def test_what_cannot_be_used_is_refused_at_once(arguments: dict[str, Any]):
    async def work() -> None:
        if arguments.get("discovery") == "both":
            arguments["discovery"] = AsyncDiscovery(namespace="prod.local")
        if arguments.get("connector") == "unix":
            arguments["connector"] = aiohttp.UnixConnector("/nowhere")
        if arguments.get("connector") == "with one":
            arguments["connector"] = DiscoveryConnector(namespace="prod.local")
        with pytest.raises(ConfigurationError):
            client_session(**arguments)

    run(work)


def test_a_misspelt_argument_is_a_configuration_error():
    async def work() -> None:
        with pytest.raises(ConfigurationError, match="did you mean 'timeout'"):
            client_session(namespace="prod.local", tiemout=3)  # type: ignore[call-arg]

    run(work)


def test_switched_off_the_session_is_a_plain_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ECS_DISCOVERY_DISABLED", "1")

    async def work() -> None:
        async with client_session(namespace="prod.local") as session:
            assert not session._middlewares
            assert session._retry_connection

    run(work)


def test_a_plain_connector_of_the_applications_serves_our_hosts_too(lab: Lab):
    service = lab.service("orders", tasks=2)

    async def work() -> None:
        discovery = AsyncDiscovery(namespace="prod.local", nameservers=[lab.nameserver])
        async with discovery, client_session(discovery, connector=aiohttp.TCPConnector(limit=1)) as session:
            assert isinstance(session.connector, DiscoveryConnector)
            for _ in range(4):
                async with session.get(url_of(service)) as response:
                    assert response.status == 200
            assert session.connector.limit == 1

    run(work)


def test_a_session_that_also_calls_a_task_by_its_address_keeps_the_two_apart(lab: Lab, play: Play):
    service = lab.service("orders", tasks=1)
    (task,) = service.tasks

    async def scenario(session: aiohttp.ClientSession, discovery: AsyncDiscovery) -> None:
        for _ in range(3):
            for url in (f"http://{task.address}:{service.port}/", url_of(service)):
                async with session.get(url) as answer:
                    assert answer.status == 200
                    await answer.read()
        assert not session.connector._acquired  # type: ignore[union-attr]

    play(scenario, connector={"limit": 2})


def test_a_closed_session_does_not_close_the_discovery(lab: Lab):
    service = lab.service("orders", tasks=1)

    async def work() -> None:
        async with AsyncDiscovery(namespace="prod.local", nameservers=[lab.nameserver]) as discovery:
            for _ in range(2):
                async with client_session(discovery) as session, session.get(url_of(service)) as response:
                    assert response.status == 200

    run(work)


@pytest.mark.parametrize("shares", [False, True])
def test_a_closed_discovery_is_an_error_of_both(lab: Lab, shares: bool):
    service = lab.service("orders", tasks=1)

    async def work() -> None:
        settings: Any = {"namespace": "prod.local", "nameservers": [lab.nameserver]}
        with Discovery(**settings) as joined:
            discovery = AsyncDiscovery(share=joined) if shares else AsyncDiscovery(**settings)
            async with client_session(discovery) as session:
                async with session.get(url_of(service)) as response:
                    assert response.status == 200
                await discovery.aclose()
                with pytest.raises(aiohttp.ClientConnectionError) as caught:
                    await session.get(url_of(service))
                assert isinstance(caught.value, ClosedError)

    run(work)


def test_a_session_that_was_not_closed_is_told_of_as_before(lab: Lab):
    service = lab.service("orders", tasks=1)

    async def work() -> None:
        discovery = AsyncDiscovery(namespace="prod.local", nameservers=[lab.nameserver])
        session = client_session(discovery)
        async with session.get(url_of(service)) as response:
            assert response.status == 200
        words: list[str] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: words.append(context["message"]))
        del response
        gc.collect()
        gc.disable()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                del session  # no collector is needed: nothing of ours refers to it in a circle
        finally:
            gc.enable()
        assert words == ["Unclosed client session", "Unclosed connector"]
        await asyncio.sleep(0)
        await discovery.aclose()

    run(work)


def test_requests_with_middlewares_of_their_own_are_spread_too(lab: Lab, play: Play):
    service = lab.service("orders", tasks=3)
    service.tasks[0].refuse()
    seen = []

    async def own(request: Any, handler: Any) -> Any:
        seen.append(request.url.host)
        return await handler(request)

    async def scenario(session: aiohttp.ClientSession, discovery: AsyncDiscovery) -> None:
        tasks = set()
        for _ in range(8):
            async with session.get(url_of(service), middlewares=(own,)) as response:
                tasks.add(response.headers["X-Task"])
        assert len(tasks) == 2
        assert seen == ["orders.prod.local"] * 8
        snapshot = discovery.snapshot(f"orders.prod.local:{service.port}")
        assert all(node.pending == 0 for node in snapshot.nodes)

    play(scenario)


def test_a_plain_session_with_our_connector_finds_services(lab: Lab):
    service = lab.service("orders", tasks=2)

    async def work() -> None:
        discovery = AsyncDiscovery(namespace="prod.local", nameservers=[lab.nameserver])
        async with discovery, aiohttp.ClientSession(connector=DiscoveryConnector(discovery)) as session:
            found = set()
            for _ in range(4):
                async with session.get(url_of(service)) as response:
                    found.add(response.headers["X-Task"])
            assert len(found) == 2

    run(work)


def test_middlewares_of_the_session_see_one_request_however_many_attempts_it_takes(lab: Lab, play: Play):
    service = lab.service("orders", tasks=2)
    for task in service.tasks:
        task.refuse()
    seen = []

    async def own(request: Any, handler: Any) -> Any:
        seen.append(str(request.url))
        return await handler(request)

    async def scenario(session: aiohttp.ClientSession, discovery: AsyncDiscovery) -> None:
        with pytest.raises(aiohttp.ClientConnectorError) as caught:
            await session.get(url_of(service))
        assert seen == [url_of(service)]
        assert caught.value.host == "orders.prod.local"
        assert caught.value.os_error is not None

    play(scenario, middlewares=(own,))
