"""The dashboards and alarm rules name metrics and labels that there are, as Prometheus sees them."""

from __future__ import annotations

import json
import re
import runpy
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import REGISTRY, generate_latest

from ecs_discovery import Discovery, DnsPolicy
from ecs_discovery.core.counters import Counted
from ecs_discovery.events import AttemptEnded, CallStarted, ConnectEnded, LookupEnded
from ecs_discovery.models import Endpoint, Question
from ecs_discovery.telemetry.opentelemetry import OpenTelemetry
from ecs_discovery.testing.lab import Lab

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "dashboards"
MADE = runpy.run_path(str(FOLDER / "make.py"))
METRIC = re.compile(r"(?<![\w.])(ecs_discovery_[a-z_]+?)(?:\{(.*?)\}|(?=[\[\s),]|$))")
LABEL = re.compile(r"([a-z_]+)(?:=~|!=|=)")
BY = re.compile(r"by \(([^)]*)\)")


def failing(attempt: Any) -> None:
    raise ConnectionResetError(104, "reset")


def labels_by_metric(text: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for name, labels in re.findall(r"^(ecs_discovery_\w+)\{([^}]*)\}", text, re.MULTILINE):
        found[name].update(re.findall(r"(\w+)=", labels))
    return found


@pytest.fixture(scope="module")
def exported() -> dict[str, set[str]]:
    """The metrics that Prometheus reads, and the labels of each, after everything has happened once."""
    provider = MeterProvider([PrometheusMetricReader()])
    telemetry = OpenTelemetry(provider)
    endpoint = Endpoint("10.0.0.1", 80)
    with Lab(namespace="prod.local", seed=1) as lab:
        dns = DnsPolicy(nameservers=(lab.nameserver,))
        target = f"orders:{lab.service('orders', tasks=2).port}"
        with Discovery(namespace="prod.local", dns=dns, telemetry=telemetry) as discovery:
            discovery.call(target, lambda attempt: None)
            with pytest.raises(OSError, match="reset"):
                discovery.call(target, failing)
            call: Any = telemetry._metrics.call_started(CallStarted("http", target, "GET"))
            call.ended(AttemptEnded(1, endpoint, "status", "status 503", "", 503, 0.1, None))
            engine = discovery._engine
            for outcome in ("ok", "connect timeout"):
                telemetry._metrics.connect_ended(ConnectEnded(target, endpoint, outcome, 0.1))
                telemetry._metrics.lookup_ended(LookupEnded(Question("a", "orders"), outcome, 0.1))
            for what in Counted:
                engine.service(target).counters.add(what, "something")
            engine.counters.add(Counted.LOOKUPS, "aaaa", "NoEndpoints")  # the lookup itself may still be in flight
            text = generate_latest(REGISTRY).decode()
    provider.shutdown()
    return labels_by_metric(text)


def queries() -> list[str]:
    board = json.loads((FOLDER / "grafana.json").read_text())
    panels = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    variables = [each["query"].partition("(")[2].partition(",")[0] for each in board["templating"]["list"][1:]]
    rules = re.findall(r"^ +expr: (.*)$", (FOLDER / "alarms.yml").read_text(), re.MULTILINE)
    return [*panels, *variables, *map(json.loads, rules)]


@pytest.mark.parametrize("query", queries())
def test_a_query_names_metrics_and_labels_that_there_are(query: str, exported: dict[str, set[str]]):
    used = METRIC.findall(BY.sub("", query))
    assert used
    by = {label.strip() for labels in BY.findall(query) for label in labels.split(",")}
    known = set[str]()
    for name, chosen in used:
        assert name in exported, f"{name} is no metric"
        assert set(LABEL.findall(chosen)) <= exported[name], f"{chosen}: {name} has {sorted(exported[name])}"
        known |= exported[name]
    assert by <= {*known, "le"}


def test_every_metric_has_a_panel(exported: dict[str, set[str]]):
    shown = {
        re.sub(r"_(bucket|count|sum)$", "", name)
        for query in queries()
        for name, _ in METRIC.findall(BY.sub("", query))
    }
    metrics = {re.sub(r"_(bucket|count|sum)$", "", name) for name in exported}
    assert metrics - shown == set()


def test_cloudwatch_names_metrics_that_there_are(exported: dict[str, set[str]]):
    text = (FOLDER / "cloudwatch.json").read_text()
    json.loads(text)
    names = re.findall(r"MetricName=\\+\"ecs_discovery\.([a-z_.]+)", text)
    assert len(names) > 10
    for name in names:
        prefix = f"ecs_discovery_{name.replace('.', '_')}"
        assert any(each == prefix or each.startswith(f"{prefix}_") for each in exported), name


@pytest.mark.parametrize("name", MADE["files"]())
def test_what_is_committed_is_what_the_command_writes(name: str):
    assert (FOLDER / name).read_text() == MADE["files"]()[name], "python docs/dashboards/make.py"


def test_every_alarm_has_its_line_in_the_runbook():
    page = (FOLDER.parent / "alarms.md").read_text()
    for name, *_ in MADE["ALARMS"]:
        assert f"`{name}`" in page
