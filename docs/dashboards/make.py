"""Writes the dashboards and the alarm rules beside this file: `python docs/dashboards/make.py`.

What each panel shows stands here once, in Prometheus' language; CloudWatch's board has the same panels as far as its
metrics can say them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
CHOSEN = 'server_address=~"$service"'
NAMESPACE = "ecs_discovery"
"""The namespace that the collector's `awsemf` exporter is told to use."""


def series(metric: str, labels: str = CHOSEN) -> str:
    return f"{NAMESPACE}_{metric}{{{labels}}}" if labels else f"{NAMESPACE}_{metric}"


def rate(metric: str, labels: str = CHOSEN) -> str:
    return f"rate({series(metric, labels)}[$__rate_interval])"


def summed(metric: str, by: str = "server_address", labels: str = CHOSEN) -> str:
    return f"sum by ({by}) ({rate(metric, labels)})"


def recent(metric: str, by: str = "server_address", labels: str = CHOSEN) -> str:
    """How often it happened in the last 5 minutes.

    A counter appears with its first event, and `increase` sees no event in a first sample. So a counter that was not
    there 5 minutes ago counts whole. After a gap of 10 minutes in Prometheus' data this is too much, for 5 minutes.
    """
    every = series(metric, labels)
    return f"round(sum by ({by}) (({every} unless {every} offset 5m) or increase({every}[5m])))"


def quantile(share: float, metric: str, by: str = "server_address", labels: str = CHOSEN) -> str:
    buckets = rate(f"{metric}_seconds_bucket", labels)
    return f"histogram_quantile({share}, sum by ({f'le, {by}' if by else 'le'}) ({buckets}))"


def state(*names: str) -> str:
    sign = "=~" if len(names) > 1 else "="
    return series("endpoint_count", f'{CHOSEN},ecs_discovery_endpoint_state{sign}"{"|".join(names)}"')


SERVICE = "{{server_address}}"
FAILED, GOOD = f'{CHOSEN},error_type!=""', f'{CHOSEN},error_type=""'
ANSWERED = f'{CHOSEN},http_response_status_code!=""'
CALLS, ATTEMPTS = "call_duration_seconds_count", "attempt_duration_seconds_count"
FAILED_SHARE = f"({summed(CALLS, labels=FAILED)} or 0 * {summed(CALLS)}) / {summed(CALLS)}"
HEALTHY = f"min by (server_address) ({state('healthy')})"
UNFIT = f"max by (server_address) (sum without (ecs_discovery_endpoint_state) ({state('ejected', 'probing', 'down')}))"
COVERAGE = f"min by (server_address) ({series('endpoint_coverage')})"
PERCENTILES = ((0.5, "p50"), (0.99, "p99"))
NAMES = ("server_address", "Service")


class Panel(NamedTuple):
    """One panel. `queries` are expressions with their legends; in a table, the legends are columns with their units."""

    title: str
    unit: str
    queries: list[tuple[str, str]]
    says: str
    """What the reader is to know; Grafana shows it at the panel's title."""
    limits: tuple[tuple[str, float | None], ...] = ()
    """Colours from these values on."""
    decimals: int | None = None
    most: float | None = None
    """The top of the axis, if it is known."""


