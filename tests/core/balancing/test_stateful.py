"""A service through any history, beside a model that counts everything anew at each step.

Membership, ejection, choice, the budget and a fork, in any order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import exp

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from ecs_discovery.config.policies import OutlierPolicy, RetryPolicy
from ecs_discovery.core.balancing.node import Health, Node, Outcome
from ecs_discovery.core.calls.budget import RetryBudget
from ecs_discovery.core.lease import Lease
from ecs_discovery.core.resolution.cache import Freshness, Look
from ecs_discovery.core.service import Service
from ecs_discovery.models import Endpoint, Question, Resolution
from tests.support import endpoints, service_of

POLICY = OutlierPolicy()
QUESTION = Question("registry", "orders")
HOSTS = [f"10.0.0.{number}" for number in range(1, 6)]


@dataclass
class Seen:
    """What the model knows of a node."""

    heard: list[float] = field(default_factory=list)
    """When something was told of it."""
    in_a_row: int = 0
    """Failures since the last success."""
    pending: int = 0
    probes: int = 0
    """Uses in flight that are to decide about it."""


class Fleet(RuleBasedStateMachine):
    """The service is told what happens; the model keeps the plainest books of it that will do."""

    leases: Bundle[Lease] = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.serial = 0
        self.rng = 0.5
        self.instances = dict.fromkeys(HOSTS, 0)
        self.members: dict[str, int] = {}
        self.seen: dict[Node, Seen] = {}
        self.removed: dict[tuple[str, int], tuple[float, Node]] = {}
        self.successes: list[float] = []
        self.withdrawals: list[float] = []
        self.service: Service = service_of(
            "registry://orders", schemes=("registry",), rng=lambda: self.rng, outlier=POLICY, now=self.now
        )

    # Membership

    @initialize(hosts=st.lists(st.sampled_from(HOSTS), min_size=1, unique=True))
    def begin(self, hosts: list[str]) -> None:
        self.answer(dict.fromkeys(hosts, 0))

    def answer(self, members: dict[str, int]) -> None:
        """A complete answer arrives."""
        before = {node.endpoint.key: node for node in self.service.nodes}
        gone = {node: node.health for _, node in self.removed.values()}
        endpoints = tuple(Endpoint(host, 80, instance_id=f"i-{number}") for host, number in members.items())
        self.serial += 1
        look = Look(Freshness.FRESH, Resolution(endpoints, 10.0, "registry"), None, False, self.now + 10, self.serial)
        self.service.judge({QUESTION: look}, self.now)
        assert {node.endpoint.key for node in self.service.nodes} == {endpoint.key for endpoint in endpoints}
        for node in self.service.nodes:
            key = (node.endpoint.host, members[node.endpoint.host])
            if node.endpoint.key in before:
                assert node is before[node.endpoint.key], "an endpoint that stays keeps its node"
            elif key in self.removed and self.now - self.removed[key][0] <= 300:
                assert node is self.removed[key][1], "one that comes back finds its history again"
                back = gone[node]
                assert node.health is back or (back is not Health.HEALTHY and node.health is not Health.HEALTHY)
            else:
                assert node not in self.seen
                assert (node.health, node.consecutive, node.connect_failures, node.pending) == (Health.HEALTHY, 0, 0, 0)
                self.seen[node] = Seen()
            self.removed.pop(key, None)
        for node in before.values():
            if node not in self.service.nodes:
                self.seen[node].probes = 0
                self.removed[node.endpoint.host, int((node.endpoint.instance_id or "")[2:])] = (self.now, node)
        self.members = members

    @rule(host=st.sampled_from(HOSTS))
    def add(self, host: str) -> None:
        self.answer({**self.members, host: self.instances[host]} if host not in self.members else self.members)

    @precondition(lambda self: len(self.members) > 1)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        gone = data.draw(st.sampled_from(sorted(self.members)))
        self.answer({host: number for host, number in self.members.items() if host != gone})

    @rule(data=st.data())
    def replace(self, data: st.DataObject) -> None:
        """The address is given to another task."""
        host = data.draw(st.sampled_from(sorted(self.members)))
        self.instances[host] += 1
        self.answer({**self.members, host: self.instances[host]})

    # Choice

    @rule(
        target=leases,
        excluded=st.sets(st.integers(0, 4), max_size=4),
        key=st.sampled_from([None, None, None, "one", "two"]),
        rng=st.floats(0, 0.999),
    )
    def pick(self, excluded: set[int], key: str | None, rng: float) -> Lease:
        self.rng = rng
        nodes = self.service.nodes
        exclude = [node for index, node in enumerate(nodes) if index in excluded]
        left = [node for node in nodes if node not in exclude]
        lease = Lease(self.service, self.now)
        node = lease.pick(exclude, key)
        if key is not None and node is not None and (node.removed or node.health is Health.EJECTED):
            lease.release()  # as tests below say
            node = lease.pick(exclude)
        if not left:
            assert node is None
            node = lease.pick()  # what the engine does next
            exclude, left = [], list(nodes)
        assert node is not None
        assert node in nodes, "one that was removed is not picked"
        assert not node.removed
        assert node not in exclude
        connecting = [other for other in left if other.health is not Health.DOWN]
        healthy = [other for other in left if other.health is Health.HEALTHY]
        if node.health is Health.DOWN:
            assert not connecting, "one that is down is the last resort"
        if not self.panic():
            if node.health is Health.EJECTED:
                assert not healthy, "one that is ejected comes after the healthy ones"
            if node.health is Health.PROBING and self.seen[node].probes:
                assert not healthy, "one probe at a time"
        self.seen[node].pending += 1
        self.seen[node].probes += node.health is Health.PROBING
        return lease

    def panic(self) -> bool:
        connecting = [node for node in self.service.nodes if node.health is not Health.DOWN]
        return 2 * sum(node.health is Health.HEALTHY for node in connecting) < len(connecting)

    # Outcomes

    def told(self, node: Node, outcome: Outcome, before: Health, census: tuple[int, int]) -> None:
        """Did the node's health change as it may, and if it must?"""
        seen = self.seen[node]
        healthy, out = census
        if outcome is not Outcome.NEUTRAL:
            seen.heard.append(self.now)
        lately = sum(at > self.now - POLICY.success_rate_window for at in seen.heard)
        if outcome is Outcome.SUCCESS:
            seen.in_a_row = 0
            allowed = {
                Health.HEALTHY: {Health.HEALTHY},
                Health.EJECTED: {Health.EJECTED},
                Health.PROBING: {Health.HEALTHY},
                Health.DOWN: {Health.EJECTED if self.now < node.ejection_ends_at else Health.HEALTHY},
            }[before]
            assert node.health in allowed
        elif outcome is Outcome.FAILURE:
            seen.in_a_row += 1
            if before is Health.HEALTHY:
                may = healthy > 1 and out + 1 <= POLICY.max_ejected * (healthy + out)
                if node.removed:
                    pass  # it is not counted among those that are there
                elif not may:
                    assert node.health is Health.HEALTHY, "the cap counts after ejecting, and the last one stays"
                elif seen.in_a_row >= POLICY.consecutive_failures:
                    if not any(other.failures for other in self.seen if other is not node):
                        assert node.health is Health.EJECTED, "it alone fails"
                elif lately < POLICY.success_rate_requests:
                    assert node.health is Health.HEALTHY, "too little is known of it"
                assert node.health in (Health.HEALTHY, Health.EJECTED)
            else:
                assert node.health is (Health.EJECTED if before is Health.PROBING else before)
        elif outcome in (Outcome.CONNECT, Outcome.UNANSWERED):
            assert node.health is Health.DOWN
        else:
            assert node.health is before
        if node.health is not Health.PROBING:
            seen.probes = 0
        if node.health is Health.EJECTED and before in (Health.HEALTHY, Health.PROBING):
            assert self.now + POLICY.eject_min / 2 <= node.state_ends_at <= self.now + POLICY.eject_max

    def census(self) -> tuple[int, int]:
        """How many are healthy, and how many ejected, of those that are there."""
        healths = [node.health for node in self.service.nodes]
        return healths.count(Health.HEALTHY), healths.count(Health.EJECTED) + healths.count(Health.PROBING)

    @rule(lease=consumes(leases), outcome=st.sampled_from(Outcome), seconds=st.floats(0, 2), rng=st.floats(0, 0.999))
    def finish(self, lease: Lease, outcome: Outcome, seconds: float, rng: float) -> None:
        self.now += seconds
        self.rng = rng
        node, before, census = lease.node, lease.node.health, self.census()
        current = lease._epoch == self.service.epoch
        lease.finish(outcome, self.now)
        if not current:
            assert node.health is before, "a use that began before a fork does not end here"
            return
        self.ended(node)
        self.told(node, outcome, before, census)
        if outcome is Outcome.SUCCESS:
            self.service.budget.deposit()
            self.successes.append(self.now)

    def ended(self, node: Node) -> None:
        seen = self.seen[node]
        seen.pending -= 1
        if not seen.pending:
            seen.probes = 0  # whatever was sent to decide about it is over

    @rule(lease=leases, outcome=st.sampled_from(Outcome))
    def observe(self, lease: Lease, outcome: Outcome) -> None:
        """The head of the answer came, or a reconnect told something."""
        node, before, census = lease.node, lease.node.health, self.census()
        lease.observe(outcome, self.now)
        self.told(node, outcome, before, census)

    @rule(lease=consumes(leases))
    def release(self, lease: Lease) -> None:
        if lease._epoch == self.service.epoch:
            self.ended(lease.node)
        lease.release()

    @rule(data=st.data(), count=st.integers(1, 12), outcome=st.sampled_from([Outcome.SUCCESS, Outcome.FAILURE]))
    def a_row_of(self, data: st.DataObject, count: int, outcome: Outcome) -> None:
        """The same outcome several times on one node, as when it is broken."""
        node = data.draw(st.sampled_from(self.service.nodes))
        for _ in range(count):
            before, census = node.health, self.census()
            self.service.observe(node, outcome, self.now, 0.01)
            self.told(node, outcome, before, census)

    @rule(worked=st.booleans())
    def reconnect(self, worked: bool) -> None:
        for node in self.service.pop_reconnects():
            assert node.health is Health.DOWN
            before, census = node.health, self.census()
            outcome = Outcome.SUCCESS if worked else Outcome.CONNECT
            self.service.observe(node, outcome, self.now)
            self.told(node, outcome, before, census)

    # The budget

    @rule()
    def retry(self) -> None:
        if self.service.budget.withdraw(self.now):
            self.withdrawals.append(self.now)

    # Time and processes

    @rule(seconds=st.floats(0.001, 1) | st.floats(1, 40) | st.floats(290, 310))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def fork(self) -> None:
        self.service.reset_lock()
        for seen in self.seen.values():
            seen.pending = seen.probes = 0

    # Always

    @invariant()
    def pending_uses_are_counted(self) -> None:
        for node in self.service.nodes:
            assert node.pending == self.seen[node].pending, node

    @invariant()
    def those_that_left_are_marked(self) -> None:
        assert all(not node.removed for node in self.service.nodes)
        assert all(node.removed for _, node in self.removed.values())

    @invariant()
    def retries_are_a_fifth_of_the_successes_one_a_second_and_the_reserve(self) -> None:
        allowed = 0.2 * len(self.successes) + (self.now - 1000.0) + 10
        assert len(self.withdrawals) <= allowed + 1e-6


