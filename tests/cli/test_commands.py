"""What holds for every command."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ecs_discovery import __version__


def test_version_names_the_program_and_its_version(run):
    assert run("--version") == (0, f"ecs-discovery, version {__version__}\n", "")


def test_the_package_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "ecs_discovery.cli", "--version"], capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout) == (0, f"ecs-discovery, version {__version__}\n")


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_a_missing_extra_is_one_line_that_says_what_to_install(run, monkeypatch, missing):
    for module in [name for name in sys.modules if name.startswith("ecs_discovery.cli.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, missing, None)
    status, out, err = run("resolve", "orders")
    assert (status, out) == (1, "")
    assert err == f"ecs-discovery: {missing} is not installed: from a clone, pip install '.[demo]' " + (
        "(ecs-discovery run, doctor and watch work without it)\n"
    )


@pytest.mark.parametrize(("module", "package"), [("requests", "requests"), ("h11", "h11"), ("dns", "dnspython")])
def test_the_demo_names_its_own_extra(run, monkeypatch, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    status, out, err = run("demo")
    assert (status, out) == (1, "")
    assert err == f"ecs-discovery: {package} is not installed: from a clone, pip install '.[demo]'\n"


def test_a_demo_too_short_for_its_script_is_refused(run):
    status, _, err = run("demo", "--seconds", "1")
    assert status == 2
    assert "--seconds" in err
