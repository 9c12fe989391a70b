"""Draws docs/pictures/dashboard.svg: `python docs/pictures/dashboard.py`, with the extra `test`. It takes 8 minutes.

An incident happens in the lab, and a real Prometheus (Debian package `prometheus`) reads its metrics each second. Each
panel of docs/dashboards/grafana.json is then drawn from what Prometheus answers to the panel's own queries. Grafana
takes no part.
"""

from __future__ import annotations

import json
import logging
import math
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from html import escape
from pathlib import Path
from random import Random
from threading import Event, Thread
from typing import Any, NamedTuple

import requests
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import start_http_server

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from ecs_discovery import Discovery, HealthCheckPolicy, HedgePolicy, wrap_session  # noqa: E402  # the path comes first
from ecs_discovery.cli.demo.charts import COLORS, Axis, Mark, Series, lines, ticks  # noqa: E402
from ecs_discovery.cli.demo.story import Story  # noqa: E402
from ecs_discovery.cli.demo.traffic import SLOW_SECONDS, SLOW_SHARE, Answer, Traffic  # noqa: E402
from ecs_discovery.telemetry.opentelemetry import OpenTelemetry  # noqa: E402
from ecs_discovery.testing.lab import Lab, LabTask  # noqa: E402
from tests.servers import PrometheusServer, free_port  # noqa: E402

BOARD = ROOT / "docs" / "dashboards" / "grafana.json"
SECONDS, SEED, RATE, WORKERS = 480.0, 1, 20.0, 12
ORDERS = "orders:8080"
"""A name with a port is asked of DNS as A records; `payments`, without a port, as SRV records."""
INTERVAL = 5.0
"""The seconds between two readings that Grafana's data source is told of: rates are over four of them."""


# The incident


class Incident:
    """Two services, their callers, and what happens to the tasks. `events` has the seconds and the words of it."""

    def __init__(self, lab: Lab, discovery: Discovery, seconds: float, rate: float) -> None:
        self.seconds = seconds
        self.events: list[tuple[float, str]] = []
        lag = min(2.0, 0.04 * seconds)
        ttl = min(10.0, 0.1 * seconds)
        self._discovery = discovery
        self._orders, self._payments = (
            lab.service(
                name, tasks=tasks, ttl=ttl, records="A+SRV", registration_lag=lag / 2, deregistration_lag=lag, port=port
            )
            for name, tasks, port in (("orders", 4, 8080), ("payments", 6, 8081))
        )
        self._stop = Event()
        self._began = time.monotonic()
        self._buyers = self._callers(ORDERS, "GET", rate)
        self._payers = self._callers("payments", "POST", rate / 2)

    def _callers(self, service: str, method: str, rate: float) -> Traffic:
        def connect() -> Callable[[str], Answer]:
            session = wrap_session(requests.Session(), discovery=self._discovery)
            session.trust_env = False  # a proxy of the environment has no way to the lab

            def send(path: str) -> Answer:
                response = session.request(method, f"http://{service}{path}", timeout=(2.0, 5.0))
                return Answer(response.status_code, response.headers.get("X-Task"))

            return send

        return Traffic(service, connect, rate=rate, workers=WORKERS, rng=Random(SEED))

    def play(self) -> None:
        """All of it. Returns when the seconds are over."""
        story = Story(
            self._orders,
            self.seconds,
            rush=self._buyers.rush,
            pending=self._pending,
            tell=self._tell_of_orders,
            stop=self._stop,
        )
        self._began = time.monotonic()
        other = Thread(target=self._play_payments)
        for each in (self._buyers, self._payers, other):
            each.start()
        try:
            story.run()
            other.join()
        finally:
            self._stop.set()
            for side in (self._buyers, self._payers):
                side.stop()
            for side in (self._buyers, self._payers):
                side.join(6.0)

    def _play_payments(self) -> None:
        service = self._payments
        self._until(0.62)
        cutting, refusing = service.tasks[:2], service.tasks[2:5]
        for task in cutting:
            task.reset()
        self._tell("payments: 2 of 6 tasks cut each connection that sends a request")
        self._until(0.70)
        for task in refusing:
            task.refuse(cut=True)
        self._tell("payments: 3 more tasks refuse connections")
        self._until(0.76)
        for task in (*cutting, *refusing):
            task.heal()
        self._tell("payments: these 5 tasks are well again")
        self._until(0.86)
        for task in service.tasks:
            task.errors(503, retry_after=1.0, probability=0.5)
        self._tell("payments: half of the answers are 503, with Retry-After")
        self._until(0.92)
        for task in service.tasks:
            task.heal()
        self._tell("payments: all answers are good again")

    def _pending(self, task: LabTask) -> int:
        nodes = self._discovery.snapshot(ORDERS).nodes
        return sum(node.pending for node in nodes if node.endpoint == f"{task.address}:{task.port}")

    def _tell_of_orders(self, text: str) -> None:
        if self.events or "slows down" in text:  # what is said first is how it all was
            self._tell(f"orders: {text.partition(';')[0]}")

    def _tell(self, text: str) -> None:
        if "started in its place" not in text:  # a second line at the same time
            self.events.append((time.monotonic() - self._began, text))

    def _until(self, share: float) -> None:
        self._stop.wait(max(0.0, self._began + share * self.seconds - time.monotonic()))


