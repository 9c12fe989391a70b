"""Events and snapshots: what is told."""

from __future__ import annotations

import threading

import pytest

from ecs_discovery import (
    ConnectError,
    Discovery,
)
from ecs_discovery.events import HealthChanged
from tests.client.support import dns_of
from tests.support import eventually
from tests.worlds import Worlds


def test_events_reach_the_hook_in_the_order_in_which_they_happened():
    """A hook is slow with the first, and another thread has the second to tell meanwhile."""
    told: list[str] = []
    first, second = threading.Event(), threading.Event()

    def hook(event: object) -> None:
        if isinstance(event, HealthChanged):
            if event.health == "down":
                first.set()
                second.wait(5)
            told.append(event.health)

    with Discovery(services={"orders": "static://127.0.0.1:1,127.0.0.1:2"}, on_event=hook) as discovery:
        engine, service = discovery._driver.engine, discovery._driver.engine.service("orders")
        node = service.nodes[0]
        failing = threading.Thread(target=engine.reconnected, args=(service, node, False))
        failing.start()
        assert first.wait(10)
        engine.reconnected(service, node, True)
        second.set()
        failing.join(10)
    assert told == ["down", "healthy"]


def test_a_hook_that_fails_does_not_break_the_request(world: Worlds, caplog: pytest.LogCaptureFixture):
    def hook(event):
        raise RuntimeError("broken hook")

    async def scenario(w):
        await w.resolve("orders:80")
        while "on_event hook failed" not in caplog.text:  # whoever lands the answer tells the hook
            await w.pause(0.001)

    world.run(scenario, dns=dns_of("10.0.0.1"), on_event=hook)


def test_snapshots_read_well_and_become_json():
    import json

    from ecs_discovery import Discovery

    with Discovery() as discovery:
        with pytest.raises(ConnectError):
            discovery.connect("static://127.0.0.1:1", timeout=1)
        snapshot = discovery.snapshot("static://127.0.0.1:1")
        assert "127.0.0.1:1 down (1 failed connect," in str(snapshot)
        assert json.loads(json.dumps(snapshot.as_dict()))["nodes"][0]["health"] == "down"
        eventually(lambda: not snapshot.panic)
