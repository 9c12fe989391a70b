"""What the core costs per call, at 4 and at 10,000 endpoints. Growth is what counts, not the machine."""

from __future__ import annotations

import pytest

from ecs_discovery import Discovery

pytestmark = pytest.mark.benchmark

SIZES = [4, 10_000]
ROUNDS = {"rounds": 100, "iterations": 1000, "warmup_rounds": 3}


def discovery_of(count: int) -> Discovery:
    addresses = ",".join(f"127.{n // 62500}.{n // 250 % 250}.{n % 250 + 1}:80" for n in range(count))
    return Discovery(services={"orders": f"static://{addresses}"})


@pytest.mark.parametrize("count", SIZES)
def test_cached_resolve(benchmark, count: int):
    discovery = discovery_of(count)
    benchmark.pedantic(discovery.resolve, ("orders",), **ROUNDS)


@pytest.mark.parametrize("count", SIZES)
def test_choice_alone(benchmark, count: int):
    """The picker's part of a pick, after uses have scattered what it reads over memory."""
    service = discovery_of(count)._driver.engine.service("orders")
    for _ in range(3 * count):
        service.release(service.pick(0.0))
    balancer = service._balancer
    benchmark.pedantic(balancer._only.pick, (balancer._rng, ()), **ROUNDS)


@pytest.mark.parametrize("count", SIZES)
def test_pick(benchmark, count: int):
    """Choosing, and beginning a use, under the service's lock."""
    discovery = discovery_of(count)
    service = discovery._driver.engine.service("orders")
    benchmark.pedantic(service.pick, (0.0,), **ROUNDS)


@pytest.mark.parametrize("count", SIZES)
def test_pick_with_a_third_of_the_endpoints_out_and_one_excluded(benchmark, count: int):
    from ecs_discovery.core.balancing.node import Outcome

    discovery = discovery_of(count)
    service = discovery._driver.engine.service("orders")
    for node in service.nodes[: count // 3]:
        node.health = type(node.health).DOWN
        node.state_ends_at = 1e9
    service.observe(service.nodes[0], Outcome.CONNECT, 0.0)
    exclude = [service.nodes[-1]]
    benchmark.pedantic(service.pick, (0.0, exclude), **ROUNDS)


@pytest.mark.parametrize("count", SIZES)
def test_lease(benchmark, count: int):
    discovery = discovery_of(count)

    def lease() -> None:
        with discovery.lease("orders"):
            pass

    benchmark.pedantic(lease, **ROUNDS)


@pytest.mark.parametrize("count", SIZES)
def test_call(benchmark, count: int):
    discovery = discovery_of(count)
    benchmark.pedantic(discovery.call, ("orders", lambda attempt: None), **ROUNDS)
