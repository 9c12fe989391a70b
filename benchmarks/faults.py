"""(d) Faults under load: what is lost and how long callers wait, beside what people use otherwise.

Each client has a lab of its own with four tasks, so that the requests that reach the tasks are its own. All labs are
given the same fault at the same time. Every client waits 2 s for a connection and 2 s for an answer.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from random import Random
from types import TracebackType
from typing import Any, Self

import httpx
import requests
import urllib3
from httpx_retries import Retry as HttpxRetry
from httpx_retries import RetryTransport
from requests.adapters import HTTPAdapter

from benchmarks.peers import Envoy, LabProcess, envoy_program
from ecs_discovery import Discovery, TimeoutPolicy, wrap_session
from ecs_discovery.cli.demo.plain_dns import PlainDns
from ecs_discovery.cli.demo.traffic import Answer, Traffic

__all__ = ["SCENARIOS", "run"]

RATE, WORKERS, TASKS = 40.0, 24, 4
LIMIT = 2.0  # seconds, for a connect and for an answer
BEFORE, AFTER, PATIENCE = 3.0, 12.0, 20.0
SCENARIOS = {
    "a task is killed": "kill 0",
    "a task vanishes": "vanish 0",
    "a task answers 503": "errors 0 503",
    "a task takes 1 s": "slow 0 1.0",
    "all tasks are replaced": f"deploy stop=kill interval={AFTER / TASKS / 2}",
    "all are replaced, and vanish": f"deploy stop=vanish interval={AFTER / TASKS / 2}",
}
Connect = Callable[[], Callable[[str], Answer]]


def run(scenarios: dict[str, str] = SCENARIOS) -> dict[str, Any]:
    """The figures of each client in each scenario."""
    return {name: _play(command) for name, command in scenarios.items()}


def _play(command: str) -> dict[str, Any]:
    with ExitStack() as stack:
        labs, clients = {}, {}
        for name in names():
            lab = LabProcess("--tasks", str(TASKS), "--seed", "1", "--ttl", "10", "--deregistration-lag", "2")
            labs[name] = stack.enter_context(lab)
            clients[name] = stack.enter_context(ClientProcess(name, lab.facts))
        for client in clients.values():
            client.line()  # it is ready
        for client in clients.values():
            client.begin()
        time.sleep(BEFORE)
        for lab in labs.values():
            lab.tell(command)
        found = {}
        for name, client in clients.items():
            figures = json.loads(client.line())
            received = sum(task["requests"] for task in _tasks(labs[name].tell("snapshot")))
            # What a task received that has stopped is not told: only where all tasks stay can attempts be counted.
            stopped = command.split()[0] in ("kill", "deploy")
            found[name] = {**figures, "attempts": None if stopped else received / max(1, figures["requests"])}
        return found


class ClientProcess:
    """A client in a process of its own, so that no other waits for its lock."""

    def __init__(self, name: str, facts: dict[str, Any]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.faults", name, json.dumps(facts)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()

    def begin(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a client of the benchmark has ended")
        return line


def main(name: str, facts: dict[str, Any]) -> dict[str, Any]:
    """One client: the figures of its requests."""
    logging.disable(logging.CRITICAL)
    with _clients()[name](Service(facts)) as connect:
        made = [connect() for _ in range(WORKERS)]  # before the clock runs: a client of httpx takes long to make
        for send in made[:TASKS]:
            send("/orders/1")
        traffic = Traffic(name, made.pop, rate=RATE, workers=WORKERS, rng=Random(1))
        print("ready", flush=True)
        sys.stdin.readline()
        traffic.start()
        time.sleep(BEFORE + AFTER)
        traffic.stop()
        traffic.join(PATIENCE)
        return {**traffic.summary().as_dict()}


class Service:
    """Where the lab's service is."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.namespace = str(facts["namespace"])
        self.nameserver = str(facts["nameserver"])
        self.name = f"{facts['service']}.{self.namespace}"
        self.port = int(facts["port"])


def _tasks(snapshot: dict[str, Any]) -> list[dict[str, Any]]:
    return [task for service in snapshot["services"].values() for task in service["tasks"]]


def names() -> list[str]:
    """The clients that there are here."""
    return [name for name in _clients() if "Envoy" not in name or envoy_program() is not None]


def _clients() -> dict[str, Any]:
    return {
        "this, requests": _ours,
        "plain requests": _plain,
        "requests, urllib3 Retry": _retry,
        "httpx-retries": _httpx_retries,
        "Envoy, requests": _envoy,
    }


def _sender(get: Callable[[str], Any], base: str) -> Callable[[str], Answer]:
    def send(path: str) -> Answer:
        response = get(base + path)
        return Answer(response.status_code, response.headers.get("X-Task"))

    return send


@contextmanager
def _ours(lab: Service) -> Iterator[Connect]:
    with Discovery(
        namespace=lab.namespace, nameservers=[lab.nameserver], timeout=TimeoutPolicy(connect=LIMIT)
    ) as discovery:

        def connect() -> Callable[[str], Answer]:
            session = wrap_session(requests.Session(), discovery)
            return _sender(lambda url: session.get(url, timeout=(LIMIT, LIMIT)), f"http://orders:{lab.port}")

        yield connect


@contextmanager
def _plain(lab: Service, retry: urllib3.Retry | None = None) -> Iterator[Connect]:
    host, port = lab.nameserver.rsplit(":", 1)
    with PlainDns(lab.namespace, host, int(port), rng=Random(1)).installed():

        def connect() -> Callable[[str], Answer]:
            session = requests.Session()
            if retry is not None:
                session.mount("http://", HTTPAdapter(max_retries=retry))
            return _sender(lambda url: session.get(url, timeout=(LIMIT, LIMIT)), f"http://{lab.name}:{lab.port}")

        yield connect


@contextmanager
def _retry(lab: Service) -> Iterator[Connect]:
    """As its documentation recommends for idempotent requests."""
    with _plain(lab, urllib3.Retry(total=3, backoff_factor=0.1, status_forcelist=[502, 503, 504])) as connect:
        yield connect


@contextmanager
def _httpx_retries(lab: Service) -> Iterator[Connect]:
    host, port = lab.nameserver.rsplit(":", 1)
    with PlainDns(lab.namespace, host, int(port), rng=Random(1)).installed():

        def connect() -> Callable[[str], Answer]:
            client = httpx.Client(
                transport=RetryTransport(retry=HttpxRetry(total=3, backoff_factor=0.1)), timeout=LIMIT
            )
            return _sender(client.get, f"http://{lab.name}:{lab.port}")

        yield connect


@contextmanager
def _envoy(lab: Service) -> Iterator[Connect]:
    with Envoy(lab) as proxy:

        def connect() -> Callable[[str], Answer]:
            session = requests.Session()
            return _sender(lambda url: session.get(url, timeout=(LIMIT, LIMIT)), proxy.url)

        yield connect


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], json.loads(sys.argv[2]))), flush=True)
