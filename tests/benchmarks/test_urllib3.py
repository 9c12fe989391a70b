"""A request of a `DiscoveryPoolManager` beside one of a plain manager, in one run."""

from __future__ import annotations

from typing import Any

import pytest
import urllib3

from ecs_discovery import Discovery
from ecs_discovery.integrations.urllib3 import DiscoveryPoolManager
from tests.benchmarks.test_requests import compare, lab

__all__ = ["lab"]

pytestmark = pytest.mark.benchmark


def test_a_keep_alive_get(lab: dict[str, Any], capsys: Any):
    with (
        Discovery(namespace=lab["namespace"], nameservers=[lab["nameserver"]]) as discovery,
        DiscoveryPoolManager(discovery) as ours,
        urllib3.PoolManager() as plain,
    ):
        compare(
            "urllib3: keep-alive GET",
            lambda: ours.request("GET", lab["url"]),
            lambda: plain.request("GET", f"http://{lab['tasks'][0]}/"),
            capsys,
        )
