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
    there 5 minutes ago, nor in the 5 minutes before, counts whole. After a longer gap in Prometheus' data this is too
    much, for 5 minutes.
    """
    every = series(metric, labels)
    before = f"last_over_time({every}[5m] offset 5m)"  # a scrape that failed leaves a mark that hides what came before
    return f"round(sum by ({by}) (({every} unless {before}) or increase({every}[5m])))"


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
SERVER_ERRORS = f'{CHOSEN},http_response_status_code=~"5.."'
SERVER_ERROR_SHARE = f"({summed(ATTEMPTS, labels=SERVER_ERRORS)} or 0 * {summed(ATTEMPTS)}) / {summed(ATTEMPTS)}"
"""Of all attempts, as in the alarm. Which of these answers a retry hides from the caller, no metric tells."""
# The worst process counts here: an operator must see that one process is in trouble, however well the others are.
# The alarm takes the best process instead: a process that starts sees no task yet, and must wake no one.
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


GLANCE: list[list[Panel]] = [
    [
        Panel(
            "Requests", "reqps", [(f"sum({rate(CALLS)})", "requests")], "Requests of your code, all attempts together."
        ),
        Panel(
            "Requests ended by an exception",
            "percentunit",
            [(f"(sum({rate(CALLS, FAILED)}) or vector(0)) / sum({rate(CALLS)})", "failed")],
            "Requests that ended with an exception after all attempts. An answer with status 503 is no exception.",
            (("green", None), ("orange", 0.001), ("red", 0.01)),
            2,
        ),
        Panel(
            "Answers of 500 and more",
            "percentunit",
            [(f"(sum({rate(ATTEMPTS, SERVER_ERRORS)}) or vector(0)) / sum({rate(ATTEMPTS)})", "500 and more")],
            "Attempts that were answered with a status of 500 or more, as a share of all attempts. "
            "Your code gets such an answer unless a retry follows. See the table for each service.",
            (("green", None), ("orange", 0.001), ("red", 0.05)),
            2,
        ),
        Panel(
            "Latency, p99",
            "s",
            [(quantile(0.99, "call_duration", ""), "p99")],
            "99 % of the requests took at most this long, all attempts together.",
        ),
    ],
    [
        Panel(
            "Fewest healthy endpoints of a service",
            "none",
            [(f"min({HEALTHY})", "healthy")],
            "Tasks that get requests, of the chosen service that has the fewest, as the process that sees the fewest "
            "sees them. At 1 a retry has no other healthy task.",
            (("red", None), ("orange", 1), ("green", 2)),
        ),
        Panel(
            "Endpoints not healthy",
            "none",
            [(f"sum({UNFIT})", "unfit")],
            "Tasks that are ejected, probing or down, of all chosen services, as the process that sees the most "
            "sees them.",
            (("green", None), ("orange", 1)),
        ),
        Panel(
            "Attempts per request",
            "none",
            [(f"sum({rate(ATTEMPTS)}) / sum({rate(CALLS)})", "attempts")],
            "1 while nothing is retried or hedged.",
            (("green", None), ("orange", 1.1)),
            2,
        ),
    ],
]
"""Lines of single values: first what users notice, then why."""
TABLE: list[tuple[str, str, str]] = [  # column, unit, query
    ("Healthy", "none", HEALTHY),
    ("Not healthy", "none", UNFIT),
    ("Known", "percentunit", COVERAGE),
    ("Requests", "reqps", summed(CALLS)),
    ("Exceptions", "percentunit", FAILED_SHARE),
    ("Answers 500+", "percentunit", SERVER_ERROR_SHARE),
    ("p50", "s", quantile(0.5, "call_duration")),
    ("p99", "s", quantile(0.99, "call_duration")),
    ("Attempts/request", "none", f"{summed(ATTEMPTS)} / {summed(CALLS)}"),
    ("Retries in 5 min", "none", f"{recent('retries_total')} or 0 * {HEALTHY}"),
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
                "Requests ended by an exception",
                "percentunit",
                [(FAILED_SHARE, SERVICE)],
                "As a share of all requests. A last answer with status 503 is an answer: see below.",
            ),
            Panel(
                "Latency of requests",
                "s",
                [(quantile(share, "call_duration"), f"{name} {SERVICE}") for share, name in PERCENTILES],
                "As your code sees it: all attempts and the pauses between them.",
            ),
            Panel(
                "Answers of 500 and more",
                "percentunit",
                [(SERVER_ERROR_SHARE, SERVICE)],
                "As a share of all attempts. Your code gets such an answer unless a retry follows.",
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
            Panel(
                "Failed requests by error, in 5 min",
                "none",
                [(recent(CALLS, "error_type, server_address", FAILED), "{{error_type}} " + SERVICE)],
                "Requests that ended with an exception after all attempts, by the class of the exception.",
            ),
            Panel(
                "Answers by status",
                "reqps",
                [
                    (
                        summed(ATTEMPTS, "http_response_status_code, server_address", ANSWERED),
                        "{{http_response_status_code}} " + SERVICE,
                    )
                ],
                "Of all attempts: HTTPCode_Target_2XX_Count to 5XX of Service Connect.",
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
                        recent("endpoint_ejections_total", "ecs_discovery_ejection_cause, server_address"),
                        "{{ecs_discovery_ejection_cause}} " + SERVICE,
                    ),
                    (
                        recent("endpoint_ejections_withheld_total", "ecs_discovery_ejection_cause, server_address"),
                        "withheld: {{ecs_discovery_ejection_cause}} " + SERVICE,
                    ),
                    (
                        recent("endpoint_revivals_total", "ecs_discovery_endpoint_was, server_address"),
                        "back from {{ecs_discovery_endpoint_was}} " + SERVICE,
                    ),
                ],
                "Endpoints taken out, by the cause, and endpoints that came back. "
                "Withheld: the limit on ejections prevented it.",
            ),
            Panel(
                "Panic: health is ignored",
                "none",
                [
                    (f"max by (server_address) ({series('panic')})", f"now (1 = in panic) {SERVICE}"),
                    (recent("panics_total"), f"begun in the last 5 min {SERVICE}"),
                ],
                "Fewer than half of the endpoints are healthy, so ejected endpoints get requests too. "
                "A panic that is over still counts as begun, for 5 minutes.",
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
                [(recent(ATTEMPTS, "error_type, server_address", FAILED), "{{error_type}} " + SERVICE)],
                "By what was wrong. A retry may hide each of them from your code.",
            ),
            Panel(
                "Retries, in 5 min",
                "none",
                [
                    (
                        recent(
                            "retries_total",
                            "ecs_discovery_retry_reason, server_address",
                            f'{CHOSEN},ecs_discovery_retry_unsent="false"',
                        ),
                        "{{ecs_discovery_retry_reason}} " + SERVICE,
                    ),
                    (
                        recent(
                            "retries_total",
                            "ecs_discovery_retry_reason, server_address",
                            f'{CHOSEN},ecs_discovery_retry_unsent="true"',
                        ),
                        "{{ecs_discovery_retry_reason}}, nothing was sent, " + SERVICE,
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
                "Attempts per request",
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
                    (summed("connects_total", "error_type, server_address", FAILED), "{{error_type}} " + SERVICE),
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


class Alarm(NamedTuple):
    """One alarm rule."""

    name: str
    severity: str
    """`critical`: requests fail. `warning`: they may soon."""
    condition: str
    lasting: str
    """For how long the condition must hold."""
    means: str


ALARMS: list[Alarm] = [
    Alarm(
        "EcsDiscoveryNoHealthyEndpoint",
        "critical",
        f'max by (server_address) ({NAMESPACE}_endpoint_count{{ecs_discovery_endpoint_state="healthy"}}) == 0',
        "1m",
        "No process sees a healthy task of {{ $labels.server_address }}.",
    ),
    Alarm(
        "EcsDiscoveryAnswersAreOld",
        "warning",
        f"max by (server_address) ({NAMESPACE}_resolution_age_seconds) > 120",
        "2m",
        "DNS or Cloud Map has not answered for {{ $labels.server_address }}: old endpoints stay in use.",
    ),
    Alarm(
        "EcsDiscoveryRetryBudgetIsUsedUp",
        "warning",
        f"{recent('retries_denied_total', labels=BUDGET)} > 0",
        "1m",
        "More requests to {{ $labels.server_address }} fail than retries may hide.",
    ),
    Alarm(
        "EcsDiscoveryPanic",
        "warning",
        f"max by (server_address) ({NAMESPACE}_panic) == 1",
        "2m",
        "So few tasks of {{ $labels.server_address }} are healthy that health is ignored.",
    ),
    Alarm(
        "EcsDiscoveryManyRetries",
        "warning",
        f"sum by (server_address) (rate({NAMESPACE}_retries_total[5m]))"
        f" / sum by (server_address) (rate({NAMESPACE}_attempt_duration_seconds_count[5m])) > 0.1",
        "5m",
        "Over 10 % of the attempts at {{ $labels.server_address }} are retries. Users may not see it yet.",
    ),
    Alarm(
        "EcsDiscoveryFewEndpointsKnown",
        "warning",
        f"min by (server_address) ({NAMESPACE}_endpoint_coverage) < 0.9",
        "10m",
        "Under 90 % of the tasks of {{ $labels.server_address }} are known.",
    ),
    Alarm(
        "EcsDiscoveryFailedRequests",
        "critical",
        f'sum by (server_address) (rate({NAMESPACE}_call_duration_seconds_count{{error_type!=""}}[5m]))'
        f" / sum by (server_address) (rate({NAMESPACE}_call_duration_seconds_count[5m])) > 0.01",
        "5m",
        "Over 1 % of the requests to {{ $labels.server_address }} end with an error after all attempts.",
    ),
    Alarm(
        "EcsDiscoveryServerErrors",
        "critical",
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
    if kind == "timeseries":
        defaults["color"] = {"mode": "palette-classic-by-name"}  # a service alone has the same colour in all panels
    return made


def lines(kind: str, each: list[list[Panel]], top: int, height: int) -> list[dict[str, Any]]:
    """Panels in lines of the whole width, 24, each line shared evenly."""
    return [
        panel(kind, one, (24 // len(line) * index, top + height * number, 24 // len(line), height))
        for number, line in enumerate(each)
        for index, one in enumerate(line)
    ]


def table(place: tuple[int, int, int, int]) -> dict[str, Any]:
    """One line for each service, with what its columns say now."""
    made = panel(
        "table", Panel("Services", "none", [(query, "") for *_, query in TABLE], "How each service is now."), place
    )
    for target in made["targets"]:
        target |= {"format": "table", "instant": True, "range": False}
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
    panels = lines("stat", GLANCE, 0, 3)
    top = 3 * len(GLANCE)
    panels.append(table((0, top, 24, 5)))
    top += 5
    for title, row in ROWS:
        panels.append({"type": "row", "title": title, "gridPos": {"x": 0, "y": top, "w": 24, "h": 1}, "panels": []})
        top += 1
        threes = [row[index : index + 3] for index in range(0, len(row), 3)]
        panels += lines("timeseries", threes, top, 7)
        top += 7 * len(threes)
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


TARGET, ERROR = "server.address", "error.type"
STATE, FROM, STATUS = "ecs_discovery.endpoint.state", "ecs_discovery.source", "http.response.status_code"
CALL_FAILED, SERVER_ERROR = "ecs_discovery.failed", "ecs_discovery.server_error"
"""Attributes that the collector adds: CloudWatch can count what has an attribute, but nothing over all its values."""


class Shown(NamedTuple):
    """A metric by these attributes, as CloudWatch knows it: as dimensions."""

    metric: str
    statistic: str
    by: tuple[str, ...] = (TARGET,)
    only: str = ""
    """A term of CloudWatch's search for some values of the attributes."""