class Watched(NamedTuple):
    """An incident that is over, and the Prometheus that read its metrics."""

    prometheus: PrometheusServer
    began: float
    """In seconds since 1970, as Prometheus has it."""
    seconds: float
    events: Sequence[tuple[float, str]]


@contextmanager
def watched(program: str, folder: Path, seconds: float, rate: float = RATE) -> Iterator[Watched]:
    """Play an incident under the eyes of Prometheus."""
    with ExitStack() as stack:
        provider = MeterProvider([PrometheusMetricReader()])
        stack.callback(provider.shutdown)
        lab = stack.enter_context(Lab(namespace="prod.local", seed=SEED))
        discovery = stack.enter_context(
            Discovery(
                namespace="prod.local",
                nameservers=[lab.nameserver],
                telemetry=OpenTelemetry(provider),
                rng=Random(SEED),
                hedge=HedgePolicy(enabled=True),
                health_check=HealthCheckPolicy(kind="http", interval=min(10.0, seconds / 8)),
            )
        )
        port = free_port()
        server, thread = start_http_server(port, addr="127.0.0.1")
        stack.callback(thread.join)
        stack.callback(server.server_close)
        stack.callback(server.shutdown)
        prometheus = stack.enter_context(PrometheusServer(program, folder, f"127.0.0.1:{port}"))
        incident = Incident(lab, discovery, seconds, rate)
        began = time.time()
        incident.play()
        time.sleep(1.5)  # Prometheus reads each second
        yield Watched(prometheus, began, seconds, incident.events)


# The answers


class Line(NamedTuple):
    """One series of an answer. `points` are seconds since the beginning, and values."""

    refers: str
    """The letter of its query."""
    labels: Mapping[str, str]
    legend: str
    points: Sequence[tuple[float, float | None]]

    @property
    def last(self) -> float | None:
        """The last value that is a number."""
        return next((value for _, value in reversed(self.points) if value is not None), None)


def expression(text: str, step: float, interval: float) -> str:
    """A query of the board as Grafana sends it, with all services chosen."""
    filled = text.replace("$__rate_interval", f"{max(step + interval, 4 * interval):g}s").replace("$service", ".*")
    if "$" in filled:
        raise ValueError(f"a variable is not known here: {filled}")
    return filled


def legend(pattern: str, labels: Mapping[str, str]) -> str:
    """The name of a series, as Grafana makes it."""
    return re.sub(r"\{\{\s*(.+?)\s*\}\}", lambda found: labels.get(found[1], ""), pattern).strip()


def answers(panel: Mapping[str, Any], seen: Watched, step: float = 1.0, interval: float = INTERVAL) -> list[Line]:
    """What Prometheus answers to the queries of a panel."""
    found = []
    end = seen.began + seen.seconds
    for target in panel["targets"]:
        query = expression(target["expr"], step, interval)
        if target.get("instant"):
            for each in seen.prometheus.get("query", query=query, time=end)["result"]:
                points = [(seen.seconds, _number(each["value"][1]))]
                found.append(Line(target["refId"], each["metric"], "", points))
            continue
        answer = seen.prometheus.get("query_range", query=query, start=seen.began, end=end, step=step)
        for each in answer["result"]:
            values = {round((at - seen.began) / step): _number(value) for at, value in each["values"]}
            points = [(index * step, values.get(index)) for index in range(int(seen.seconds / step) + 1)]
            name = legend(target["legendFormat"], each["metric"])
            found.append(Line(target["refId"], each["metric"], name, points))
    return found


