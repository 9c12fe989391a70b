"""Leases that were entered and never left: their uses end all the same."""

from __future__ import annotations

import gc

from ecs_discovery import Discovery
from ecs_discovery.client.aio.lease import AsyncLeaseContext
from ecs_discovery.client.sync.lease import LeaseContext
from ecs_discovery.core.lease import Lease


def test_a_lease_that_is_interrupted_before_it_is_made_is_dropped_in_silence():
    for kind in (LeaseContext, AsyncLeaseContext, Lease):
        kind.__new__(kind).__del__()


def test_a_lease_that_was_entered_and_dropped_is_no_use_any_more():
    with Discovery(services={"orders": "static://127.0.0.1:80"}) as discovery:
        node = discovery._driver.engine.service("orders").nodes[0]
        lease = discovery.lease("orders")
        lease.__enter__()
        assert node.pending == 1
        del lease
        gc.collect()
        with discovery.lease("orders"):
            assert node.pending == 1
        assert node.pending == 0
