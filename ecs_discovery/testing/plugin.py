"""The pytest plugin: fixtures that begin with `ecs_`, the marker `ecs`, and the option `--ecs-seed`.

pytest loads it wherever the package is installed. It does nothing unless a test uses one of its fixtures, and imports
nothing of the package before that.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ecs_discovery.testing.clock import Clock
    from ecs_discovery.testing.fixtures import LabUnderTest
    from ecs_discovery.testing.recorder import EventLog
    from ecs_discovery.testing.simulation.world import World
    from ecs_discovery.testing.stub import Stub

_SEED = 1
_NAMESPACE = "prod.local"
_FIXTURES = ("ecs_stub", "ecs_lab", "ecs_clock", "ecs_events", "ecs_world")
_MOST = 4000  # characters of a report


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--ecs-seed`."""
    group = parser.getgroup("ecs_discovery")
    group.addoption(
        "--ecs-seed",
        metavar="N",
        help="seed of ecs_lab and ecs_world, instead of a marker's seed; 'random' draws a seed (default: 1)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """The marker, and a seed that is drawn."""
    config.addinivalue_line(
        "markers", "ecs(namespace='prod.local', seed=1): the namespace and the seed of the ecs_… fixtures of a test"
    )
    given = config.getoption("--ecs-seed")
    if given == "random":
        config.option.ecs_seed = str(random.SystemRandom().getrandbits(32))
    elif given is not None and not given.isdecimal():
        raise pytest.UsageError(f"--ecs-seed: a whole number or 'random', got {given!r}")


def pytest_report_header(config: pytest.Config) -> str | None:
    """The seed, if it was given."""
    given = config.getoption("--ecs-seed")
    return None if given is None else f"ecs_discovery: --ecs-seed={given}"


def _marked(item: Any) -> dict[str, Any]:
    marker = item.get_closest_marker("ecs")
    given = dict(marker.kwargs) if marker is not None else {}
    unknown = sorted(given.keys() - {"namespace", "seed"})
    if unknown or (marker is not None and marker.args):
        raise pytest.UsageError(f"{item.nodeid}: the marker ecs takes namespace= and seed=, and nothing else")
    return given


def _seed_of(item: Any) -> int:
    given = item.config.getoption("--ecs-seed")
    return int(given) if given is not None else int(_marked(item).get("seed", _SEED))


def _set_namespace(item: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in [name for name in os.environ if name.startswith("ECS_DISCOVERY_")]:
        monkeypatch.delenv(name)  # what a developer has set for a program leads away from the test
    namespace = str(_marked(item).get("namespace", _NAMESPACE))
    monkeypatch.setenv("ECS_DISCOVERY_NAMESPACE", namespace)
    return namespace


@pytest.fixture
def ecs_clock() -> Clock:
    """A clock that stands still until `advance(seconds)`: for `Discovery(clock=ecs_clock)`."""
    from ecs_discovery.testing.clock import Clock

    return Clock()


@pytest.fixture
def ecs_stub(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    """Names and their addresses, in place of DNS and Cloud Map. A name that was not stubbed fails the test."""
    from ecs_discovery.testing.stub import Stub

    _set_namespace(request.node, monkeypatch)
    with Stub() as stub:
        yield stub


@pytest.fixture
def ecs_events() -> Iterator[EventLog]:
    """The events of every discovery, while the test runs."""
    from ecs_discovery.testing.recorder import EventLog

    with EventLog() as log:
        yield log


@pytest.fixture
def ecs_lab(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[LabUnderTest]:
    """An ECS on loopback, with tasks that can fail. `ECS_DISCOVERY_…` variables lead to it while the test runs."""
    from ecs_discovery.testing.fixtures import LabUnderTest

    namespace = _set_namespace(request.node, monkeypatch)
    with LabUnderTest(namespace=namespace, seed=_seed_of(request.node)) as lab:
        monkeypatch.setenv("ECS_DISCOVERY_NAMESERVERS", lab.nameserver)
        yield lab


@pytest.fixture
def ecs_world(request: pytest.FixtureRequest) -> Callable[..., World]:
    """Makes worlds in virtual time: `ecs_world(seed=None, ttl=10, lag=0, caches=1)`.

    Without a seed it is the seed of the test.
    """
    from ecs_discovery.testing.simulation.world import World

    made: list[World] = []

    def make(seed: int | None = None, **given: Any) -> World:
        made.append(World(_seed_of(request.node) if seed is None else seed, **given))
        return made[-1]

    make.made = made  # type: ignore[attr-defined]  # for the report of a failure
    return make


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, None]:
    """A name that was not stubbed fails the test that asked for it, whatever the application did about the error."""
    outcome = yield
    stub = getattr(item, "funcargs", {}).get("ecs_stub")
    if stub is not None and outcome.excinfo is None:
        try:
            stub.check()
        except AssertionError as error:  # raised from here it would be a warning of pluggy besides
            outcome.force_exception(error)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Generator[None, Any, None]:
    """A failure shows the seed, and what was known."""
    outcome = yield
    report = outcome.get_result()
    used = {name: value for name, value in getattr(item, "funcargs", {}).items() if name in _FIXTURES}
    if report.when == "call" and report.failed and used:
        from ecs_discovery.testing.fixtures import shown

        report.sections.append(("ecs_discovery", shown(used, _seed_of(item))[:_MOST]))
