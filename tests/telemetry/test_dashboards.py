"""The dashboards and alarm rules name metrics and labels that there are, as Prometheus sees them."""

from __future__ import annotations

import json
import re
import runpy
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from cfnlint.api import ManualArgs, lint_file
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import REGISTRY, generate_latest

from ecs_discovery import Discovery, DnsPolicy
from ecs_discovery.core.counters import Counted
from ecs_discovery.events import AttemptEnded, CallStarted, ConnectEnded, LookupEnded
from ecs_discovery.models import Endpoint, Question
from ecs_discovery.telemetry._metrics import _SUMS
from ecs_discovery.telemetry.opentelemetry import OpenTelemetry
from ecs_discovery.testing.lab import Lab

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "dashboards"
MADE = runpy.run_path(str(FOLDER / "make.py"))
METRIC = re.compile(r"(?<![\w.])(ecs_discovery_[a-z_]+?)(?:\{(.*?)\}|(?=[\[\s),]|$))")
LABEL = re.compile(r"([a-z_]+)(?:=~|!=|=)")
BY = re.compile(r"(?:by|without) \(([^)]*)\)")


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


class InCloudWatch(NamedTuple):
    """A metric by its dimensions, both as OpenTelemetry has them."""

    name: str
    dimensions: frozenset[str]


def searched() -> set[InCloudWatch]:
    """What the board of CloudWatch searches for."""
    board = json.loads((FOLDER / "cloudwatch.json").read_text())
    expressions = [each["expression"] for widget in board["widgets"] for (each,) in widget["properties"]["metrics"]]
    found = set()
    for expression in expressions:
        match = re.match(r"SEARCH\('\{\"ecs_discovery\",(.*?)\} MetricName=\"(.*?)\"", expression)
        assert match, expression
        found.add(InCloudWatch(match[2], frozenset(re.findall(r'"(.*?)"', match[1]))))
    return found


def alarmed() -> set[InCloudWatch]:
    """What the alarms of CloudWatch look at."""
    found = set()
    for resource in yaml.safe_load((FOLDER / "cloudwatch-alarms.yml").read_text())["Resources"].values():
        properties = resource["Properties"]
        parts = [each["MetricStat"]["Metric"] for each in properties.get("Metrics", ()) if "MetricStat" in each]
        for part in parts or [properties]:
            found.add(InCloudWatch(part["MetricName"], frozenset(each["Name"] for each in part["Dimensions"])))
    return found


def added() -> set[str]:
    """The attributes that the collector adds."""
    groups = COLLECTOR["processors"]["transform"]["metric_statements"]
    statements = [statement for group in groups for statement in group["statements"]]
    return {match[1] for each in statements if (match := re.match(r'set\(datapoint.attributes\["(.*?)"\]', each))}


BOARD: dict[str, Any] = json.loads((FOLDER / "grafana.json").read_text())
COLLECTOR: dict[str, Any] = yaml.safe_load((FOLDER / "collector.yml").read_text())


def test_cloudwatch_names_metrics_and_attributes_that_there_are(exported: dict[str, set[str]]):
    looked_at = searched() | alarmed()
    assert len(looked_at) > 10
    for each in looked_at:
        prefix = each.name.replace(".", "_")
        labels = [
            found
            for name, found in exported.items()
            if re.fullmatch(rf"{prefix}(_total|_seconds|_seconds_count)?", name)
        ]
        assert labels, each.name
        wanted = {name.replace(".", "_") for name in each.dimensions - added()}
        assert all(wanted <= found for found in labels), each


def test_the_collector_declares_what_cloudwatch_is_asked_for_and_nothing_else():
    declared = {
        InCloudWatch(name.replace("\\", ""), frozenset(dimensions))
        for declaration in COLLECTOR["exporters"]["awsemf"]["metric_declarations"]
        for selector in declaration["metric_name_selectors"]
        for name in spelled(selector)
        for dimensions in declaration["dimensions"]
    }
    assert declared == searched() | alarmed()


def spelled(selector: str) -> list[str]:
    """The names that a regular expression of ours stands for."""
    match = re.fullmatch(r"\^(.*)\((.*)\)\$", selector)
    assert match
    return [match[1] + each for each in match[2].split("|")]


def test_the_collector_changes_metrics_that_there_are(exported: dict[str, set[str]]):
    text = json.dumps(COLLECTOR["processors"])
    names = set(re.findall(r'metric\.name == \\"(.*?)\\"', text))
    assert names
    for name in names:
        assert any(each.startswith(name.replace(".", "_")) for each in exported), name


def test_what_goes_up_and_down_reaches_cloudwatch_as_it_is():
    """The exporter for CloudWatch sends the change of a sum, and not the sum."""
    (sums, _) = COLLECTOR["processors"]["transform"]["metric_statements"]
    gauges = {f'convert_sum_to_gauge() where metric.name == "ecs_discovery.{name}"' for name, *_ in _SUMS}
    assert set(sums["statements"]) == gauges


def test_every_alarm_is_there_for_cloudwatch_too():
    template = yaml.safe_load((FOLDER / "cloudwatch-alarms.yml").read_text())
    assert list(template["Resources"]) == [alarm.name for alarm in MADE["ALARMS"]]


def test_cfn_lint_has_nothing_to_say_of_the_alarms_for_cloudwatch():
    matches = lint_file(FOLDER / "cloudwatch-alarms.yml", config=ManualArgs(regions=["eu-west-1"]))
    assert [f"{match.rule.id} {match.linenumber} {match.message}" for match in matches] == []


@pytest.mark.parametrize("name", MADE["files"]())
def test_what_is_committed_is_what_the_command_writes(name: str):
    assert (FOLDER / name).read_text() == MADE["files"]()[name], "python docs/dashboards/make.py"


def test_every_alarm_has_its_line_and_its_section_in_the_runbook():
    page = (FOLDER.parent / "alarms.md").read_text()
    linked = re.findall(r"^\| \[`(\w+)`\]\(#([\w-]+)\) \| (\w+) \|", page, re.MULTILINE)
    assert [(name, severity) for name, _, severity in linked] == [each[:2] for each in MADE["ALARMS"]]
    headings = re.findall(r"^### (.+)$", page, re.MULTILINE)
    assert [section for _, section, _ in linked] == [each.lower().replace(" ", "-") for each in headings]


def test_no_stat_calls_all_well_while_a_service_answers_500(panels: dict[str, Any]):
    """An answer is no exception, so only its status tells."""
    query = panels["Answers of 500 and more"]["targets"][0]["expr"]
    assert 'http_response_status_code=~"5.."' in query
    assert "Answers 500+" in str(panels["Services"]["transformations"])


def test_a_service_without_healthy_endpoints_is_not_hidden_by_another(panels: dict[str, Any]):
    (target,) = panels["Fewest healthy endpoints of a service"]["targets"]
    assert re.match(r"min\(min by \(server_address\) ", target["expr"])


def test_a_panel_of_services_names_them_in_its_legend():
    for panel in BOARD["panels"]:
        for target in panel.get("targets", ()) if panel["type"] == "timeseries" else ():
            if "lookup" not in target["expr"] or "forced_lookups" in target["expr"]:  # lookups are of no service
                assert "{{server_address}}" in target["legendFormat"], panel["title"]


@pytest.fixture
def panels() -> dict[str, Any]:
    """The board's panels by title; of two with one title, the first."""
    return {panel["title"]: panel for panel in reversed(BOARD["panels"])}
