"""Plain English: short sentences without the words that make a reader read twice."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import ecs_discovery
from ecs_discovery import errors, integrations, telemetry, testing
from ecs_discovery.cli.commands import commands
from tests import prose

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    ROOT / "examples" / "ecs" / "README.md",
    *sorted(page for page in (ROOT / "docs").glob("*.md") if page.name != "changelog.md"),
]
READ_ONCE = [ROOT / "README.md", ROOT / "docs" / "quickstart.md"]
PACKAGE = Path(ecs_discovery.__file__).resolve().parent  # as it is installed
MODULES = sorted(PACKAGE.rglob("*.py"))


def _path(page: Path) -> str:
    return str(page.relative_to(PACKAGE.parent if page.is_relative_to(PACKAGE) else ROOT))


def _told(found: Iterator[prose.Fault]) -> str:
    return "\n".join(map(str, found))


@pytest.mark.parametrize("page", PAGES, ids=_path)
def test_a_page_is_plain(page: Path):
    told = _told(prose.faults(_path(page), prose.sentences(page.read_text(encoding="utf-8"))))
    assert not told, f"\n{told}"


@pytest.mark.parametrize("page", READ_ONCE, ids=_path)
def test_no_sentence_of_a_first_page_begins_with_a_pronoun(page: Path):
    told = _told(prose.openings(_path(page), prose.sentences(page.read_text(encoding="utf-8"))))
    assert not told, f"\n{told}"


def _documented() -> dict[Path, frozenset[str] | None]:
    """The modules with public docstrings, and the names that are public in those that also have others."""
    exported: dict[Path, frozenset[str] | None] = {}
    for name in ecs_discovery.__all__:
        value = getattr(ecs_discovery, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            source = Path(inspect.getfile(inspect.unwrap(value)))
            exported[source] = (exported.get(source) or frozenset()) | {name}
    for package in (integrations, telemetry, testing):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if any(part.startswith("_") for part in module.name.split(".")):
                continue
            found = importlib.import_module(module.name)
            assert found.__file__ is not None
            names = getattr(found, "__all__", None)
            exported[Path(found.__file__)] = None if names is None else frozenset(names)
    return exported


DOCUMENTED = _documented()


@pytest.mark.parametrize("source", sorted(DOCUMENTED), ids=_path)
def test_public_docstrings_are_plain(source: Path):
    told = _told(prose.faults(_path(source), prose.docstrings(source, DOCUMENTED[source])))
    assert not told, f"\n{told}"


ERRORS = frozenset(
    {*errors.__all__, "InvalidURL", "InvalidSchema", "ValueError", "TypeError", "RuntimeError", "BadParameter"}
)


@pytest.mark.parametrize("source", MODULES, ids=_path)
def test_errors_hints_and_log_lines_are_plain(source: Path):
    told = _told(prose.faults(_path(source), prose.messages(source, ERRORS)))
    assert not told, f"\n{told}"


def _helps() -> dict[str, str]:
    """What `--help` says of each command, its options included."""
    found = {"ecs-discovery": commands.help or ""}
    for name, command in commands.commands.items():
        texts = [command.help or "", *(part.help or "" for part in command.params if isinstance(part, click.Option))]
        found[name] = "\n\n".join(texts)
    return found


@pytest.mark.parametrize("name", _helps())
def test_what_a_command_says_of_itself_is_plain(name: str):
    told = _told(prose.faults(name, prose.sentences(_helps()[name])))
    assert not told, f"\n{told}"


@pytest.mark.parametrize(
    "text",
    [
        "word " * 26,
        "| a |\n|---|\n| " + "word " * 26 + "|",
        "- " + "word " * 26,
        "The answer is kept as\never.",
        "A task that refuses, and one that vanishes.",
        "Set one.",
        "It takes the cost of a request and that of a connect.",
        "A list [of which](page.md) nothing is known.",
    ],
)
def test_what_is_hard_to_read_is_found(text: str):
    assert list(prose.faults("page", prose.sentences(text)))


@pytest.mark.parametrize(
    "text",
    [
        "word " * 25,
        "```text\n" + "word " * 26 + "\n```",
        "# " + "word " * 26,
        "Call `somebody(that of, one)` with `" + "word " * 26 + "`.",
        "It uses one of the tasks, or at least one.",
        "Short. " * 26,
    ],
)
def test_what_is_plain_passes(text: str):
    assert not list(prose.faults("page", prose.sentences(text)))


def test_a_fault_names_file_line_and_sentence():
    text = "# Title\n\nThe first sentence is fine.\nThe second is kept as ever."
    (fault,) = prose.faults("page.md", prose.sentences(text))
    assert str(fault) == "page.md:4: 'as ever' (better: as before): The second is kept as ever."
