"""Recorders: what calls, attempts and events there were, of one discovery or of all of the process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from threading import Lock
from typing import TypeVar

from ecs_discovery.client import emitter
from ecs_discovery.client.aio.discovery import AsyncDiscovery
from ecs_discovery.client.engine import Engine, attach_everywhere, detach_everywhere, engines
from ecs_discovery.client.sync.discovery import Discovery
from ecs_discovery.config.targets import parse_target
from ecs_discovery.events import AttemptEnded, AttemptStarted, CallEnded, CallStarted, Event, LookupEnded

__all__ = ["EventLog", "Recorder", "short", "snapshots"]

E = TypeVar("E")


def short(target: str) -> str:
    """The short name of the service that a target names: `orders` of `orders.prod.local:8080` or of
    `cloudmap://prod/orders`."""
    parsed = parse_target(target)
    return parsed.name.rpartition("/")[2] if parsed.scheme == "cloudmap" else parsed.name.partition(".")[0]


def _of(name: str | None, told: list[tuple[CallStarted, E]]) -> list[E]:
    wanted = None if name is None else short(name)
    return [end for began, end in told.copy() if wanted is None or short(began.target) == wanted]


class Recorder:
    """Keeps the calls and attempts of a discovery; of every discovery of the process where none is given.

    A context manager; `close()` ends it too. What was recorded stays.
    """

    def __init__(self, discovery: Discovery | AsyncDiscovery | None = None) -> None:
        self.calls: list[tuple[CallStarted, CallEnded]] = []
        """Calls that have ended, with how they began."""
        self.attempts: list[tuple[CallStarted, AttemptEnded]] = []
        """Attempts that have ended, with the call that they belong to."""
        self.lookups: list[LookupEnded] = []
        """Lookups that have ended."""
        self._lock = Lock()
        self._open = True
        self._engine = None if discovery is None else discovery._engine
        if self._engine is None:
            attach_everywhere(self)
        else:
            self._engine.observe(self)

    def __repr__(self) -> str:
        return f"<Recorder {len(self.calls)} calls, {len(self.attempts)} attempts>"

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Record no more, not even the end of calls in flight. Twice is once."""
        with self._lock:
            if not self._open:
                return
            self._open = False
        if self._engine is None:
            detach_everywhere(self)
        for engine in engines() if self._engine is None else (self._engine,):
            engine.unobserve(self)

    @property
    def began(self) -> int:
        """How many calls there were."""
        return len(self.calls)

    @property
    def amplification(self) -> float:
        """Attempts per call. 1 without calls."""
        return self.attempts_per_call()

    def attempts_per_call(self, name: str | None = None) -> float:
        """Attempts per call, of one service (by any of its names, such as `orders`) or of all. 1 without calls."""
        calls = len(_of(name, self.calls))
        attempts = len(_of(name, self.attempts))
        return attempts / calls if calls else 1.0

    def by_endpoint(self, name: str | None = None) -> dict[str, int]:
        """How many attempts each endpoint had, by `address:port`: of one service (by any of its names) or of all."""
        return dict(Counter(str(end.endpoint) for end in _of(name, self.attempts)))

    # As an observer

    def attach(self, engine: Engine) -> None:
        """Called for each engine of the process."""
        engine.observe(self)

    def call_started(self, call: CallStarted) -> _Call:
        """See `events.Observer`."""
        return _Call(self, call)

    def lookup_ended(self, end: LookupEnded) -> None:
        """See `events.Observer`."""
        with self._lock:
            if self._open:
                self.lookups.append(end)

    def _call_ended(self, call: CallStarted, end: CallEnded) -> None:
        with self._lock:
            if self._open:
                self.calls.append((call, end))

    def _attempt_ended(self, call: CallStarted, end: AttemptEnded) -> None:
        with self._lock:
            if self._open:
                self.attempts.append((call, end))


class _Call:
    def __init__(self, recorder: Recorder, call: CallStarted) -> None:
        self._recorder = recorder
        self._call = call

    def attempt_started(self, attempt: AttemptStarted) -> _Attempt:
        return _Attempt(self._recorder, self._call)

    def ended(self, end: CallEnded) -> None:
        self._recorder._call_ended(self._call, end)


class _Attempt:
    def __init__(self, recorder: Recorder, call: CallStarted) -> None:
        self._recorder = recorder
        self._call = call

    def left(self) -> None:
        """Nothing was set."""

    def ended(self, end: AttemptEnded) -> None:
        self._recorder._attempt_ended(self._call, end)


class EventLog:
    """The events of every discovery of the process, in the order in which they were told.

    A context manager; `close()` ends it too.
    """

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._hear: Callable[[Event], None] = self._events.append
        emitter.listening.append(self._hear)

    def __repr__(self) -> str:
        return f"<EventLog {len(self._events)} events>"

    def __iter__(self) -> Iterator[Event]:
        return iter(self._events.copy())

    def __len__(self) -> int:
        return len(self._events)

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def of(self, kind: type[E]) -> list[E]:
        """The events of one class, such as `HealthChanged`."""
        return [event for event in self if isinstance(event, kind)]

    def last(self, kind: type[E]) -> E:
        """The last event of one class. Raises `AssertionError` that names the events there were if it has none."""
        found = self.of(kind)
        if not found:
            raise AssertionError(f"no {kind.__name__} among {len(self)} events: {[str(event) for event in self]}")
        return found[-1]

    def clear(self) -> None:
        """Forget what was told."""
        self._events.clear()

    def close(self) -> None:
        """Hear no more. Twice is once."""
        emitter.listening[:] = [each for each in emitter.listening if each is not self._hear]


def snapshots() -> list[str]:
    """What every discovery of the process knows of the services that it found, for a report."""
    return [
        str(engine.snapshot(service))
        for engine in engines()
        for service in engine.directory.services()
        if service.resolution is not None
    ]
