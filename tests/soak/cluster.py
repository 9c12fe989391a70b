"""The cluster of a soak, in a process of its own: what it keeps of tasks that are gone is no memory of the client's.

It says in one line of JSON where it is. Then it takes a word a line: `go` has the weather begin, `calm` has it end and
every task be well, which is answered with what there was. It ends with its standard input.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from random import Random

from ecs_discovery.testing.lab import DnsFault, Lab, LabService, LabTask

__all__ = ["TASKS"]

TASKS = 4
_KEPT = 200
"""Sockets of vanished tasks that are held. The clients gave up on older ones long ago."""


class Weather:
    """What happens to `orders`, where a task that is well is always left, and to `flaky`, where at times none is."""

    def __init__(self, lab: Lab, orders: LabService, flaky: LabService, rng: Random) -> None:
        self.seen: Counter[str] = Counter()
        self._lab = lab
        self._orders = orders
        self._flaky = flaky
        self._rng = rng
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._on_orders: dict[str, Callable[[], None]] = {
            "deployment by kill": lambda: self._deploy("kill"),
            "deployment by drain": lambda: self._deploy("drain"),
            "scale": self._scale,
            "kill": self._kill,
            "refuse": lambda: self._one(lambda task: task.refuse(cut=True)),
            "reset": lambda: self._one(lambda task: task.reset()),
            "errors": lambda: self._one(lambda task: task.errors(503, probability=0.7)),
            "slow": lambda: self._one(lambda task: task.slow(0.3)),
            **{f"DNS {fault.value}": lambda fault=fault: self._dns(fault) for fault in DnsFault},  # type: ignore[misc]
        }
        if lab.can_vanish:
            self._on_orders["vanish"] = lambda: self._one(lambda task: task.vanish())
            self._on_orders["deployment by vanishing"] = lambda: self._deploy("vanish")
        self._on_flaky: dict[str, Callable[[], None]] = {
            "all answer 503": lambda: self._all(lambda task: task.errors(503)),
            "all refuse": lambda: self._all(lambda task: task.refuse(cut=True)),
            "none is there": self._outage,
        }

    def begin(self) -> None:
        self._over.clear()
        for name, acts in (("orders", self._on_orders), ("flaky", self._on_flaky)):
            rng = Random(self._rng.random())
            thread = threading.Thread(target=self._play, args=(name, acts, rng), name=f"weather-{name}")
            self._threads.append(thread)
            thread.start()

    def end(self) -> None:
        """The act in progress ends as it would, and leaves all tasks well."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._threads = []

    def _play(self, name: str, acts: dict[str, Callable[[], None]], rng: Random) -> None:
        deck: list[str] = []
        while not self._over.is_set():
            if not deck:  # each once before any comes again
                deck = list(acts)
                rng.shuffle(deck)
            act = deck.pop()
            acts[act]()
            self.seen[f"{name}: {act}"] += 1
            self._over.wait(rng.uniform(0.3, 1.0))

    def _one(self, fault: Callable[[LabTask], object]) -> None:
        task = self._orders.tasks[0]
        fault(task)
        self._over.wait(1.5)
        task.heal()

    def _kill(self) -> None:
        self._orders.kill(self._orders.tasks[-1])
        self._over.wait(0.5)
        self._orders.add_task()

    def _scale(self) -> None:
        self._orders.scale(TASKS + 2)
        self._over.wait(1.0)
        self._orders.scale(TASKS)

    def _deploy(self, how: str) -> None:
        self._orders.deploy(interval=0.8, stop=how, grace=2.0)  # type: ignore[arg-type]  # one of three words
        self._lab._thread.call(self._let_go)

    def _let_go(self) -> None:
        kept = self._lab._kept
        for sock in kept[:-_KEPT]:
            sock.close()
        del kept[:-_KEPT]

    def _dns(self, fault: DnsFault) -> None:
        self._lab.dns.fault = fault
        self._over.wait(1.5)
        self._lab.dns.fault = None

    def _all(self, fault: Callable[[LabTask], object]) -> None:
        tasks = self._flaky.tasks
        for task in tasks:
            fault(task)
        self._over.wait(1.0)
        for task in tasks:
            task.heal()
        self._over.wait(4.0)  # ejections end

    def _outage(self) -> None:
        self._flaky.scale(0, stop="kill")
        self._over.wait(1.0)
        self._flaky.scale(2)
        self._over.wait(4.0)


def main(seed: int) -> None:
    say = sys.stdout
    with Lab(namespace="prod.local", seed=seed) as lab:
        orders = lab.service("orders", tasks=TASKS, ttl=1, deregistration_lag=0.5)
        flaky = lab.service("flaky", tasks=2, ttl=1)
        say.write(json.dumps({"nameserver": lab.nameserver, "orders": orders.url(), "flaky": flaky.url()}) + "\n")
        say.flush()
        weather = Weather(lab, orders, flaky, Random(seed))
        for line in sys.stdin:
            if line.strip() == "go":
                weather.begin()
            else:
                weather.end()
                time.sleep(0.6)  # DNS shows the last change
                say.write(json.dumps(weather.seen) + "\n")
                say.flush()
        weather.end()


if __name__ == "__main__":
    main(int(sys.argv[1]))
