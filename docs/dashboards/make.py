"""Writes the dashboards and the alarm rules beside this file: `python docs/dashboards/make.py`.

What each panel shows stands here once, in Prometheus' language; CloudWatch's board has the same panels as far as its
metrics can say them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CHOSEN = 'server_address=~"$service"'
NAMESPACE = "ecs_discovery"
"""The namespace that the collector's `awsemf` exporter is told to use."""


def rate(metric: str, labels: str = CHOSEN) -> str:
    return f"rate({NAMESPACE}_{metric}{{{labels}}}[$__rate_interval])"


def summed(metric: str, by: str = "server_address", labels: str = CHOSEN) -> str:
    return f"sum by ({by}) ({rate(metric, labels)})"


def quantile(share: float, metric: str, by: str = "server_address", labels: str = CHOSEN) -> str:
    return f"histogram_quantile({share}, sum by (le, {by}) ({rate(f'{metric}_seconds_bucket', labels)}))"


FAILED = f'{CHOSEN},error_type!=""'
CALLS, ATTEMPTS = "call_duration_seconds_count", "attempt_duration_seconds_count"
STATE = f"{NAMESPACE}_endpoint_count{{{CHOSEN}"
ROWS: list[tuple[str, list[tuple[str, str, list[tuple[str, str]]]]]] = [
    (
        "Requests",
        [
            ("Requests", "reqps", [(summed(CALLS), "{{server_address}}")]),
            (
                "Failed requests",
                "percentunit",
                [(f"({summed(CALLS, labels=FAILED)} or 0 * {summed(CALLS)}) / {summed(CALLS)}", "{{server_address}}")],
            ),
            (
                "Latency of requests, all attempts together",
                "s",
                [
                    (quantile(share, "call_duration"), f"p{share * 100:.0f} {{{{server_address}}}}")
                    for share in (0.5, 0.99)
                ],
            ),
            ("Attempts for a request", "none", [(f"{summed(ATTEMPTS)} / {summed(CALLS)}", "{{server_address}}")]),
            (
                "Attempts by status",
                "reqps",
                [(summed(ATTEMPTS, "http_response_status_code"), "{{http_response_status_code}}")],
            ),
            ("Failed attempts", "reqps", [(summed(ATTEMPTS, "error_type", FAILED), "{{error_type}}")]),
        ],
    ),
    (
        "Endpoints",
        [
            (
                "Endpoints by state, as the worst process sees them",
                "none",
                [
                    (
                        f'min by (server_address) ({STATE},ecs_discovery_endpoint_state="healthy"}})',
                        "healthy {{server_address}}",
                    ),
                    *(
                        (
                            f'max by (server_address) ({STATE},ecs_discovery_endpoint_state="{state}"}})',
                            state + " {{server_address}}",
                        )
                        for state in ("ejected", "probing", "down")
                    ),
                ],
            ),
            (
                "Endpoints that come and leave",
                "ops",
                [(summed("endpoint_changes_total", "ecs_discovery_change"), "{{ecs_discovery_change}}")],
            ),
            (
                "Ejections by cause",
                "ops",
                [
                    (
                        summed("endpoint_ejections_total", "ecs_discovery_ejection_cause"),
                        "{{ecs_discovery_ejection_cause}}",
                    ),
                    (
                        summed("endpoint_ejections_withheld_total", "ecs_discovery_ejection_cause"),
                        "withheld: {{ecs_discovery_ejection_cause}}",
                    ),
                    (
                        summed("endpoint_revivals_total", "ecs_discovery_endpoint_was"),
                        "back from {{ecs_discovery_endpoint_was}}",
                    ),
                ],
            ),
            (
                "Panic: health is ignored",
                "none",
                [
                    (f"max by (server_address) ({NAMESPACE}_panic{{{CHOSEN}}})", "{{server_address}}"),
                    (summed("panics_total"), "begins {{server_address}}"),
                ],
            ),
            (
                "Overload and health checks",
                "ops",
                [
                    (summed("endpoint_pushbacks_total"), "overloaded {{server_address}}"),
                    (
                        summed("health_checks_total", "ecs_discovery_check_result"),
                        "check {{ecs_discovery_check_result}}",
                    ),
                ],
            ),
            (
                "Requests in flight",
                "none",
                [(f"sum by (server_address) ({NAMESPACE}_attempt_active{{{CHOSEN}}})", "{{server_address}}")],
            ),
        ],
    ),
    (
        "Retries",
        [
            (
                "Retries by what was wrong before",
                "ops",
                [
                    (
                        summed("retries_total", "ecs_discovery_retry_reason, ecs_discovery_retry_unsent"),
                        "{{ecs_discovery_retry_reason}} (unsent: {{ecs_discovery_retry_unsent}})",
                    )
                ],
            ),
            (
                "Retries denied",
                "ops",
                [
                    (
                        summed("retries_denied_total", "ecs_discovery_retry_denied_by"),
                        "{{ecs_discovery_retry_denied_by}}",
                    )
                ],
            ),
            (
                "Retry budget that is left",
                "none",
                [(f"min by (server_address) ({NAMESPACE}_retry_budget_balance{{{CHOSEN}}})", "{{server_address}}")],
            ),
            (
                "Hedges",
                "ops",
                [
                    (summed("hedges_total"), "begun {{server_address}}"),
                    (summed("hedges_won_total"), "won {{server_address}}"),
                ],
            ),
        ],
    ),
    (
        "Connects and lookups",
        [
            ("Latency of connects", "s", [(quantile(0.99, "connect_duration"), "p99 {{server_address}}")]),
            ("Connects by how they ended", "ops", [(summed("connects_total", "error_type"), "{{error_type}}")]),
            (
                "Latency of lookups",
                "s",
                [(quantile(0.99, "lookup_duration", "ecs_discovery_source", ""), "p99 {{ecs_discovery_source}}")],
            ),
            (
                "Lookups",
                "ops",
                [
                    (
                        summed("lookups_total", "ecs_discovery_source, error_type", ""),
                        "{{ecs_discovery_source}} {{error_type}}",
                    ),
                    (summed("forced_lookups_total"), "early {{server_address}}"),
                ],
            ),
            (
                "Age of the oldest answer in use",
                "s",
                [(f"max by (server_address) ({NAMESPACE}_resolution_age_seconds{{{CHOSEN}}})", "{{server_address}}")],
            ),
            (
                "Share of the endpoints that is known",
                "percentunit",
                [(f"min by (server_address) ({NAMESPACE}_endpoint_coverage{{{CHOSEN}}})", "{{server_address}}")],
            ),
        ],
    ),
]

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
        "sum by (server_address)"
        f' (rate({NAMESPACE}_retries_denied_total{{ecs_discovery_retry_denied_by="budget"}}[5m])) > 0',
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


