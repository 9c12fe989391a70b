"""`ecs-discovery demo`: a wrapped and a plain client side by side, while things happen to the tasks they call."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from random import Random
from threading import Event
from typing import Any

import click
import requests
from rich.console import Console
from rich.live import Live

from ecs_discovery import events
from ecs_discovery.cli.console import fail, output
from ecs_discovery.cli.demo import view
from ecs_discovery.cli.demo.plain_dns import PlainDns
from ecs_discovery.cli.demo.story import Story, fate, state_of
from ecs_discovery.cli.demo.traffic import Answer, Traffic
from ecs_discovery.client.sync.discovery import Discovery
from ecs_discovery.config.settings import Settings
from ecs_discovery.integrations.requests import wrap_session
from ecs_discovery.testing.lab import Lab, LabTask
from ecs_discovery.testing.lab.tasks import TaskState

__all__ = ["Demo", "show"]

_NAMESPACE = "prod.local"
_TASKS = 4
_TTL = 5.0
_WORKERS = 12
_TIMEOUT = (2.0, 20.0)
"""Both clients' `timeout=`. The read part is longer than TCP keep-alive takes to give a vanished peer up."""
_STRAGGLERS = 32.0
"""Seconds that requests in flight have at the end: a discovery's deadline, and a little."""
_GRACE = 0.5
"""Seconds that they have after Ctrl-C."""
_WINDOW = 3.0
_FRAME = 0.25
_LOST_SHOWN = 10


def show(*, seconds: float, rate: float, seed: int | None, as_json: bool) -> int:
    """Run the demo and print it; returns the exit status: 0 if the wrapped session lost nothing."""
    logging.getLogger("urllib3").addHandler(logging.NullHandler())
    console = output()
    with Lab(namespace=_NAMESPACE, seed=seed) as lab:
        if lab.single_address or not lab.can_vanish:
            return fail("the demo needs Linux: tasks with addresses of their own, and packets that can be dropped", 1)
        with Demo(lab, seconds=seconds, rate=rate, seed=seed) as demo:
            try:
                if as_json:
                    demo.run(lambda: None)
                elif console.is_terminal and not console.is_dumb_terminal:
                    with Live(console=console, auto_refresh=False, transient=True) as screen:
                        demo.run(lambda: screen.update(demo.picture(), refresh=True))
                else:
                    demo.run(_printer(demo))
            except KeyboardInterrupt:
                demo.interrupted = True
            report = demo.report()
            if as_json:
                click.echo(json.dumps(report, allow_nan=False, indent=2))
            else:
                _conclude(console, demo)
            missing = report["wrapped"]["lost"] + (0 if demo.interrupted else report["wrapped"]["unanswered"])
            return 1 if missing else 0


