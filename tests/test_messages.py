"""Messages: what was seen, why, and what to do. Each of these once sent its reader the wrong way."""

from __future__ import annotations

import ast
import asyncio
import logging
import re
import types
from functools import partial
from typing import Any

import aiohttp
import httpx
import pytest
import requests
import tenacity
import urllib3

import ecs_discovery
from ecs_discovery import (
    AsyncDiscovery,
    ConfigurationError,
    Discovery,
    DiscoveryError,
    DnsPolicy,
    ResolutionTimeout,
    RetryPolicy,
    TargetNotFound,
    TimeoutPolicy,
    options,
    wrap_client,
    wrap_session,
)
from ecs_discovery.config.settings import Policies, Settings
from ecs_discovery.integrations.aiohttp import DiscoveryConnector, client_session
from ecs_discovery.integrations.urllib3 import DiscoveryPoolManager
from ecs_discovery.models import Question
from ecs_discovery.testing.lab import Lab
from tests.support import FakeResolver, a, aaaa, srv


def unknown(name: str) -> TargetNotFound:
    return TargetNotFound(f"there is no such name, says 10.0.0.2:53 ({name})", hint="check the spelling")


def failing(*questions: Question) -> FakeResolver:
    return FakeResolver({question: unknown(str(question)) for question in questions})


def message(call: Any) -> str:
    with pytest.raises(DiscoveryError) as caught:
        call()
    return str(caught.value)


def test_a_short_name_without_a_namespace_is_told_to_lack_one():
    with Discovery() as discovery:
        discovery._driver.background.asker.dns = failing(srv("orders"))
        text = message(lambda: discovery.resolve("orders"))
    assert "no namespace is set" in text
    assert "ECS_DISCOVERY_NAMESPACE" in text
    assert "spelling" not in text
    assert "port" not in text


def test_an_unknown_name_is_not_told_to_lack_a_port():
    with Discovery(namespace="prod.local") as discovery:
        discovery._driver.background.asker.dns = failing(srv("nope.prod.local"))
        text = message(lambda: discovery.resolve("nope"))
    assert "check the spelling" in text
    assert "port" not in text


def test_a_missing_port_is_told_once():
    with Lab(namespace="prod.local") as lab:
        lab.service("orders", tasks=1)
        with Discovery(namespace="prod.local", nameservers=[lab.nameserver]) as discovery:
            text = message(lambda: discovery.resolve("orders"))
    assert text.count("orders:8080") == 1


@pytest.mark.parametrize("make", [Discovery, AsyncDiscovery, Settings.make])
@pytest.mark.parametrize(
    ("settings", "meant"),
    [({"retries": RetryPolicy()}, "retry"), ({"namspace": "x"}, "namespace")],
    ids=["retry", "ns"],
)
def test_a_misspelt_setting_is_answered_with_the_right_one(make: Any, settings: dict[str, Any], meant: str):
    text = message(lambda: make(**settings))
    assert text.startswith(f"unknown setting '{next(iter(settings))}'; did you mean '{meant}'?")


def test_a_misspelt_setting_of_a_session_is_answered_with_the_right_one():
    settings: Any = {"namspace": "prod.local"}
    assert "did you mean 'namespace'?" in message(lambda: wrap_session(requests.Session(), **settings))


@pytest.mark.parametrize("services", [{"orders": 8080}, {"orders": None}, {"orders": b"srv://o"}, {"orders": [8080]}])
def test_a_service_that_is_no_target_is_a_configuration_error(services: Any):
    with pytest.raises(ConfigurationError, match=r"orders|target"):
        Discovery(services=services)


@pytest.mark.parametrize("target", ["10.0.0.1", "10.0.0.1:80", "[::1]:80"])
def test_an_address_is_not_asked_of_dns(target: str):
    with Discovery(namespace="prod.local") as discovery:
        assert "static://" in message(lambda: discovery.resolve(target))


def test_a_variable_that_cannot_be_used_is_named():
    text = message(lambda: Settings.make(environ={"ECS_DISCOVERY_SERVICES": "orders=static://localhost:8080"}))
    assert text.startswith("ECS_DISCOVERY_SERVICES is 'orders=static://localhost:8080'")
    both = "orders=static://127.0.0.1:80,users=static://127.0.0.1:90"
    assert "separate services with ';'" in message(lambda: Settings.make(environ={"ECS_DISCOVERY_SERVICES": both}))