def grafana() -> dict[str, Any]:
    panels: list[dict[str, Any]] = []
    top = 0
    source = {"type": "prometheus", "uid": "${datasource}"}
    for title, row in ROWS:
        panels.append({"type": "row", "title": title, "gridPos": {"x": 0, "y": top, "w": 24, "h": 1}, "panels": []})
        top += 1
        for index, (name, unit, queries) in enumerate(row):
            place = {"x": 8 * (index % 3), "y": top + 7 * (index // 3), "w": 8, "h": 7}
            targets = [
                {"refId": chr(65 + number), "expr": expression, "legendFormat": legend}
                for number, (expression, legend) in enumerate(queries)
            ]
            panels.append(
                {
                    "type": "timeseries",
                    "title": name,
                    "datasource": source,
                    "gridPos": place,
                    "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
                    "targets": targets,
                }
            )
        top += 7 * -(-len(row) // 3)
    for number, panel in enumerate(panels, 1):
        panel["id"] = number
    variables = [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
        {
            "name": "service",
            "label": "Service",
            "type": "query",
            "datasource": source,
            "query": f"label_values({NAMESPACE}_endpoint_count, server_address)",
            "includeAll": True,
            "multi": True,
            "allValue": ".*",
            "refresh": 2,
        },
    ]
    return {
        "title": "ecs_discovery",
        "uid": "ecs-discovery",
        "schemaVersion": 39,
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "30s",
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
