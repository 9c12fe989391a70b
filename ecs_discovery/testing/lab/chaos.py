"""Chaos: one thing after another goes wrong with the services of a lab, for soak tests."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from random import Random

from ecs_discovery.config.policies import CachePolicy
from ecs_discovery.testing.lab.ecs import Lab
from ecs_discovery.testing.lab.faults import DnsFault, Errors, Fault, Refuse, Reset, Slow, Vanish
from ecs_discovery.testing.lab.service import LabService
from ecs_discovery.testing.lab.tasks import LabTask, TaskState

__all__ = ["Chaos", "chaos"]

_SLOW = 0.3  # seconds that an answer comes later
_GRACE = 2.0  # seconds that a task which is told to stop has for requests in flight
_SHARE = 0.7  # of the answers that are errors
_FAULTS: dict[str, Fault] = {
    "refuse": Refuse(cut=True),
    "reset": Reset(),
    "errors": Errors(503, probability=_SHARE),
    "slow": Slow(_SLOW),
    "vanish": Vanish(),
}


@contextmanager
def chaos(
    lab: Lab,
    *,
    seed: int = 0,
    every: float = 2.0,
    kinds: Collection[str] | None = None,
    services: Collection[str] | None = None,
    settle: float | None = None,
) -> Iterator[Chaos]:
    """In the block one thing after another goes wrong with the services of the lab. At its end all tasks are well.

    The first event begins after `every` seconds, for each service by itself. The next event begins after 0.8 to 1.2
    times `every`, or later if an event takes longer. Each kind comes once before any kind comes again, in an order that
    `seed` decides. `kinds` names the kinds to choose from, by default all of `Chaos.KINDS` that this machine can play.
    `services` are names of services that the lab has, by default all.

    One task of a service has a fault at a time, and only if another task runs. A kill, and each step of a deployment,
    is followed by `settle` seconds without another change and without a fault of DNS. By then a client knows the new
    tasks. So a client always knows a task that is well, and loses no idempotent request if it repeats them elsewhere.
    The default of `settle` is right for a client with the default `CachePolicy`. It is 1.1 times the longer of 5 s and
    the `ttl` of the service, plus the lag of DNS.

    The name server takes part with kinds that begin with "DNS". While a `with` block of its own has set a fault of it,
    do not use these kinds. An event that has begun is brought to its end when the block ends.

    Raises `ValueError` for a kind or a service that there is not, without any, and if `every` is not above 0. What an
    event raises is raised at the end of the block.
    """
    playing = Chaos(lab, seed, every, kinds, services, settle)
    playing.begin()
    try:
        yield playing
    finally:
        playing.end()


class Chaos:
    """What `chaos` plays. A thread for each service waits for what comes next."""

    KINDS = (
        "deployment by kill",
        "deployment by drain",
        "deployment by vanish",
        "scale",
        "kill",
        "refuse",
        "reset",
        "errors",
        "slow",
        "vanish",
        *(f"DNS {fault.value}" for fault in DnsFault),
    )
    """What may go wrong."""

    def __init__(
        self,
        lab: Lab,
        seed: int,
        every: float,
        kinds: Collection[str] | None,
        services: Collection[str] | None,
        settle: float | None,
    ) -> None:
        if not every > 0:
            raise ValueError(f"every must be above 0 seconds, got {every!r}")
        for kind in self.KINDS if kinds is None else kinds or ("",):
            if kind not in self.KINDS:
                raise ValueError(f"a kind is one of {', '.join(self.KINDS)}; got {kind!r}")
        for name in services or ():
            if name not in lab.services:
                raise ValueError(f"services are {', '.join(lab.services) or 'none yet'}; got {name!r}")
        chosen = [lab.services[name] for name in (lab.services if services is None else services)]
        if not chosen:
            raise ValueError("the lab has no services: make them first")
        self.seen: Counter[str] = Counter()
        """What went wrong, and how often: `{"orders: kill": 2}`."""
        self._lab = lab
        self._every = every
        self._settle = settle
        self._kinds = tuple(self.KINDS if kinds is None else kinds)
        self._over = threading.Event()
        self._turn = threading.Lock()  # changes of tasks and faults of DNS come one after another
        self._failed: list[Exception] = []
        self._threads = [
            threading.Thread(
                target=self._play, args=(service, Random(f"{seed} {service.name}")), name=f"chaos-{service.name}"
            )
            for service in chosen
        ]

    def __repr__(self) -> str:
        return f"<Chaos {dict(self.seen)}>"

    def begin(self) -> None:
        """Called once."""
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """What goes wrong at this moment ends, and all tasks are well. Raises what an event has raised."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        if self._failed:
            raise self._failed[0]

    def _play(self, service: LabService, rng: Random) -> None:
        deck: list[str] = []
        self._over.wait(self._every)  # a client that has never seen an answer of DNS cannot do without
        while not self._over.is_set():
            if not deck:
                deck = list(self._kinds)
                rng.shuffle(deck)
            kind = deck.pop()
            try:
                if self._can(kind, service):
                    self.seen[f"{service.name}: {kind}"] += 1
                    self._act(kind, service, rng)
            except Exception as error:  # noqa: BLE001  # raised at the end of the block
                self._failed.append(error)
            self._over.wait(self._every * rng.uniform(0.1, 0.5))

    def _can(self, kind: str, service: LabService) -> bool:
        if "vanish" in kind and not self._lab.can_vanish:
            return False
        return kind.startswith(("DNS", "deployment", "scale")) or len(_running(service)) > 1

    def _act(self, kind: str, service: LabService, rng: Random) -> None:
        """It lasts 0.7 times as long as `every`, or as long as DNS needs to show it."""
        if kind in _FAULTS:
            self._fault(rng.choice(_running(service)), _FAULTS[kind])
            return
        with self._turn:
            if kind.startswith("DNS"):
                self._lab.dns.fault = DnsFault(kind.removeprefix("DNS "))
                self._over.wait(0.7 * self._every)
                self._lab.dns.fault = None
            else:
                self._change(kind, service, rng)

    def _fault(self, task: LabTask, fault: Fault) -> None:
        task.fault(fault)
        self._over.wait(0.7 * self._every)
        if task.state is not TaskState.STOPPED:  # the application's test may have ended it
            task.heal()

    def _change(self, kind: str, service: LabService, rng: Random) -> None:
        settle = _shown_after(service) if self._settle is None else self._settle
        if kind == "kill":
            service.kill(rng.choice(_running(service)))
            self._over.wait(0.2 * self._every)
            service.add_task()
        elif kind == "scale":
            count = len(_running(service))
            service.scale(count + 2)
            self._over.wait(max(settle, 0.7 * self._every))
            service.scale(count)
        else:
            how = kind.removeprefix("deployment by ")
            interval = max(self._every / 3, settle)
            service.deploy(interval=interval, stop=how, grace=_GRACE)  # type: ignore[arg-type]  # a word of these
        self._over.wait(settle)


def _running(service: LabService) -> list[LabTask]:
    return [task for task in service.tasks if task.state is TaskState.RUNNING]


def _shown_after(service: LabService) -> float:
    """Seconds until a client with the default policy knows of a change: no answer from before holds any longer."""
    cache = CachePolicy()
    holds = max(service.ttl, cache.min_ttl) * (1 + cache.jitter)
    return holds + max(service.registration_lag, service.deregistration_lag)