CLOUDWATCH: list[tuple[str, list[Shown]]] = [
    ("Requests a minute", [Shown("call.duration", "SampleCount")]),
    ("Failed requests a minute", [Shown("call.duration", "SampleCount", (TARGET, ERROR))]),
    ("Latency of requests (s), p50 and p99", [Shown("call.duration", "p50"), Shown("call.duration", "p99")]),
    ("Answers a minute, by status", [Shown("attempt.duration", "SampleCount", (TARGET, STATUS))]),
    ("Latency of attempts (s), p50 and p99", [Shown("attempt.duration", "p50"), Shown("attempt.duration", "p99")]),
    ("Requests in flight, in a process on average", [Shown("attempt.active", "Average")]),
    (
        "Endpoints, as the worst process sees them",
        [
            Shown("endpoint.count", "Minimum", (TARGET, STATE), '"healthy"'),
            Shown("endpoint.count", "Maximum", (TARGET, STATE), 'NOT "healthy"'),
        ],
    ),
    ("Endpoints that came and left", [Shown("endpoint.changes", "Sum", (TARGET, "ecs_discovery.change"))]),
    ("Ejections", [Shown("endpoint.ejections", "Sum", (TARGET, "ecs_discovery.ejection.cause"))]),
    ("Retries", [Shown("retries", "Sum", (TARGET, "ecs_discovery.retry.reason"))]),
    ("Retries denied", [Shown("retries_denied", "Sum", (TARGET, "ecs_discovery.retry.denied_by"))]),
    ("Retry budget that is left", [Shown("retry_budget.balance", "Minimum")]),
    ("Panic: health is ignored (1 = yes)", [Shown("panic", "Maximum")]),
    ("Connects", [Shown("connects", "Sum")]),
    ("Failed connects", [Shown("connects", "Sum", (TARGET, ERROR))]),
    ("Lookups", [Shown("lookups", "Sum", (FROM,)), Shown("lookups", "Sum", (FROM, ERROR))]),
    ("Age of the oldest answer in use (s)", [Shown("resolution.age", "Maximum")]),
    ("Share of the endpoints that is known", [Shown("endpoint.coverage", "Minimum")]),
]


