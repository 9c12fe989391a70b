"""The documentation is true: its Python runs, its commands are the ones that are used, its names exist."""

from __future__ import annotations

import inspect
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.request import ProxyHandler, build_opener

import prometheus_client
import pytest
from opentelemetry.sdk.metrics import MeterProvider

import ecs_discovery
from ecs_discovery import errors
from ecs_discovery.config import policies, settings
from ecs_discovery.testing.lab import Lab

ROOT = Path(__file__).resolve().parent.parent
MADE: dict[str, str] = runpy.run_path(str(ROOT / "docs" / "make_reference.py"))["made"]()
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
DEMO = "python3 -m venv .venv && .venv/bin/pip install -q '.[demo]' && .venv/bin/ecs-discovery demo"
TESTS = "python3 -m venv .venv && .venv/bin/pip install -q -e '.[test]' && .venv/bin/python -m pytest"

_FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NOT_RUN = re.compile(r"<!-- not run: .+ -->\n\Z")


class Block(NamedTuple):
    """A Python block of a page."""

    page: Path
    line: int
    code: str
    runs: bool

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def _blocks() -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in _FENCE.finditer(text):
            before = text[: match.start()]
            found.append(Block(page, before.count("\n") + 2, match[1], _NOT_RUN.search(before) is None))
    return found


BLOCKS = _blocks()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Lab]:
    """What the examples talk to: `orders` in the namespace `prod.local`, on port 8080 with A and SRV records."""
    with Lab(namespace="prod.local", seed=1) as lab:
        lab.service("orders", tasks=3, records="A+SRV", port=None if lab.single_address else 8080)
        yield lab


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The ports at which a block serves its metrics: free ones on loopback, and only for as long as the test runs."""
    start = prometheus_client.start_http_server
    servers = []

    def start_on_loopback(port: int) -> None:
        servers.append(start(0, addr="127.0.0.1"))
        ports.append(servers[-1][0].server_port)

    ports: list[int] = []
    monkeypatch.setattr(prometheus_client, "start_http_server", start_on_loopback)
    yield ports
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_python_block_runs(block: Block, cluster: Lab, served: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader who copies a block and has such a service gets no error and no warning."""
    code = compile("\n" * (block.line - 1) + block.code, str(block.page), "exec")
    if not block.runs:
        return
    monkeypatch.setenv("ECS_DISCOVERY_NAMESPACE", cluster.namespace)
    monkeypatch.setenv("ECS_DISCOVERY_NAMESERVERS", cluster.nameserver)
    names: dict[str, object] = {"__name__": "example"}
    try:
        exec(code, names)
        for port in served:
            assert "ecs_discovery_call_duration_seconds_count" in get(f"http://127.0.0.1:{port}/metrics")
    finally:
        for each in names.values():
            if isinstance(each, MeterProvider):
                each.shutdown()


def get(url: str) -> str:
    with build_opener(ProxyHandler({})).open(url, timeout=10) as answer:
        return str(answer.read(), "utf-8")


def test_most_blocks_run() -> None:
    """ "Not run" is the exception."""
    assert sum(not block.runs for block in BLOCKS) <= 1 < len(BLOCKS)


def test_the_demo_command_is_the_same_everywhere() -> None:
    assert f"\n{DEMO}\n" in README.read_text(encoding="utf-8")
    assert f"\n{DEMO}\n" in (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")


def test_the_test_command_is_the_same_everywhere() -> None:
    assert f"\n{TESTS}\n" in README.read_text(encoding="utf-8")
    assert f"\n{TESTS}\n" in (ROOT / "docs" / "develop.md").read_text(encoding="utf-8")


def test_continuous_integration_runs_the_test_command_of_the_readme() -> None:
    """The script takes the command from the README, and stops if it does not find it."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    match = re.search(r"grep -x \"(.+)\" README\.md", script)
    assert match is not None
    lines = [line for line in README.read_text(encoding="utf-8").splitlines() if re.fullmatch(match[1], line)]
    assert lines == [TESTS]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_files_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_variables_in_the_text_are_read_by_the_code(page: Path) -> None:
    known = {"NAMESPACE", "NAMESERVERS", "SERVICES", "DISABLED", "INSPECT"}
    for policy in settings._POLICIES.values():
        prefix = policy.__name__.removesuffix("Policy").upper()
        known |= {f"{prefix}_{field.upper()}" for field in policy._rules}
    for name in re.findall(r"(?<!_)ECS_DISCOVERY_([A-Z][A-Z_]*[A-Z])", page.read_text(encoding="utf-8")):
        assert name in known


def test_every_error_is_in_the_tree() -> None:
    """The page on errors shows each one below its base."""
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    tree = text.split("```text\n", 1)[1].split("```", 1)[0]
    above: list[str] = []
    shown = {}
    for line in tree.splitlines():
        match = re.search(r"[A-Z]\w+", line)
        assert match is not None
        depth = match.start() // 4
        above[depth:] = [match[0]]
        shown[match[0]] = above[depth - 1] if depth else "Exception"
    real = {
        name: kind.__bases__[0].__name__
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and issubclass(kind, errors.DiscoveryError)
    }
    assert shown == real


def test_every_public_name_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    for name in ecs_discovery.__all__:
        if name.endswith("Policy"):
            assert f"`ecs_discovery.{name}`" in text, name
        elif name not in {"__version__", "Event"}:
            assert f"\n### ecs_discovery.{name}\n" in text, name


@pytest.mark.parametrize("name", MADE)
def test_a_page_that_is_written_from_the_code_is_up_to_date(name: str) -> None:
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == MADE[name], "python docs/make_reference.py"


def test_every_error_class_is_explained_on_the_page_of_troubles() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    classes = {
        name for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, errors.DiscoveryError)
    }
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) == classes


def test_links_to_a_section_lead_to_a_heading() -> None:
    """Anchors are made of headings, as Git hosts and the built pages make them."""
    headings: dict[Path, set[str]] = {}
    for page in PAGES:
        text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for match in re.finditer(r"\]\(([^)\s:]*)#([^)\s]+)\)", text):
            target = (page.parent / match[1]).resolve() if match[1] else page
            if target.suffix != ".md":
                continue
            if target not in headings:
                found = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
                headings[target] = {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in found}
            assert match[2] in headings[target], f"{page.name}: {match[0]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_says_something_on_a_plain_git_host(page: Path) -> None:
    """What only a build of the documentation fills is a block of code there; lists of pages may be."""
    text = page.read_text(encoding="utf-8")
    assert not set(re.findall(r"^```\{([\w-]+)\}", text, re.MULTILINE)) - {"toctree"}
    assert len(re.sub(r"^```\{.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL).split()) > 8


def test_every_policy_has_a_table() -> None:
    """The table is written from these; a policy that is not exported would be missing in it."""
    assert {name for name in policies.__all__ if name.endswith("Policy")} == {
        policy.__name__ for policy in settings._POLICIES.values()
    }


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if re.search(r"^def test_|^class Test", block.code, re.MULTILINE)], ids=str
)
def test_the_tests_of_a_page_pass(block: Block, tmp_path: Path) -> None:
    """A block with tests is run by pytest, as a reader would."""
    (tmp_path / "test_page.py").write_text(block.code, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider\nfilterwarnings = error\n")
    path = os.pathsep.join(filter(None, sys.path))
    plain = [sys.executable, "-m", "pytest", "-q", "--strict-markers", "-p", "ecs_discovery.testing.plugin"]
    done = subprocess.run(
        [*plain, "test_page.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
