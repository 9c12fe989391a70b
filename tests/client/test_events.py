"""Events and snapshots: what is told."""

from __future__ import annotations

import json
import threading

import pytest

from ecs_discovery import (
    ConnectError,
    Discovery,
)
from ecs_discovery.events import EndpointsChanged, Event, HealthChanged, LookupFailed, PanicChanged, fields_of
from ecs_discovery.models import Endpoint
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


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        (
            HealthChanged("orders", Endpoint("10.0.0.1", 80), "ejected", "5 failures in a row", 5.0, "success_rate"),
            {
                "event": "health_changed", "target": "orders", "endpoint": "10.0.0.1:80", "health": "ejected",
                "reason": "5 failures in a row", "seconds": 5.0, "cause": "success_rate",
            },
        ),
        (
            EndpointsChanged("orders", (Endpoint("10.0.0.1", 80), Endpoint("10.0.0.2", 80)), "dns"),
            {"event": "endpoints_changed", "target": "orders", "endpoints": 2, "source": "dns"},
        ),
        (PanicChanged("orders", True), {"event": "panic_changed", "target": "orders", "panic": True}),
        (
            LookupFailed("orders", "SERVFAIL\nforged", 3),
            {"event": "lookup_failed", "target": "orders", "error": "SERVFAIL\\nforged", "endpoints_kept": 3},
        ),
    ],
)  # fmt: skip
def test_a_log_record_has_the_values_of_its_event_for_machines(event: Event, fields: dict[str, object]):
    found = fields_of(event)
    assert found == {f"ecs_discovery_{name}": value for name, value in fields.items()}
    json.dumps(found)


def test_every_event_that_is_logged_carries_its_fields(caplog: pytest.LogCaptureFixture):
    with caplog.at_level("INFO"), Discovery(services={"orders": "static://127.0.0.1:1,127.0.0.1:2"}) as discovery:
        engine = discovery._driver.engine
        service = engine.service("orders")
        engine.reconnected(service, service.nodes[0], False)
    (record,) = [each for each in caplog.records if getattr(each, "ecs_discovery_event", "") == "health_changed"]
    assert record.ecs_discovery_endpoint == "127.0.0.1:1"  # type: ignore[attr-defined]
    assert record.ecs_discovery_cause == "connect"  # type: ignore[attr-defined]


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