def cloudwatch() -> dict[str, Any]:
    """The board. Its Region stands for itself: `Fn::Sub` of CloudFormation fills it in, or you do."""
    widgets = []
    for index, (title, shown) in enumerate(CLOUDWATCH):
        searches = []
        for number, each in enumerate(shown, 1):
            schema = ",".join(f'"{name}"' for name in (NAMESPACE, *each.by))
            terms = f'MetricName="{NAMESPACE}.{each.metric}" {each.only}'.strip()
            search = {"expression": f"SEARCH('{{{schema}}} {terms}', '{each.statistic}', 60)", "id": f"e{number}"}
            if len({one.statistic for one in shown}) > 1:
                search["label"] = each.statistic
            searches.append([search])
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
                    "yAxis": {"left": {"min": 0}},
                    "metrics": searches,
                },
            }
        )
    return {"widgets": widgets}


class Watch(NamedTuple):
    """The same alarm in CloudWatch: `shown`, over `total` if there is one, on the wrong side of `limit`."""

    shown: Shown
    values: tuple[str, ...]
    """Of its attributes but the first, which is the service."""
    sign: str
    limit: float
    period: int
    """Seconds that a value stands for."""
    periods: int
    total: Shown | None = None


ABOVE, BELOW, AT_LEAST = "GreaterThanThreshold", "LessThanThreshold", "GreaterThanOrEqualToThreshold"
ALL_ATTEMPTS, ALL_CALLS = Shown("attempt.duration", "SampleCount"), Shown("call.duration", "SampleCount")
WATCHES: dict[str, Watch] = {
    "EcsDiscoveryNoHealthyEndpoint": Watch(
        Shown("endpoint.count", "Maximum", (TARGET, STATE)), ("healthy",), BELOW, 1, 60, 1
    ),
    "EcsDiscoveryAnswersAreOld": Watch(Shown("resolution.age", "Maximum"), (), ABOVE, 120, 60, 2),
    "EcsDiscoveryRetryBudgetIsUsedUp": Watch(
        Shown("retries_denied", "Sum", (TARGET, "ecs_discovery.retry.denied_by")), ("budget",), ABOVE, 0, 300, 1
    ),
    "EcsDiscoveryPanic": Watch(Shown("panic", "Maximum"), (), AT_LEAST, 1, 60, 2),
    "EcsDiscoveryManyRetries": Watch(Shown("retries", "Sum"), (), ABOVE, 0.1, 300, 2, ALL_ATTEMPTS),
    "EcsDiscoveryFewEndpointsKnown": Watch(Shown("endpoint.coverage", "Minimum"), (), BELOW, 0.9, 60, 10),
    "EcsDiscoveryFailedRequests": Watch(
        Shown("call.duration", "SampleCount", (TARGET, CALL_FAILED)), ("true",), ABOVE, 0.01, 300, 2, ALL_CALLS
    ),
    "EcsDiscoveryServerErrors": Watch(
        Shown("attempt.duration", "SampleCount", (TARGET, SERVER_ERROR)), ("true",), ABOVE, 0.05, 300, 2, ALL_ATTEMPTS
    ),
}


