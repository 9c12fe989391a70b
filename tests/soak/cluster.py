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
from contextlib import AbstractContextManager
from random import Random

from ecs_discovery.testing.lab import Chaos, Lab, LabService, LabTask, chaos

__all__ = ["TASKS"]

TASKS = 4


class Weather:
    """What happens to `orders`, where a task that is well is always left, and to `flaky`, where at times none is."""

    def __init__(self, lab: Lab, flaky: LabService, rng: Random) -> None:
        self.seen: Counter[str] = Counter()
        self._lab = lab
        self._flaky = flaky
        self._rng = rng
        self._chaos: AbstractContextManager[Chaos] | None = None
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._acts: dict[str, Callable[[], None]] = {
            "all answer 503": lambda: self._all(lambda task: task.errors(503)),
            "all refuse": lambda: self._all(lambda task: task.refuse(cut=True)),
            "none is there": self._outage,
        }

    def begin(self) -> None:
        self._over.clear()
        self._chaos = chaos(self._lab, seed=self._rng.getrandbits(32), every=2.0, services=["orders"], settle=0.8)
        self._on_orders = self._chaos.__enter__()
        self._thread = threading.Thread(target=self._play, args=(Random(self._rng.random()),), name="weather-flaky")
        self._thread.start()

    def end(self) -> None:
        """The act in progress ends as it would, and leaves all tasks well."""
        self._over.set()
        if self._chaos is not None and self._thread is not None:
            self._chaos.__exit__(None, None, None)
            self.seen += self._on_orders.seen
            self._thread.join()
        self._chaos = self._thread = None

    def _play(self, rng: Random) -> None:
        deck: list[str] = []
        while not self._over.is_set():
            if not deck:  # each once before any comes again
                deck = list(self._acts)
                rng.shuffle(deck)
            act = deck.pop()
            self._acts[act]()
            self.seen[f"flaky: {act}"] += 1
            self._over.wait(rng.uniform(0.3, 1.0))

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
        weather = Weather(lab, flaky, Random(seed))
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
