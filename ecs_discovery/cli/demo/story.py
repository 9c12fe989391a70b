"""What happens to the tasks during the demo: one script, spread over its seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any

from ecs_discovery.cli.demo.traffic import Request
from ecs_discovery.testing.lab import LabService, LabTask, Vanish
from ecs_discovery.testing.lab.tasks import TaskState

__all__ = ["Fate", "Story", "fate", "state_of"]

_SLOW = 0.3
_IN_HAND = "/slow/0.15"  # requests that a task is working on when it vanishes
_RUSH = 8
_VANISH_ATTEMPTS = 10
_HELD_UP = 0.2  # a stall from which on a request counts as held up
_AFTERMATH = 5.0  # seconds after a vanish in which stalls are put down to it


class _Over(Exception):
    """The demo was ended early."""


class Story:
    """Runs the script against a service.

    `rush(path, count)` has every client send requests at once; `pending(task)` is how many requests of the
    wrapped client are in flight to a task; `tell` takes each event in words. Setting `stop` ends it early.
    """

    def __init__(
        self,
        service: LabService,
        seconds: float,
        *,
        rush: Callable[[str, int], None],
        pending: Callable[[LabTask], int],
        tell: Callable[[str], None],
        stop: Event,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.vanished: LabTask | None = None
        self.vanished_at = 0.0
        """When, in monotonic seconds."""
        self.in_flight = 0
        """Requests of the wrapped client that were in flight to it."""
        self._service = service
        self._seconds = seconds
        self._rush = rush
        self._pending = pending
        self._tell = tell
        self._stop = stop
        self._clock = clock
        self._began = 0.0

    def run(self) -> None:
        """Play the script; returns when the seconds are over, or early."""
        self._began = self._clock()
        try:
            self._play()
        except _Over:
            pass

    def _play(self) -> None:
        service, tell = self._service, self._tell
        tell(f"{len(service.tasks)} healthy tasks, records with a TTL of {service.ttl:g} s")

        self._until(0.06)
        slow = service.tasks[0]
        slow.slow(_SLOW)
        tell(f"{slow.address} slows down: {_SLOW:g} s per answer")
        self._until(0.16)
        slow.heal()
        tell(f"{slow.address} is fast again")

        self._until(0.20)
        killed = service.tasks[1]
        service.kill(killed)
        lag = service.deregistration_lag
        tell(f"{killed.address} is killed; DNS names it for {lag:.1f} s more, caches for their TTL on top")
        self._pause(lag)
        self._replace()

        self._until(0.32)
        vanished = self._vanish()
        self._pause(lag)
        service.kill(vanished)  # unheard: its connections stay silent
        self._replace()

        self._until(0.42)
        before = {task: task.requests for task in service.tasks}
        self._until(0.46)
        # One that has work lately: who was slow a while ago gets so little that nobody would meet its answers.
        sound = [task for task in service.tasks if not task.faults]
        failing = max(sound, key=lambda task: task.requests - before.get(task, task.requests))
        failing.errors(503)
        tell(f"{failing.address} answers 503 to everything")
        self._until(0.57)
        failing.heal()
        tell(f"{failing.address} is well again")

        self._until(0.60)
        self._deploy(0.09 * self._seconds)
        self._until(1.0)

    def _vanish(self) -> LabTask:
        """Take the interface of a task away while it works on requests of the wrapped client."""
        for _ in range(_VANISH_ATTEMPTS):
            self._rush(_IN_HAND, _RUSH)
            self._pause(0.05)
            sound = [task for task in self._service.tasks if not task.faults and task.state is TaskState.RUNNING]
            task = min(sound, key=self._unfitness)
            task.vanish()
            self.vanished_at = self._clock()
            self.in_flight = self._pending(task)
            if self.in_flight:
                self._rush("/orders/rush", _RUSH)
                break
            task.heal()
        self.vanished = task
        self._tell(f"{task.address} vanishes with {self.in_flight} requests of the wrapped session in flight")
        return task

    def _unfitness(self, task: LabTask) -> tuple[bool, int]:
        """It must have work of the wrapped client; little of it, for idle tasks are given the next requests; and
        preferably some of the other client."""
        pending = self._pending(task)
        return not pending, pending - (task.in_flight > pending)

    def _deploy(self, interval: float) -> None:
        self._tell(f"a deployment replaces all {len(self._service.tasks)} tasks, one every {interval:.1f} s")
        deployment = self._service.deploy(interval=interval, stop="kill", background=True)
        while not deployment.done:
            self._pause(0.05)
        deployment.wait()
        self._tell("the deployment is done")

    def _replace(self) -> None:
        task = self._service.add_task()
        self._tell(f"{task.address} is started in its place; DNS shows it in {self._service.registration_lag:.1f} s")

    def _until(self, share: float) -> None:
        self._pause(self._began + share * self._seconds - self._clock())

    def _pause(self, seconds: float) -> None:
        if self._stop.wait(max(0.0, seconds)):
            raise _Over


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What became of one client's requests to the task that vanished.

    A request is told to be one of them by its wait: the caller does not know whom it calls.
    """

    in_hand: int
    """Under way when it vanished: acknowledged by its kernel, most likely being worked on."""
    in_hand_answered: int
    in_hand_lost: int
    in_hand_unanswered: int
    in_hand_longest_ms: float | None
    later: int
    """Sent afterwards, and held up by its silence."""
    later_answered: int
    later_lost: int
    later_unanswered: int
    later_longest_ms: float | None

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


def fate(requests: Sequence[Request], at: float, now: float) -> Fate:
    """Find the requests that met the silence of a task that vanished `at`; `now` is when they are looked at."""

    def held_up(request: Request) -> bool:
        if request.ended is None:
            return now - request.began >= _HELD_UP
        return request.stall >= _HELD_UP and request.ended > at + _HELD_UP

    met = [request for request in requests if request.began < at + _AFTERMATH and held_up(request)]
    counts: dict[str, Any] = {}
    for name, group in (
        ("in_hand", [request for request in met if request.began < at]),
        ("later", [request for request in met if request.began >= at]),
    ):
        ended = [request for request in group if request.ended is not None]
        lost = sum(request.lost for request in ended)
        counts[name] = len(group)
        counts[f"{name}_answered"] = len(ended) - lost
        counts[f"{name}_lost"] = lost
        counts[f"{name}_unanswered"] = len(group) - len(ended)
        counts[f"{name}_longest_ms"] = max((request.seconds or 0.0) * 1000 for request in ended) if ended else None
    return Fate(**counts)


def state_of(task: LabTask) -> str:
    """The state of a task in one word: its fault, if it has one."""
    if any(isinstance(fault, Vanish) for fault in task.faults):
        return "vanished"
    if task.state is TaskState.RUNNING and task.faults:
        return type(task.faults[0]).__name__.lower()
    return task.state.value