GLANCE: list[Panel] = [
    Panel(
        "Healthy endpoints",
        "none",
        [(f"sum({HEALTHY})", "healthy")],
        "Tasks that get requests, of all chosen services, as the process that sees the fewest sees them.",
        (("red", None), ("green", 1)),
    ),
    Panel(
        "Ejected, probing or down",
        "none",
        [(f"sum({UNFIT})", "unfit")],
        "Tasks that get no requests, or only a probe, as the process that sees the most sees them.",
        (("green", None), ("orange", 1)),
    ),
    Panel("Requests", "reqps", [(f"sum({rate(CALLS)})", "requests")], "Requests of your code, all attempts together."),
    Panel(
        "Failed requests",
        "percentunit",
        [(f"(sum({rate(CALLS, FAILED)}) or vector(0)) / sum({rate(CALLS)})", "failed")],
        "Requests that ended with an exception after all attempts.",
        (("green", None), ("orange", 0.001), ("red", 0.01)),
        2,
    ),
    Panel(
        "Latency, p99",
        "s",
        [(quantile(0.99, "call_duration", ""), "p99")],
        "99 % of the requests took at most this long, all attempts together.",
    ),
    Panel(
        "Attempts for each request",
        "none",
        [(f"sum({rate(ATTEMPTS)}) / sum({rate(CALLS)})", "attempts")],
        "1 while nothing is retried or hedged.",
        (("green", None), ("orange", 1.1)),
        2,
    ),
]
TABLE: list[tuple[str, str, str]] = [  # column, unit, query
    ("Requests", "reqps", summed(CALLS)),
    ("Failed", "percentunit", FAILED_SHARE),
    ("p50", "s", quantile(0.5, "call_duration")),
    ("p99", "s", quantile(0.99, "call_duration")),
    ("Attempts for each request", "none", f"{summed(ATTEMPTS)} / {summed(CALLS)}"),
    ("Retries in 5 min", "none", f"{recent('retries_total')} or 0 * {HEALTHY}"),
    ("Healthy", "none", HEALTHY),
    ("Ejected, probing or down", "none", UNFIT),
    ("Share known", "percentunit", COVERAGE),
]
ROWS: list[tuple[str, list[Panel]]] = [
    (
        "Requests",
        [
            Panel(
                "Requests",
                "reqps",
                [(summed(CALLS), SERVICE)],
                "Requests of your code, all attempts together: RequestCount of Service Connect.",
            ),
            Panel(
                "Failed requests",
                "percentunit",
                [(FAILED_SHARE, SERVICE)],
                "Requests that ended with an exception. A last answer with status 503 is an answer: see below.",
            ),
            Panel(
                "Latency of requests",
                "s",
                [(quantile(share, "call_duration"), f"{name} {SERVICE}") for share, name in PERCENTILES],
                "As your code sees it: all attempts and the pauses between them.",
            ),
            Panel(
                "Answers by status",
                "reqps",
                [(summed(ATTEMPTS, "http_response_status_code", ANSWERED), "{{http_response_status_code}}")],
                "Of all attempts: HTTPCode_Target_2XX_Count to 5XX of Service Connect.",
            ),
            Panel(
                "Latency of attempts",
                "s",
                [(quantile(share, "attempt_duration"), f"{name} {SERVICE}") for share, name in PERCENTILES],
                "As tasks answer: TargetResponseTime of Service Connect.",
            ),
            Panel(
                "Requests in flight",
                "none",
                [(f"sum by (server_address) ({series('attempt_active')})", SERVICE)],
                "Attempts that have no answer yet, of all processes.",
            ),
        ],
    ),
    (
        "Endpoints",
        [
            Panel(
                "Healthy endpoints",
                "none",
                [(HEALTHY, SERVICE)],
                "Tasks that get requests, as the process that sees the fewest sees them.",
            ),
            Panel(
                "Ejected, probing and down endpoints",
                "none",
                [
                    (f"max by (server_address) ({state(name)})", f"{name} {SERVICE}")
                    for name in ("ejected", "probing", "down")
                ],
                "Tasks that get no requests, or only a probe, as the process that sees the most sees them.",
            ),
            Panel(
                "Endpoints that came and left, in 5 min",
                "none",
                [
                    (
                        recent("endpoint_changes_total", "ecs_discovery_change, server_address"),
                        "{{ecs_discovery_change}} " + SERVICE,
                    )
                ],
                "A deployment adds and removes each task once, in each process.",
            ),
            Panel(
                "Ejections and returns, in 5 min",
                "none",
                [
                    (
                        recent("endpoint_ejections_total", "ecs_discovery_ejection_cause"),
                        "{{ecs_discovery_ejection_cause}}",
                    ),
                    (
                        recent("endpoint_ejections_withheld_total", "ecs_discovery_ejection_cause"),
                        "withheld: {{ecs_discovery_ejection_cause}}",
                    ),
                    (
                        recent("endpoint_revivals_total", "ecs_discovery_endpoint_was"),
                        "back from {{ecs_discovery_endpoint_was}}",
                    ),
                ],
                "Endpoints taken out, by the cause, and endpoints that came back. "
                "Withheld: the limit on ejections prevented it.",
            ),
            Panel(
                "Panic: health is ignored",
                "none",
                [
                    (f"max by (server_address) ({series('panic')})", f"1 = now {SERVICE}"),
                    (recent("panics_total"), f"begun in 5 min {SERVICE}"),
                ],
                "Fewer than half of the endpoints are healthy, so ejected endpoints get requests too.",
            ),
            Panel(
                "Overload and health checks, in 5 min",
                "none",
                [
                    (recent("endpoint_pushbacks_total"), f"overloaded {SERVICE}"),
                    (
                        recent("health_checks_total", "ecs_discovery_check_result, server_address"),
                        "check {{ecs_discovery_check_result}} " + SERVICE,
                    ),
                ],
                "How often an endpoint said that it is overloaded. Health checks are off by default.",
            ),
        ],
    ),
    (
        "Retries",
        [
            Panel(
                "Failed attempts, in 5 min",
                "none",
                [(recent(ATTEMPTS, "error_type", FAILED), "{{error_type}}")],
                "By what was wrong. A retry may hide each of them from your code.",
            ),
            Panel(
                "Retries, in 5 min",
                "none",
                [
                    (
                        recent(
                            "retries_total",
                            "ecs_discovery_retry_reason",
                            f'{CHOSEN},ecs_discovery_retry_unsent="false"',
                        ),
                        "{{ecs_discovery_retry_reason}}",
                    ),
                    (
                        recent(
                            "retries_total", "ecs_discovery_retry_reason", f'{CHOSEN},ecs_discovery_retry_unsent="true"'
                        ),
                        "{{ecs_discovery_retry_reason}}, nothing was sent",
                    ),
                ],
                "By what was wrong before. Where nothing was sent, a retry takes nothing from the budget.",
            ),
            Panel(
                "Retries denied, in 5 min",
                "none",
                [
                    (
                        recent("retries_denied_total", "ecs_discovery_retry_denied_by, server_address"),
                        "{{ecs_discovery_retry_denied_by}} " + SERVICE,
                    )
                ],
                "Failed attempts that no retry followed, by what denied it.",
            ),
            Panel(
                "Attempts for each request",
                "none",
                [(f"{summed(ATTEMPTS)} / {summed(CALLS)}", SERVICE)],
                "1 while nothing is retried or hedged.",
                decimals=2,
            ),
            Panel(
                "Retry budget that is left",
                "none",
                [(f"min by (server_address) ({series('retry_budget_balance')})", SERVICE)],
                "Retries that could be made now, in the process that has the fewest. At 0 your code sees failures.",
            ),
            Panel(
                "Hedges",
                "reqps",
                [(summed("hedges_total"), f"begun {SERVICE}"), (summed("hedges_won_total"), f"won {SERVICE}")],
                "Second attempts beside a slow one, and how many answered first. Off by default.",
            ),
        ],
    ),
    (
        "Connects and lookups",
        [
            Panel(
                "Connects",
                "ops",
                [
                    (summed("connects_total", labels=GOOD), f"ok {SERVICE}"),
                    (summed("connects_total", "error_type", FAILED), "{{error_type}}"),
                ],
                "New connections: NewConnectionCount of Service Connect. Overtaken: another connect was first.",
            ),
            Panel(
                "Latency of connects, p99",
                "s",
                [(quantile(0.99, "connect_duration"), SERVICE)],
                "TCP, and TLS where it is used.",
            ),
            Panel(
                "Share of the endpoints that is known",
                "percentunit",
                [(COVERAGE, SERVICE)],
                "DNS shows 8 tasks at a time, so more tasks are learnt one answer after the other.",
                most=1,
            ),
            Panel(
                "Lookups",
                "ops",
                [
                    (summed("lookups_total", "ecs_discovery_source", 'error_type=""'), "{{ecs_discovery_source}}"),
                    (
                        summed("lookups_total", "ecs_discovery_source, error_type", 'error_type!=""'),
                        "{{ecs_discovery_source}} {{error_type}}",
                    ),
                    (summed("forced_lookups_total"), f"early {SERVICE}"),
                ],
                "Of all services. Early: an endpoint failed, so names were asked for again.",
            ),
            Panel(
                "Latency of lookups, p99",
                "s",
                [(quantile(0.99, "lookup_duration", "ecs_discovery_source", ""), "{{ecs_discovery_source}}")],
                "Of all services, and only of lookups that the cache could not answer.",
            ),
            Panel(
                "Age of the oldest answer in use",
                "s",
                [(f"max by (server_address) ({series('resolution_age_seconds')})", SERVICE)],
                "Grows while DNS or Cloud Map does not answer.",
            ),
        ],
    ),
]

