"""`chaos`: what goes wrong, in which order, and that all is well afterwards."""

from __future__ import annotations

import threading
import time

import pytest
import requests

from ecs_discovery import CachePolicy, Discovery, wrap_session
from ecs_discovery.testing import Chaos, chaos
from ecs_discovery.testing.lab import Lab, LabService, LabTask, TaskState
from tests.support import eventually

SIX = ("errors", "kill", "refuse", "reset", "scale", "slow")


def played(seed: int) -> list[str]:
    with Lab(seed=1) as lab:
        lab.service("orders", tasks=3, ttl=0)
        with chaos(lab, seed=seed, every=0.01, settle=0, kinds=SIX) as seen:
            eventually(lambda: len(seen.seen) == 6)
        return [*seen.seen]  # in the order in which each came first


def test_each_kind_comes_once_before_any_comes_again_in_an_order_of_the_seed():
    assert sorted(played(1)) == [f"orders: {kind}" for kind in SIX]
    assert played(1) == played(1)
    assert len({tuple(played(seed)) for seed in range(4)}) > 1


def test_all_is_well_after_the_block():
    with Lab(seed=1) as lab:
        orders = lab.service("orders", tasks=3, ttl=0)
        for kind in Chaos.KINDS:
            if "vanish" in kind and not lab.can_vanish:
                continue
            with chaos(lab, every=0.02, settle=0, kinds=[kind]) as seen:
                eventually(lambda seen=seen: sum(seen.seen.values()) > 0)
            eventually(lambda: len([task for task in orders.tasks if task.state is TaskState.RUNNING]) == 3)
            assert not [task for task in orders.tasks if task.faults], kind
            assert lab.dns.fault is None, kind
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("chaos")]


def test_an_only_task_has_no_fault():
    with Lab(seed=1) as lab:
        lab.service("orders", tasks=1, ttl=0)
        with chaos(lab, every=0.01, settle=0, kinds=["refuse", "kill", "scale"]) as seen:
            eventually(lambda: sum(seen.seen.values()) > 3)
        assert set(seen.seen) == {"orders: scale"}


def test_a_wrapped_session_loses_no_idempotent_request():
    with Lab(namespace="prod.local", seed=1) as lab:
        for name in ("orders", "users"):
            lab.service(name, tasks=2, records="A+SRV", ttl=1, deregistration_lag=0.2)
        cache = CachePolicy(min_ttl=0, jitter=0)
        discovery = Discovery(namespace="prod.local", nameservers=[lab.nameserver], cache=cache)
        session = wrap_session(requests.Session(), discovery)
        with discovery, chaos(lab, seed=1, every=0.5, settle=1.3) as seen:
            until = time.monotonic() + 8
            while time.monotonic() < until:
                for name in ("orders", "users"):
                    assert session.get(f"http://{name}/").status_code == 200, seen
                time.sleep(0.01)


def test_a_fault_of_dns_and_a_change_of_tasks_never_come_together():
    with Lab(seed=1) as lab:
        for name in ("orders", "users"):
            lab.service(name, tasks=2, ttl=0)
        found = set[bool]()
        changed = LabService.kill

        def kill(service: LabService, task: LabTask) -> None:
            found.add(lab.dns.fault is None)
            changed(service, task)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(LabService, "kill", kill)
            with chaos(lab, every=0.02, settle=0, kinds=["DNS empty", "kill"]) as seen:
                eventually(lambda: sum(seen.seen.values()) > 40)
        assert found == {True}


def test_what_an_event_raises_is_raised_at_the_end_of_the_block(monkeypatch: pytest.MonkeyPatch):
    def failing(service: LabService, task: LabTask) -> None:
        raise OSError("no address is left")

    with Lab(seed=1) as lab:
        lab.service("orders", tasks=2, ttl=0)
        monkeypatch.setattr(LabService, "kill", failing)
        with (
            pytest.raises(OSError, match="no address is left"),
            chaos(lab, every=0.01, settle=0, kinds=["kill"]) as seen,
        ):
            eventually(lambda: seen.seen["orders: kill"] > 0)


def test_a_task_that_the_test_ends_while_it_has_a_fault_is_no_error():
    with Lab(seed=1) as lab:
        orders = lab.service("orders", tasks=3, ttl=0)
        with chaos(lab, every=0.05, kinds=["slow"]):
            eventually(lambda: any(task.faults for task in orders.tasks))
            for task in orders.tasks[:2]:
                task.kill()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"every": 0}, "every must be above 0"),
        ({"kinds": ["rain"]}, "a kind is one of"),
        ({"kinds": []}, "a kind is one of"),
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
