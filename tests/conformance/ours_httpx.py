"""A pytest plugin for httpx's own test suite: each client discovers, and the suite's server has a name.

`python -m pytest -p ours_httpx` beside the suite. The other settings are those of the plugin `ours`.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx
import pytest

from ecs_discovery import ConfigurationError, Discovery, DnsPolicy, ServiceConfig, wrap_client
from ecs_discovery.integrations._httpx.aio.exchange import AsyncHttpxExchange
from ecs_discovery.integrations._httpx.sync.exchange import HttpxExchange

PLAIN = bool(os.environ.get("ECS_CONFORMANCE_PLAIN"))
NAME = "server.test.internal"
taken = 0
outcomes: dict[str, str] = {}


def pytest_configure(config: pytest.Config) -> None:
    if PLAIN:
        return
    hosts = Path(tempfile.mkdtemp()) / "hosts"
    hosts.write_text(f"127.0.0.1 {NAME}\n", encoding="ascii")
    dns = DnsPolicy(hosts_file=str(hosts))
    services = {NAME: ServiceConfig(NAME, tls_name="localhost")}

    for kind in (httpx.Client, httpx.AsyncClient):
        plain_init = kind.__init__

        def init(self: Any, *args: Any, plain_init: Any = plain_init, **options: Any) -> None:
            plain_init(self, *args, **options)
            try:
                wrap_client(self, Discovery(services=services, dns=dns))
            except ConfigurationError:
                pass  # a transport of the suite's own

        kind.__init__ = init  # type: ignore[method-assign]

    plain_run, plain_run_in_task = HttpxExchange.run, AsyncHttpxExchange.run

    def run(self: Any) -> Any:
        global taken
        taken += 1
        return plain_run(self)

    async def run_in_task(self: Any) -> Any:
        global taken
        taken += 1
        return await plain_run_in_task(self)

    HttpxExchange.run = run  # type: ignore[method-assign]
    AsyncHttpxExchange.run = run_in_task  # type: ignore[method-assign]


def pytest_collection_finish(session: pytest.Session) -> None:
    server = next((getattr(each, "TestServer", None) for each in [*sys.modules.values()] if _is_conftest(each)), None)
    if PLAIN or server is None:
        return

    def url(self: Any) -> httpx.URL:
        scheme = "https" if self.config.is_ssl else "http"
        return httpx.URL(f"{scheme}://{NAME}:{self.config.port}/")

    server.url = property(url)


def _is_conftest(module: Any) -> bool:
    return str(getattr(module, "__file__", "")).endswith("tests/conftest.py")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    name = report.nodeid
    if report.failed or (report.when == "call" and name not in outcomes):
        outcomes[name] = report.outcome


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = os.environ.get("ECS_CONFORMANCE_REPORT")
    if path:
        Path(path).write_text(json.dumps({"taken": taken, "outcomes": outcomes}), encoding="utf-8")
