"""An observer that keeps what it is told."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import Any

from ecs_discovery.events import AttemptEnded, AttemptStarted, CallEnded, CallStarted, ConnectEnded, LookupEnded

SPAN: ContextVar[str] = ContextVar("SPAN", default="")
"""What tracing would have set around an attempt."""


class Recorder:
    """`story` are the words in the order in which they came, `started`, `calls` and `attempts` the records."""

    def __init__(self) -> None:
        self.story: list[str] = []
        self.started: list[CallStarted | AttemptStarted] = []
        self.attempts: list[AttemptEnded] = []
        self.calls: list[CallEnded] = []
        self.connects: list[ConnectEnded] = []
        self.lookups: list[LookupEnded] = []

    def call_started(self, call: CallStarted) -> Recorder:
        self.story.append("call")
        self.started.append(call)
        return self

    def attempt_started(self, attempt: AttemptStarted) -> _Attempt:
        self.story.append(f"start {attempt.number}")
        self.started.append(attempt)
        return _Attempt(self, attempt.number)

    def ended(self, end: CallEnded) -> None:
        self.story.append("over")
        self.calls.append(end)

    def connect_ended(self, end: ConnectEnded) -> None:
        self.connects.append(end)

    def lookup_ended(self, end: LookupEnded) -> None:
        self.lookups.append(end)

    @property
    def kinds(self) -> list[str]:
        """What became of each attempt."""
        return [end.kind for end in self.attempts]


class _Attempt:
    def __init__(self, recorder: Recorder, number: int) -> None:
        self._recorder = recorder
        self._number = number
        self._thread = threading.get_ident()
        self._token = SPAN.set(f"attempt {number}")

    def left(self) -> None:
        assert threading.get_ident() == self._thread
        SPAN.reset(self._token)  # raises in another context than the one it was set in
        self._recorder.story.append(f"left {self._number}")

    def ended(self, end: AttemptEnded) -> None:
        assert end.number == self._number
        self._recorder.story.append(f"end {self._number}")
        self._recorder.attempts.append(end)


class Broken:
    """Fails in one of its methods."""

    def __init__(self, method: str) -> None:
        self._method = method

    def _raise(self, method: str) -> Any:
        if method == self._method:
            raise RuntimeError(f"broken {method}")
        return self

    def call_started(self, call: CallStarted) -> Any:
        return self._raise("call_started")

    def attempt_started(self, attempt: AttemptStarted) -> Any:
        return self._raise("attempt_started")

    def left(self) -> None:
        self._raise("left")

    def ended(self, end: Any) -> None:
        self._raise("ended")


FAULTS = ("call_started", "attempt_started", "left", "ended")