def _number(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


# The drawing

WIDTH, UNIT, MARGIN = 1280, 38, 4
CELL = WIDTH / 24
LETTER = 7.0  # the width of one in a legend, at most of them, in pixels
_INK, _PALE, _EDGE, _GROUND = "#24292e", "#6a737d", "#d8dbdf", "#f4f5f5"
_FAMILIES = {
    "orders": ("#1f77b4", "#6baed6", "#08306b", "#17becf", "#3f51b5", "#9ecae1"),
    "payments": ("#ff7f0e", "#b03a00", "#fdb462", "#d62728", "#8c564b", "#e6b800"),
}
_NAMED = {"green": "#1a7f37", "orange": "#c4580a", "red": "#c4162a", "blue": "#1f60c4"}


def said(value: float, unit: str, decimals: int | None = None) -> str:
    """A value as Grafana writes it, with its unit."""
    if unit == "percentunit":
        return f"{_short(value * 100, decimals)}%"
    if unit == "s":
        for limit, factor, name in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms")):
            if abs(value) < limit and value:
                return f"{_short(value * factor, decimals)} {name}"
        return f"{_short(value, decimals)} s"
    names = {"reqps": " req/s", "ops": " ops/s", "none": ""}
    return f"{_short(value, decimals)}{names[unit]}"


def _short(value: float, decimals: int | None) -> str:
    if decimals is None:
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return f"{value:.{decimals}f}"


def _text(x: float, y: float, words: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}"{more}>{escape(words)}</text>'


def _axis(found: Sequence[Line], defaults: Mapping[str, Any]) -> Axis:
    """From 0 to a round number, with the panel's unit."""
    values = [value for line in found for _, value in line.points if value is not None]
    unit = defaults["unit"]
    most = defaults.get("max", max(values, default=0.0))
    top, step = ticks(most)
    if unit == "none" and all(value == int(value) for value in values):
        step = max(1.0, math.ceil(step))
        top = step * max(1, math.ceil(most / step))
    marks = [index * step for index in range(round(top / step) + 1)]
    return Axis([(mark, said(mark, unit)) for mark in marks], lambda value: value / top)


def _colors(found: Sequence[Line]) -> list[str]:
    """A colour for each line: of the family of its service, so that a service looks alike in all panels."""
    used: Counter[str] = Counter()
    chosen = []
    for line in found:
        service = line.labels.get("server_address", "")
        family = _FAMILIES.get(service, COLORS[2:])
        chosen.append(family[used[service] % len(family)])
        used[service] += 1
    return chosen


def _legend(found: Sequence[Line], width: float) -> list[list[tuple[float, str, str]]]:
    """Rows of places, names and colours."""
    rows: list[list[tuple[float, str, str]]] = [[]]
    x = 0.0
    for line, color in zip(found, _colors(found), strict=True):
        length = 18 + LETTER * len(line.legend) + 12
        if rows[-1] and x + length > width:
            rows.append([])
            x = 0.0
        rows[-1].append((x, line.legend, color))
        x += length
    return rows


def _series(panel: Mapping[str, Any], found: Sequence[Line], box: tuple[float, float], seen: Watched) -> str:
    width, height = box
    defaults = panel["fieldConfig"]["defaults"]
    rows = _legend(found, width - 24)
    room = height - 28 - 16 * len(rows) - 6
    marks = [Mark(at, str(number)) for number, (at, _) in enumerate(seen.events, 1)]
    drawn = [Series(line.legend, color, line.points) for line, color in zip(found, _colors(found), strict=True)]
    chart = lines(panel["title"], drawn, _axis(found, defaults), seen.seconds, marks, int(width), int(room))
    parts = [f'<g transform="translate(0 28)">{chart}</g>']
    for index, row in enumerate(rows):
        y = height - 8 - 16 * (len(rows) - 1 - index)
        for x, name, color in row:
            parts.append(f'<rect x="{12 + x:.1f}" y="{y - 6:.1f}" width="12" height="4" fill="{color}"/>')
            parts.append(_text(12 + x + 17, y, name, ' font-size="12"'))
    return "".join(parts)


def _stat(panel: Mapping[str, Any], found: Sequence[Line], box: tuple[float, float], seen: Watched) -> str:
    width, height = box
    defaults = panel["fieldConfig"]["defaults"]
    line = found[0]
    value = line.last
    if value is None:
        return _nothing(box)
    steps = [step for step in defaults["thresholds"]["steps"] if step["value"] is None or value >= step["value"]]
    color = _NAMED[steps[-1]["color"]]
    known = [(at, each) for at, each in line.points if each is not None]
    top = max(each for _, each in known) or 1.0
    path = " ".join(
        f"{10 + at / seen.seconds * (width - 20):.1f},{height - 10 - each / top * 30:.1f}" for at, each in known
    )
    words = said(value, defaults["unit"], defaults.get("decimals"))
    middle = (20 + height - 40) / 2 + 11  # between the title and the line
    return f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.5" opacity="0.5"/>' + _text(
        width / 2, middle, words, f' text-anchor="middle" font-size="30" font-weight="600" fill="{color}"'
    )