def measure(shown: Shown, values: tuple[str, ...] = ()) -> dict[str, Any]:
    """A metric of the chosen service, as alarms have it."""
    dimensions: list[dict[str, Any]] = [{"Name": TARGET, "Value": {"Ref": "Service"}}]
    dimensions += [{"Name": name, "Value": value} for name, value in zip(shown.by[1:], values, strict=True)]
    return {"Namespace": NAMESPACE, "MetricName": f"{NAMESPACE}.{shown.metric}", "Dimensions": dimensions}


def cloudwatch_alarms() -> dict[str, Any]:
    """A CloudFormation template: the alarms of one service."""
    resources = {}
    for alarm in ALARMS:
        watch = WATCHES[alarm.name]
        says = alarm.means.replace("{{ $labels.server_address }}", "${Service}")
        properties: dict[str, Any] = {
            "AlarmName": {"Fn::Sub": f"{alarm.name} ${{Service}}"},
            "AlarmDescription": {"Fn::Sub": f"{says} Severity: {alarm.severity}."},
            "AlarmActions": [{"Ref": "Topic"}],
            "OKActions": [{"Ref": "Topic"}],
            "ComparisonOperator": watch.sign,
            "Threshold": watch.limit,
            "EvaluationPeriods": watch.periods,
            "TreatMissingData": "notBreaching",
        }
        if watch.total is None:
            properties |= measure(watch.shown, watch.values)
            properties |= {"Statistic": watch.shown.statistic, "Period": watch.period}
        else:
            parts = {"part": measure(watch.shown, watch.values), "total": measure(watch.total)}
            stats = {"part": watch.shown.statistic, "total": watch.total.statistic}
            properties["Metrics"] = [
                {"Id": "share", "Expression": "part / total", "Label": "share", "ReturnData": True},
                *(
                    {
                        "Id": name,
                        "MetricStat": {"Metric": metric, "Period": watch.period, "Stat": stats[name]},
                        "ReturnData": False,
                    }
                    for name, metric in parts.items()
                ),
            ]
        resources[alarm.name] = {"Type": "AWS::CloudWatch::Alarm", "Properties": properties}
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "Alarms on the metrics of ecs_discovery, for one service that is called.",
        "Parameters": {
            "Service": {"Type": "String", "Description": "The service as its callers write it, without port: orders"},
            "Topic": {"Type": "String", "Description": "The ARN of the SNS topic that is told"},
        },
        "Resources": resources,
    }


