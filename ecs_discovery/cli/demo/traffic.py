"""A client under load: requests at a steady rate, and a record of what became of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from queue import SimpleQueue
from random import Random
from threading import Event, Lock, Thread
from typing import Any, NamedTuple

__all__ = ["SLOW_SECONDS", "SLOW_SHARE", "Answer", "Request", "Summary", "Traffic", "percentile", "summarize"]

SLOW_SHARE, SLOW_SECONDS = 0.1, 0.15
"""Which share of the requests asks for an answer that takes its time, and how long that is."""
_SLOW_PATH = f"/slow/{SLOW_SECONDS}"


class Answer(NamedTuple):
    """What came back."""

    status: int
    task: str | None
    """Who answered."""


Send = Callable[[str], Answer]


@dataclass(slots=True)
class Request:
    """One request, as its caller sees it. Times are monotonic seconds."""

    path: str
    began: float
    ended: float | None = None
    status: int | None = None
    task: str | None = None
    error: str = ""

    @property
    def seconds(self) -> float | None:
        """How long the caller waited; None while it waits."""
        return None if self.ended is None else self.ended - self.began

    @property
    def lost(self) -> bool:
        """True if the caller got an exception or an answer of 500 or more."""
        return bool(self.error) or (self.status is not None and self.status >= 500)

    @property
    def stall(self) -> float:
        """How much longer than its handler it took, so far."""
        handler = float(self.path.removeprefix("/slow/")) if self.path.startswith("/slow/") else 0.0
        return max(0.0, (self.seconds or 0.0) - handler)

    @property
    def complaint(self) -> str:
        """Why it is lost, in words."""
        return self.error or f"status {self.status}"


class Traffic:
    """One client: `workers` callers that take requests from one queue, filled `rate` times a second.

    `connect` is called once in each worker and returns what sends a request; anything it raises is that request's
    loss. A caller that waits takes no other request; when all wait, requests of the schedule are held back and counted.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], Send],
        *,
        rate: float,
        workers: int,
        rng: Random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.held_back = 0
        """Requests that were due while every caller waited."""
        self._requests: list[Request] = []
        self._ended: list[Request] = []
        self._connect = connect
        self._rate = rate
        self._rng = rng
        self._clock = clock
        self._queue: SimpleQueue[str | None] = SimpleQueue()
        self._stop = Event()
        self._lock = Lock()
        self._workers = [Thread(target=self._work, name=f"{name}-{i}", daemon=True) for i in range(workers)]
        self._pacer = Thread(target=self._pace, name=f"{name}-pacer", daemon=True)

    def __repr__(self) -> str:
        return f"<Traffic {self.name} {len(self._requests)} requests>"

    @property
    def requests(self) -> tuple[Request, ...]:
        """Every request begun, oldest first."""
        return tuple(self._requests)

    @property
    def waiting(self) -> int:
        """Requests begun and not ended."""
        return len(self._requests) - len(self._ended)

    def start(self) -> None:
        """Begin to send."""
        for thread in (*self._workers, self._pacer):
            thread.start()

    def rush(self, path: str, count: int) -> None:
        """Send `count` requests more, at once."""
        for _ in range(count):
            self._queue.put(path)

    def stop(self) -> None:
        """Send nothing more. Requests in flight go on."""
        self._stop.set()
        for _ in self._workers:
            self._queue.put(None)

    def join(self, timeout: float) -> bool:
        """Wait until every caller has its answer; False if that takes longer."""
        limit = self._clock() + timeout
        for worker in self._workers:
            worker.join(max(0.0, limit - self._clock()))
        return not any(worker.is_alive() for worker in self._workers)

    def recent(self, seconds: float) -> dict[str, float]:
        """Each task's share of the good answers of the last seconds."""
        since = self._clock() - seconds
        counts: dict[str, int] = {}
        for index in range(len(self._ended) - 1, -1, -1):
            request = self._ended[index]
            if request.ended is None or request.ended < since:
                break
            if request.task is not None and not request.lost:
                counts[request.task] = counts.get(request.task, 0) + 1
        total = sum(counts.values())
        return {task: count / total for task, count in counts.items()}

    def summary(self) -> Summary:
        """The figures so far."""
        return summarize(self.requests, self.held_back)

    def _pace(self) -> None:
        due = self._clock()
        while not self._stop.wait(max(0.0, due - self._clock())):
            due += 1 / self._rate
            if self._queue.qsize() >= len(self._workers):
                self.held_back += 1
                continue
            self._queue.put(_SLOW_PATH if self._rng.random() < SLOW_SHARE else f"/orders/{self._rng.randrange(1000)}")

    def _work(self) -> None:
        send = self._connect()
        while (path := self._queue.get()) is not None and not self._stop.is_set():
            request = Request(path, self._clock())
            with self._lock:
                self._requests.append(request)
            try:
                request.status, request.task = send(path)
            except Exception as error:  # noqa: BLE001  # whatever it is, the caller has no answer
                request.error = f"{type(error).__name__}: {error}"
            with self._lock:
                request.ended = self._clock()
                self._ended.append(request)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The figures of one client. Latencies are those of all requests that ended, lost ones included."""

    requests: int
    answered: int
    lost: int
    unanswered: int
    """Begun, and without an answer or an error when the figures were taken."""
    held_back: int
    success_rate: float | None
    """Answered of those that ended; None if there are none."""
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


def summarize(requests: Sequence[Request], held_back: int = 0) -> Summary:
    """The figures of these requests."""
    ended = [request for request in requests if request.ended is not None]
    lost = sum(request.lost for request in ended)
    milliseconds = sorted(request.seconds * 1000 for request in ended if request.seconds is not None)
    return Summary(
        requests=len(requests),
        answered=len(ended) - lost,
        lost=lost,
        unanswered=len(requests) - len(ended),
        held_back=held_back,
        success_rate=(len(ended) - lost) / len(ended) if ended else None,
        p50_ms=percentile(milliseconds, 50),
        p99_ms=percentile(milliseconds, 99),
        max_ms=percentile(milliseconds, 100),
    )


def percentile(ascending: Iterable[float], percent: float) -> float | None:
    """The smallest value that at least `percent` of 100 values do not exceed (nearest rank); None of none."""
    values = list(ascending)
    if not values:
        return None
    return values[max(1, ceil(len(values) * percent / 100)) - 1]
