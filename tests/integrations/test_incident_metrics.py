"""The metrics of an incident add up, in threads and in asyncio."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ecs_discovery import OutlierPolicy, RetryPolicy
from ecs_discovery.telemetry.opentelemetry import OpenTelemetry
from ecs_discovery.testing.lab import Lab, LabTask
from tests.collected import Collected, collected
from tests.integrations.clients import ClientUnderTest, aiohttp, requests
from tests.integrations.playing import Play, lab, name_of, play, url_of

__all__ = ["collected", "lab", "play"]


@pytest.mark.parametrize("kind", [*requests.CLIENTS, *aiohttp.CLIENTS], ids=name_of)
def test_the_metrics_of_an_incident_add_up(lab: Lab, play: Play, collected: Collected):
    """A task is killed, another answers 503, a third vanishes, and a deployment replaces them all."""
    service = lab.service("orders", tasks=4, ttl=0.5)
    requests = 0

    async def scenario(client: ClientUnderTest, w: Any) -> None:
        async def send(count: int) -> None:
            nonlocal requests
            for _ in range(count):
                requests += 1
                assert (await client.send("GET", url_of(service), connect=1.0)).status == 200

        def well() -> LabTask:
            return next(task for task in service.tasks if not task.faults)

        async def send_until(name: str, least: int, **having: Any) -> None:
            until = time.monotonic() + 15
            while collected.total(name, **having) < least and time.monotonic() < until:
                await send(3)

        refused = {"ecs_discovery__ejection__cause": "connect"}
        await send(20)
        service.kill(well())
        service.add_task()
        await send_until("endpoint.ejections", 1, **refused)
        failing = well()
        failing.errors(503)
        await send_until("endpoint.pushbacks", 1)
        failing.heal()
        silent = well()
        silent.vanish()
        await send_until("endpoint.ejections", 2, **refused)
        service.kill(silent)
        service.add_task()
        deployment = service.deploy(interval=1.0, stop="kill", background=True)
        while not deployment.done:
            await send(1)
            await w.pause(0.02)
        deployment.wait()
        await send_until("endpoint.changes", 4, ecs_discovery__change="removed")

        followed = collected.total("retries") + collected.total("hedges")
        assert collected.total("call.duration") == requests
        assert collected.total("attempt.duration") == requests + followed
        assert followed >= 2
        assert collected.total("attempt.duration", http__response__status_code=200) == requests
        answered_503 = collected.total("attempt.duration", http__response__status_code=503)
        assert answered_503 == collected.total("retries", ecs_discovery__retry__reason="status") >= 1
        assert collected.total("endpoint.ejections", **refused) >= 2
        assert collected.total("endpoint.pushbacks") >= 1
        assert collected.total("retries_denied") == 0
        assert collected.total("connects") >= 4
        assert collected.total("connects", error__type="connect") >= 1
        added = collected.total("endpoint.changes", ecs_discovery__change="added")
        removed = collected.total("endpoint.changes", ecs_discovery__change="removed")
        assert added - removed == collected.total("endpoint.count")
        assert collected.total("attempt.active") == 0

    telemetry = OpenTelemetry(collected.provider, spans=False)
    retry = RetryPolicy(backoff_min=0.001, backoff_max=0.002, budget=1.0)
    play(scenario, telemetry=telemetry, retry=retry, outlier=OutlierPolicy())
