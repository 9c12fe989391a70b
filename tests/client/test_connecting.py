"""Connecting, and endpoints that do not accept connections."""

from __future__ import annotations

import socket
import threading

import pytest

from ecs_discovery import (
    ConfigurationError,
    ConnectError,
    TargetNotFound,
)
from ecs_discovery.events import HealthChanged
from tests.client.support import NXDOMAIN, dns_of
from tests.support import FakeClock, FakeResolver, a, aaaa, srv
from tests.worlds import Worlds


def test_connect_passes_over_what_refuses(world: Worlds, refused_port: int):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        peers = []

        def serve() -> None:
            for _ in range(4):
                conn, _ = server.accept()
                conn.recv(1000)
                conn.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                conn.close()

        thread = threading.Thread(target=serve)
        thread.start()

        async def scenario(w):
            target = f"static://127.0.0.1:{refused_port},127.0.0.1:{port}"
            peers.extend([await w.connect(target, timeout=5) for _ in range(4)])

        world.run(scenario)
        thread.join()
    assert peers == [("127.0.0.1", port)] * 4


def test_connect_that_finds_nobody_is_also_an_os_error_and_names_what_was_tried(world: Worlds, refused_port: int):
    async def scenario(w):
        with pytest.raises(OSError, match="no connection") as caught:
            await w.connect(f"static://127.0.0.1:{refused_port}")
        assert isinstance(caught.value, ConnectError)
        assert set(caught.value.endpoints) == {f"127.0.0.1:{refused_port}"}
        assert isinstance(caught.value.__cause__, ConnectionRefusedError)

    world.run(scenario)


def test_connect_to_an_unknown_name_is_also_an_os_error(world: Worlds):
    dns = FakeResolver({a(): NXDOMAIN, aaaa(): NXDOMAIN, srv(): NXDOMAIN})

    async def scenario(w):
        with pytest.raises(OSError, match="orders:80") as caught:
            await w.connect("orders:80")
        assert isinstance(caught.value, TargetNotFound)

    world.run(scenario, dns=dns)


def test_a_failed_connect_forces_one_question_that_is_not_answered_from_the_cache(world: Worlds, refused_port: int):
    dns = dns_of("127.0.0.1", ttl=60)

    async def scenario(w):
        for _ in range(3):
            with pytest.raises(ConnectError):
                await w.connect(f"orders:{refused_port}")
        while dns.asked.count(a()) < 2:
            await w.pause(0.001)
        assert dns.asked.count(a()) == 2

    world.run(scenario, dns=dns)


def test_an_endpoint_that_was_down_is_used_again_once_it_accepts_connections(world: Worlds):
    clock, events = FakeClock(), []
    spare = socket.create_server(("127.0.0.1", 0))
    late = socket.socket()
    late.bind(("127.0.0.1", 0))
    target = f"static://127.0.0.1:{late.getsockname()[1]},127.0.0.1:{spare.getsockname()[1]}"

    async def scenario(w):
        def fetch(attempt):
            socket.create_connection((attempt.host, attempt.port), timeout=5).close()

        for _ in range(4):
            await w.call(target, fetch)
        assert [event.health for event in events if isinstance(event, HealthChanged)] == ["down"]
        late.listen()
        clock.advance(1.5)
        while [event.health for event in events if isinstance(event, HealthChanged)] != ["down", "healthy"]:
            await w.call(target, fetch)
            await w.pause(0.001)

    try:
        world.run(scenario, clock=clock, on_event=events.append)
    finally:
        spare.close()
        late.close()


def test_a_reconnect_that_fails_leaves_it_down(world: Worlds, refused_port: int):
    clock = FakeClock()
    spare = socket.create_server(("127.0.0.1", 0))
    target = f"static://127.0.0.1:{refused_port},127.0.0.1:{spare.getsockname()[1]}"

    async def scenario(w):
        def fetch(attempt):
            socket.create_connection((attempt.host, attempt.port), timeout=5).close()

        def down():
            return next(node for node in w.discovery.snapshot(target).nodes if node.health == "down")

        for _ in range(2):
            await w.call(target, fetch)
        clock.advance(1.5)
        while down().failures < 2:
            await w.call(target, fetch)
            await w.pause(0.001)
        assert down().reason == "2 failed connects"

    try:
        world.run(scenario, clock=clock)
    finally:
        spare.close()


def test_a_certificate_for_bare_addresses_needs_a_name(world: Worlds):
    async def scenario(w):
        with pytest.raises(ConfigurationError, match="server_hostname"):
            await w.connect("static://127.0.0.1:1", ssl=True)

    world.run(scenario, namespace="prod.local")
