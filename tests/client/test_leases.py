"""Leases."""

from __future__ import annotations

import socket

import pytest

from ecs_discovery import (
    ClosedError,
    TargetNotFound,
    options,
)
from tests.client.support import NXDOMAIN, THREE, dns_of
from tests.support import FakeResolver, a, aaaa, srv
from tests.worlds import Worlds


def test_leases_go_round_and_an_exception_is_a_failure(world: Worlds):
    async def scenario(w):
        ports = []
        for _ in range(6):
            async with w.lease("static://127.0.0.1:1,127.0.0.1:2,127.0.0.1:3") as lease:
                ports.append(lease.port)
                assert lease.host == "127.0.0.1"
        assert sorted(ports) == [1, 1, 2, 2, 3, 3]
        target = "static://127.0.0.1:1"
        with pytest.raises(ValueError, match="mine"):
            async with w.lease(target):
                raise ValueError("mine")
        async with w.lease(target) as lease:
            lease.fail()
        with pytest.raises(KeyboardInterrupt):
            async with w.lease(target):
                raise KeyboardInterrupt
        (node,) = w.discovery.snapshot(target).nodes
        assert (node.uses, node.failures, node.pending) == (3, 2, 0)
        with pytest.raises(ClosedError, match="outside"):
            lease.port

    world.run(scenario)


def test_a_key_sticks_to_an_endpoint(world: Worlds):
    async def scenario(w):
        target = "static://" + ",".join(f"127.0.0.1:{port}" for port in range(1, 9))
        seen = set()
        for _ in range(5):
            async with w.lease(target, key="ann") as lease:
                seen.add(lease.port)
            seen.add(await w.call(target, lambda attempt: attempt.port, key="ann"))
        assert len(seen) == 1

    world.run(scenario)


def test_options_give_a_key_and_what_is_written_at_the_call_goes_first(world: Worlds):
    target = "static://" + ",".join(f"127.0.0.1:{port}" for port in range(1, 9))

    async def scenario(w):
        seen = set()
        with options(key="ann"):
            for _ in range(5):
                async with w.lease(target) as lease:
                    seen.add(lease.port)
                seen.add(await w.call(target, lambda attempt: attempt.port))
        assert len(seen) == 1
        tried = []

        def fetch(attempt):
            tried.append(attempt.port)
            raise ConnectionResetError(104, "reset")

        with options(idempotent=True), pytest.raises(ConnectionResetError):
            await w.call(target, fetch, idempotent=False)
        assert len(tried) == 1
        with options(idempotent=False), pytest.raises(ConnectionResetError):
            await w.call(target, fetch, idempotent=True)
        assert len(tried) == 4

    world.run(scenario)


def test_a_lease_of_what_refuses_sets_it_aside_and_asks_again(world: Worlds, refused_port: int):
    dns = dns_of("127.0.0.1", ttl=60)

    async def scenario(w):
        target = f"orders:{refused_port}"
        with pytest.raises(ConnectionRefusedError):
            async with w.lease(target) as lease:
                socket.create_connection((lease.host, lease.port), timeout=5)
        while w.discovery.snapshot(target).nodes[0].health != "down":  # it is looked at in the background
            await w.pause(0.001)
        while dns.asked.count(a()) < 2:
            await w.pause(0.001)

    world.run(scenario, dns=dns)


def test_a_lease_of_an_unknown_name_says_why(world: Worlds):
    dns = FakeResolver({a(): NXDOMAIN, aaaa(): NXDOMAIN, srv(): NXDOMAIN})

    async def scenario(w):
        with pytest.raises(TargetNotFound, match="orders:80"):
            async with w.lease("orders:80"):
                raise AssertionError("not reached")

    world.run(scenario, dns=dns)


def test_a_client_librarys_exception_is_read_by_what_caused_it(world: Worlds):
    class LibraryError(Exception):
        pass

    async def scenario(w):
        tried = []

        def fetch(attempt):
            tried.append(attempt.port)
            try:
                raise ConnectionRefusedError(111, "refused")
            except OSError as error:
                raise LibraryError("cannot connect") from error

        with pytest.raises(LibraryError):
            await w.call(THREE, fetch)
        assert len(tried) == 4

    world.run(scenario)