def _table(panel: Mapping[str, Any], found: Sequence[Line], box: tuple[float, float], seen: Watched) -> str:
    """As the panel's transformations say: lines of all queries joined by their labels, and columns named."""
    width, _ = box
    organize = next(each["options"] for each in panel["transformations"] if each["id"] == "organize")
    units = {
        each["matcher"]["options"]: next(one["value"] for one in each["properties"] if one["id"] == "unit")
        for each in panel["fieldConfig"]["overrides"]
    }
    names = sorted(organize["renameByName"], key=organize["indexByName"].__getitem__)
    services: dict[str, dict[str, str]] = {}
    for line in found:
        (service,) = line.labels.values()
        column = f"Value #{line.refers}"
        unit = units.get(organize["renameByName"][column], panel["fieldConfig"]["defaults"]["unit"])
        services.setdefault(service, {})[column] = "" if line.last is None else said(line.last, unit)
    first = 60.0
    step = (width - first - 24) / (len(names) - 1)
    parts = []
    for index, name in enumerate(names):
        place = (12.0, ' text-anchor="start"') if index == 0 else (first + step * index, ' text-anchor="end"')
        parts.append(_text(place[0], 46, organize["renameByName"][name], f'{place[1]} fill="{_NAMED["blue"]}"'))
        for number, (service, cells) in enumerate(sorted(services.items())):
            y = 76 + 28 * number
            parts.append(_text(place[0], y, service if index == 0 else cells.get(name, ""), place[1]))
            if index == 0:
                parts.append(f'<line x1="12" x2="{width - 12:.1f}" y1="{y - 19}" y2="{y - 19}" stroke="{_EDGE}"/>')
    return "".join(parts)


def _nothing(box: tuple[float, float]) -> str:
    return _text(box[0] / 2, box[1] / 2 + 8, "No data", f' text-anchor="middle" fill="{_PALE}"')


_KINDS = {"timeseries": _series, "stat": _stat, "table": _table}


def picture(board: Mapping[str, Any], found: Mapping[int, Sequence[Line]], seen: Watched) -> str:
    """The board as SVG. `found` has the answers by the panel's number."""
    columns = 2
    deep = math.ceil(len(seen.events) / columns)
    head = 88 + 19 * deep + 10
    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"])
    height = head + UNIT * bottom + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="The dashboard during an incident" '
        f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" font-size="13" '
        f'font-family="system-ui, sans-serif" fill="{_INK}"><rect width="100%" height="100%" fill="{_GROUND}"/>',
        _text(12, 30, f"{board['title']}: an incident in the lab", ' font-size="20" font-weight="600"'),
        _text(
            12,
            52,
            f"One request in {1 / SLOW_SHARE:.0f} asks for an answer that takes {SLOW_SECONDS * 1000:.0f} ms, on "
            "purpose. p99 is one of these: about 235 ms, as the histogram has no bound between 100 and 250 ms.",
            f' fill="{_PALE}"',
        ),
        _text(
            12,
            72,
            "Drawn from docs/dashboards/grafana.json and the answers of a real Prometheus, not by Grafana. "
            f"The numbers in the panels stand for these events, in {seen.seconds / 60:g} minutes:",
            f' fill="{_PALE}"',
        ),
    ]
    for index, (at, words) in enumerate(seen.events):
        x, y = 12 + WIDTH / columns * (index // deep), 96 + 19 * (index % deep)
        parts.append(_text(x, y, f"{index + 1}. {at / 60:.1f} min  {words}"))
    for panel in board["panels"]:
        grid = panel["gridPos"]
        left, top = grid["x"] * CELL + MARGIN, head + grid["y"] * UNIT + MARGIN
        box = grid["w"] * CELL - 2 * MARGIN, grid["h"] * UNIT - 2 * MARGIN
        parts.append(f'<g transform="translate({left:.1f} {top:.1f})">')
        if panel["type"] == "row":
            parts.append(_text(8, 22, panel["title"], ' font-size="16" font-weight="600"'))
        else:
            parts.append(
                f'<rect width="{box[0]:.1f}" height="{box[1]:.1f}" rx="2" fill="#fff" stroke="{_EDGE}"/>'
                f"<title>{escape(panel['description'])}</title>"
            )
            parts.append(_text(12, 20, panel["title"], ' font-weight="600"'))
            known = found[panel["id"]]
            has = any(line.last is not None for line in known)
            parts.append(_KINDS[panel["type"]](panel, known, box, seen) if has else _nothing(box))
        parts.append("</g>")
    return "".join([*parts, "</svg>\n"])


def drawn(board: Mapping[str, Any], seen: Watched, interval: float = INTERVAL) -> str:
    """The board, drawn from Prometheus' answers."""
    step = max(1.0, round(seen.seconds / 240))
    panels = [panel for panel in board["panels"] if "targets" in panel]
    return picture(board, {panel["id"]: answers(panel, seen, step, interval) for panel in panels}, seen)


def main() -> None:
    logging.disable()
    program = shutil.which("prometheus") or sys.exit("prometheus is not installed (Debian package prometheus)")
    with tempfile.TemporaryDirectory() as folder, watched(program, Path(folder), SECONDS) as seen:
        svg = drawn(json.loads(BOARD.read_text(encoding="utf-8")), seen)
    (Path(__file__).parent / "dashboard.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
