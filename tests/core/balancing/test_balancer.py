"""The balancer: choice, ejection, probes, reconnects."""

from __future__ import annotations

from collections import Counter
from itertools import product
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecs_discovery.config.policies import BalancingPolicy, OutlierPolicy, ZonePolicy
from ecs_discovery.core.balancing.balancer import Balancer
from ecs_discovery.core.balancing.cost import CROWD, MOST
from ecs_discovery.core.balancing.health import HealthChange
from ecs_discovery.core.balancing.node import Health, Node, Outcome, Use
from ecs_discovery.models import Endpoint
from tests.support import nodes


def balancer_of(fleet: tuple[Node, ...], *, now: float = 0.0, seed: int = 1, **policy: float) -> Balancer:
    made = Balancer(BalancingPolicy(), OutlierPolicy(**policy), ZonePolicy(), Random(seed).random)  # type: ignore[arg-type]
    made.update(fleet, now)
    return made


def use(balancer: Balancer, outcome: Outcome, now: float, seconds: float | None = 0.01) -> Node:
    node = balancer.pick(now)
    assert node is not None
    balancer.observe(node, outcome, now, seconds)
    balancer.release(node)
    return node


def eject(balancer: Balancer, node: Node, now: float) -> None:
    for _ in range(5):
        balancer.observe(node, Outcome.FAILURE, now)


def after(change: HealthChange | None) -> Health | None:
    return change.after if change is not None else None


def test_three_equal_nodes_share_sequential_uses_equally():
    fleet = nodes(3)
    balancer = balancer_of(fleet)
    counts = Counter(use(balancer, Outcome.SUCCESS, float(step)) for step in range(300))
    assert [counts[node] for node in fleet] == [100, 100, 100]


def test_nothing_to_choose_from_is_none():
    assert balancer_of(()).pick(0.0) is None


def test_an_ejected_node_gets_nothing_until_its_time_is_up_and_then_one_probe():
    fleet = nodes(3)
    balancer = balancer_of(fleet)
    eject(balancer, fleet[0], 0.0)
    assert fleet[0].health is Health.EJECTED
    assert all(use(balancer, Outcome.SUCCESS, 1.0) is not fleet[0] for _ in range(30))

    probe = balancer.pick(10.0)
    assert probe is fleet[0]
    assert all(use(balancer, Outcome.SUCCESS, 10.0) is not fleet[0] for _ in range(30))

    assert after(balancer.observe(probe, Outcome.SUCCESS, 10.1, 0.1)) is Health.HEALTHY
    balancer.release(probe)
    assert {use(balancer, Outcome.SUCCESS, 10.2) for _ in range(6)} == set(fleet)


def test_a_failed_probe_ejects_for_twice_as_long():
    fleet = nodes(3)
    balancer = balancer_of(fleet, seed=3)
    eject(balancer, fleet[0], 0.0)
    first = fleet[0].state_ends_at
    probe = balancer.pick(first)
    assert probe is fleet[0]
    assert after(balancer.observe(probe, Outcome.FAILURE, first)) is Health.EJECTED
    balancer.release(probe)
    assert fleet[0].ejections == 2
    assert 5.0 <= fleet[0].state_ends_at - first <= 10.0


def test_a_probe_that_told_nothing_is_followed_by_another():
    fleet = nodes(3)
    balancer = balancer_of(fleet)
    eject(balancer, fleet[0], 0.0)
    assert balancer.pick(10.0) is fleet[0]
    balancer.release(fleet[0])
    assert balancer.pick(10.1) is fleet[0]


def test_a_probe_that_told_nothing_is_followed_by_another_while_a_long_use_goes_on():
    """A connection of a database or a websocket may be open for days."""
    balancer = balancer_of(nodes(3))
    long = balancer.pick(0.0)
    assert long is not None
    eject(balancer, long, 0.0)
    assert long.health is Health.EJECTED
    probe = balancer.pick(10.0)
    assert probe is long
    balancer.release(probe)  # interrupted: nothing is told
    assert balancer.pick(10.1) is long


def test_a_probe_is_not_the_endpoint_just_tried():
    fleet = nodes(3)
    balancer = balancer_of(fleet)
    eject(balancer, fleet[0], 0.0)
    assert balancer.pick(10.0, exclude=[fleet[0]]) is not fleet[0]
    assert balancer.pick(10.0) is fleet[0]


def test_a_probe_of_a_removed_node_is_dropped():
    fleet = nodes(3)
    balancer = balancer_of(fleet)
    eject(balancer, fleet[0], 0.0)
    balancer.pick(10.0, exclude=[fleet[0]])  # its time is up: it waits for a probe
    fleet[0].removed = True
    balancer.update(fleet[1:], 10.0)
    assert balancer.pick(10.0) is not fleet[0]


