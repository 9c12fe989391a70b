"""`ecs-discovery demo`: three clients side by side, while things happen to the tasks they call."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from random import Random
from threading import Event
from typing import Any

import click
import requests
from requests.adapters import HTTPAdapter, Retry
from rich.console import Console
from rich.live import Live

from ecs_discovery import events
from ecs_discovery.cli.console import fail, output
from ecs_discovery.cli.demo import html, view
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
"""The clients' `timeout=`. The read part is longer than TCP keep-alive takes to give a vanished peer up."""
_STRAGGLERS = 5.0
"""Seconds that the wrapped session's requests in flight have at the end."""
_GRACE = 0.5
"""Seconds that the other requests have then, and all requests after Ctrl-C. What has no answer by then is shown so."""
INTERRUPTED = 130
"""The exit status after Ctrl-C: 128 and the number of SIGINT."""
_WINDOW = 3.0
_FRAME = 0.25
_LOST_SHOWN = 10


def show(*, seconds: float, rate: float, seed: int | None, as_json: bool, page: Path | None = None) -> int:
    """Run the demo and print it, and write the report to `page`; returns the exit status: 0 if the wrapped session lost
    nothing, 130 after Ctrl-C."""
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
                        demo.run(lambda: screen.update(demo.picture(console.height), refresh=True))
                else:
                    demo.run(_printer(demo))
            except KeyboardInterrupt:
                demo.interrupted = True
            report = demo.report()
            if page is not None:
                page.write_text(html.page(demo.history()), encoding="utf-8")
            if as_json:
                click.echo(json.dumps(report, allow_nan=False, indent=2))
            else:
                _conclude(console, demo)
                if page is not None:
                    click.echo(f"The report is in {page}.")
            if demo.interrupted:
                return INTERRUPTED
            return 1 if report["wrapped"]["lost"] + report["wrapped"]["unanswered"] else 0


class Demo:
    """The clients, their service and the story, from `with` to its end."""

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

        paths = rng.random()  # the same for all
        self.wrapped, self.plain, self.retrying = self.sides = tuple(
            Traffic(name, _sender(session, origin), rate=rate, workers=_WORKERS, rng=Random(paths))
            for name, session in (("wrapped", wrapped), ("plain", _plain), ("plain_retry", _retrying))
        )
        self._stop = Event()
        self.story = Story(
            self._service, seconds, rush=self._rush, pending=self._pending, tell=self._tell, stop=self._stop
        )
        self._began = time.monotonic()

    def __enter__(self) -> Demo:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for side in self.sides:
            side.stop()
        self.discovery.close()

    def run(self, frame: Callable[[], object]) -> None:
        """Play the story and wait for the last answers; `frame` is called several times a second."""
        with self._dns.installed(), ThreadPoolExecutor(1) as stage:
            self._began = time.monotonic()
            try:
                story = stage.submit(self.story.run)
                for side in self.sides:
                    side.start()
                self._watch(story, frame)
                story.result()
                self._gather(frame)
            finally:
                self._stop.set()
                limit = time.monotonic() + _GRACE
                for side in self.sides:
                    side.stop()
                for side in self.sides:
                    side.join(max(0.0, limit - time.monotonic()))

    def picture(self, height: int) -> Any:
        """What to show now, for a terminal of so many lines."""
        elapsed = time.monotonic() - self._began
        scores = [(side.name, side.summary()) for side in self.sides]
        return view.live(elapsed, self.seconds, scores, self.rows(), self.lines, height)

    def history(self) -> html.History:
        """All that happened, for the report."""
        tasks = {task.id: task.address for task in self._service.all_tasks}
        sides = {side.name: (side.requests, side.summary()) for side in self.sides}
        return html.History(self.seconds, self._began, sides, tasks, tuple(self.lines))

    def rows(self) -> list[view.TaskRow]:
        """The tasks of interest: those that run, those that still have answers, those the discovery still knows."""
        nodes = {node.endpoint: node for node in self.discovery.snapshot(self._target).nodes}
        shares = [side.recent(_WINDOW) for side in self.sides]
        rows = []
        for task in self._service.all_tasks:
            node = nodes.get(_endpoint(task))
            gone = task.state is TaskState.STOPPED
            if gone and node is None and not any(share.get(task.id) for share in shares):
                continue
            rows.append(
                view.TaskRow(
                    address=task.address,
                    state=state_of(task),
                    health=node.health if node else "",
                    pending=node.pending if node else 0,
                    ejections=node.ejections if node else 0,
                    latency=node.latency if node else None,
                    shares=tuple(share.get(task.id, 0.0) for share in shares),
                )
            )
        return rows

    def report(self) -> dict[str, Any]:
        """The facts so far, as plain values."""
        # The two plain sessions have one resolver, as the programs of one host do.
        plain_queries = self._dns.queries
        queries_of = {"wrapped": self._lab.dns.total - plain_queries}
        report: dict[str, Any] = {"seconds": self.seconds, "interrupted": self.interrupted}
        for side in self.sides:
            queries = queries_of.get(side.name, plain_queries)
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
                **{side.name: fate(side.requests, at, now).as_dict() for side in self.sides},
            }
        report["events"] = view.as_dict(self.lines)
        return report

    def conclusion(self) -> list[Any]:
        """The summary, for people."""
        plain_queries = self._dns.queries
        wrapped = self.wrapped.summary()
        scores = [(side.name, side.summary()) for side in self.sides]
        parts: list[Any] = [view.comparison(scores, self._lab.dns.total - plain_queries, plain_queries)]
        if self.story.vanished is not None:
            now, at = time.monotonic(), self.story.vanished_at
            fates = [(side.name, fate(side.requests, at, now)) for side in self.sides]
            parts += view.vanish_lines(self.story.vanished.address, fates)
        parts += ["", view.verdict(wrapped)]
        parts += [f"  lost: {one.path}: {one.complaint}" for one in self.wrapped.requests if one.lost][:_LOST_SHOWN]
        return parts

    def _watch(self, story: Future[None], frame: Callable[[], object]) -> None:
        while not story.done():
            frame()
            time.sleep(_FRAME)
        frame()

    def _gather(self, frame: Callable[[], object]) -> None:
        """Wait for requests of the wrapped session in flight. Some of the others would go on for 20 s."""
        for side in self.sides:
            side.stop()
        limit = time.monotonic() + _STRAGGLERS
        while not self.wrapped.join(_FRAME) and time.monotonic() < limit:
            frame()
        frame()

    def _rush(self, path: str, count: int) -> None:
        for side in self.sides:
            side.rush(path, count)

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


def _retrying() -> requests.Session:
    session = _plain()
    retry = Retry(total=3, backoff_factor=0.1, status_forcelist=(502, 503, 504))  # as people write it
    session.mount("http://", HTTPAdapter(max_retries=retry))
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
    if console.is_terminal:  # the live picture is gone; elsewhere each event was printed as it happened
        for line in view.shortened(demo.lines):
            console.print(line, soft_wrap=True)
    for part in demo.conclusion():
        console.print(part, soft_wrap=isinstance(part, str))
