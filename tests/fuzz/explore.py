"""A search for inputs that matter: an input is kept if it runs code in an order that no input before it did.

The steps from line to line are what counts, and how often each is made. Python's tracing tells them.
"""

from __future__ import annotations

import email.utils
import hashlib
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

import ecs_discovery
from tests.fuzz import parsers
from tests.fuzz.bounds import assert_cheap
from tests.fuzz.mutations import mutated
from tests.fuzz.parsers import Parser

__all__ = ["CORPUS", "Search", "failure_of", "reached", "read_corpus"]

CORPUS = Path(__file__).parent / "corpus"
_PACKAGE = str(Path(ecs_discovery.__file__).parent)
_ROOTS = (_PACKAGE, parsers.__file__, str(Path(email.utils.__file__).with_name("_parseaddr.py")))
"""Where steps are looked at: what answers are judged by, and the parser of dates, tell inputs apart too."""
_OFTEN = 4
Step = tuple[str, int, int, int]
"""A file, two line numbers, and how often one follows the other, as the number of binary digits."""


def read_corpus(folder: Path) -> dict[str, bytes]:
    """The inputs by file name."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*"))}


def failure_of(parser: Parser, data: bytes) -> BaseException | None:
    """What is wrong with what the parser makes of an input: a stray exception, a wrong answer, or its cost."""
    try:
        parser.play(data)
        assert_cheap(lambda: parser.play(data))
    except Exception as error:  # noqa: BLE001  # whatever it is, it is the finding
        return error
    return None


def reached(work: Callable[[], Any], root: str | tuple[str, ...] = _ROOTS) -> tuple[set[Step], BaseException | None]:
    """The steps that `work` makes in files whose path begins with `root`, and what it raises."""
    counts: Counter[tuple[str, int, int]] = Counter()

    def enter(frame: FrameType, event: str, argument: Any) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(root):
            return None
        before = 0

        def step(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal before
            if event == "line":
                counts[name, before, frame.f_lineno] += 1
                before = frame.f_lineno
            return step

        return step

    kept = sys.gettrace()
    sys.settrace(enter)
    raised: BaseException | None = None
    try:
        work()
    except Exception as error:  # noqa: BLE001  # handed to the caller
        raised = error
    finally:
        sys.settrace(kept)
    return {(*step, min(count.bit_length(), _OFTEN)) for step, count in counts.items()}, raised


class Search:
    """One search with one parser, from the inputs in `folder` and the parser's seeds."""

    def __init__(self, parser: Parser, folder: Path, rng: Random, *, root: str | tuple[str, ...] = _ROOTS) -> None:
        self.parser = parser
        self.tried = 0
        self.new: list[Path] = []
        self.failed: list[Path] = []
        self._folder = folder
        self._rng = rng
        self._root = root
        self._known: set[Step] = set()
        self._errors: set[str] = set()
        self._inputs: list[bytes] = []
        folder.mkdir(parents=True, exist_ok=True)
        for data in sorted(read_corpus(folder).values(), key=len):
            self._known |= self._play(data)[0]
            self._inputs.append(data)
        for data in parser.seeds:
            self._try(data)

    def run(self, seconds: float) -> None:
        """Try mutated inputs for that long. What reaches new code or fails is saved."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.once()

    def once(self) -> None:
        """Try one mutated input."""
        self._try(mutated(self._rng.choice(self._inputs), self._inputs, self.parser.words, self._rng))

    def trim(self) -> int:
        """Delete the inputs of the folder that reach nothing but what shorter inputs reach. How many remain."""
        known: set[Step] = set()
        remain = 0
        for path in sorted(self._folder.glob("*"), key=lambda path: (path.stat().st_size, path.name)):
            steps = self._play(path.read_bytes())[0]
            if steps <= known and not path.name.startswith("failed-"):
                path.unlink()
            else:
                remain += 1
            known |= steps
        return remain

    def _play(self, data: bytes) -> tuple[set[Step], BaseException | None]:
        return reached(lambda: self.parser.play(data), self._root)

    def _try(self, data: bytes) -> None:
        self.tried += 1
        steps, error = self._play(data)
        if error is None and steps <= self._known:
            return
        self._known |= steps
        error = error or failure_of(self.parser, data)
        if error is None:
            self._inputs.append(data)
            self.new.append(self._save("", data))
        elif (kind := _place_of(error)) not in self._errors:  # one input for each is enough
            self._errors.add(kind)
            self.failed.append(self._save("failed-", data))

    def _save(self, prefix: str, data: bytes) -> Path:
        path = self._folder / f"{prefix}{hashlib.sha256(data).hexdigest()[:12]}"
        path.write_bytes(data)
        return path


def _place_of(error: BaseException) -> str:
    """What was raised and where: failures of one mistake have it in common."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f"{trace.tb_frame.f_code.co_filename} {trace.tb_lineno}" if trace is not None else ""
    return f"{type(error).__name__} {where}"
