"""The programs whose instructions are counted: `python programs.py NAME COUNT`.

Each does its preparation and its first use whatever the count is, so that a run of COUNT minus a run of 0 is what COUNT
uses cost. Nothing here depends on time or chance: one thread, answers that are there at once, seeded random numbers.
"""

from __future__ import annotations

import _socket
import asyncio
import gc
import socket
import sys
from collections.abc import Callable
from itertools import count
from typing import Any

FIRST_USES = 50
MOST_USES = 250  # with the first
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"


def discovery_of(size: int) -> Any:
    from ecs_discovery import CachePolicy, Discovery

    targets = ",".join(f"10.{index >> 16}.{index >> 8 & 255}.{index & 255}:80" for index in range(1, size + 1))
    return Discovery(services={"orders": f"static://{targets}"}, cache=CachePolicy(), **seeded())


def seeded() -> dict[str, Any]:
    from inspect import signature
    from random import Random

    from ecs_discovery import Discovery

    name = "rng" if "rng" in signature(Discovery).parameters else "dice"
    # What happens at times of a real clock would be counted in one run and not in the other.
    return {name: Random(1), "clock": map((1e-5).__mul__, count(1)).__next__}


def resolve(size: int) -> Callable[[], object]:
    discovery = discovery_of(size)
    return lambda: discovery.resolve("orders")


def lease(size: int) -> Callable[[], object]:
    discovery = discovery_of(size)

    def use() -> None:
        with discovery.lease("orders"):
            pass

    return use


def call(size: int) -> Callable[[], object]:
    discovery = discovery_of(size)
    return lambda: discovery.call("orders", fetch)


def fetch(attempt: object) -> None:
    """What a caller does with an endpoint: nothing."""


def pick(size: int) -> Callable[[], object]:
    discovery = discovery_of(size)
    discovery.resolve("orders")
    driver = getattr(discovery, "_driver", discovery)
    service = driver.engine.service("orders")

    def use() -> None:
        service.release(service.pick(0.0))

    return use


class Server:
    """Answers in the thread of the client, as soon as a request was sent: no wait, no second thread."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=16)
        self.port = self._listener.getsockname()[1]
        self._peers: dict[Any, socket.socket] = {}
        server = self

        def sendall(sock: socket.socket, data: bytes, *flags: int) -> None:
            _socket.socket.sendall(sock, data, *flags)
            server.answer(sock.getsockname())

        def send(sock: socket.socket, data: bytes, *flags: int) -> int:
            sent = _socket.socket.send(sock, data, *flags)
            if sock.getsockname() != waker:  # an event loop wakes itself by a pair of sockets
                server.answer(sock.getsockname())
            return sent

        waker = socket.socketpair()[0].getsockname()
        socket.socket.sendall = sendall  # type: ignore[method-assign,assignment]
        socket.socket.send = send  # type: ignore[method-assign,assignment]

    def answer(self, client: Any) -> None:
        while client not in self._peers:
            peer, address = self._listener.accept()
            self._peers[address] = peer
        peer = self._peers[client]
        assert peer.recv(65_536).endswith(b"\r\n\r\n")
        _socket.socket.sendall(peer, ANSWER)


def get(*, wrapped: bool, trust_env: bool) -> Callable[[], object]:
    import requests

    server = Server()
    session = requests.Session()
    session.trust_env = trust_env
    url = f"http://127.0.0.1:{server.port}/"
    if wrapped:
        from ecs_discovery import Discovery, wrap_session

        target = f"static://127.0.0.1:{server.port}"
        session = wrap_session(session, discovery=Discovery(services={"orders": target}, **seeded()))
        url = "http://orders/"

    def use() -> None:
        assert session.get(url, timeout=5).content == b"ok"

    return use


def urllib3_get(*, ours: bool) -> Callable[[], object]:
    import urllib3

    server = Server()
    manager, url = urllib3.PoolManager(), f"http://127.0.0.1:{server.port}/"
    if ours:
        from ecs_discovery import Discovery
        from ecs_discovery.integrations.urllib3 import DiscoveryPoolManager

        target = f"static://127.0.0.1:{server.port}"
        manager, url = DiscoveryPoolManager(Discovery(services={"orders": target}, **seeded())), "http://orders/"

    def use() -> None:
        assert manager.request("GET", url, timeout=5).data == b"ok"

    return use


class NameServer:
    """Answers in the thread of the client, as `Server` does: with two addresses, whatever is asked for."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address = "127.0.0.1:{1}".format(*self._socket.getsockname())
        server = self

        def send(sock: socket.socket, data: bytes, *flags: int) -> int:
            sent = _socket.socket.send(sock, data, *flags)
            server.answer()
            return sent

        socket.socket.send = send  # type: ignore[method-assign,assignment]

    def answer(self) -> None:
        query, client = self._socket.recvfrom(512)
        end = query.index(b"\0", 12) + 5
        kind, size = query[end - 4 : end - 2], 4 if query[end - 3] == 1 else 16
        record = b"\xc0\x0c" + kind + b"\0\1" + (60).to_bytes(4, "big") + size.to_bytes(2, "big")
        found = [record + bytes((10, *range(size - 2), last)) for last in (1, 2)]
        head = query[:2] + b"\x81\x80\0\1\0\2\0\0\0\0"
        self._socket.sendto(head + query[12:end] + b"".join(found), client)


