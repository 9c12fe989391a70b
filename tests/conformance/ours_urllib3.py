"""A pytest plugin for urllib3's own test suite: each manager and each pool discovers, and `localhost` is ours.

`python -m pytest -p ours_urllib3` beside the suite. The other settings are those of the plugin `ours`.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import urllib3

from ecs_discovery import Discovery, DnsPolicy
from ecs_discovery.integrations._urllib3_exchange import PoolExchange
from ecs_discovery.integrations.urllib3 import DiscoveryPoolManager

PLAIN = bool(os.environ.get("ECS_CONFORMANCE_PLAIN"))
NAME = "localhost"
taken = 0
outcomes: dict[str, str] = {}


def pytest_configure(config: pytest.Config) -> None:
    if PLAIN:
        return
    hosts = Path(tempfile.mkdtemp()) / "hosts"
    hosts.write_text(f"127.0.0.1 {NAME}\n", encoding="ascii")

    class Manager(DiscoveryPoolManager):
        def __init__(self, num_pools: int = 10, headers: Any = None, **options: Any) -> None:
            # A discovery for each: what one test does to a port, the next is not to suffer from.
            discovery = Discovery(services={NAME: NAME}, dns=DnsPolicy(hosts_file=str(hosts)))
            super().__init__(discovery, num_pools=num_pools, headers=headers, **options)

    def pool_class(scheme: str, plain: Any) -> Any:
        names = ("timeout", "maxsize", "block", "headers", "retries")

        def pool_of(host: str, port: int | None = None, *args: Any, **options: Any) -> Any:
            if host != NAME:
                return plain(host, port, *args, **options)
            return Manager(**options, **dict(zip(names, args, strict=False))).connection_from_host(host, port, scheme)

        return pool_of

    urllib3.PoolManager = urllib3.poolmanager.PoolManager = Manager  # type: ignore[misc]
    urllib3._DEFAULT_POOL = Manager()  # type: ignore[attr-defined]
    urllib3.HTTPConnectionPool = pool_class("http", urllib3.HTTPConnectionPool)  # type: ignore[misc]
    urllib3.HTTPSConnectionPool = pool_class("https", urllib3.HTTPSConnectionPool)  # type: ignore[misc]
    plain_run = PoolExchange.run

    def run(self: Any) -> Any:
        global taken
        taken += 1
        return plain_run(self)

    PoolExchange.run = run  # type: ignore[method-assign]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    name = report.nodeid
    if report.failed or (report.when == "call" and name not in outcomes):
        outcomes[name] = report.outcome


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = os.environ.get("ECS_CONFORMANCE_REPORT")
    if path:
        Path(path).write_text(json.dumps({"taken": taken, "outcomes": outcomes}), encoding="utf-8")