@pytest.mark.parametrize(("text", "disabled"), [("on", True), ("off", False)])
def test_the_off_switch_takes_on_and_off_as_every_other_switch(text: str, disabled: bool):
    assert Settings.make(environ={"ECS_DISCOVERY_DISABLED": text}).disabled is disabled


def test_silence_of_dns_is_told_with_its_servers_and_seconds():
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        server = f"127.0.0.1:{silent.getsockname()[1]}"
        with Discovery(namespace="prod.local", nameservers=[server]) as discovery:
            with pytest.raises(ResolutionTimeout, match=r"not resolved within 0\.2 s") as caught:
                discovery.resolve("orders:80", timeout=0.2)
            assert server in str(caught.value)
        quick = DnsPolicy(timeout=0.2)
        with (
            Discovery(namespace="prod.local", nameservers=[server], dns=quick) as discovery,
            pytest.raises(ResolutionTimeout, match=r"within [0-9.]+ s \(DnsPolicy\.timeout\)"),
        ):
            discovery.resolve("orders:80", timeout=5)


def test_a_plain_function_in_asyncio_is_answered_with_what_is_wanted():
    async def main() -> None:
        async with AsyncDiscovery() as discovery:
            plain: Any = lambda attempt: 1  # noqa: E731
            with pytest.raises(ConfigurationError, match="a coroutine function"):
                await discovery.call("static://127.0.0.1:1", plain)

    asyncio.run(main())


async def coroutine_function(attempt: Any) -> int:
    raise AssertionError("called")


async def async_generator(attempt: Any) -> Any:
    raise AssertionError("called")
    yield


def generator(attempt: Any) -> Any:
    raise AssertionError("called")
    yield


class Callable:
    def __init__(self, does: Any) -> None:
        self.does = does

    async def method(self, attempt: Any) -> Any:
        return self.does

    def plain(self, attempt: Any) -> Any:
        return self.does


class AsyncCallable(Callable):
    async def __call__(self, attempt: Any) -> Any:
        return self.does


class PlainCallable(Callable):
    def __call__(self, attempt: Any) -> Any:
        return self.does


@pytest.mark.parametrize(
    "fetch",
    [
        coroutine_function,
        async_generator,
        partial(partial(coroutine_function), 1),
        AsyncCallable(1),
        Callable(1).method,
        7,
    ],
    ids=["coroutine function", "async generator", "partial", "object", "method", "a number"],
)
def test_what_a_discovery_cannot_call_is_refused_before_anything_is_looked_up(fetch: Any):
    with Discovery() as discovery, pytest.raises(ConfigurationError, match="a plain function"):
        discovery.call("dns://orders:80", fetch)
    assert discovery._driver.engine.queries == 0


@pytest.mark.parametrize("fetch", [generator, async_generator, partial(generator), 7])
def test_what_an_async_discovery_cannot_await_is_refused_before_anything_is_looked_up(fetch: Any):
    async def main() -> None:
        async with AsyncDiscovery() as discovery:
            with pytest.raises(ConfigurationError, match="a coroutine function"):
                await discovery.call("dns://orders:80", fetch)
            assert discovery._driver.engine.queries == 0

    asyncio.run(main())


@types.coroutine
def old_coroutine(attempt: Any) -> Any:
    yield from asyncio.sleep(0).__await__()
    return 1


async def one(attempt: Any) -> int:
    return 1


@pytest.mark.parametrize(
    "fetch",
    [one, partial(one), AsyncCallable(1), Callable(1).method, old_coroutine, lambda attempt: one(attempt)],
    ids=["coroutine function", "partial", "object", "method", "types.coroutine", "plain that gives an awaitable"],
)
def test_an_async_discovery_calls_whatever_gives_an_awaitable(fetch: Any):
    async def main() -> None:
        async with AsyncDiscovery() as discovery:
            assert await discovery.call("static://127.0.0.1:1", fetch) == 1

    asyncio.run(main())


@pytest.mark.parametrize("fetch", [PlainCallable(1), Callable(1).plain, partial(lambda number, attempt: number, 1)])
def test_a_discovery_calls_whatever_is_callable(fetch: Any):
    with Discovery() as discovery:
        assert discovery.call("static://127.0.0.1:1", fetch) == 1