TestFleet = Fleet.TestCase
TestFleet.settings = settings(
    max_examples=250,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)


class Budget(RuleBasedStateMachine):
    """Withdrawals in any window are bounded by what was earned in it and what was there at its beginning."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.budget = RetryBudget(RetryPolicy(), self.now)
        self.successes: list[float] = []
        self.withdrawals: list[float] = []
        self.starts: list[tuple[float, float, int, int]] = [(self.now, 10.0, 0, 0)]

    @rule(count=st.integers(1, 60))
    def succeed(self, count: int) -> None:
        for _ in range(count):
            self.budget.deposit()
        self.successes += [self.now] * count

    @rule(count=st.integers(1, 30))
    def retry(self, count: int) -> None:
        for _ in range(count):
            if self.budget.withdraw(self.now):
                self.withdrawals.append(self.now)

    @rule(seconds=st.floats(0.001, 60))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def look(self) -> None:
        """What is there is never more than the reserve and a fifth of the successes, which fade in ten seconds."""
        balance = self.budget.balance(self.now)
        last = self.starts[-1][0]
        faded = sum(0.2 * exp(-(self.now - max(at, last)) / 10) for at in self.successes if at < last)
        fresh = 0.2 * sum(at >= last for at in self.successes)
        assert 0 <= balance <= 10 + faded + fresh + 1e-6
        self.starts.append((self.now, balance, len(self.successes), len(self.withdrawals)))

    @invariant()
    def every_window_is_bounded(self) -> None:
        for began, balance, earned, spent in self.starts:
            taken = len(self.withdrawals) - spent
            assert taken <= balance + 0.2 * (len(self.successes) - earned) + (self.now - began) + 1e-6


TestBudget = Budget.TestCase
TestBudget.settings = settings(TestFleet.settings, max_examples=60)


def test_a_keyed_call_does_not_go_to_an_endpoint_that_left():
    """It was about to be probed when it left."""
    service = service_of(static=endpoints(3))
    first, second, third = service.nodes
    for _ in range(5):
        service.observe(second, Outcome.FAILURE, 1000.0)
    service.pick(1010.0, [second])  # its ejection is over: it waits for one request
    assert second.health is Health.PROBING
    service._accept(Resolution((first.endpoint, third.endpoint), 10.0, "static"), 1010.0)
    picked = {service.pick(1010.0, key=str(number)) for number in range(50)}
    assert second not in picked


def test_a_keyed_call_does_not_go_to_an_endpoint_that_was_ejected_again():
    service = service_of(static=endpoints(3))
    second = service.nodes[1]
    for _ in range(5):
        service.observe(second, Outcome.FAILURE, 1000.0)
    service.pick(1010.0, [second])  # its ejection is over: it waits for one request
    service.observe(second, Outcome.FAILURE, 1010.0)  # one from before the ejection ends
    assert second.health is Health.EJECTED
    picked = {service.pick(1010.0, key=str(number)) for number in range(50)}
    assert second not in picked


def test_an_endpoint_that_was_ejected_again_gets_one_probe():
    service = service_of(static=endpoints(3))
    second = service.nodes[1]
    for _ in range(5):
        service.observe(second, Outcome.FAILURE, 1000.0)
    service.pick(1010.0, [second])  # its ejection is over: it waits for one request
    service.observe(second, Outcome.FAILURE, 1010.0)  # one from before the ejection ends
    picked = [service.pick(1100.0) for _ in range(6)]
    assert picked.count(second) == 1


def test_an_endpoint_is_reconnected_to_once_however_late_it_is():
    service = service_of(static=endpoints(3))
    service.observe(service.nodes[0], Outcome.CONNECT, 1000.0)
    service.pick(1001.0)
    service.pick(1040.0)
    assert service.pop_reconnects() == (service.nodes[0],)
