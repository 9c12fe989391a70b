"""A soak: `python -m tests.soak --seconds 3600 --seed 1` has threads and asyncio send requests while tasks come and go.

Requests, streams, cancellations and forks meet deployments, faults of tasks and faults of DNS. At the end the
process must hold what it held after the warm-up: memory, descriptors and threads. Nothing may be in flight, and no
request may be lost that had a task to go to. A line a minute says how it goes, and the last line is the summary as
JSON. The exit status is 1 if anything is wrong, with the reasons in standard error.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from tests.soak.callers import Callers
from tests.soak.measures import grown, held, threads, unfinished

ROOT = Path(__file__).resolve().parents[2]
_FORKS = 5.0  # seconds between two forks, on average
_CHILD = 60.0  # seconds that the child of a fork may take
_REST = 60.0  # seconds that requests in flight may take to end
_WARM = 120.0  # seconds of the warm-up, at most


class LogLines(logging.Handler):
    """Counts what the package logs: its text would be most of what a soak says."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1


class Cluster:
    """The process with the tasks."""

    def __init__(self, seed: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.soak.cluster", str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.facts = self._read()

    def go(self) -> None:
        self._say("go")

    def calm(self) -> dict[str, int]:
        """All tasks are well again. What there was, and how often."""
        self._say("calm")
        return self._read()

    def close(self) -> None:
        self._process.communicate()

    def _say(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the cluster ended with status {self._process.wait()}")
        found: dict[str, Any] = json.loads(line)
        return found


class Soak:
    """One soak."""

    def __init__(self, seconds: float, seed: int) -> None:
        self._seconds = seconds
        self._rng = Random(seed)
        self._seed = seed
        self._began = time.monotonic()
        self._said = self._began
        self.reasons: list[str] = []
        self.forks = 0
        self._log = LogLines()

    def run(self) -> dict[str, Any]:
        cluster = Cluster(self._seed)
        logger = logging.getLogger("ecs_discovery")
        logger.addHandler(self._log)
        logger.propagate = False
        try:
            start = held()
            callers = Callers(cluster.facts, self._seed)
            callers.start()
            try:
                warm_up = min(self._seconds / 5, _WARM)
                self._play(cluster, callers, warm_up)
                warm = held()
                seen = self._play(cluster, callers, self._seconds - warm_up)
                end = held()
                self.reasons += grown(warm, end)
            finally:
                callers.close()
            tally = callers.tally
            self.reasons += [f"a task is left: {task}" for task in callers.tasks_left]
            self.reasons += [f"lost: {text}" for text in tally.lost]
            del callers
            closed = self._closed(start)
        finally:
            cluster.close()
        return {
            "seed": self._seed,
            "seconds": round(time.monotonic() - self._began),
            "requests": tally.requests,
            "lost": tally.counts["lost"],
            "outcomes": dict(tally.counts),
            "forks": self.forks,
            "log_lines": self._log.count,
            "weather": seen,
            "start": start.as_dict(),
            "warm": warm.as_dict(),
            "end": end.as_dict(),
            "closed": closed.as_dict(),
            "reasons": self.reasons,
        }

    def _play(self, cluster: Cluster, callers: Callers, seconds: float) -> dict[str, int]:
        """Requests and weather for that long, and then rest."""
        until = time.monotonic() + seconds
        cluster.go()
        callers.go()
        while (now := time.monotonic()) < until:
            time.sleep(min(until - now, self._rng.expovariate(1 / _FORKS)))
            if hasattr(os, "fork"):
                self._fork(callers.in_a_child)
            if time.monotonic() - self._said >= 60:
                self._say(callers)
        callers.pause()
        seen = cluster.calm()
        self._await(lambda: callers.idle, "requests are still in flight")
        self._await(lambda: not unfinished(callers.engine), "")
        self.reasons += unfinished(callers.engine)
        return seen

    def _await(self, condition: Callable[[], bool], reason: str) -> None:
        until = time.monotonic() + _REST
        while not condition():
            if time.monotonic() > until:
                self.reasons += [reason] if reason else []
                return
            time.sleep(0.05)

    def _fork(self, work: Callable[[], None]) -> None:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                work()
                status = 0
            except BaseException as error:  # noqa: BLE001  # a child must not go on as its parent
                os.write(2, f"in a child: {type(error).__name__}: {error}\n".encode())
            finally:
                os._exit(status)
        self.forks += 1
        until = time.monotonic() + _CHILD
        while True:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                break
            if time.monotonic() > until:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                self.reasons.append(f"the child of a fork did not end within {_CHILD:.0f} s")
                return
            time.sleep(0.02)
        if status:
            self.reasons.append(f"the child of a fork ended with {os.waitstatus_to_exitcode(status)}")

    def _closed(self, start: Any) -> Any:
        """What is held once all is closed: what was held before, and no more."""

        def over() -> bool:
            now = held()
            return now.threads <= start.threads and (now.descriptors or 0) <= (start.descriptors or 0)

        self._await(over, "")
        closed = held()
        if closed.threads > start.threads:
            self.reasons.append(f"threads are left after all was closed: {', '.join(threads())}")
        if (closed.descriptors or 0) > (start.descriptors or 0):
            self.reasons.append(f"{closed.descriptors} descriptors are left of {start.descriptors} at the start")
        return closed

    def _say(self, callers: Callers) -> None:
        self._said = time.monotonic()
        now, tally = held(), callers.tally
        print(
            f"{self._said - self._began:.0f} s: {tally.requests} requests, {tally.counts['lost']} lost, "
            f"{self.forks} forks, {(now.rss or 0) / 2**20:.0f} MiB, {now.descriptors} descriptors, "
            f"{now.threads} threads",
            flush=True,
        )


def main(arguments: list[str] | None = None) -> int:
    options = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    options.add_argument("--seconds", type=float, default=60.0, help="how long (60)")
    options.add_argument("--seed", type=int, default=1, help="of the requests and of the faults (1)")
    given = options.parse_args(arguments)
    summary = Soak(given.seconds, given.seed).run()
    print(json.dumps(summary))
    for reason in summary["reasons"]:
        print(reason, file=sys.stderr)
    return 1 if summary["reasons"] else 0


if __name__ == "__main__":
    sys.exit(main())