def test_a_lease_without_a_block_is_answered_with_how_to_use_it():
    with Discovery() as discovery:
        assert "with discovery.lease(" in message(lambda: discovery.lease("static://127.0.0.1:1").host)


def test_another_client_is_pointed_to_call_and_lease():
    client: Any = object()
    assert "Discovery.call" in message(lambda: wrap_session(client, namespace="prod.local"))


@pytest.mark.parametrize(
    ("client", "way"),
    [
        (requests.Session, "wrap_session"),
        (urllib3.PoolManager, "DiscoveryPoolManager"),
        (object, "Discovery.call"),
    ],
)
def test_wrap_client_names_what_serves_another_client(client: Any, way: str):
    assert way in message(lambda: wrap_client(client(), namespace="prod.local"))


def test_wrap_session_names_what_serves_a_client_of_httpx():
    client: Any = httpx.Client()
    with client:
        assert "for httpx there is wrap_client" in message(lambda: wrap_session(client, namespace="prod.local"))


def test_wrap_client_names_what_serves_a_session_of_aiohttp():
    async def main() -> None:
        async with aiohttp.ClientSession() as session:
            assert "client_session" in message(lambda: wrap_client(session, namespace="prod.local"))

    asyncio.run(main())


def test_a_client_session_outside_a_coroutine_is_told_to_be_made_inside():
    assert "call it inside a coroutine" in message(lambda: client_session(namespace="prod.local"))


ANY_SESSION: Any = client_session
ANY_MANAGER: Any = DiscoveryPoolManager
ANY_CONNECTOR: Any = DiscoveryConnector


@pytest.mark.parametrize(
    ("make", "given", "where"),
    [
        (ANY_SESSION, {"retry": RetryPolicy()}, "discovery=AsyncDiscovery(retry=…)"),
        (ANY_SESSION, {"timeout": TimeoutPolicy()}, "discovery=AsyncDiscovery(timeout=…)"),
        (ANY_CONNECTOR, {"retry": RetryPolicy()}, "discovery=AsyncDiscovery(retry=…)"),
        (ANY_MANAGER, {"retry": RetryPolicy()}, "discovery=Discovery(retry=…)"),
        (ANY_MANAGER, {"timeout": TimeoutPolicy()}, "discovery=Discovery(timeout=…)"),
        (ANY_MANAGER, {"retry": tenacity.Retrying()}, "discovery=Discovery(retry=…)"),
    ],
)
def test_a_policy_among_the_options_of_a_library_is_shown_its_place(make: Any, given: dict[str, Any], where: str):
    assert f"policies go in {where}" in message(lambda: make(namespace="prod.local", **given))


@pytest.mark.parametrize(
    ("make", "given", "meant"),
    [
        (ANY_SESSION, {"namespce": "prod.local"}, "namespace"),
        (ANY_SESSION, {"header": {}}, "headers"),
        (ANY_CONNECTOR, {"limits": 3}, "limit"),
        (ANY_MANAGER, {"namespce": "prod.local"}, "namespace"),
        (ANY_MANAGER, {"namespace": "prod.local", "retry": 3}, "retries"),
    ],
)
def test_a_misspelt_option_of_a_library_is_answered_with_the_right_one(make: Any, given: dict[str, Any], meant: str):
    assert f"did you mean '{meant}'?" in message(lambda: make(**given))


def test_an_option_that_the_installed_library_takes_and_we_do_not_know_is_passed_on():
    any_options: Any = {"_proxy_headers": None}
    assert ANY_MANAGER(namespace="prod.local", **any_options).connection_pool_kw == any_options


@pytest.mark.parametrize("wrap", [wrap_session, wrap_client, ANY_MANAGER], ids=["session", "client", "manager"])
def test_a_namespace_in_the_place_of_a_discovery_is_told_where_it_goes(wrap: Any):
    given = {wrap_session: [requests.Session], wrap_client: [httpx.Client]}.get(wrap, [])
    clients = [make() for make in given]
    text = message(lambda: wrap(*clients, "prod.local"))
    assert text == "discovery is 'prod.local'; allowed: a Discovery; did you mean namespace='prod.local'?"


