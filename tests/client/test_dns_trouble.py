"""DNS in trouble: outages, answers that are none, and errors that name the target."""

from __future__ import annotations

import gc
import traceback
import weakref

import pytest

from ecs_discovery import (
    ResolutionError,
    TargetNotFound,
)
from ecs_discovery.events import EndpointsChanged, LookupFailed
from ecs_discovery.models import Question, Resolution
from tests.client.support import NODATA, NXDOMAIN, dns_of
from tests.support import FakeClock, FakeResolver, a, aaaa, answer, srv
from tests.worlds import Worlds


def test_an_outage_of_dns_changes_nothing_and_is_told_once(world: Worlds):
    clock, dns, events = FakeClock(), dns_of("10.0.0.1"), []

    async def scenario(w):
        await w.resolve("orders:80")
        dns.answers[a()] = ResolutionError("SERVFAIL")
        for _ in range(50):
            clock.advance(7)
            assert (await w.resolve("orders:80")).endpoints[0].host == "10.0.0.1"
            await w.pause(0.001)
        assert [type(event) for event in events] == [EndpointsChanged, LookupFailed]

    world.run(scenario, dns=dns, clock=clock, on_event=events.append)


@pytest.mark.parametrize(
    ("error", "kind"),
    [(NXDOMAIN, TargetNotFound), (ResolutionError("garbage"), ResolutionError), (OSError("bug"), ResolutionError)],
    ids=["nxdomain", "garbage", "a resolver's bug"],
)
def test_a_cold_name_that_cannot_be_resolved_is_an_error_that_names_it(world: Worlds, error, kind):
    dns = FakeResolver({a(): error, aaaa(): error, srv(): error})

    async def scenario(w):
        with pytest.raises(kind, match="orders:80") as caught:
            await w.resolve("orders:80")
        assert caught.value.target == "orders:80"
        assert caught.value.__cause__ is not None
        before = len(dns.asked)
        with pytest.raises(kind):
            await w.resolve("orders:80")
        assert len(dns.asked) == before  # held for a moment: no storm of questions

    world.run(scenario, dns=dns)


@pytest.mark.parametrize("nonsense", [None, "10.0.0.1", Resolution((), 5.0, "mine")])
def test_a_resolver_that_gives_nonsense_is_an_error_and_is_not_asked_without_end(world: Worlds, nonsense):
    class Broken:
        asked = 0

        def resolve(self, question, timeout):
            self.asked += 1
            return nonsense

    async def scenario(w):
        for _ in range(20):
            with pytest.raises(ResolutionError, match="its resolver failed"):
                await w.resolve("broken://orders", timeout=5)
        assert broken.asked == 1

    broken = Broken()
    world.run(scenario, resolvers={"broken": broken})


def test_one_family_that_goes_empty_keeps_its_endpoints_for_a_while(world: Worlds):
    clock = FakeClock()
    dns = FakeResolver({a(): answer("10.0.0.1"), aaaa(): answer("::1"), srv(): NODATA})

    async def scenario(w):
        async def known():
            clock.advance(12)
            await w.resolve("orders:80")
            await w.pause(0.01)
            return {endpoint.host for endpoint in (await w.resolve("orders:80")).endpoints}

        assert await known() == {"10.0.0.1", "::1"}
        dns.answers[a()] = NODATA
        assert await known() == {"10.0.0.1", "::1"}
        for _ in range(5):
            found = await known()
        assert found == {"::1"}

    world.run(scenario, dns=dns, clock=clock)


def test_a_short_name_without_a_namespace_hints_at_it(world: Worlds):
    dns = FakeResolver({a(): NXDOMAIN, aaaa(): NXDOMAIN, srv(): NXDOMAIN})

    async def scenario(w):
        with pytest.raises(TargetNotFound, match="no namespace is set"):
            await w.resolve("orders:80")

    world.run(scenario, dns=dns)


@pytest.mark.parametrize("kind", [ResolutionError, TargetNotFound, ValueError])
def test_an_error_that_is_kept_keeps_nothing_of_its_look_up_alive(kind: type[Exception], world: Worlds):
    class Held:
        pass

    held: list[weakref.ref[Held]] = []

    class Failing:
        def resolve(self, question: Question, timeout: float) -> Resolution:
            mine = Held()
            held.append(weakref.ref(mine))
            try:
                raise OSError("the deeper reason")
            except OSError as error:
                raise kind("it failed") from error

    async def scenario(w):
        with pytest.raises(ResolutionError):
            await w.resolve("failing://orders")
        gc.collect()
        assert held[0]() is None
        with pytest.raises(ResolutionError, match="it failed") as caught:
            await w.resolve("failing://orders")
        assert len(held) == 1
        assert "the deeper reason" in "".join(traceback.format_exception(caught.value))

    world.run(scenario, resolvers={"failing": Failing()})