def test_a_down_node_is_not_chosen_and_its_reconnect_is_due_once_its_pause_is_over():
    fleet = nodes(3)
    balancer = balancer_of(fleet)
    assert after(balancer.observe(fleet[0], Outcome.CONNECT, 0.0)) is Health.DOWN
    assert balancer.observe(fleet[0], Outcome.CONNECT, 0.1) is None
    assert all(use(balancer, Outcome.SUCCESS, 0.5) is not fleet[0] for _ in range(30))
    assert balancer.pop_reconnects() == ()

    use(balancer, Outcome.SUCCESS, 1.0)
    assert balancer.pop_reconnects() == (fleet[0],)
    use(balancer, Outcome.SUCCESS, 1.5)
    assert balancer.pop_reconnects() == ()

    assert balancer.observe(fleet[0], Outcome.CONNECT, 2.0) is None
    use(balancer, Outcome.SUCCESS, 3.9)
    assert balancer.pop_reconnects() == ()
    use(balancer, Outcome.SUCCESS, 4.0)
    assert balancer.pop_reconnects() == (fleet[0],)
    assert after(balancer.observe(fleet[0], Outcome.SUCCESS, 4.1)) is Health.HEALTHY
    assert fleet[0] in {use(balancer, Outcome.SUCCESS, 5.0) for _ in range(3)}


def test_a_reconnect_that_is_never_reported_is_due_again_after_the_longest_pause():
    fleet = nodes(3)
    balancer = balancer_of(fleet)
    balancer.observe(fleet[0], Outcome.CONNECT, 0.0)
    use(balancer, Outcome.SUCCESS, 1.0)
    balancer.pop_reconnects()
    use(balancer, Outcome.SUCCESS, 33.0)
    assert balancer.pop_reconnects() == (fleet[0],)


def test_when_nobody_connects_the_one_picked_longest_ago_is_tried():
    fleet = nodes(3)
    balancer = balancer_of(fleet)
    for node in fleet:
        balancer.observe(node, Outcome.CONNECT, 0.0)
    assert [use(balancer, Outcome.CONNECT, 0.1) for _ in range(6)] == [*fleet, *fleet]


def test_of_the_last_resorts_one_that_connects_goes_first():
    fleet = nodes(4)
    balancer = balancer_of(fleet)
    balancer.observe(fleet[0], Outcome.CONNECT, 0.0)
    eject(balancer, fleet[1], 0.0)
    assert balancer.pick(0.1, exclude=fleet[2:]) is fleet[1]
    assert balancer.pick(0.1, exclude=fleet[1:]) is fleet[0]
    assert balancer.pick(0.1, exclude=fleet) is None


def test_only_the_lowest_priority_with_a_usable_node_is_chosen_from():
    fleet = tuple(Node(Endpoint(f"10.0.0.{n}", 80, priority=1 if n < 3 else 2)) for n in range(1, 5))
    balancer = balancer_of(fleet)
    assert {use(balancer, Outcome.SUCCESS, 0.0) for _ in range(10)} == set(fleet[:2])
    for node in fleet[:2]:
        balancer.observe(node, Outcome.CONNECT, 0.0)
    assert {use(balancer, Outcome.SUCCESS, 0.1) for _ in range(10)} == set(fleet[2:])


def test_a_key_sticks_to_one_node():
    fleet = nodes(5)
    balancer = balancer_of(fleet)
    picked = [balancer.pick(0.0, key="ann") for _ in range(8)]
    assert len(set(picked)) == 1
    assert balancer.pick(0.0, key="ann") is not picked[0]  # it carries far more than the others


def test_latency_is_a_moving_average_of_successes():
    fleet = nodes(1)
    balancer = balancer_of(fleet)
    use(balancer, Outcome.SUCCESS, 0.0, 0.1)
    assert fleet[0].latency == pytest.approx(0.1)
    use(balancer, Outcome.SUCCESS, 0.0, 0.2)
    assert fleet[0].latency == pytest.approx(0.12)
    use(balancer, Outcome.FAILURE, 0.0, 9.0)
    use(balancer, Outcome.SUCCESS, 0.0, None)
    assert fleet[0].latency == pytest.approx(0.12)
    assert (fleet[0].uses, fleet[0].successes, fleet[0].failures) == (4, 2, 1)
    assert repr(fleet[0]) == "<Node 10.0.0.1:80 healthy pending=0>"


def test_its_repr_says_how_things_stand():
    fleet = nodes(3)
    balancer = balancer_of(fleet)
    balancer.observe(fleet[0], Outcome.CONNECT, 0.0)
    balancer.pick(0.0)
    assert repr(balancer) == "<Balancer 3 endpoints, 1 out of choice, 1 in flight>"


