"""What a client keeps of tasks that are gone."""

from __future__ import annotations

import gc
import time
from typing import Any

from ecs_discovery import CachePolicy, DnsPolicy, wrap_client
from ecs_discovery.testing.lab import Lab
from tests.worlds import Worlds

TASKS, REPLACEMENTS = 2, 4


def kept(port: int | None) -> int:
    """The pools of connections that are still in memory, of tasks with this port."""
    gc.collect()
    pools = [each._pool for each in gc.get_objects() if type(each).__name__ == "EndpointTransport"]
    return sum(pool.facts.endpoint.port == port for pool in pools)


def test_a_client_keeps_no_pool_of_a_task_that_was_replaced(lab: Lab, library: Any, world: Worlds):
    """Idle connections ended with the tasks. A pool for each task that there ever was would be a leak."""
    service = lab.service("orders", tasks=TASKS, ttl=0)

    async def scenario(w: Any) -> None:
        is_async = w.name == "asyncio"
        client = wrap_client(library.AsyncClient() if is_async else library.Client(), w.discovery)

        async def get() -> str:
            found = client.get(service.url(), timeout=20)
            found = await found if is_async else found
            return str(found.headers["X-Task"])

        for _ in range(REPLACEMENTS):
            old = service.tasks
            new = {service.add_task().id for _ in old}
            until = time.monotonic() + 20
            while await get() not in new:  # until the name server was asked again
                assert time.monotonic() < until
                await w.pause(0.05)
            for task in old:
                service.kill(task)
            for _ in range(2 * TASKS):
                assert await get() in new
        # The tasks of now, and those before them, whose pools go with the next change.
        assert kept(service.port) <= 2 * TASKS
        if is_async:
            await client.aclose()
        else:
            client.close()

    asked = DnsPolicy(nameservers=(lab.nameserver,), families=("a",))
    world.run(scenario, namespace="prod.local", dnspolicy=asked, cache=CachePolicy(min_ttl=0.2))
