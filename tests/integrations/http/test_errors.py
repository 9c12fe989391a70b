"""What the error of a call says of its attempts."""

from __future__ import annotations

import pytest

from ecs_discovery.config.policies import RetryPolicy
from ecs_discovery.core.balancing.node import Node
from ecs_discovery.core.calls.budget import RetryBudget
from ecs_discovery.core.calls.call import Call
from ecs_discovery.core.calls.failure_kinds import Fault
from ecs_discovery.integrations.http.errors import of_call
from ecs_discovery.models import Endpoint


@pytest.mark.parametrize(
    ("hosts", "number", "said"),
    [
        ((1,), 1, "failed after 1 attempt: "),
        ((1, 2), 2, "failed after 2 attempts: "),
        ((1, 1, 2), 2, "failed after 2 attempts: "),  # one endpoint was connected to twice
        ((1, 2, 3), 2, "failed after 2 attempts on 3 endpoints: "),
    ],
)
def test_connects_that_raced_are_told_as_endpoints_and_not_as_attempts(hosts: tuple[int, ...], number: int, said: str):
    policy = RetryPolicy()
    call = Call("orders:80", policy, RetryBudget(policy, 0.0), 10.0, 5.0, True)
    nodes = [Node(Endpoint(f"10.0.0.{host}", 80)) for host in hosts]
    for attempt in range(number):
        call.start_attempt(nodes[attempt])
    for node in nodes:
        call.report(node, "connect", "connect", 0.0, 1.0, "refused")
    assert of_call(call, Fault.CONNECT, timed_out=False).message.startswith(said)