MASKS = [mask for count in range(1, 5) for mask in product("HED", repeat=count)]


@pytest.mark.parametrize("mask", MASKS, ids="".join)
def test_every_fleet_of_one_to_four_serves_whatever_its_health(mask: tuple[str, ...]):
    """Somebody is always chosen; a node that connects before one that does not; ejected ones only in panic."""
    fleet = nodes(len(mask))
    for node, letter in zip(fleet, mask, strict=True):
        node.health = {"H": Health.HEALTHY, "E": Health.EJECTED, "D": Health.DOWN}[letter]
        node.state_ends_at = 100.0
    balancer = balancer_of(fleet)
    chosen = {use(balancer, Outcome.NEUTRAL, 1.0).health for _ in range(20)}

    healthy, ejected = mask.count("H"), mask.count("E")
    assert balancer.panic is (healthy < (healthy + ejected) / 2)
    if healthy and not balancer.panic:
        assert chosen == {Health.HEALTHY}
    elif balancer.panic:
        assert Health.DOWN not in chosen
        assert Health.EJECTED in chosen
    else:
        assert chosen == {Health.DOWN}


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 10])
def test_when_every_node_fails_the_cap_holds_and_one_healthy_node_remains(count: int):
    fleet = nodes(count)
    balancer = balancer_of(fleet)
    for step in range(60 * count):
        use(balancer, Outcome.FAILURE, step * 0.001)
        ejected = sum(node.health is Health.EJECTED for node in fleet)
        assert ejected <= count / 2
        assert ejected < count


@pytest.mark.parametrize("seed", range(10))
def test_with_sixteen_of_twenty_refusing_no_use_fails_after_each_was_tried_once(seed: int):
    fleet = nodes(20)
    balancer = balancer_of(fleet, seed=seed)
    failed = 0
    for step in range(2000):
        node = balancer.pick(step * 0.01)
        assert node is not None
        refused = fleet.index(node) < 16
        balancer.observe(node, Outcome.CONNECT if refused else Outcome.SUCCESS, step * 0.01, 0.01)
        balancer.release(node)
        failed += refused
        for down in balancer.pop_reconnects():
            balancer.observe(down, Outcome.CONNECT, step * 0.01)
    assert failed <= 16


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["pick", "success", "failure", "connect", "neutral", "reconnect", "swap"]),
        st.floats(0, 20),
        st.integers(0, 7),
    ),
    max_size=80,
)


@given(st.integers(1, 6), STEPS)
def test_whatever_happens_load_is_counted_right_and_somebody_can_be_chosen(count, steps):
    pool = nodes(count + 2)
    current = pool[:count]
    balancer = balancer_of(current)
    now, open_uses = 0.0, []
    for kind, pause, number in steps:
        now += pause
        if kind == "pick" or not open_uses:
            node = balancer.pick(now)
            assert node in current
            open_uses.append(node)
        elif kind == "swap":
            current = pool[number % 3 : number % 3 + count]
            for node in pool:
                node.removed = node not in current
            balancer.update(current, now)
        elif kind == "reconnect":
            for node in balancer.pop_reconnects():
                balancer.observe(node, Outcome.SUCCESS if number % 2 else Outcome.CONNECT, now)
        else:
            node = open_uses.pop(number % len(open_uses))
            balancer.observe(node, Outcome(kind), now, 0.01)
            balancer.release(node)
        assert sum(node.pending for node in pool) == len(open_uses)
        assert all(node.pending >= 0 for node in pool)
        standing = [node for node in current if node.health is not Health.DOWN]
        assert not standing or any(node.health is not Health.EJECTED for node in standing) or balancer.panic


def test_a_probed_node_that_leaves_and_comes_back_is_probed_again():
    from ecs_discovery.core.resolution.membership import Membership

    membership = Membership()
    membership.replace([node.endpoint for node in nodes(3)], 0.0)
    fleet = membership.nodes
    balancer = balancer_of(fleet)
    eject(balancer, fleet[0], 0.0)
    probe = balancer.pick(10.0)
    assert probe is fleet[0]
    membership.replace([node.endpoint for node in nodes(3)][1:], 10.1)
    balancer.update(membership.nodes, 10.1)
    balancer.release(probe)
    balancer.pick(10.2)
    membership.replace([node.endpoint for node in nodes(3)], 11.0)
    balancer.update(membership.nodes, 11.0)
    assert balancer.pick(11.1) is fleet[0]