class Demo:
    """Both clients, their service and the story, from `with` to its end."""

    def __init__(self, lab: Lab, *, seconds: float, rate: float, seed: int | None) -> None:
        self.lines: list[view.Line] = []
        self.interrupted = False
        self.seconds = seconds
        self._lab = lab
        rng = Random(seed)
        self._service = lab.service(
            "orders",
            tasks=_TASKS,
            ttl=_TTL,
            records="A+SRV",
            registration_lag=min(1.0, 0.04 * seconds),
            deregistration_lag=min(2.0, 0.06 * seconds),
        )
        self._dns = PlainDns(_NAMESPACE, lab.dns.address, lab.dns.port, rng=Random(rng.random()))
        # What the environment says is about other services than these.
        settings = Settings.make(namespace=_NAMESPACE, nameservers=[lab.nameserver], environ={})
        self.discovery = Discovery(settings=settings, on_event=self._on_event, rng=Random(rng.random()))
        self._target = f"{self._service.fqdn}:{self._service.port}"
        origin = self._service.url("")

        def wrapped() -> requests.Session:
            return wrap_session(_plain(), discovery=self.discovery)

        paths = rng.random()  # the same for both
        self.wrapped = Traffic("wrapped", _sender(wrapped, origin), rate=rate, workers=_WORKERS, rng=Random(paths))
        self.plain = Traffic("plain", _sender(_plain, origin), rate=rate, workers=_WORKERS, rng=Random(paths))
        self._stop = Event()
        self.story = Story(
            self._service, seconds, rush=self._rush, pending=self._pending, tell=self._tell, stop=self._stop
        )
        self._began = time.monotonic()

    def __enter__(self) -> Demo:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self.wrapped.stop()
        self.plain.stop()
        self.discovery.close()

    def run(self, frame: Callable[[], object]) -> None:
        """Play the story and wait for the last answers; `frame` is called several times a second."""
        with self._dns.installed(), ThreadPoolExecutor(1) as stage:
            self._began = time.monotonic()
            try:
                self.wrapped.start()
                self.plain.start()
                story = stage.submit(self.story.run)
                self._watch(story, frame)
                story.result()
                self._gather(frame)
            finally:
                self._stop.set()
                self.wrapped.stop()
                self.plain.stop()
                self.wrapped.join(_GRACE)
                self.plain.join(_GRACE)

    def picture(self) -> Any:
        """What to show now, for a terminal."""
        return view.live(time.monotonic() - self._began, self.seconds, self.rows(), self.lines)

    def rows(self) -> list[view.TaskRow]:
        """The tasks of interest: those that run, those that still have answers, those the discovery still knows."""
        nodes = {node.endpoint: node for node in self.discovery.snapshot(self._target).nodes}
        wrapped, plain = self.wrapped.recent(_WINDOW), self.plain.recent(_WINDOW)
        rows = []
        for task in self._service.all_tasks:
            node = nodes.get(_endpoint(task))
            gone = task.state is TaskState.STOPPED
            if gone and node is None and not wrapped.get(task.id) and not plain.get(task.id):
                continue
            rows.append(
                view.TaskRow(
                    address=task.address,
                    state=state_of(task),
                    health=node.health if node else "",
                    pending=node.pending if node else 0,
                    ejections=node.ejections if node else 0,
                    latency=node.latency if node else None,
                    wrapped=wrapped.get(task.id, 0.0),
                    plain=plain.get(task.id, 0.0),
                )
            )
        return rows

    def report(self) -> dict[str, Any]:
        """The facts so far, as plain values."""
        plain_queries = self._dns.queries
        sides = ((self.wrapped, self._lab.dns.total - plain_queries), (self.plain, plain_queries))
        report: dict[str, Any] = {"seconds": self.seconds, "interrupted": self.interrupted}
        for side, queries in sides:
            report[side.name] = {
                **side.summary().as_dict(),
                "dns_queries": queries,
                "lost_requests": [
                    {"at": round(one.began - self._began, 3), "path": one.path, "error": one.complaint}
                    for one in side.requests
                    if one.lost
                ][:_LOST_SHOWN],
            }
        report["vanish"] = None
        if self.story.vanished is not None:
            now, at = time.monotonic(), self.story.vanished_at
            report["vanish"] = {
                "at": round(at - self._began, 3),
                "task": self.story.vanished.address,
                "in_flight": self.story.in_flight,
                **{side.name: fate(side.requests, at, now).as_dict() for side, _ in sides},
            }
        report["events"] = view.as_dict(self.lines)
        return report

    def conclusion(self) -> list[Any]:
        """The summary, for people."""
        plain_queries = self._dns.queries
        wrapped, plain = self.wrapped.summary(), self.plain.summary()
        parts: list[Any] = [view.comparison(wrapped, plain, self._lab.dns.total - plain_queries, plain_queries)]
        if self.story.vanished is not None:
            now, at = time.monotonic(), self.story.vanished_at
            fates = (fate(side.requests, at, now) for side in (self.wrapped, self.plain))
            parts += view.vanish_lines(self.story.vanished.address, *fates)
        parts += ["", view.verdict(wrapped)]
        parts += [f"  lost: {one.path}: {one.complaint}" for one in self.wrapped.requests if one.lost][:_LOST_SHOWN]
        return parts

    def _watch(self, story: Future[None], frame: Callable[[], object]) -> None:
        while not story.done():
            frame()
            time.sleep(_FRAME)
        frame()

    def _gather(self, frame: Callable[[], object]) -> None:
        """Wait for requests in flight: those that met a task which vanished have seconds to go."""
        self.wrapped.stop()
        self.plain.stop()
        if self.wrapped.waiting or self.plain.waiting:
            self._tell(f"waiting for {self.wrapped.waiting} wrapped and {self.plain.waiting} plain requests in flight")
        limit = time.monotonic() + _STRAGGLERS
        for side in (self.wrapped, self.plain):
            while not side.join(_FRAME) and time.monotonic() < limit:
                frame()
        frame()

    def _rush(self, path: str, count: int) -> None:
        self.wrapped.rush(path, count)
        self.plain.rush(path, count)

    def _pending(self, task: LabTask) -> int:
        nodes = self.discovery.snapshot(self._target).nodes
        return sum(node.pending for node in nodes if node.endpoint == _endpoint(task))

    def _tell(self, text: str) -> None:
        self.lines.append(view.Line(time.monotonic() - self._began, "lab", text))

    def _on_event(self, event: events.Event) -> None:
        text = str(event).removeprefix(f"{event.target}: ")
        self.lines.append(view.Line(time.monotonic() - self._began, "discovery", text))


def _sender(session: Callable[[], requests.Session], origin: str) -> Callable[[], Callable[[str], Answer]]:
    def connect() -> Callable[[str], Answer]:
        mine = session()

        def send(path: str) -> Answer:
            response = mine.get(origin + path, timeout=_TIMEOUT)
            return Answer(response.status_code, response.headers.get("X-Task"))

        return send

    return connect


def _plain() -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # a proxy of the environment has no way to the lab
    return session


def _endpoint(task: LabTask) -> str:
    return f"{task.address}:{task.port}"


def _printer(demo: Demo) -> Callable[[], None]:
    """Prints each event once, as a line."""
    printed = 0

    def frame() -> None:
        nonlocal printed
        while printed < len(demo.lines):
            click.echo(str(demo.lines[printed]))
            printed += 1

    return frame


def _conclude(console: Console, demo: Demo) -> None:
    for part in demo.conclusion():
        console.print(part, soft_wrap=isinstance(part, str))
