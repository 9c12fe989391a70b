from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from ecs_discovery.cli import main
from ecs_discovery.testing.lab import Lab


class Ran(NamedTuple):
    """What a command left behind."""

    status: int
    out: str
    err: str


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(namespace="prod.local", seed=1) as lab:
        yield lab


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """Runs the command line in this process, without settings from the environment."""
    for name in ("NAMESPACE", "NAMESERVERS", "SERVICES", "DISABLED"):
        monkeypatch.delenv(f"ECS_DISCOVERY_{name}", raising=False)

    def run(*arguments: str) -> Ran:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        out, err = capsys.readouterr()
        return Ran(ended.value.code, out, err)

    return run
