"""OpenTelemetry's metrics, through the real SDK."""

from __future__ import annotations

import gc
from random import Random
from typing import Any

import pytest
from opentelemetry.metrics._internal import _ProxyMeterProvider
from opentelemetry.sdk.metrics import MeterProvider

from ecs_discovery import ConfigurationError, Discovery, RetryPolicy
from ecs_discovery.client import engine as engines
from ecs_discovery.events import CallStarted, Idle
from ecs_discovery.telemetry import _metrics, opentelemetry
from ecs_discovery.telemetry._totals import Totals
from ecs_discovery.telemetry.opentelemetry import Instrumentor, OpenTelemetry, instrument
from ecs_discovery.testing.lab import Lab
from tests.client.support import NODATA, THREE
from tests.collected import Collected, collected
from tests.support import FakeResolver, a, aaaa, answer, srv
from tests.worlds import Worlds, world

__all__ = ["collected", "world"]


def reset() -> ConnectionResetError:
    return ConnectionResetError(104, "reset")


def failing(times: int) -> Any:
    left = [reset() for _ in range(times)]

    def fetch(attempt: Any) -> int:
        if left:
            raise left.pop()
        return attempt.port  # type: ignore[no-any-return]

    return fetch


def test_a_call_and_its_attempts_are_durations_of_the_target(world: Worlds, collected: Collected):
    async def scenario(w: Any) -> None:
        await w.call("orders", failing(1), idempotent=True)
        (call,) = collected.points("call.duration").items()
        assert call == (frozenset({("server.address", "orders")}), 1)
        assert collected.total("attempt.duration") == 2
        assert collected.total("attempt.duration", error__type="ConnectionResetError") == 1
        with pytest.raises(ConnectionResetError):
            await w.call("orders", failing(9))
        assert collected.total("call.duration", error__type="ConnectionResetError") == 1

    world.run(scenario, services={"orders": THREE}, telemetry=OpenTelemetry(collected.provider))


def test_states_and_counts_are_read_when_they_are_collected(world: Worlds, collected: Collected):
    async def scenario(w: Any) -> None:
        await w.call("orders:8080", failing(1), idempotent=True)
        target = {"server__address": "orders", "server__port": 8080}
        assert collected.total("endpoint.count", ecs_discovery__endpoint__state="healthy", **target) == 3
        assert collected.total("endpoint.changes", ecs_discovery__change="added", **target) == 3
        assert collected.total("retries", ecs_discovery__retry__reason="closed", **target) == 1
        assert collected.total("endpoint.coverage") == 1.0
        assert collected.total("panic") == 0
        assert collected.total("attempt.active") == 0
        assert collected.total("retry_budget.balance") > 1
        with pytest.raises(ConnectionResetError):
            await w.call("orders:8080", failing(9), idempotent=False)
        assert collected.total("retries_denied", ecs_discovery__retry__denied_by="not_idempotent") == 1

    services = {"orders": THREE}
    world.run(scenario, services=services, telemetry=OpenTelemetry(collected.provider, durations=False))


def test_lookups_and_connects_are_durations(world: Worlds, collected: Collected):
    with Lab(seed=7) as lab:
        task = lab.service("orders", tasks=1).tasks[0]

        async def scenario(w: Any) -> None:
            await w.connect(f"orders:{task.port}")
            assert collected.total("lookup.duration", ecs_discovery__source="a") == 1
            assert collected.total("lookup.duration", error__type="NoEndpoints") >= 1
            assert collected.total("connect.duration", server__address="orders") == 1
            (age,) = collected.points("resolution.age").values()
            assert 0 <= age < 30

        answers = {a(): answer(task.address), aaaa(): NODATA, srv(): NODATA}
        world.run(scenario, dns=FakeResolver(answers), telemetry=OpenTelemetry(collected.provider))


def test_what_is_exported_adds_up(world: Worlds, collected: Collected):
    """Attempts are calls and what followed them, whatever went wrong."""
    chance = Random(5)

    async def scenario(w: Any) -> None:
        def fetch(attempt: Any) -> None:
            drawn = chance.random()
            if drawn < 0.15:
                raise reset()
            if drawn < 0.2:
                raise ValueError("no matter of connections")

        for _ in range(400):
            try:
                await w.call("orders", fetch, idempotent=chance.random() < 0.8)
            except (OSError, ValueError):
                pass
        followed = collected.total("retries") + collected.total("hedges")
        assert followed > 20
        assert collected.total("call.duration") == 400
        assert collected.total("attempt.duration") == 400 + followed

    telemetry = OpenTelemetry(collected.provider)
    world.run(scenario, services={"orders": THREE}, telemetry=telemetry, retry=RetryPolicy(budget=1.0))


def test_no_address_of_an_endpoint_is_told(collected: Collected):
    telemetry = OpenTelemetry(collected.provider)
    with Discovery(services={"orders": THREE}, telemetry=telemetry) as discovery:
        discovery.call("orders", failing(2), idempotent=True)
        names = [name for name, *_ in (*_metrics._COUNTERS, *_metrics._SUMS, *_metrics._GAUGES)]
        for name in (*names, "call.duration", "attempt.duration", "lookups"):
            assert "127.0.0" not in repr(collected.points(name)), name


def test_without_durations_no_call_is_observed(collected: Collected):
    telemetry = OpenTelemetry(collected.provider, durations=False, spans=False)
    with Discovery(services={"orders": THREE}, telemetry=telemetry) as found:
        assert found._engine.observers is None
        found.call("orders", failing(0))
        assert collected.points("call.duration") == {}


