"""One state in several worlds and event loops."""

from __future__ import annotations

import asyncio
import gc

import pytest
from tenacity import AsyncRetrying

from ecs_discovery import (
    AsyncDiscovery,
    ClosedError,
    ConfigurationError,
    Discovery,
)
from ecs_discovery.client.aio.shared import shared_async_discovery
from ecs_discovery.client.sync.shared import shared_discovery
from ecs_discovery.config.settings import Settings
from ecs_discovery.models import Question, Resolution
from tests.client.support import dns_of
from tests.support import FakeClock, a, answer


def test_asyncio_and_threads_can_share_what_is_known():
    import asyncio

    from ecs_discovery import AsyncDiscovery, Discovery

    dns = dns_of("10.0.0.1")
    with Discovery() as discovery:
        discovery._driver.background.asker.dns = dns
        discovery.resolve("orders:80")

        async def main():
            async with AsyncDiscovery(share=discovery) as shared:
                assert (await shared.resolve("orders:80")).endpoints[0].host == "10.0.0.1"
                async with shared.lease("orders:80"):
                    assert discovery.snapshot("orders:80").nodes[0].pending == 1
            with pytest.raises(ClosedError):
                await shared.resolve("orders:80")

        asyncio.run(main())
        assert dns.asked.count(a()) == 1
        discovery.resolve("orders:80")
        with pytest.raises(ConfigurationError, match="share"):
            AsyncDiscovery(share=discovery, namespace="prod.local")


@pytest.mark.parametrize("scheme", ["inventory", "cloudmap"])
def test_what_is_shared_is_looked_up_by_the_resolvers_of_the_shared_discovery(scheme: str):
    class Inventory:
        def __init__(self) -> None:
            self.asked: list[str] = []
            self.forgotten: list[str] = []

        def resolve(self, question: Question, timeout: float) -> Resolution:
            self.asked.append(question.name)
            return answer("10.0.0.1", port=80)

        def forget(self, question: Question) -> None:
            self.forgotten.append(question.name)

    inventory, own = Inventory(), Inventory()
    target = f"{scheme}://prod/orders"
    question = Question(scheme, "prod/orders")

    async def main(discovery: Discovery) -> None:
        async with AsyncDiscovery(share=discovery) as shared:
            assert (await shared.resolve(target)).endpoints[0].host == "10.0.0.1"
            shared._driver.background.ask(question, force=True)
            while len(inventory.asked) < 2:
                await asyncio.sleep(0.01)
        async with AsyncDiscovery(share=discovery, resolvers={scheme: own}) as shared:
            shared._driver.background.ask(question, force=True)
            while not own.asked:
                await asyncio.sleep(0.01)

    with Discovery(resolvers={scheme: inventory}) as discovery:
        asyncio.run(asyncio.wait_for(main(discovery), 10))
    assert (inventory.asked, inventory.forgotten) == (["prod/orders"] * 2, ["prod/orders"])
    assert (own.asked, own.forgotten) == (["prod/orders"], ["prod/orders"])


def test_one_async_discovery_serves_several_loops_one_after_another():
    import asyncio

    from ecs_discovery import AsyncDiscovery
    from tests.worlds import AsyncResolverOf

    clock, dns = FakeClock(), dns_of("10.0.0.1")
    discovery = AsyncDiscovery(clock=clock)
    discovery._driver.background.asker.dns = AsyncResolverOf(dns)
    for _ in range(3):
        found = asyncio.run(discovery.resolve("orders:80"))
        assert found.endpoints[0].host == "10.0.0.1"
        clock.advance(100)
    assert dns.asked.count(a()) == 3


def default_of(**arguments: object) -> AsyncDiscovery:
    return shared_async_discovery(Settings.make(**arguments))  # type: ignore[arg-type]


def test_the_default_of_asyncio_shares_the_state_of_the_default_of_threads():
    settings = Settings.make(namespace="shared.test")
    assert shared_async_discovery(settings)._driver.engine is shared_discovery(settings)._driver.engine
    assert shared_async_discovery(Settings.make(namespace="shared.test")) is shared_async_discovery(settings)
    assert default_of(namespace="other.test") is not shared_async_discovery(settings)


@pytest.mark.parametrize("ends", ["asyncio", "threads"])
def test_a_default_that_was_closed_is_made_anew(ends: str):
    settings = Settings.make(namespace=f"closed-by-{ends}.test")
    first = shared_async_discovery(settings)
    if ends == "asyncio":
        asyncio.run(first.aclose())
    else:
        shared_discovery(settings).close()
    assert shared_async_discovery(settings) is not first
    assert shared_async_discovery(settings)._driver.engine is shared_discovery(settings)._driver.engine


def test_a_default_of_asyncio_keeps_the_default_of_threads_that_it_shares():
    settings = Settings.make(namespace="kept.test")
    found = shared_async_discovery(settings)
    for number in range(100):
        shared_discovery(Settings.make(namespace=f"other-{number}.test"))
    gc.collect()
    assert shared_discovery(settings)._driver.engine is found._driver.engine


def test_a_policy_for_asyncio_alone_has_a_default_of_its_own():
    assert default_of(namespace="prod.local", retry=AsyncRetrying()).settings.retry.tenacity is not None
