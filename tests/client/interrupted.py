"""A program whose threads are ended at any moment: `python -m tests.client.interrupted KIND`.

It prints how many uses are left over, as JSON. It has a process of its own, for some of its threads may never end.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
import threading
import time
from collections.abc import Callable

import requests

from ecs_discovery import Discovery, ServiceConfig, wrap_session
from ecs_discovery.testing.lab import Lab

_INTERRUPTIONS = 200  # without care every third of those that end a lease leaves its use over


class Interrupted(BaseException):
    """Raised in another thread."""


class Worker:
    """Does one thing over and over in a thread; `interrupt` ends what it does at the moment."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.turns = 0
        """Things begun: each is interrupted once at most, for what ends an interrupted one is to end."""
        self.hits = 0
        self._work = work
        self._over = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over:
            try:
                self._rounds()
            except Interrupted:  # it came between two rounds
                pass

    def _rounds(self) -> None:
        while not self._over:
            try:
                while not self._over:
                    self.turns += 1
                    self._work()
            except Interrupted:
                self.hits += 1
            except requests.RequestException:  # of a connection that was interrupted
                pass

    def interrupt(self) -> None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(self._thread.ident or 0), ctypes.py_object(Interrupted)
        )

    def ended(self) -> bool:
        """False if it waits for a lock of the standard library that an exception has left locked."""
        self._over = True
        self._thread.join(5)
        return not self._thread.is_alive()


def play(kind: str) -> None:
    """Interrupt threads that do this until it was enough."""
    swallowed = list[object]()  # the interpreter drops an exception that comes as a finaliser begins, and the finaliser
    sys.unraisablehook = lambda raised: swallowed.append(raised.object)
    sys.setswitchinterval(5e-5)  # an exception is raised where a thread goes on after a switch
    with Lab(seed=5) as lab:
        address = ",".join(f"{task.address}:{task.port}" for task in lab.service("orders", tasks=2).tasks)
        config = ServiceConfig(f"static://{address}")
        with Discovery(services={"orders": config}) as discovery:
            sessions = threading.local()

            def lease() -> None:
                with discovery.lease("orders"):
                    pass

            def call() -> None:
                discovery.call("orders", lambda attempt: attempt.endpoint, idempotent=True)

            def connect() -> None:
                discovery.connect("orders").close()

            def get() -> None:
                if not hasattr(sessions, "own"):
                    sessions.own = wrap_session(requests.Session(), discovery=discovery)
                sessions.own.get("http://orders/", timeout=5).close()

            work = {"lease": lease, "call": call, "connect": connect, "get": get}[kind]
            work()
            nodes = discovery._driver.engine.service("orders").nodes
            workers = [Worker(work) for _ in range(3)]
            least, until = 0, time.monotonic() + 20
            while sum(worker.hits for worker in workers) < _INTERRUPTIONS and time.monotonic() < until:
                for worker in workers:
                    turns = worker.turns
                    worker.interrupt()
                    limit = time.monotonic() + 0.02
                    while worker.turns < turns + 2 and time.monotonic() < limit:
                        least = min(least, *(node.pending for node in nodes))
                        time.sleep(0.0002)
            stuck = sum(not worker.ended() for worker in workers)
            gc.collect()
            lease()  # ends what was forgotten
            hits = sum(worker.hits for worker in workers)
            left = sum(node.pending for node in nodes)
            told = {"least": least, "left": left, "stuck": stuck, "hits": hits, "swallowed": len(swallowed)}
            print(json.dumps(told))
            sys.stdout.flush()
            os._exit(0)  # threads that wait for a lock would hold up the end


if __name__ == "__main__":
    play(sys.argv[1])
