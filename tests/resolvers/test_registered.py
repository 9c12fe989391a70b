"""Resolvers that other packages register, and resolvers for threads in asyncio."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest

from ecs_discovery import AsyncDiscovery, ConfigurationError, Discovery, Endpoint, Question, Resolution, ResolutionError
from ecs_discovery.resolvers.in_threads import InThreads
from ecs_discovery.resolvers.registry import Schemes, load, schemes
from ecs_discovery.runtime.workers import Workers

MODULE = """
from ecs_discovery import Endpoint, Resolution

class Made:
    def resolve(self, question, timeout):
        return Resolution((Endpoint("10.1.1.1", 9000),), 30.0, f"made for {question.name}")

class Broken:
    def __init__(self):
        raise RuntimeError("no configuration")

class Useless:
    pass
"""
POINTS = """
[ecs_discovery.resolvers]
made = a_package_of_the_test:Made
broken = a_package_of_the_test:Broken
useless = a_package_of_the_test:Useless
absent = a_package_of_the_test:Absent
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package that registers resolvers."""
    (tmp_path / "a_package_of_the_test.py").write_text(MODULE)
    info = tmp_path / "a_package_of_the_test-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: a-package-of-the-test\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("package")
def test_a_registered_scheme_is_found_and_used_in_threads_and_in_asyncio() -> None:
    assert {"made", "broken", "useless", "absent"} <= set(schemes())
    with Discovery(services={"orders": "made://orders"}) as discovery:
        found = discovery.resolve("orders")
        assert ([str(e) for e in found.endpoints], found.source) == (["10.1.1.1:9000"], "made for orders")

    async def main() -> None:
        async with AsyncDiscovery() as discovery:
            assert (await discovery.resolve("made://users")).source == "made for users"

    asyncio.run(main())


@pytest.mark.usefixtures("package")
def test_a_resolver_that_is_passed_in_goes_before_a_registered_one() -> None:
    class Mine:
        def resolve(self, question: Question, timeout: float) -> Resolution:
            return Resolution((Endpoint("10.2.2.2", 1),), 30.0, "mine")

    with Discovery(resolvers={"made": Mine()}) as discovery:
        assert discovery.resolve("made://orders").source == "mine"


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("scheme", ["broken", "useless", "absent"])
def test_a_registration_that_cannot_be_used_says_which(scheme: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{scheme} = a_package_of_the_test"):
        load(scheme)
    with Discovery() as discovery, pytest.raises(ResolutionError, match="a_package_of_the_test"):
        discovery.resolve(f"{scheme}://orders", timeout=5)


def test_a_scheme_nobody_registered_is_an_error_that_names_those_there_are() -> None:
    with pytest.raises(ConfigurationError, match="scheme"):
        load("nobody")
    known = Schemes(["mine"])
    assert "mine" in known
    assert "nobody" not in known
    assert "mine" in list(known)
    assert len(known) == len(list(known))
    with pytest.raises(ConfigurationError, match="cloudmap://"), Discovery() as discovery:
        discovery.resolve("nobody://orders")


def test_a_resolver_for_threads_holds_up_no_loop_and_no_longer_than_its_limit() -> None:
    gate = threading.Event()

    class Slow:
        def resolve(self, question: Question, timeout: float) -> Resolution:
            gate.wait(10)
            raise OSError("late")

    async def main() -> None:
        slow = InThreads(Slow(), Workers())
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            await slow.resolve(Question("slow", "orders"), 0.05)
        assert time.monotonic() - began < 5
        gate.set()
        with pytest.raises(OSError, match="late"):
            await slow.resolve(Question("slow", "orders"), 5)

    asyncio.run(main())
