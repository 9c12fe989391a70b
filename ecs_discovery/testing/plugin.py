"""The pytest plugin: fixtures that begin with `ecs_`, the marker `ecs`, and the option `--ecs-seed`.

pytest loads it wherever the package is installed. It does nothing unless a test uses one of its fixtures, and imports
nothing of the package before that.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

if TYPE_CHECKING:
    from ecs_discovery.testing.clock import Clock
    from ecs_discovery.testing.fixtures import LabUnderTest
    from ecs_discovery.testing.recorder import EventLog
    from ecs_discovery.testing.simulation.world import World
    from ecs_discovery.testing.stub import Stub

_SEED = 1
_NAMESPACE = "prod.local"
_MOST = 4000  # characters of a report
_MADE = pytest.StashKey[dict[str, Any]]()
"""The fixtures of a test by name, however the test came to them: `item.funcargs` has only the named fixtures."""
_TOLD = pytest.StashKey[int]()
"""How many missing names were there when the test itself ended."""


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
    if given == "random":  # under pytest-xdist each worker reads that too, and all of them have the seed that is shown
        worker = getattr(config, "workerinput", None)
        drawn = str(random.SystemRandom().getrandbits(32)) if worker is None else worker["ecs_seed"]
        config.option.ecs_seed = drawn
    elif given is not None and not given.isdecimal():
        raise pytest.UsageError(f"--ecs-seed: a whole number or 'random', got {given!r}")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """pytest-xdist makes a worker: its seed is the seed of the run."""
    node.workerinput["ecs_seed"] = node.config.getoption("--ecs-seed")


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


T = TypeVar("T")


def _kept(request: pytest.FixtureRequest, fixture: T) -> T:
    assert request.fixturename is not None
    request.node.stash.setdefault(_MADE, {})[request.fixturename] = fixture
    return fixture


@pytest.fixture
def ecs_clock(request: pytest.FixtureRequest) -> Clock:
    """A clock that stands still until `advance(seconds)`: for `Discovery(clock=ecs_clock)`."""
    from ecs_discovery.testing.clock import Clock

    return _kept(request, Clock())


@pytest.fixture
def ecs_stub(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    """Names and their addresses, in place of DNS and Cloud Map. A name that was not stubbed fails the test."""
    from ecs_discovery.testing.stub import Stub

    _set_namespace(request.node, monkeypatch)
    with Stub() as stub:
        yield _kept(request, stub)
        if len(stub.missing) > request.node.stash.get(_TOLD, len(stub.missing)):  # asked for by a fixture's teardown
            stub.check()


@pytest.fixture
def ecs_events(request: pytest.FixtureRequest) -> Iterator[EventLog]:
    """The events of every discovery, while the test runs."""
    from ecs_discovery.testing.recorder import EventLog

    with EventLog() as log:
        yield _kept(request, log)


@pytest.fixture
def ecs_lab(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[LabUnderTest]:
    """An ECS on loopback, with tasks that can fail. `ECS_DISCOVERY_…` variables lead to it while the test runs."""
    from ecs_discovery.testing.fixtures import LabUnderTest

    namespace = _set_namespace(request.node, monkeypatch)
    with LabUnderTest(namespace=namespace, seed=_seed_of(request.node)) as lab:
        monkeypatch.setenv("ECS_DISCOVERY_NAMESERVERS", lab.nameserver)
        yield _kept(request, lab)


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
    return _kept(request, make)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, None]:
    """A name that was not stubbed fails the test that asked for it, whatever the application did about the error."""
    outcome = yield
    stub = item.stash.get(_MADE, {}).get("ecs_stub")
    if stub is None:
        return
    item.stash[_TOLD] = len(stub.missing)
    if outcome.excinfo is None:
        try:
            stub.check()
        except AssertionError as error:  # raised from here it would be a warning of pluggy besides
            outcome.force_exception(error)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, Any, None]:
    """What was kept goes with the fixtures: the items live as long as the session does, and a test may run again."""
    yield
    if _MADE in item.stash:
        del item.stash[_MADE]
    if _TOLD in item.stash:
        del item.stash[_TOLD]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Generator[None, Any, None]:
    """A failure shows the seed, and what was known."""
    outcome = yield
    report = outcome.get_result()
    used = item.stash.get(_MADE, {})
    if report.when == "call" and report.failed and used:
        from ecs_discovery.testing.fixtures import shown

        report.sections.append(("ecs_discovery", shown(used, _seed_of(item))[:_MOST]))
