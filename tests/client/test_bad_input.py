"""Bad input and a closed discovery are told at once."""

from __future__ import annotations

import inspect

import pytest

from ecs_discovery import AsyncDiscovery, ClosedError, ConfigurationError, Discovery
from ecs_discovery.client import attempt
from tests.support import FakeResolver
from tests.worlds import Worlds


@pytest.mark.parametrize("flag", ["CO_GENERATOR", "CO_COROUTINE", "CO_ITERABLE_COROUTINE", "CO_ASYNC_GENERATOR"])
def test_the_flags_of_code_are_the_interpreters(flag: str):
    assert getattr(attempt, flag) == getattr(inspect, flag)


def test_a_built_in_scheme_cannot_be_replaced(world: Worlds):
    async def scenario(w):
        raise AssertionError("not reached")

    with pytest.raises(ConfigurationError, match="'srv'"):
        world.run(scenario, resolvers={"srv": FakeResolver()})


def test_a_closed_discovery_says_so(world: Worlds):
    async def scenario(w):
        await w.close()
        for use in (w.resolve, w.warm, w.connect):
            with pytest.raises(ClosedError, match="closed"):
                await use("orders:80")
        with pytest.raises(ClosedError):
            w.discovery.snapshot("orders:80")

    world.run(scenario)


def test_bad_input_is_told_at_construction(world: Worlds):
    async def scenario(w):
        raise AssertionError("not reached")

    for settings, text in [
        ({"namespace": "prod..local"}, "namespace"),
        ({"services": {"orders": "consul://x"}}, "consul"),
        ({"services": {"or ders": "orders"}}, "services"),
        ({"nameservers": ["dns.example:53"]}, "nameserver"),
        ({"nameservers": "127.0.0.1:53"}, "a list of them"),
        ({"retry": 3}, "RetryPolicy"),
    ]:
        with pytest.raises(ConfigurationError, match=text):
            world.run(scenario, **settings)


def test_bad_targets_are_told_at_once(world: Worlds):
    async def scenario(w):
        for target in ("", "or ders", "orders:0", "orders:99999", "srv://orders:80", "http://orders", "a" * 64, 5):
            with pytest.raises(ConfigurationError, match="target"):
                await w.resolve(target)

    world.run(scenario)


@pytest.mark.parametrize("kind", ["Discovery", "AsyncDiscovery"])
def test_a_discovery_cannot_be_pickled_and_says_what_to_do(kind: str):
    import pickle

    import ecs_discovery

    made = getattr(ecs_discovery, kind)(namespace="prod.local")
    with pytest.raises(TypeError, match="one per process"):
        pickle.dumps(made)
    assert "prod.local" in repr(made)


@pytest.mark.parametrize(
    ("kind", "wrong", "meant"),
    [
        (AsyncDiscovery, "connect", "open_connection"),
        (AsyncDiscovery, "close", "aclose"),
        (Discovery, "open_connection", "connect"),
        (Discovery, "aclose", "close"),
    ],
)
def test_a_method_of_the_other_world_is_told_with_its_name_here(kind: type, wrong: str, meant: str):
    with pytest.raises(AttributeError, match=f"no attribute '{wrong}'; did you mean '{meant}'") as caught:
        getattr(kind(), wrong)
    assert caught.value.name == wrong
    with pytest.raises(AttributeError, match=r"has no attribute 'conect'$"):
        getattr(kind(), "conect")  # noqa: B009
    assert not hasattr(kind(), "nothing")