def collector() -> dict[str, Any]:
    """The configuration of OpenTelemetry's collector, beside the caller in its task."""
    shown = [each for _, row in CLOUDWATCH for each in row]
    shown += [each for watch in WATCHES.values() for each in (watch.shown, watch.total) if each is not None]
    metrics: dict[tuple[str, ...], list[str]] = {}
    for each in shown:
        known = metrics.setdefault(each.by, [])
        if each.metric not in known:
            known.append(each.metric)
    return {
        "receivers": {
            "otlp": {"protocols": {"grpc": {"endpoint": "localhost:4317"}, "http": {"endpoint": "localhost:4318"}}}
        },
        "processors": {
            "transform": {
                "error_mode": "ignore",
                "metric_statements": [
                    {
                        "statements": [
                            f'convert_sum_to_gauge() where metric.name == "{NAMESPACE}.{name}"'
                            for name in ("endpoint.count", "attempt.active")
                        ]
                    },
                    {
                        "statements": [
                            f'set(datapoint.attributes["{CALL_FAILED}"], "true") where metric.name =='
                            f' "{NAMESPACE}.call.duration" and datapoint.attributes["{ERROR}"] != nil',
                            f'set(datapoint.attributes["{SERVER_ERROR}"], "true") where metric.name =='
                            f' "{NAMESPACE}.attempt.duration" and datapoint.attributes["{STATUS}"] >= 500',
                        ]
                    },
                ],
            },
            "batch": {"timeout": "10s"},
        },
        "exporters": {
            "awsemf": {
                "namespace": NAMESPACE,
                "log_group_name": f"/metrics/{NAMESPACE}",
                "log_retention": 7,
                "dimension_rollup_option": "NoDimensionRollup",
                "retain_initial_value_of_delta_metric": True,
                "metric_declarations": [
                    {"dimensions": [list(by)], "metric_name_selectors": [f"^{NAMESPACE}\\.({_either(names)})$"]}
                    for by, names in metrics.items()
                ],
            }
        },
        "service": {
            "pipelines": {
                "metrics": {"receivers": ["otlp"], "processors": ["transform", "batch"], "exporters": ["awsemf"]}
            }
        },
    }


