"""The own zone, from the task metadata endpoint to the choice of an endpoint, in threads and asyncio."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from ecs_discovery import Endpoint, Resolution, ZonePolicy
from tests.worlds import Worlds, world

__all__ = ["world"]


class Zoned:
    """Three endpoints in each of two zones."""

    def resolve(self, question, timeout) -> Resolution:
        fleet = [Endpoint(f"10.0.0.{n}", 80, zone="eu-west-1a" if n < 4 else "eu-west-1b") for n in range(1, 7)]
        return Resolution(tuple(fleet), 30.0, "file")


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The requests that a task metadata endpoint got."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"TaskARN": "arn", "AvailabilityZone": "eu-west-1b"}).encode())

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("ECS_CONTAINER_METADATA_URI_V4", f"http://127.0.0.1:{server.server_port}/v4/abc")
    yield asked
    server.shutdown()
    thread.join()
    server.server_close()


async def zones(w, uses: int = 12) -> set[str | None]:
    found = set()
    for _ in range(uses):
        async with w.lease("file://orders") as lease:
            found.add(lease.endpoint.zone)
    return found


def test_a_preferred_zone_is_asked_for_once_and_kept_to(world: Worlds, metadata: list[str]):
    async def scenario(w) -> None:
        await w.resolve("file://orders")
        while await zones(w, 3) != {"eu-west-1b"}:
            await w.pause(0.01)
        assert await zones(w) == {"eu-west-1b"}

    world.run(scenario, resolvers={"file": Zoned()}, zone=ZonePolicy(prefer=True))
    assert len(metadata) == 1


def test_without_the_preference_nobody_is_asked(world: Worlds, metadata: list[str]):
    async def scenario(w) -> None:
        assert await zones(w, 30) == {"eu-west-1a", "eu-west-1b"}

    world.run(scenario, resolvers={"file": Zoned()})
    assert metadata == []


def test_a_zone_that_cannot_be_told_is_a_warning_and_all_are_used(
    world: Worlds, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.delenv("ECS_CONTAINER_METADATA_URI_V4", raising=False)

    async def scenario(w) -> None:
        await w.resolve("file://orders")
        while "ZonePolicy(own=" not in caplog.text:
            await w.pause(0.01)
        assert await zones(w, 30) == {"eu-west-1a", "eu-west-1b"}

    with caplog.at_level(logging.WARNING, "ecs_discovery"):
        world.run(scenario, resolvers={"file": Zoned()}, zone=ZonePolicy(prefer=True))
