"""A lab in a process of its own, for benchmarks: `python -m ecs_discovery.testing.lab --service orders --tasks 3`.

Prints one line of JSON that says where everything is, then runs until its standard input ends or `--seconds` are
over. Each line of standard input is a command, and each is answered with one line of JSON:

    deploy stop=vanish interval=0.2     replace all tasks, in the background
    scale 5                             start or stop tasks
    slow 0 1.5                          a fault for the task at that place of the list: slow, errors, refuse,
    heal 0                              reset, hang, drain, vanish, kill; and its end
    snapshot                            the state of everything
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ecs_discovery.errors import foreign
from ecs_discovery.testing.lab.ecs import Lab
from ecs_discovery.testing.lab.service import LabService
from ecs_discovery.testing.lab.tasks import LabTask

_TASK_VERBS: dict[str, Callable[[LabTask, list[float]], object]] = {
    "slow": lambda task, numbers: task.slow(*numbers),
    "errors": lambda task, numbers: task.errors(*map(int, numbers)),
    "refuse": lambda task, numbers: task.refuse(),
    "reset": lambda task, numbers: task.reset(),
    "hang": lambda task, numbers: task.hang(),
    "drain": lambda task, numbers: task.drain(),
    "vanish": lambda task, numbers: task.vanish(),
    "heal": lambda task, numbers: task.heal(),
    "kill": lambda task, numbers: task.kill(),
}
_VERBS = ("snapshot", "scale", "deploy", *_TASK_VERBS)
_DEPLOY_KINDS: dict[str, Callable[[str], Any]] = {
    "batch": int,
    "interval": float,
    "stop": str,
    "grace": float,
    "boot": float,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the lab; returns the exit status."""
    options = _parser().parse_args(arguments)
    with Lab(namespace=options.namespace, seed=options.seed) as lab:
        service = lab.service(
            options.service,
            tasks=options.tasks,
            port=options.port,
            ttl=options.ttl,
            records=options.records,
            registration_lag=options.registration_lag,
            deregistration_lag=options.deregistration_lag,
        )
        _say(
            {
                "nameserver": lab.nameserver,
                "namespace": lab.namespace,
                "service": service.name,
                "port": service.port,
                "url": service.url(),
                "tasks": [f"{task.address}:{task.port}" for task in service.tasks],
            }
        )
        for line in _lines(options.seconds):
            _say(obey(lab, service, line))
    return 0


def obey(lab: Lab, service: LabService, line: str) -> dict[str, Any]:
    """Do what one command says; the answer has `error` in it if that could not be done."""
    verb, *words = line.split()
    if verb not in _VERBS:
        return {"error": f"{foreign(verb)}: no such command; there are {', '.join(_VERBS)}"}
    try:
        if verb == "snapshot":
            return lab.snapshot()
        if verb == "scale":
            service.scale(int(words[0]))
        elif verb == "deploy":
            pairs = (word.split("=", 1) for word in words)
            service.deploy(**{key: _DEPLOY_KINDS[key](value) for key, value in pairs}, background=True)
        else:
            _TASK_VERBS[verb](service.tasks[int(words[0])], [float(word) for word in words[1:]])
    except (ValueError, LookupError, TypeError, RuntimeError) as error:
        return {"error": f"{line}: {type(error).__name__}: {error}"}
    return {"done": line}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ecs_discovery.testing.lab",
        description="An ECS service on loopback.",
        epilog=f"Commands on standard input, one a line: {', '.join(_VERBS)}; a task is named by its number.",
    )
    parser.add_argument("--service", default="orders")
    parser.add_argument("--namespace", default="prod.local")
    parser.add_argument("--tasks", type=int, default=3)
    parser.add_argument("--port", type=int, default=None, help="of all tasks; default: a free port")
    parser.add_argument("--records", choices=("A", "SRV", "A+SRV"), default="A+SRV")
    parser.add_argument("--ttl", type=float, default=10.0)
    parser.add_argument("--registration-lag", type=float, default=0.0)
    parser.add_argument("--deregistration-lag", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--seconds", type=float, default=None, help="default: until standard input ends")
    return parser


def _say(facts: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def _lines(seconds: float | None) -> Iterator[str]:
    """Lines of standard input, until it ends or the time is over."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        # Not sys.stdin: a daemon thread that is blocked in it breaks the exit of the interpreter.
        rest = b""
        while data := os.read(sys.stdin.fileno(), 65536):
            *whole, rest = (rest + data).split(b"\n")
            for line in whole:
                lines.put(line.decode(errors="replace"))
        lines.put(None)

    threading.Thread(target=read, name="ecs-lab-stdin", daemon=True).start()
    end = None if seconds is None else time.monotonic() + seconds
    while True:
        try:
            line = lines.get(timeout=None if end is None else max(end - time.monotonic(), 0))
        except queue.Empty:
            return
        if line is None:
            return
        if line.strip():
            yield line


if __name__ == "__main__":
    sys.exit(main())
