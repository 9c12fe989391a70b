"""A pytest plugin for the test suites of other packages: each session is wrapped, and `localhost` is ours.

`python -m pytest -p ours` in a suite's folder. With `ECS_CONFORMANCE_PLAIN=1` nothing is wrapped, for comparison.
With `ECS_CONFORMANCE_ALL=1` every host name is ours, for suites that mock `example.com`.
`ECS_CONFORMANCE_NAMES` are hosts that a suite's fake sockets know.
At the end the outcomes are written as JSON to `ECS_CONFORMANCE_REPORT`, with the number of requests that went our way.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import requests

from ecs_discovery import Discovery, DnsPolicy, Endpoint, Question, Resolution, wrap_session
from ecs_discovery.config.settings import Settings
from ecs_discovery.config.targets import is_address
from ecs_discovery.integrations.requests import DiscoveryAdapter

PLAIN = bool(os.environ.get("ECS_CONFORMANCE_PLAIN"))
taken = 0
outcomes: dict[str, str] = {}


class ByName:
    """Leaves the name to the socket: a suite that fakes sockets knows names and no addresses."""

    def resolve(self, question: Question, timeout: float) -> Resolution:
        return Resolution((Endpoint(question.name, 0),), 60.0, "name")


def pytest_configure(config: pytest.Config) -> None:
    if PLAIN:
        return
    hosts = Path(tempfile.mkdtemp()) / "hosts"
    hosts.write_text("127.0.0.1 localhost\n", encoding="ascii")
    dns = DnsPolicy(hosts_file=str(hosts))
    discovery = Discovery(services={"localhost": "localhost"}, dns=dns)
    names = os.environ.get("ECS_CONFORMANCE_NAMES", "").split()
    if names:
        discovery = Discovery(services={each: f"byname://{each}" for each in names}, resolvers={"byname": ByName()})
    plain_init = requests.Session.__init__

    def init(self: requests.Session) -> None:
        plain_init(self)
        wrap_session(self, discovery)

    requests.Session.__init__ = init  # type: ignore[method-assign]
    plain_send = DiscoveryAdapter.send

    def send(self: Any, request: Any, **options: Any) -> Any:
        global taken
        taken += self._link.origins.owns(request.url)
        return plain_send(self, request, **options)

    DiscoveryAdapter.send = send  # type: ignore[method-assign]
    if os.environ.get("ECS_CONFORMANCE_ALL"):
        Settings.owns = lambda self, host: bool(host) and not is_address(host)  # type: ignore[method-assign]
    try:
        from pytest_httpbin import serve
    except ImportError:
        return
    serve.Server.url = property(lambda self: f"{self.protocol}://localhost:{self.port}")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    name = report.nodeid
    if report.failed or (report.when == "call" and name not in outcomes):
        outcomes[name] = report.outcome


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = os.environ.get("ECS_CONFORMANCE_REPORT")
    if path:
        Path(path).write_text(json.dumps({"taken": taken, "outcomes": outcomes}), encoding="utf-8")
