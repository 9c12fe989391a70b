"""What one hostile answer of DNS costs a discovery, all in all: queries, time, memory and lines of the log."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ecs_discovery import DnsPolicy
from ecs_discovery.errors import LINE, ResolutionError
from tests.fuzz.messages import KINDS
from tests.worlds import Worlds, world

__all__ = ["world"]


class Server:
    """Says over UDP to ask over TCP, where it gives one answer to what is asked about `orders.prod.local`."""

    def __init__(self, answer: bytes) -> None:
        self.queries = 0
        self._answer = answer
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        while True:  # the same port has to be free for both
            self._tcp = socket.create_server(("127.0.0.1", 0))
            try:
                self._udp.bind(self._tcp.getsockname())
                break
            except OSError:
                self._tcp.close()
        self.address = f"127.0.0.1:{self._udp.getsockname()[1]}"

    @contextmanager
    def running(self) -> Iterator[Server]:
        threads = [threading.Thread(target=each) for each in (self._datagrams, self._streams)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wake:
                wake.sendto(b"", self._udp.getsockname())
            self._tcp.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()
            self._udp.close()
            self._tcp.close()

    def _datagrams(self) -> None:
        while True:
            wire, peer = self._udp.recvfrom(65_535)
            if not wire:
                return
            self.queries += 1
            if wire[12:19] == b"\x06orders":
                self._udp.sendto(wire[:2] + b"\x83\x80" + wire[4:6] + b"\0" * 6 + wire[12 : 12 + 23], peer)

    def _streams(self) -> None:
        while True:
            try:
                connection, _ = self._tcp.accept()
            except OSError:
                return
            with connection:
                wire = connection.recv(65_535)[2:]
                self.queries += 1
                answer = wire[:2] + self._answer[2:31] + wire[31:33] + self._answer[33:]
                connection.sendall(len(answer).to_bytes(2, "big") + answer)


@pytest.mark.parametrize("kind", KINDS)
def test_a_hostile_answer_costs_a_discovery_little(kind: str, world: Worlds, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG, "ecs_discovery")
    target = "srv://orders.prod.local" if kind == "services" else "dns://orders.prod.local:80"

    told: list[str] = []

    async def scenario(w):
        try:
            assert len((await w.resolve(target, timeout=5)).endpoints) <= 2000
        except ResolutionError as error:
            told.append(str(error))

    with Server(KINDS[kind]()).running() as server:
        policy = DnsPolicy(
            nameservers=(server.address,), hosts_file="", families=("a",), timeout=1.5, query_timeout=0.3
        )
        world.run(scenario, dnspolicy=policy)

    assert all(text.isprintable() and len(text) < 1500 for text in told)
    assert server.queries <= 256
    assert len(caplog.records) <= 2
    assert all(len(record.getMessage()) <= LINE for record in caplog.records)