@pytest.mark.parametrize("name", Policies.__annotations__)
def test_what_is_no_policy_is_answered_with_one_that_can_be_made(name: str):
    text = message(lambda: Settings.make(**{name: 5}))  # type: ignore[arg-type]
    found = re.fullmatch(rf"{name} is 5; allowed: a (\w+): \1\((\w+)=(.+)\)", text)
    assert found is not None, text
    policy = getattr(ecs_discovery, found[1])
    assert policy(**{found[2]: ast.literal_eval(found[3])}) != policy()


def test_an_error_names_the_target_as_this_caller_wrote_it():
    with Discovery(namespace="prod.local") as discovery:
        discovery._driver.background.asker.dns = failing(
            srv("orders.prod.local"), a("orders.prod.local"), aaaa("orders.prod.local")
        )
        session = wrap_session(requests.Session(), discovery)
        for url, name in (("http://orders.prod.local./", "orders.prod.local."), ("http://orders/", "orders")):
            with pytest.raises(TargetNotFound) as caught:
                session.get(url)
            assert caught.value.target == name


def test_a_lookup_that_holds_up_an_event_loop_is_told_once(caplog: pytest.LogCaptureFixture):
    async def main() -> None:
        with Discovery(namespace="prod.local") as discovery:
            discovery._driver.background.asker.dns = failing(srv("orders.prod.local"), srv("users.prod.local"))
            for name in ("orders", "users"):
                with pytest.raises(DiscoveryError):
                    discovery.resolve(name)

    with caplog.at_level(logging.WARNING, logger="ecs_discovery"):
        asyncio.run(main())
    assert caplog.text.count("holds up the event loop: use AsyncDiscovery") == 1


@pytest.mark.parametrize("value", [float("nan"), True, "2", [1]], ids=repr)
def test_what_is_no_number_of_seconds_is_a_configuration_error(value: Any):
    with Discovery(namespace="prod.local") as discovery:
        for call in (
            lambda: discovery.call("orders:80", lambda attempt: None, deadline=value),
            lambda: discovery.resolve("orders:80", timeout=value),
            lambda: discovery.connect("orders:80", timeout=value),
            lambda: discovery.warm("orders:80", timeout=value),
        ):
            assert "a number of seconds" in message(call)


@pytest.mark.parametrize("deadline", [0, -1.5])
def test_a_deadline_that_has_passed_is_told_as_that(deadline: float):
    with Discovery(namespace="prod.local") as discovery:
        text = message(lambda: discovery.call("orders:80", lambda attempt: None, deadline=deadline))
    assert text == f"orders:80: the deadline of {deadline:g} s had passed before the call began"


def test_a_key_that_is_no_text_is_a_configuration_error():
    key: Any = 42
    with Discovery() as discovery:
        assert "key is 42" in message(lambda: discovery.lease("static://127.0.0.1:1", key=key))
        assert "key is 42" in message(lambda: discovery.call("static://127.0.0.1:1", lambda attempt: None, key=key))


@pytest.mark.parametrize("deadline", [float("inf"), 1e18, 10**400])
def test_a_deadline_beyond_what_sockets_take_is_as_good_as_none(deadline: float):
    import threading
    from http.server import HTTPServer, SimpleHTTPRequestHandler

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.handle_request, daemon=True)
        thread.start()
        with Discovery(services={"orders": f"static://127.0.0.1:{server.server_port}"}) as discovery:
            session = wrap_session(requests.Session(), discovery)
            with options(deadline=deadline):
                assert session.head("http://orders/nothing").status_code == 404
            session.close()
        thread.join(5)


def test_a_word_for_idempotent_is_refused():
    word: Any = "no"
    with Discovery() as discovery:
        text = message(lambda: discovery.call("static://127.0.0.1:1", lambda attempt: None, idempotent=word))
    assert text == "idempotent is 'no'; allowed: True or False"


def test_a_lease_that_was_never_entered_cannot_fail():
    with Discovery() as discovery:
        assert "with discovery.lease(" in message(lambda: discovery.lease("static://127.0.0.1:1").fail())


def test_a_refused_connection_is_told_by_its_address_alone():
    with Discovery(services={"dead": "static://127.0.0.1:1"}) as discovery:
        session = wrap_session(requests.Session(), discovery)
        text = message(lambda: session.get("http://dead/"))
    assert "port=80" not in text
    assert "[127.0.0.1:1 connect after" in text
    assert "127.0.0.1:1: " not in text  # the address once, where the attempts are
