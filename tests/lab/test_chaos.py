"""`chaos`: what goes wrong, in which order, and that all is well afterwards."""

from __future__ import annotations

import threading
import time

import pytest
import requests

from ecs_discovery import wrap_session
from ecs_discovery.testing import Chaos, chaos
from ecs_discovery.testing.lab import Lab, TaskState
from tests.support import eventually


def played(seed: int) -> list[str]:
    with Lab(seed=1) as lab:
        lab.service("orders", tasks=3, ttl=0)
        with chaos(lab, seed=seed, every=0.01, kinds=["refuse", "reset", "errors", "slow", "kill", "scale"]) as seen:
            eventually(lambda: len(seen.seen) == 6)
        return [*seen.seen]  # in the order in which each came first


def test_each_kind_comes_once_before_any_comes_again_in_an_order_of_the_seed():
    assert sorted(played(1)) == [f"orders: {kind}" for kind in ("errors", "kill", "refuse", "reset", "scale", "slow")]
    assert played(1) == played(1)
    assert len({tuple(played(seed)) for seed in range(4)}) > 1


def test_all_is_well_after_the_block():
    with Lab(seed=1) as lab:
        orders = lab.service("orders", tasks=3, ttl=0)
        for kind in Chaos.KINDS:
            if "vanish" in kind and not lab.can_vanish:
                continue
            with chaos(lab, every=0.02, kinds=[kind]) as seen:
                eventually(lambda seen=seen: sum(seen.seen.values()) > 0)
            eventually(lambda: len([task for task in orders.tasks if task.state is TaskState.RUNNING]) == 3)
            assert not [task for task in orders.tasks if task.faults], kind
            assert lab.dns.fault is None, kind
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("chaos")]


def test_an_only_task_has_no_fault():
    with Lab(seed=1) as lab:
        lab.service("orders", tasks=1, ttl=0)
        with chaos(lab, every=0.01, kinds=["refuse", "kill", "scale"]) as seen:
            eventually(lambda: sum(seen.seen.values()) > 3)
        assert set(seen.seen) == {"orders: scale"}


def test_a_wrapped_session_loses_no_idempotent_request():
    with Lab(namespace="prod.local", seed=1) as lab:
        lab.service("orders", tasks=4, records="A+SRV", ttl=1, deregistration_lag=0.2)
        session = wrap_session(requests.Session(), namespace="prod.local", nameservers=[lab.nameserver])
        with chaos(lab, seed=1, every=0.5):
            until = time.monotonic() + 6
            while time.monotonic() < until:
                assert session.get("http://orders/").status_code == 200
                time.sleep(0.01)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"every": 0}, "every must be above 0"),
        ({"kinds": ["rain"]}, "a kind is one of"),
        ({"services": ["billing"]}, "services are orders; got 'billing'"),
    ],
)
def test_what_cannot_be_played_is_an_error(arguments: dict[str, object], said: str):
    with Lab(seed=1) as lab:
        lab.service("orders", tasks=2)
        with pytest.raises(ValueError, match=said), chaos(lab, **arguments):
            pass


def test_a_lab_without_services_is_an_error():
    with Lab(seed=1) as lab, pytest.raises(ValueError, match="make them first"), chaos(lab):
        pass