BUDGET = 'ecs_discovery_retry_denied_by="budget"'
ALARMS: list[tuple[str, str, str, str]] = [  # name, condition, for how long, what it means
    (
        "EcsDiscoveryNoHealthyEndpoint",
        f'max by (server_address) ({NAMESPACE}_endpoint_count{{ecs_discovery_endpoint_state="healthy"}}) == 0',
        "1m",
        "No process sees a healthy task of {{ $labels.server_address }}.",
    ),
    (
        "EcsDiscoveryAnswersAreOld",
        f"max by (server_address) ({NAMESPACE}_resolution_age_seconds) > 120",
        "2m",
        "DNS or Cloud Map has not answered for {{ $labels.server_address }}: old endpoints stay in use.",
    ),
    (
        "EcsDiscoveryRetryBudgetIsUsedUp",
        f"{recent('retries_denied_total', labels=BUDGET)} > 0",
        "1m",
        "More requests to {{ $labels.server_address }} fail than retries may hide.",
    ),
    (
        "EcsDiscoveryPanic",
        f"max by (server_address) ({NAMESPACE}_panic) == 1",
        "2m",
        "So few tasks of {{ $labels.server_address }} are healthy that health is ignored.",
    ),
    (
        "EcsDiscoveryManyRetries",
        f"sum by (server_address) (rate({NAMESPACE}_retries_total[5m]))"
        f" / sum by (server_address) (rate({NAMESPACE}_attempt_duration_seconds_count[5m])) > 0.1",
        "5m",
        "Over 10 % of the attempts at {{ $labels.server_address }} are retries. Users may not see it yet.",
    ),
    (
        "EcsDiscoveryFewEndpointsKnown",
        f"min by (server_address) ({NAMESPACE}_endpoint_coverage) < 0.9",
        "10m",
        "Under 90 % of the tasks of {{ $labels.server_address }} are known.",
    ),
    (
        "EcsDiscoveryFailedRequests",
        f'sum by (server_address) (rate({NAMESPACE}_call_duration_seconds_count{{error_type!=""}}[5m]))'
        f" / sum by (server_address) (rate({NAMESPACE}_call_duration_seconds_count[5m])) > 0.01",
        "5m",
        "Over 1 % of the requests to {{ $labels.server_address }} end with an error after all attempts.",
    ),
    (
        "EcsDiscoveryServerErrors",
        "sum by (server_address)"
        f' (rate({NAMESPACE}_attempt_duration_seconds_count{{http_response_status_code=~"5.."}}[5m]))'
        f" / sum by (server_address) (rate({NAMESPACE}_attempt_duration_seconds_count[5m])) > 0.05",
        "5m",
        "Over 5 % of the attempts at {{ $labels.server_address }} are answered with a status of 500 or more.",
    ),
]


SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def panel(kind: str, each: Panel, place: tuple[int, int, int, int]) -> dict[str, Any]:
    """A panel as Grafana has it; `place` is x, y, width and height."""
    defaults: dict[str, Any] = {"unit": each.unit, "min": 0}
    if each.decimals is not None:
        defaults["decimals"] = each.decimals
    if each.most is not None:
        defaults["max"] = each.most
    made: dict[str, Any] = {
        "type": kind,
        "title": each.title,
        "description": each.says,
        "datasource": SOURCE,
        "gridPos": dict(zip("xywh", place, strict=True)),
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": [
            {"refId": chr(65 + number), "expr": expression, "legendFormat": legend}
            for number, (expression, legend) in enumerate(each.queries)
        ],
    }
    if kind == "stat":
        steps = [{"color": color, "value": value} for color, value in each.limits or (("blue", None),)]
        defaults["color"] = {"mode": "thresholds"}
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
        made["options"] = {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "value",
            "graphMode": "area",
            "textMode": "value",
        }
    return made


def table(place: tuple[int, int, int, int]) -> dict[str, Any]:
    """One line for each service, with what its columns say now."""
    made = panel(
        "table", Panel("Services", "none", [(query, "") for *_, query in TABLE], "How each service is now."), place
    )
    for target in made["targets"]:
        target |= {"format": "table", "instant": True}
    names = {NAMES[0]: NAMES[1]}
    names |= {f"Value #{target['refId']}": column for target, (column, *_) in zip(made["targets"], TABLE, strict=True)}
    made["transformations"] = [
        {"id": "merge", "options": {}},
        {
            "id": "organize",
            "options": {
                "excludeByName": {"Time": True},
                "indexByName": {name: index for index, name in enumerate(names)},
                "renameByName": names,
            },
        },
    ]
    made["fieldConfig"]["overrides"] = [
        {"matcher": {"id": "byName", "options": column}, "properties": [{"id": "unit", "value": unit}]}
        for column, unit, _ in TABLE
        if unit != "none"
    ]
    return made


