"""What is done after an import is done once, whenever the import is."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ecs_discovery.integrations._import_hook import ImportHook


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    name = "imported_for_a_hook"
    (tmp_path / f"{name}.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = list(sys.meta_path)
    yield name
    sys.meta_path[:] = before
    sys.modules.pop(name, None)


def test_a_module_imported_later_is_told_of_once_it_has_run(module: str):
    told: list[Any] = []
    ImportHook({module: lambda found: told.append(found.value)}).begin()
    assert told == []
    imported = importlib.import_module(module)
    assert told == [1]
    importlib.reload(imported)
    assert told == [1]
    assert type(imported.__loader__).__name__ == "SourceFileLoader"
    assert "exec_module" not in vars(imported.__loader__)


def test_a_module_that_is_there_already_is_told_of_at_once(module: str):
    importlib.import_module(module)
    told: list[Any] = []
    hook = ImportHook({module: told.append})
    hook.begin()
    hook.begin()
    assert len(told) == 1


def test_two_hooks_for_one_module_are_both_told(module: str):
    told: list[str] = []
    for name in ("first", "second"):
        ImportHook({module: lambda _, name=name: told.append(name)}).begin()
    importlib.import_module(module)
    assert sorted(told) == ["first", "second"]


def test_a_module_that_fails_is_told_of_when_it_succeeds(module: str, tmp_path: Path):
    told: list[Any] = []
    ImportHook({module: told.append}).begin()
    source = tmp_path / f"{module}.py"
    source.write_text("raise RuntimeError('not yet')\n")
    with pytest.raises(RuntimeError):
        importlib.import_module(module)
    source.write_text("value = 22\n")
    importlib.invalidate_caches()
    importlib.import_module(module)
    assert len(told) == 1
