"""`ecs_stub`: names and their addresses for a whole process."""

from __future__ import annotations

import asyncio
import threading

import httpx
import pytest
import requests
import responses
import respx

from ecs_discovery import (
    AsyncDiscovery,
    Discovery,
    Endpoint,
    NoEndpoints,
    Resolution,
    TargetNotFound,
    wrap_client,
    wrap_session,
)
from ecs_discovery.testing import NotStubbed, Stub
from tests.support import raw

EARLY = wrap_session(requests.Session(), namespace="prod.local")  # as an application has it, made at its import
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


def test_a_session_that_was_wrapped_before_is_mocked_by_its_logical_url(ecs_stub):
    ecs_stub.service("orders", ["10.0.0.1:8080", "10.0.0.2:8080"])
    with responses.RequestsMock() as mock:
        mock.get("http://orders/v1/42", json={"total": 7})
        assert EARLY.get("http://orders/v1/42").json() == {"total": 7}
    assert ecs_stub.asked == ["orders"]


def test_a_client_of_httpx_is_mocked_by_its_logical_url(ecs_stub):
    ecs_stub.service("orders", ["10.0.0.1:8080"])
    with respx.mock(base_url="http://orders") as mock, wrap_client(httpx.Client(), namespace="prod.local") as client:
        mock.get("/v1/42").respond(json={"total": 7})
        assert client.get("http://orders/v1/42").json() == {"total": 7}


def test_a_request_without_a_mock_goes_to_the_stubbed_address(ecs_stub):
    with raw(OK) as (address, seen):
        ecs_stub.service("orders", [address])
        assert EARLY.get("http://orders/v1/42").text == "ok"
        assert b"Host: orders" in seen[0]
    assert ecs_stub.asked == ["orders"]


def test_a_mocked_request_to_a_name_that_was_not_stubbed_fails_by_name():
    with Stub() as stub, responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        mock.get("http://billing/", json={})
        with pytest.raises(NotStubbed, match="'billing' was not stubbed"):
            EARLY.get("http://billing/")
        with pytest.raises(NotStubbed, match="'billing' was not stubbed"):
            stub.check()


def test_a_lookup_of_a_name_that_was_not_stubbed_fails_by_name():
    with Stub() as stub, Discovery(namespace="prod.local") as discovery:
        with pytest.raises(TargetNotFound, match="'billing' was not stubbed"):
            discovery.resolve("billing:80")
        assert stub.missing == ["billing"]
        with pytest.raises(NotStubbed, match="billing"):
            stub.check()


def test_other_hosts_are_none_of_its_business():
    with Stub() as stub, responses.RequestsMock() as mock:
        mock.get("https://example.com/", json={})
        EARLY.get("https://example.com/")
        stub.check()
        assert stub.asked == []


@pytest.mark.parametrize("target", ["orders:8080", "srv://orders", "cloudmap://prod/orders", "orders.prod.local:8080"])
def test_every_kind_of_target_finds_it(ecs_stub, target):
    ecs_stub.service("orders", ["10.0.0.1:8080"])
    with Discovery(namespace="prod.local") as discovery:
        assert [str(each) for each in discovery.resolve(target).endpoints] == ["10.0.0.1:8080"]


def test_asyncio_finds_it_too(ecs_stub):
    ecs_stub.service("orders", ["10.0.0.1:8080", "[fd00::1]:8080"])

    async def find() -> set[str]:
        async with AsyncDiscovery(namespace="prod.local") as discovery:
            found: set[str] = set()
            async with asyncio.timeout(20):
                while len(found) < 2:  # the first family that is answered is enough for `resolve`
                    found = {each.host for each in (await discovery.resolve("orders:8080")).endpoints}
                    await asyncio.sleep(0)
            return found

    assert asyncio.run(find()) == {"10.0.0.1", "fd00::1"}


def test_a_discovery_without_a_namespace_takes_the_names_as_services(ecs_stub):
    ecs_stub.service("orders", ["10.0.0.1:8080"])
    with Discovery(services=ecs_stub.services) as discovery, discovery.lease("orders") as lease:
        assert (lease.host, lease.port) == ("10.0.0.1", 8080)


def test_a_name_that_is_given_again_is_found_at_its_new_addresses_at_once(ecs_stub):
    ecs_stub.service("orders", ["10.0.0.1:8080"])
    with Discovery(namespace="prod.local") as discovery:
        discovery.resolve("orders")
        ecs_stub.service("orders", ["10.0.0.2:8080"])
        assert [each.host for each in discovery.resolve("orders").endpoints] == ["10.0.0.2"]


def test_a_change_that_waits_for_the_ttl_keeps_what_is_known_until_then(ecs_stub, ecs_clock):
    ecs_stub.service("orders", ["10.0.0.1:8080"])
    with Discovery(namespace="prod.local", clock=ecs_clock) as discovery:
        discovery.resolve("orders")
        ecs_stub.update("orders", ["10.0.0.2:8080"])
        assert [each.host for each in discovery.resolve("orders").endpoints] == ["10.0.0.1"]
        ecs_clock.advance(3600)
        assert [each.host for each in discovery.resolve("orders").endpoints] == ["10.0.0.2"]


def test_a_service_without_tasks_has_no_endpoints(ecs_stub):
    ecs_stub.service("orders", [])
    with Discovery(namespace="prod.local") as discovery, pytest.raises(NoEndpoints):
        discovery.resolve("orders")


def test_nothing_of_one_stub_is_left_for_the_next():
    with Discovery(namespace="prod.local") as discovery:
        with Stub() as stub:
            stub.service("orders", ["10.0.0.1:8080"])
            discovery.resolve("orders")
        assert discovery.snapshot("orders").nodes == ()
        with Stub() as stub:
            stub.service("orders", ["10.0.0.2:8080"])
            assert [each.host for each in discovery.resolve("orders").endpoints] == ["10.0.0.2"]


def test_after_its_end_lookups_go_where_they_went(tmp_path):
    with Stub() as stub:
        stub.service("orders", ["10.0.0.1:8080"])
    with Discovery(services={"orders": "static://10.0.0.9:80"}) as discovery:
        assert [each.host for each in discovery.resolve("orders").endpoints] == ["10.0.0.9"]
    from ecs_discovery.integrations.http import origins
    from ecs_discovery.resolvers import registry

    assert not registry.standing_in
    assert not origins.listening


class Slow:
    """A resolver that answers when it is told to."""

    def __init__(self) -> None:
        self.began, self.go = threading.Event(), threading.Event()

    def resolve(self, question, timeout):
        self.began.set()
        assert self.go.wait(20)
        return Resolution((Endpoint("203.0.113.9", 80),), 60.0, "real")


def test_a_lookup_that_was_in_flight_does_not_answer_for_the_stub():
    slow = Slow()
    with Discovery(services={"orders": "slow://orders"}, resolvers={"slow": slow}) as discovery:
        caller = threading.Thread(target=discovery.resolve, args=("orders",))
        caller.start()
        assert slow.began.wait(20)
        stub = Stub()
        stub.service("orders", ["10.0.0.1:80"])  # before it stands in: the caller asks it as soon as it does
        with stub:
            assert [str(each) for each in discovery.resolve("orders").endpoints] == ["10.0.0.1:80"]
            slow.go.set()
            caller.join(20)
            assert [str(each) for each in discovery.resolve("orders").endpoints] == ["10.0.0.1:80"]
            assert stub.asked == ["orders"]
