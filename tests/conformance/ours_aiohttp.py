"""A pytest plugin for aiohttp's own test suite: each session discovers, and each server of the suite has a name.

`python -m pytest -p ours_aiohttp` beside the suite. The other settings are those of the plugin `ours`.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import test_utils

from ecs_discovery import AsyncDiscovery, DnsPolicy, ServiceConfig
from ecs_discovery.integrations import aiohttp as ours
from ecs_discovery.integrations._aiohttp_exchange import AiohttpExchange

PLAIN = bool(os.environ.get("ECS_CONFORMANCE_PLAIN"))
taken = 0
outcomes: dict[str, str] = {}
NAME = "server.test.internal"


def pytest_configure(config: pytest.Config) -> None:
    if PLAIN:
        return
    hosts = Path(tempfile.mkdtemp()) / "hosts"
    hosts.write_text(f"127.0.0.1 {NAME}\n", encoding="ascii")
    dns = DnsPolicy(hosts_file=str(hosts))
    services = {NAME: ServiceConfig(NAME, tls_name="localhost")}
    plain_start = test_utils.BaseTestServer.start_server

    async def start_server(self: Any, *args: Any, **options: Any) -> None:
        await plain_start(self, *args, **options)
        if self._root is None or self._root.host != "127.0.0.1":
            return
        self._root = self._root.with_host(NAME)

    test_utils.BaseTestServer.start_server = start_server  # type: ignore[method-assign]
    plain_init = aiohttp.ClientSession.__init__

    def init(self: Any, *args: Any, **options: Any) -> None:
        connector = options.get("connector")
        if connector is None or type(connector) is aiohttp.TCPConnector:
            with_loop = {"loop": options["loop"]} if options.get("loop") else {}
            if connector is None:
                connector = aiohttp.TCPConnector(**with_loop)
            discovery = AsyncDiscovery(services=services, dns=dns)
            ours.DiscoveryConnector._find_services(connector, discovery, {})
            connector.__class__ = ours.DiscoveryConnector
            middlewares = (*options.get("middlewares", ()), ours._middleware(connector._routes))
            options = {**options, "connector": connector, "middlewares": middlewares}
            plain_init(self, *args, **options)
            self._retry_connection = False
            return
        plain_init(self, *args, **options)

    aiohttp.ClientSession.__init__ = init  # type: ignore[method-assign]
    plain_run = AiohttpExchange.run

    async def run(self: Any) -> Any:
        global taken
        taken += 1
        return await plain_run(self)

    AiohttpExchange.run = run  # type: ignore[method-assign]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    name = report.nodeid
    if report.failed or (report.when == "call" and name not in outcomes):
        outcomes[name] = report.outcome


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = os.environ.get("ECS_CONFORMANCE_REPORT")
    if path:
        Path(path).write_text(json.dumps({"taken": taken, "outcomes": outcomes}), encoding="utf-8")
