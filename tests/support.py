"""Builders and fakes that several tests use."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ecs_discovery.config.policies import BalancingPolicy, OutlierPolicy, RetryPolicy, TimeoutPolicy, ZonePolicy
from ecs_discovery.config.targets import parse_target
from ecs_discovery.core.balancing.health_checks import Checks
from ecs_discovery.core.balancing.node import Node
from ecs_discovery.core.resolution.questions import plan
from ecs_discovery.core.service import Service
from ecs_discovery.models import Endpoint, Question, Resolution
from ecs_discovery.testing.clock import Clock as FakeClock

__all__ = [
    "FakeClock",
    "FakeResolver",
    "a",
    "aaaa",
    "answer",
    "endpoints",
    "eventually",
    "nodes",
    "raw",
    "service_of",
    "srv",
]


def endpoints(count: int, *, port: int = 80, priority: int = 0, first: int = 1) -> tuple[Endpoint, ...]:
    return tuple(
        Endpoint(f"10.0.{number // 256}.{number % 256}", port, priority) for number in range(first, first + count)
    )


def nodes(count: int) -> tuple[Node, ...]:
    return tuple(map(Node, endpoints(count)))


def answer(*hosts: str, port: int = 0, ttl: float = 10.0, source: str = "dns") -> Resolution:
    return Resolution(tuple(Endpoint(host, port) for host in hosts), ttl, source)


def service_of(
    target: str = "orders:80",
    *,
    static: Sequence[Endpoint] = (),
    default_port: int | None = None,
    sources: Sequence[str] | None = None,
    rng: Callable[[], float] = lambda: 0.5,
    now: float = 1000.0,
    schemes: Sequence[str] = (),
    **policies: Any,
) -> Service:
    parsed = parse_target(target)
    row = [parse_target(source) for source in sources] if sources is not None else [parsed]
    groups = plan(row, port=parsed.port, default_port=default_port, families=("a", "aaaa"), schemes=schemes)
    return Service(
        target,
        () if static else groups,
        static,
        balancing=policies.get("balancing", BalancingPolicy()),
        outlier=policies.get("outlier", OutlierPolicy()),
        retry=policies.get("retry", RetryPolicy()),
        timeout=policies.get("timeout", TimeoutPolicy()),
        zone=policies.get("zone", ZonePolicy()),
        hedge=policies.get("hedge"),
        checks=Checks(policies["health_check"], "", rng) if "health_check" in policies else None,
        tls_name=parsed.name,
        hint=None,
        rng=rng,
        now=now,
    )


def a(name: str = "orders") -> Question:
    return Question("a", name)


def aaaa(name: str = "orders") -> Question:
    return Question("aaaa", name)


def srv(name: str = "orders") -> Question:
    return Question("srv", name)


@dataclass
class FakeResolver:
    """Answers by question, sync and async: a `Resolution`, an exception, or a function that gives one."""

    answers: dict[Question, Any] = field(default_factory=dict)
    asked: list[Question] = field(default_factory=list)

    def resolve(self, question: Question, timeout: float) -> Resolution:
        self.asked.append(question)
        found = self.answers[question]
        if callable(found) and not isinstance(found, Exception):
            found = found()
        if isinstance(found, Exception):
            raise found
        assert isinstance(found, Resolution)
        return found


def eventually(condition: Callable[[], object], *, within: float = 10.0) -> None:
    """Wait until `condition()` holds; fail if it does not within real seconds."""
    until = time.monotonic() + within
    while not condition():
        if time.monotonic() > until:
            raise AssertionError(f"not within {within} s: {condition}")
        time.sleep(0.005)


@contextmanager
def raw(answer: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A server that reads what comes and sends these bytes, for `static://`, and what it has read."""
    found: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                kept.append(connection)
                found.append(connection.recv(65536))
                connection.sendall(answer)

        kept: list[socket.socket] = []
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}", found
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)
            for connection in kept:
                connection.close()
