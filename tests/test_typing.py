"""What mypy says of programs that use the package: a misspelt setting is an error, a right one is not."""

from __future__ import annotations

from pathlib import Path

import pytest

api = pytest.importorskip("mypy.api")

RIGHT = """
import requests
from ecs_discovery import AsyncDiscovery, Discovery, RetryPolicy, wrap_session

session: requests.Session = wrap_session(
    requests.Session(), namespace="prod.local", retry=RetryPolicy(attempts=2), on_event=print
)
with Discovery(namespace="prod.local") as discovery:
    number: int = discovery.call("orders:80", lambda attempt: attempt.number)
    wrap_session(session, discovery)
"""
WRONG = """
import requests
from ecs_discovery import wrap_session

wrap_session(requests.Session(), namspace="prod.local")
wrap_session(requests.Session(), retry=3)
wrap_session(requests.Session(), retries=None)
"""


def errors_of(program: str, folder: Path) -> list[str]:
    source = folder / "program.py"
    source.write_text(program, encoding="utf-8")
    out, _, _ = api.run(["--strict", "--no-incremental", "--cache-dir", str(folder / "cache"), str(source)])
    return [line for line in out.splitlines() if line.startswith(str(source)) and ": error:" in line]


def test_a_right_program_has_no_error(tmp_path: Path):
    assert errors_of(RIGHT, tmp_path) == []


def test_each_misspelt_or_wrong_setting_is_an_error(tmp_path: Path):
    lines = [
        int(line.removeprefix(str(tmp_path / "program.py") + ":").partition(":")[0])
        for line in errors_of(WRONG, tmp_path)
    ]
    assert lines == [5, 6, 7]