def test_without_an_sdk_no_call_is_told_for_a_second():
    telemetry = OpenTelemetry(_ProxyMeterProvider())  # what the API has until a program sets a provider
    assert telemetry._metrics.call_started(CallStarted("call", "orders", "")) == Idle(1.0)
    now = 100.0
    with Discovery(services={"orders": THREE}, telemetry=telemetry, clock=lambda: now) as discovery:
        assert discovery._engine.observed("call", "orders", now) is None
        observers = discovery._engine.observers
        assert observers is not None
        assert observers.idle_until == 101.0


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """`instrument` holds for this test only."""
    monkeypatch.setattr(engines, "_everywhere", [])
    monkeypatch.setattr(opentelemetry, "_everywhere", [])


def test_instrument_is_for_all_discoveries_of_the_process_and_counts_once(everywhere: None, collected: Collected):
    with Discovery(services={"orders": THREE}) as before:
        first = instrument(collected.provider)
        assert instrument() is first
        Instrumentor().instrument(meter_provider=collected.provider)
        with Discovery(services={"users": THREE}, telemetry=first) as after:
            before.call("orders", failing(0))
            after.call("users", failing(0))
            assert collected.total("call.duration", server__address="orders") == 1
            assert collected.total("call.duration", server__address="users") == 1


def test_two_discoveries_with_telemetry_of_their_own_are_both_read(collected: Collected):
    with (
        Discovery(services={"orders": THREE}, telemetry=OpenTelemetry(collected.provider)) as first,
        Discovery(services={"users": THREE}, telemetry=OpenTelemetry(collected.provider)) as second,
    ):
        first.call("orders", failing(1), idempotent=True)
        second.call("users", failing(1), idempotent=True)
        for name in ("orders", "users"):
            assert collected.total("endpoint.count", server__address=name) == 3
            assert collected.total("retries", server__address=name) == 1
            assert collected.total("call.duration", server__address=name) == 1


def test_the_provider_of_the_process_has_one_set_of_instruments_however_it_is_named(
    collected: Collected, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(_metrics, "get_meter_provider", lambda: collected.provider)
    made = _metrics.metrics_of("1", None)
    assert _metrics.metrics_of("1", collected.provider) is made
    assert _metrics.metrics_of("1", MeterProvider()) is not made


def test_a_discovery_with_telemetry_of_its_own_is_not_told_twice_where_all_are_instrumented(
    everywhere: None, collected: Collected
):
    with Discovery(services={"users": THREE}, telemetry=OpenTelemetry(collected.provider)) as before:
        instrument(collected.provider)
        with Discovery(services={"orders": THREE}, telemetry=OpenTelemetry(collected.provider)) as after:
            after.call("orders", failing(0))
            before.call("users", failing(0))
            assert collected.total("call.duration", server__address="orders") == 1
            assert collected.total("call.duration", server__address="users") == 1
            assert after._engine.observers is not None
            assert len(after._engine.observers.each) == len(before._engine.observers.each) == 2  # type: ignore[union-attr]


def test_a_discovery_that_is_dropped_is_told_no_more(collected: Collected):
    telemetry = OpenTelemetry(collected.provider)
    discovery = Discovery(services={"orders": THREE}, telemetry=telemetry)
    discovery.call("orders", failing(0))
    assert collected.total("endpoint.count") == 3
    discovery.close()
    del discovery
    assert len(telemetry._metrics._engines) <= 1  # nothing but the collector holds it
    gc.collect()
    assert collected.points("endpoint.count") == {}


def test_a_counter_does_not_fall_when_a_discovery_is_dropped(collected: Collected):
    telemetry = OpenTelemetry(collected.provider)
    with Lab(seed=7) as lab:
        target = f"orders:{lab.service('orders', tasks=2).port}"
        seen = 0
        for number in range(1, 4):
            discovery = Discovery(namespace=lab.namespace, nameservers=[lab.nameserver], telemetry=telemetry)
            discovery.call(target, failing(1), idempotent=True)
            discovery.close()
            assert collected.total("retries") == number
            assert collected.total("lookups") > seen
            seen = collected.total("lookups")
            del discovery
            gc.collect()
            for _ in range(2):
                assert collected.total("retries") == number
                assert collected.total("lookups") >= seen  # a lookup may still be in flight


def test_a_part_that_dies_while_it_is_looked_at_stays_in_the_sum():
    class Part:
        pass

    part, other, totals = Part(), Part(), Totals()
    assert totals.add([(part, "a", 5), (other, "a", 3)]) == {"a": 8}

    def found():
        nonlocal part
        yield other, "a", 3
        del part
        gc.collect()

    assert totals.add(found()) == {"a": 8}
    assert totals.add([(other, "a", 4)]) == {"a": 9}


def test_a_counter_begins_at_zero_in_the_child_of_a_fork(collected: Collected):
    telemetry = OpenTelemetry(collected.provider)
    discovery = Discovery(services={"orders": THREE}, telemetry=telemetry)
    discovery.call("orders", failing(1), idempotent=True)
    assert collected.total("retries") == 1
    discovery.close()
    del discovery
    gc.collect()
    assert collected.total("retries") == 1
    telemetry._metrics.after_fork()
    assert collected.total("retries") == 0


@pytest.mark.parametrize(
    "bad", [{"meter_provider": "otlp"}, {"tracer_provider": "otlp"}, {"durations": "no"}, {"spans": "no"}]
)
def test_bad_input_is_refused_at_construction(bad: dict[str, Any]):
    with pytest.raises(ConfigurationError):
        OpenTelemetry(**bad)
    with pytest.raises(ConfigurationError, match="telemetry"):
        Discovery(telemetry=bad)  # type: ignore[arg-type]
