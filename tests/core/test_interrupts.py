"""A signal handler or a finaliser may run in the middle of anything, also of what is done under a lock of ours."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from functools import partial

import pytest

from ecs_discovery.config.policies import BalancingPolicy, CachePolicy
from ecs_discovery.core.balancing.node import Node, Outcome, Use
from ecs_discovery.core.calls.admission import Place
from ecs_discovery.core.lease import Lease
from ecs_discovery.core.resolution.cache import TtlCache
from tests.support import endpoints, service_of


def in_time(work: Callable[[], object]) -> None:
    """Fails if `work` does not end: a lock that waits for itself."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("picker", ["peak_ewma", "round_robin", "random"])
def test_what_interrupts_a_pick_may_use_the_service_itself(picker: str):
    interrupted: list[object] = []

    def rng() -> float:  # thrown under the lock
        if len(interrupted) == 1:
            interrupted.append(None)
            node = service.pick(1000.0)
            assert node is not None
            service.finish(node, Outcome.CONNECT, 1000.0)
        return 0.3

    service = service_of(static=endpoints(9), rng=rng, balancing=BalancingPolicy(picker=picker))

    def work() -> None:
        interrupted.append(None)
        for _ in range(20):
            node = service.pick(1000.0)
            assert node is not None
            service.release(node)

    in_time(work)
    assert sum(node.pending for node in service.nodes) == 0


def test_what_interrupts_a_report_to_the_cache_may_look_there():
    def rng() -> float:
        cache.lookup("orders", 1000.0)
        return 0.0

    cache: TtlCache[str, int] = TtlCache(CachePolicy(), rng)
    in_time(lambda: cache.store("orders", 1, 10.0, 1000.0))
    assert cache.lookup("orders", 1000.0).value == 1


def test_a_use_that_ended_does_not_end_again():
    service = service_of(static=endpoints(1))
    node = service.pick(1000.0)
    assert node is not None
    service.release(node)
    service.release(node)
    assert node.pending == 0


def test_an_exception_amid_the_end_of_a_use_leaves_no_use_over():
    """What judges it is interrupted, as by `KeyboardInterrupt`."""

    def rng() -> float:
        raise KeyboardInterrupt

    service = service_of(static=endpoints(3), rng=lambda: 0.5)
    node = service.pick(1000.0)
    assert node is not None
    for _ in range(4):
        service.observe(node, Outcome.FAILURE, 1000.0)
    service._balancer._rng = rng
    with pytest.raises(KeyboardInterrupt):
        service.finish(node, Outcome.FAILURE, 1000.0, 0.01)
    assert node.pending == 0


@pytest.mark.parametrize("when", ["begins", "ends"])
def test_an_exception_as_the_lock_is_left_leaves_no_use_over(when: str):
    """There the interpreter raises what another thread or a signal has asked for."""

    class Interrupting:
        armed = False

        def __enter__(self) -> None:
            pass

        def __exit__(self, *_: object) -> None:
            if self.armed:
                raise KeyboardInterrupt

    service = service_of(static=endpoints(1))
    lock = service._lock = Interrupting()  # type: ignore[assignment]
    lease = Lease(service, 1000.0)
    if when == "ends":
        lease.pick()
    lock.armed = True
    act = lease.pick if when == "begins" else partial(lease.finish, Outcome.SUCCESS, 1000.1)
    with pytest.raises(KeyboardInterrupt):
        act()
    lock.armed = False
    del lease, act
    node = service.nodes[0]
    assert service.pick(1000.2) is node
    assert node.pending == 1, "the new use alone"


def test_who_waits_for_room_is_called_by_a_use_whose_end_is_interrupted():
    def rng() -> float:
        raise KeyboardInterrupt

    service = service_of(static=endpoints(3), rng=lambda: 0.5)
    node = service.pick(1000.0)
    assert node is not None
    for _ in range(4):
        service.observe(node, Outcome.FAILURE, 1000.0)
    called: list[str] = []
    service.admission.queue(Place(lambda: called.append("first")))
    service._balancer._rng = rng
    with pytest.raises(KeyboardInterrupt):
        service.finish(node, Outcome.FAILURE, 1000.0, 0.01)
    assert called == ["first"]


def test_who_waits_for_room_is_called_by_a_use_whose_release_is_interrupted(monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    service = service_of(static=endpoints(1))
    node = service.pick(1000.0)
    assert node is not None
    called: list[str] = []
    service.admission.queue(Place(lambda: called.append("first")))
    monkeypatch.setattr(service._balancer, "release", interrupted)
    with pytest.raises(KeyboardInterrupt):
        service.release(node)
    assert called == ["first"]


def test_a_handler_that_chooses_amid_the_end_of_forgotten_uses_ends_none_twice(monkeypatch: pytest.MonkeyPatch):
    service = service_of(static=endpoints(1))
    node = service.nodes[0]
    kept = Lease(service, 1000.0)
    kept.pick()
    forgotten = [Lease(service, 1000.0) for _ in range(3)]
    for lease in forgotten:
        lease.pick()
    assert node.pending == 4
    del lease, forgotten
    release, interrupted = service._balancer.release, [False]

    def interrupting(ended: Node, use: Use | None = None) -> None:
        release(ended, use)
        if not interrupted[0]:
            interrupted[0] = True
            service.release(service.pick(1000.0))  # type: ignore[arg-type]

    monkeypatch.setattr(service._balancer, "release", interrupting)
    service.pick(1000.0)
    assert node.pending == 2, "the lease that is kept, and the new use"


def interrupted(moment: int, act: Callable[[], object]) -> bool:
    """Do this, with an exception at one of the moments when a thread looks for what others have raised in it: as a
    function begins, and after a call of a function that is written in C. False if it has fewer moments."""
    left = moment

    def profile(frame: object, event: str, arg: object) -> None:
        nonlocal left
        if event in ("call", "c_return"):
            left -= 1
            if left == 0:
                sys.setprofile(None)
                raise KeyboardInterrupt

    sys.setprofile(profile)
    try:
        act()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
    return False


@pytest.mark.parametrize("count", [1, 4, 9])
def test_an_exception_at_any_moment_of_a_use_leaves_no_use_over(count: int):
    def use() -> None:
        lease = Lease(service, 1000.0)
        held.append(lease)
        lease.pick()
        lease.finish(Outcome.SUCCESS, 1000.1)

    service = service_of(static=endpoints(count))
    held: list[Lease] = []
    use()
    moment = 1
    while interrupted(moment, use):
        held.clear()
        node = service.pick(1000.2)  # ends what was forgotten
        assert node is not None
        assert sum(each.pending for each in service.nodes) == 1
        service.release(node)
        assert all(each.load == each.score for each in service.nodes)
        moment += 1
    assert moment > 5, "it was tried"
