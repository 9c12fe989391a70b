"""The plugin as pytest has it: nothing before it is used, and what a failure shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ecs_discovery.testing import plugin

PLUGIN = "ecs_discovery.testing.plugin"


@pytest.fixture
def play(tmp_path: Path):
    """Runs pytest on a file in a process of its own, with this plugin alone."""

    def run(code: str, *arguments: str) -> tuple[int, str]:
        (tmp_path / "test_it.py").write_text(code, encoding="utf-8")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "ECS_", "COV"))}
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", PLUGIN, "-p", "no:cacheprovider", "-q", *arguments, "test_it.py"],
            cwd=tmp_path,
            env={**clean, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_pytest_finds_it_by_its_entry_point():
    from importlib.metadata import entry_points

    assert PLUGIN in [point.value for point in entry_points(group="pytest11")]


def test_it_imports_nothing_of_the_package_before_a_fixture_is_used(play):
    status, out = play(
        "import sys\n"
        "def test_nothing():\n"
        "    inner = {name for name in sys.modules if name.startswith('ecs_discovery.')}\n"
        "    assert inner == {'ecs_discovery.testing', 'ecs_discovery.testing.plugin'}, inner\n"
        "    assert 'asyncio' not in sys.modules and 'requests' not in sys.modules\n"
    )
    assert status == 0, out


UNSTUBBED = """
from contextlib import suppress
from ecs_discovery import Discovery
def test_it(ecs_stub):
    with Discovery() as discovery, suppress(Exception):  # the application swallows the error
        discovery.resolve("billing:80")
"""


def test_a_name_that_was_not_stubbed_fails_the_test_whatever_became_of_the_error(play):
    status, out = play(UNSTUBBED)
    assert status == 1
    assert "NotStubbed: 'billing' was not stubbed: ecs_stub.service('billing', ['10.0.0.1:8080'])" in out
    assert "1 failed" in out
    assert "error" not in out.splitlines()[-1]


ROUNDABOUT = """
import pytest
from contextlib import suppress
from ecs_discovery import Discovery
def application():
    with Discovery() as discovery, suppress(Exception):
        discovery.resolve("billing:80")
@pytest.fixture
def own(request):
    return request.getfixturevalue("ecs_stub")
@pytest.fixture
def through(ecs_stub):
    return None
@pytest.fixture
def late(ecs_stub):
    yield
    application()
def test_asked_for(request):
    request.getfixturevalue("ecs_stub")
    application()
def test_own(own):
    application()
def test_through(through):
    application()
def test_late(late):
    pass
def test_told_once(late):
    application()
"""


@pytest.mark.parametrize("test", ["asked_for", "own", "through", "told_once"])
def test_the_test_fails_however_it_came_to_the_stub(play, test):
    status, out = play(ROUNDABOUT, "-k", f"test_{test}")
    assert status == 1
    assert "NotStubbed: 'billing' was not stubbed" in out
    assert "1 failed" in out
    assert "error" not in out.splitlines()[-1]


def test_a_name_that_a_fixture_asks_for_at_its_end_is_an_error_of_the_test(play):
    status, out = play(ROUNDABOUT, "-k", "test_late")
    assert status == 1
    assert "NotStubbed: 'billing' was not stubbed" in out
    assert "1 passed" in out
    assert "1 error" in out


def test_a_failure_shows_the_seed_where_a_fixture_of_the_applications_made_the_world(play):
    status, out = play(
        "import pytest\n"
        "@pytest.fixture\n"
        "def mine(ecs_world): return ecs_world()\n"
        "def test_it(mine): assert mine is None\n",
        "--ecs-seed=11",
    )
    assert status == 1
    assert "seed 11 (again with --ecs-seed=11)" in out


FAILS = """
import pytest
from ecs_discovery import Discovery
@pytest.mark.ecs(seed=7, namespace="shop.internal")
def test_it(ecs_stub, ecs_world, ecs_events):
    ecs_stub.service("orders", ["10.0.0.1:80"])
    world = ecs_world()
    assert world.seed == {expected}
    with Discovery() as discovery:
        assert discovery.settings.namespace == "shop.internal"
        discovery.resolve("orders")
        assert False
"""


@pytest.mark.parametrize(("arguments", "seed"), [((), 7), (("--ecs-seed=11",), 11)])
def test_a_failure_shows_the_seed_the_worlds_the_events_and_what_was_known(play, arguments, seed):
    status, out = play(FAILS.format(expected=seed), *arguments)
    assert status == 1
    assert f"seed {seed} (again with --ecs-seed={seed})" in out
    assert f"<World seed={seed}" in out
    assert "event: orders: 1 endpoints from stub" in out
    assert "10.0.0.1:80" in out


def test_a_test_that_uses_no_fixture_of_ours_fails_as_it_does_without_us(play):
    status, out = play("def test_it():\n    assert False\n")
    assert status == 1
    assert "ecs_discovery" not in out.replace("/ecs_discovery", "")


@pytest.mark.parametrize(
    ("code", "arguments", "told"),
    [
        ("def test_it(): pass", ("--ecs-seed=soon",), "--ecs-seed: a whole number or 'random', got 'soon'"),
        (
            "import pytest\n@pytest.mark.ecs(sed=1)\ndef test_it(ecs_world): ecs_world()",
            (),
            "the marker ecs takes namespace= and seed=",
        ),
    ],
)
def test_what_cannot_be_meant_is_an_error(play, code, arguments, told):
    status, out = play(code, *arguments)
    assert status != 0
    assert told in out


def test_a_seed_can_be_drawn_and_is_shown(play):
    status, out = play("def test_it(ecs_world):\n    assert ecs_world().seed != 1\n", "--ecs-seed=random", "-v")
    assert status == 0, out
    assert "ecs_discovery: --ecs-seed=" in out


def _config(seed: str | None, **more: object) -> SimpleNamespace:
    option = SimpleNamespace(ecs_seed=seed)
    lines: list[tuple[str, str]] = []
    add = lambda *line: lines.append(line)  # noqa: E731
    return SimpleNamespace(option=option, addinivalue_line=add, getoption=lambda _: option.ecs_seed, **more)


@pytest.mark.parametrize("given", ["random", "7", None])
def test_every_worker_of_a_run_has_the_seed_that_is_shown(given):
    """As pytest-xdist does it: a worker reads the command line again."""
    run = _config(given)
    plugin.pytest_configure(run)
    for _ in range(3):
        node = SimpleNamespace(config=run, workerinput={})
        plugin.pytest_configure_node(node)
        worker = _config(given, workerinput=node.workerinput)
        plugin.pytest_configure(worker)
        assert worker.option.ecs_seed == run.option.ecs_seed
    assert given == "random" or run.option.ecs_seed == given
    assert run.option.ecs_seed != "random"


def test_a_test_finishes_in_milliseconds_of_a_simulated_minute(ecs_world):
    world = ecs_world(5, ttl=10, lag=5)
    orders = world.service("orders", tasks=6)
    client = world.client("orders:8080")

    async def history():
        load = world.load(client, rate=20, seconds=60)
        await orders.deploy(batch=2, boot=3, every=5)
        await load

    report = world.run(history)
    assert report.lost == 0
    assert 1000 < len(report.requests) < 1400