def _either(names: list[str]) -> str:
    return "|".join(name.replace(".", "\\.") for name in names)


def alarms() -> dict[str, Any]:
    """Prometheus' alarm rules."""
    rules = [
        {
            "alert": alarm.name,
            "expr": alarm.condition,
            "for": alarm.lasting,
            "labels": {"severity": alarm.severity},
            "annotations": {"summary": alarm.means},
        }
        for alarm in ALARMS
    ]
    return {"groups": [{"name": NAMESPACE, "rules": rules}]}


def yaml(value: Any, indent: int = 0) -> list[str]:
    """Lines of YAML. Words are quoted as in JSON, which YAML allows."""
    space = " " * indent
    lines: list[str] = []
    if isinstance(value, dict):
        for key, inner in value.items():
            simple = not isinstance(inner, dict | list)
            lines += [f"{space}{key}: {json.dumps(inner)}"] if simple else [f"{space}{key}:", *yaml(inner, indent + 2)]
    elif isinstance(value, list):
        for each in value:
            first, *others = yaml(each, indent + 2)
            lines += [f"{space}- {first.lstrip()}", *others]
    else:
        lines.append(space + json.dumps(value))
    return lines


def files() -> dict[str, str]:
    """What stands beside this file, by name."""
    boards = {"grafana.json": grafana(), "cloudwatch.json": cloudwatch()}
    others = {"alarms.yml": alarms(), "cloudwatch-alarms.yml": cloudwatch_alarms(), "collector.yml": collector()}
    return {
        **{name: json.dumps(board, indent=1) + "\n" for name, board in boards.items()},
        **{name: "\n".join(yaml(content)) + "\n" for name, content in others.items()},
    }


if __name__ == "__main__":
    for file, text in files().items():
        (HERE / file).write_text(text)