def cold_lookup(*families: str) -> Callable[[], object]:
    """The first use of a discovery, without its making. No thread is started, as if in a process of uWSGI."""
    from types import SimpleNamespace

    from ecs_discovery import Discovery, DnsPolicy

    sys.modules["uwsgi"] = SimpleNamespace(has_threads=False)  # type: ignore[assignment]
    dns = DnsPolicy(nameservers=(NameServer().address,), families=families, hosts_file="")
    fresh = [Discovery(dns=dns, **seeded()) for _ in range(MOST_USES)]
    next_one = iter(fresh).__next__  # all of them are kept: what ends is not counted
    return lambda: next_one().resolve("dns://orders.prod.local:80")


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose timers depend on its steps, not on a clock."""

    def __init__(self) -> None:
        super().__init__()
        self._ticks = count(1)

    def time(self) -> float:
        return next(self._ticks) * 1e-5


def aiohttp_get(*, ours: bool) -> Callable[[], object]:
    import aiohttp

    server, loop = Server(), Loop()

    class ToServer(aiohttp.abc.AbstractResolver):
        async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[Any]:
            return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": 2, "proto": 0, "flags": 0}]

        async def close(self) -> None:
            pass

    async def begin() -> tuple[aiohttp.ClientSession, str]:
        if not ours:  # by name too: aiohttp keeps no cookies of an address, and looks for them for each name
            connector = aiohttp.TCPConnector(resolver=ToServer())
            return aiohttp.ClientSession(connector=connector), f"http://orders.test:{server.port}/"
        from ecs_discovery import AsyncDiscovery
        from ecs_discovery.integrations.aiohttp import client_session

        discovery = AsyncDiscovery(services={"orders": f"static://127.0.0.1:{server.port}"}, **seeded())
        return client_session(discovery), "http://orders/"

    async def get() -> None:
        async with session.get(url) as response:
            assert await response.read() == b"ok"

    session, url = loop.run_until_complete(begin())
    return lambda: loop.run_until_complete(get())


PROGRAMS: dict[str, Callable[[], Callable[[], object]]] = {
    "resolve-4": lambda: resolve(4),
    "resolve-10000": lambda: resolve(10_000),
    "pick-4": lambda: pick(4),
    "pick-10000": lambda: pick(10_000),
    "lease-4": lambda: lease(4),
    "lease-10000": lambda: lease(10_000),
    "call-4": lambda: call(4),
    "call-10000": lambda: call(10_000),
    "cold-lookup": lambda: cold_lookup("a"),
    "cold-lookup-of-two-families": lambda: cold_lookup("a", "aaaa"),
    "get": lambda: get(wrapped=True, trust_env=True),
    "get-without-environment": lambda: get(wrapped=True, trust_env=False),
    "plain-get": lambda: get(wrapped=False, trust_env=True),
    "plain-get-without-environment": lambda: get(wrapped=False, trust_env=False),
    "urllib3-get": lambda: urllib3_get(ours=True),
    "plain-urllib3-get": lambda: urllib3_get(ours=False),
    "aiohttp-get": lambda: aiohttp_get(ours=True),
    "plain-aiohttp-get": lambda: aiohttp_get(ours=False),
}


def main() -> None:
    name, uses = sys.argv[1], int(sys.argv[2])
    use = PROGRAMS[name]()
    for _ in range(FIRST_USES):  # caches of the interpreter and of the libraries are filled
        use()
    gc.collect()
    gc.disable()
    for _ in range(uses):
        use()


if __name__ == "__main__":
    main()