def test_keys_come_back_to_an_endpoint_whose_ejection_is_over():
    fleet = nodes(3)
    balancer = balancer_of(fleet)
    owner = balancer.pick(0.0, key="ann")
    assert owner is not None
    eject(balancer, owner, 0.0)
    assert balancer.pick(1.0, key="ann") is not owner
    probe = balancer.pick(10.0, key="ann")
    assert probe is owner
    assert balancer.pick(10.0, key="ann") is not owner  # one probe at a time
    balancer.observe(owner, Outcome.SUCCESS, 10.1, 0.1)
    assert balancer.pick(10.2, key="ann") is owner


def test_the_child_of_a_fork_probes_what_the_parent_was_probing():
    fleet = nodes(3)
    balancer = balancer_of(fleet)
    eject(balancer, fleet[0], 0.0)
    assert balancer.pick(10.0) is fleet[0]
    balancer.after_fork()
    assert balancer.pick(10.0) is fleet[0]
    assert fleet[0].pending == 1


def test_a_key_whose_endpoints_are_all_excluded_takes_the_last_resort():
    fleet = nodes(3)
    balancer = balancer_of(fleet)
    balancer.observe(fleet[0], Outcome.CONNECT, 0.0)
    assert balancer.pick(0.1, exclude=fleet[1:], key="ann") is fleet[0]


def test_an_endpoint_that_waits_for_its_probe_waits_once():
    fleet = nodes(6)
    balancer = balancer_of(fleet)
    eject(balancer, fleet[0], 0.0)
    assert balancer.pick(10.0, exclude=[fleet[0]]) is not fleet[0]  # it is its time, and it is passed over
    balancer.update(fleet, 10.1)
    assert balancer.pick(10.2) is fleet[0]
    assert balancer.pick(10.3) is not fleet[0]


STEPS = st.lists(
    st.tuples(
        st.sampled_from([*[Outcome.SUCCESS] * 6, *Outcome]),
        st.sampled_from([0.0001, 0.01, 0.5, 3.0]),  # seconds that it takes
        st.sampled_from([0.0, 0.0, 0.0, 2.0]),  # seconds for which it then says that it is overloaded
        st.booleans(),  # is it ended now, or left in flight?
    ),
    max_size=60,
)


@given(STEPS, st.sampled_from([0, 2]), st.integers(2, 6))
def test_the_end_of_a_use_and_its_outcome_at_once_are_what_they_are_apart(
    steps: list[tuple[Outcome, float, float, bool]], most: int, count: int
):
    def world() -> tuple[Balancer, tuple[Node, ...]]:
        fleet = nodes(count)
        balancer = Balancer(BalancingPolicy(max_pending=most), OutlierPolicy(), ZonePolicy(), Random(3).random)
        balancer.update(fleet, 0.0)
        return balancer, fleet

    (first, mine), (second, theirs) = world(), world()
    now = 100.0
    for outcome, seconds, pushed, ended in steps:
        one, other = Use(), Use()
        a, b = first.pick(now, (), None, one), second.pick(now, (), None, other)
        assert (a and a.endpoint) == (b and b.endpoint)
        now += seconds
        if a is None or b is None or not ended:
            continue
        if pushed:
            first.push_back(a, now, now + pushed)
            second.push_back(b, now, now + pushed)
        at_once = first.finish(a, outcome, now, seconds, one)
        second.release(b, other)
        assert at_once == second.observe(b, outcome, now, seconds)
        assert first.finish(a, Outcome.NEUTRAL, now, None, one) is None, "it has ended already"
        for left, right in zip(mine, theirs, strict=True):
            assert state(left) == state(right)


def state(node: Node) -> dict[str, object]:
    slots = [slot for kind in type(node).__mro__ for slot in getattr(kind, "__slots__", ())]
    return {slot: getattr(node, slot) for slot in slots if slot != "__weakref__"}


def test_uses_beyond_four_thousand_weigh_no_more():
    fleet = nodes(1)
    balancer = balancer_of(fleet)
    for _ in range(MOST + 3):
        use = Use()
        balancer.pick(0.0, (), None, use)
    node = fleet[0]
    balancer.release(node)
    assert node.pending == MOST + 2
    assert node.load == node.score + CROWD[MOST]
    balancer.finish(node, Outcome.SUCCESS, 0.1, 0.1, use)  # its window begins with it
    balancer.pick(0.2, (), None, use)
    assert node.pending == MOST + 2
    balancer.finish(node, Outcome.SUCCESS, 0.2, 0.1, use)
    assert node.pending == MOST + 1
    assert node.load == node.score + CROWD[MOST]
    balancer.release(node)
    assert node.load == node.score + CROWD[MOST]
    balancer.release(node)
    assert node.load == node.score + CROWD[MOST - 1]
