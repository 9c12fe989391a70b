"""The dashboard and the alarm rules in a real Prometheus (Debian package `prometheus`)."""

from __future__ import annotations

import json
import runpy
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from ecs_discovery.testing.lab import Lab
from tests.servers import required

DOCS = Path(__file__).resolve().parents[2] / "docs"
BOARD: dict[str, Any] = json.loads((DOCS / "dashboards" / "grafana.json").read_text())
RULES = DOCS / "dashboards" / "alarms.yml"
PICTURE = runpy.run_path(str(DOCS / "pictures" / "dashboard.py"))
PANELS = [panel for panel in BOARD["panels"] if "targets" in panel]
SECONDS = 20.0
ALARMS = {rule["alert"]: rule for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"]}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A short incident, and the Prometheus that saw it."""
    program = required("prometheus", "prometheus")
    with Lab() as lab:
        if lab.single_address or not lab.can_vanish:
            pytest.skip("the incident needs tasks with addresses of their own, and packets that can be dropped")
    with PICTURE["watched"](program, tmp_path_factory.mktemp("prometheus"), SECONDS) as watched:
        yield watched


QUERIES = [(panel, target) for panel in PANELS for target in panel["targets"]]
# A few seconds give no endpoint time to be ejected, nor to be refused by the limit on ejections or a lost race.
RARE = ("endpoint_ejections_withheld_total", "panics_total", 'ecs_discovery_retry_unsent="true"')


@pytest.mark.parametrize(("panel", "target"), QUERIES, ids=lambda each: each.get("title", each.get("refId")))
def test_every_query_has_data_after_a_short_incident(panel: dict[str, Any], target: dict[str, Any], seen: Any):
    lines = PICTURE["answers"]({**panel, "targets": [target]}, seen, interval=1.0)
    if not any(name in target["expr"] for name in RARE):
        assert [line for line in lines if line.last is not None]


def test_legends_name_what_they_show(seen: Any):
    for panel in PANELS:
        if panel["type"] == "timeseries":
            names = [line.legend for line in PICTURE["answers"](panel, seen, interval=1.0)]
            assert "" not in names, panel["title"]
            assert len(names) == len(set(names)), panel["title"]


def test_the_services_to_choose_from_are_those_that_were_called(seen: Any):
    found = seen.prometheus.get("label/server_address/values", **{"match[]": "ecs_discovery_endpoint_count"})
    assert found == ["orders", "payments"]


def test_a_chosen_service_alone_is_shown(seen: Any):
    query = next(panel for panel in PANELS if panel["type"] == "timeseries")["targets"][0]["expr"]
    chosen = PICTURE["expression"](query.replace("$service", "payments"), 1.0, 1.0)
    result = seen.prometheus.get("query", query=chosen, time=seen.began + SECONDS)["result"]
    assert [each["metric"] for each in result] == [{"server_address": "payments"}]


def test_a_counter_counts_from_its_first_event_on(seen: Any):
    panel = next(each for each in PANELS if each["title"].startswith("Endpoints that came"))
    lines = PICTURE["answers"](panel, seen, interval=1.0)
    assert {line.legend: line.last for line in lines}["added payments"] == 6  # all were there in its first sample


def test_the_board_is_drawn_with_all_its_panels(seen: Any):
    drawn = PICTURE["drawn"](BOARD, seen, interval=1.0)
    assert texts(drawn).issuperset(panel["title"] for panel in BOARD["panels"])
    assert "No data" not in drawn


def test_the_picture_in_the_docs_is_of_this_board():
    drawn = (DOCS / "pictures" / "dashboard.svg").read_text(encoding="utf-8")
    assert texts(drawn).issuperset(panel["title"] for panel in BOARD["panels"])
    assert "No data" not in drawn


def texts(svg: str) -> set[str]:
    return {each.text or "" for each in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")}


def test_promtool_has_nothing_to_say_of_the_rules():
    done = subprocess.run(
        [required("promtool", "prometheus"), "check", "rules", "--lint=all", "--lint-fatal", str(RULES)],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stdout + done.stderr


class Case(NamedTuple):
    """What Prometheus reads, a sample a minute; `calm` does not fire and `firing` does, from the minute on."""

    minute: int
    firing: dict[str, str]
    calm: dict[str, str]


STATE = "ecs_discovery_endpoint_count{SERVICE,ecs_discovery_endpoint_state='healthy',instance='%s'}"
AGE, COVERAGE = "ecs_discovery_resolution_age_seconds{SERVICE}", "ecs_discovery_endpoint_coverage{SERVICE}"
CALL, ATTEMPT = "ecs_discovery_call_duration_seconds_count", "ecs_discovery_attempt_duration_seconds_count"
DENIED = "ecs_discovery_retries_denied_total{SERVICE,ecs_discovery_retry_denied_by='%s'}"
CASES = {
    "EcsDiscoveryNoHealthyEndpoint": Case(
        6, {STATE % "a": "2x4 0x20", STATE % "b": "2x4 0x20"}, {STATE % "a": "0x20", STATE % "b": "1x20"}
    ),
    "EcsDiscoveryAnswersAreOld": Case(5, {AGE: "0+60x20"}, {AGE: "119x20"}),
    # One denied retry, in the first sample that the counter has.
    "EcsDiscoveryRetryBudgetIsUsedUp": Case(5, {DENIED % "budget": "_x3 1x20"}, {DENIED % "attempts": "0+5x20"}),
    "EcsDiscoveryPanic": Case(
        6, {"ecs_discovery_panic{SERVICE}": "0x3 1x20"}, {"ecs_discovery_panic{SERVICE}": "1 1 0 1 1 0 1 1 0 1 1 0"}
    ),
    "EcsDiscoveryManyRetries": Case(
        7,
        {"ecs_discovery_retries_total{SERVICE}": "0+20x20", f"{ATTEMPT}{{SERVICE}}": "0+100x20"},
        {"ecs_discovery_retries_total{SERVICE}": "0+9x20", f"{ATTEMPT}{{SERVICE}}": "0+100x20"},
    ),
    "EcsDiscoveryFewEndpointsKnown": Case(11, {COVERAGE: "0.8x20"}, {COVERAGE: "0.9x20"}),
    "EcsDiscoveryFailedRequests": Case(
        7,
        {f"{CALL}{{SERVICE,error_type='ReadTimeout'}}": "0+2x20", f"{CALL}{{SERVICE}}": "0+98x20"},
        {f"{CALL}{{SERVICE,error_type='ReadTimeout'}}": "0+1x20", f"{CALL}{{SERVICE}}": "0+199x20"},
    ),
    "EcsDiscoveryServerErrors": Case(
        7,
        {
            f"{ATTEMPT}{{SERVICE,http_response_status_code='503'}}": "0+6x20",
            f"{ATTEMPT}{{SERVICE,http_response_status_code='200'}}": "0+94x20",
        },
        {
            f"{ATTEMPT}{{SERVICE,http_response_status_code='404'}}": "0+50x20",
            f"{ATTEMPT}{{SERVICE,http_response_status_code='500'}}": "0+4x20",
            f"{ATTEMPT}{{SERVICE,http_response_status_code='200'}}": "0+46x20",
        },
    ),
}


def test_every_alarm_has_a_case():
    assert CASES.keys() == ALARMS.keys()


def judge(folder: Path, test: dict[str, Any]) -> None:
    """Have promtool play a test of the rules."""
    file = folder / "test.json"  # JSON is YAML
    file.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [test]}))
    done = subprocess.run(
        [required("promtool", "prometheus"), "test", "rules", str(file)], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", CASES)
def test_an_alarm_fires_for_the_service_that_is_ill_and_for_no_other(name: str, tmp_path: Path):
    case, rule = CASES[name], ALARMS[name]
    series = [(text, values, "orders") for text, values in case.firing.items()]
    series += [(text, values, "users") for text, values in case.calm.items()]
    fired = {
        "exp_labels": {"server_address": "orders", **rule["labels"]},
        "exp_annotations": {
            "summary": rule["annotations"]["summary"].replace("{{ $labels.server_address }}", "orders")
        },
    }
    moments = {max(0, case.minute - 3): [], case.minute: [fired]}
    judge(
        tmp_path,
        {
            "interval": "1m",
            "input_series": [
                {"series": text.replace("SERVICE", f"server_address='{service}'"), "values": values}
                for text, values, service in series
            ],
            "alert_rule_test": [
                {"eval_time": f"{minute}m", "alertname": name, "exp_alerts": alerts}
                for minute, alerts in moments.items()
            ],
        },
    )


def test_a_gap_in_the_data_is_no_event(tmp_path: Path):
    denied = (DENIED % "budget").replace("SERVICE", "server_address='orders'")
    minutes = range(10, 40)
    judge(
        tmp_path,
        {
            "interval": "1m",
            "input_series": [{"series": denied, "values": "1000x15 stale _x2 1000x30"}],
            "alert_rule_test": [
                {"eval_time": f"{minute}m", "alertname": "EcsDiscoveryRetryBudgetIsUsedUp", "exp_alerts": []}
                for minute in minutes
            ],
        },
    )