def grafana() -> dict[str, Any]:
    panels = [panel("stat", each, (4 * index, 0, 4, 4)) for index, each in enumerate(GLANCE)]
    panels.append(table((0, 4, 24, 5)))
    top = 9
    for title, row in ROWS:
        panels.append({"type": "row", "title": title, "gridPos": {"x": 0, "y": top, "w": 24, "h": 1}, "panels": []})
        top += 1
        panels += [
            panel("timeseries", each, (8 * (index % 3), top + 7 * (index // 3), 8, 7)) for index, each in enumerate(row)
        ]
        top += 7 * -(-len(row) // 3)
    for number, each in enumerate(panels, 1):
        each["id"] = number
    variables = [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
        {
            "name": "service",
            "label": "Service",
            "type": "query",
            "datasource": SOURCE,
            "query": f"label_values({NAMESPACE}_endpoint_count, server_address)",
            "includeAll": True,
            "multi": True,
            "allValue": ".*",
            "current": {"text": ["All"], "value": ["$__all"]},
            "refresh": 2,
            "sort": 1,
        },
    ]
    return {
        "title": "ecs_discovery",
        "uid": "ecs-discovery",
        "schemaVersion": 39,
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "30s",
        "graphTooltip": 1,
        "templating": {"list": variables},
        "panels": panels,
    }


CLOUDWATCH: list[tuple[str, str, str]] = [  # title, metric, statistic
    ("Requests", "call.duration", "SampleCount"),
    ("Latency of requests (s)", "call.duration", "p99"),
    ("Attempts", "attempt.duration", "SampleCount"),
    ("Latency of attempts (s)", "attempt.duration", "p99"),
    ("Endpoints by state", "endpoint.count", "Average"),
    ("Endpoints that come and leave", "endpoint.changes", "Sum"),
    ("Ejections", "endpoint.ejections", "Sum"),
    ("Retries", "retries", "Sum"),
    ("Retries denied", "retries_denied", "Sum"),
    ("Connects", "connects", "Sum"),
    ("Lookups", "lookups", "Sum"),
    ("Age of the oldest answer (s)", "resolution.age", "Maximum"),
    ("Panic", "panic", "Maximum"),
    ("Share of the endpoints that is known", "endpoint.coverage", "Minimum"),
]


def cloudwatch() -> dict[str, Any]:
    widgets = []
    for index, (title, metric, statistic) in enumerate(CLOUDWATCH):
        search = f"SEARCH('Namespace=\"{NAMESPACE}\" MetricName=\"{NAMESPACE}.{metric}\"', '{statistic}', 60)"
        widgets.append(
            {
                "type": "metric",
                "x": 8 * (index % 3),
                "y": 6 * (index // 3),
                "width": 8,
                "height": 6,
                "properties": {
                    "title": title,
                    "region": "${AWS::Region}",
                    "view": "timeSeries",
                    "metrics": [[{"expression": search, "id": "e1"}]],
                },
            }
        )
    return {"widgets": widgets}


def alarms() -> str:
    lines = ["groups:", "  - name: ecs_discovery", "    rules:"]
    for name, condition, seconds, means in ALARMS:
        lines += [
            f"      - alert: {name}",
            f"        expr: {json.dumps(condition)}",
            f"        for: {seconds}",
            "        annotations:",
            f"          summary: {json.dumps(means)}",
        ]
    return "\n".join(lines) + "\n"


def files() -> dict[str, str]:
    """What stands beside this file, by name."""
    return {
        "grafana.json": json.dumps(grafana(), indent=1) + "\n",
        "cloudwatch.json": json.dumps(cloudwatch(), indent=1) + "\n",
        "alarms.yml": alarms(),
    }


if __name__ == "__main__":
    for file, text in files().items():
        (HERE / file).write_text(text)
