"""The program and where it runs: D4xx, without what no process shows."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ecs_discovery.cli.doctor.checks.findings import Finding, Severity, found
from ecs_discovery.cli.doctor.facts import Facts, ProcessFacts

__all__ = ["OLDEST", "program", "settings", "task"]

_FILES = 1024
_FULL = 0.8  # of the descriptors
_THROTTLED, _PERIODS = 0.1, 100
_PROPAGATION = 10.0  # seconds until DNS shows a deregistration, generously
_THREADED_UWSGI = (2, 0, 27)
_RETRYING = ("aiohttp-retry", "httpx-retries")
OLDEST = {
    "requests": "2.32.3",
    "urllib3": "2.0.7",
    "httpx": "0.28",
    "httpx2": "2.16",
    "aiohttp": "3.12",
    "grpcio": "1.60",
    "opentelemetry-api": "1.30",
    "boto3": "1.28",
    "tenacity": "9",
}
"""The oldest versions that are tested, as in setup.cfg."""


def settings(facts: Facts) -> Iterator[Finding]:
    """What the variables say."""
    mine = facts.settings
    if mine.problem:
        do = "correct the variable; the program cannot start with it"
        yield found("D409", "settings", mine.problem, do, severity=Severity.ERROR)
    for warning in mine.warnings:
        yield found("D409", "settings", warning, "correct the variable's name, or remove it")
    if mine.disabled:
        yield found(
            "D409",
            "settings",
            "ECS_DISCOVERY_DISABLED is set: names are left to the system",
            "remove ECS_DISCOVERY_DISABLED, if that is not meant",
        )
    for library in facts.process.libraries:
        oldest = OLDEST.get(library.name)
        if oldest is not None and _numbers(library.version) < _numbers(oldest):
            yield found(
                "D409",
                "settings",
                f"{library.name} {library.version} is older than {oldest}",
                "update it",
                f"pip install '{library.name}>={oldest}'",
            )
        elif library.name in ("urllib3-future", "niquests"):
            yield found(
                "D409",
                "settings",
                f"{library.name} {library.version} is installed, which may stand in urllib3's place",
                "remove it, if the program does not need it",
                "pip uninstall niquests urllib3-future",
                "pip install --force-reinstall urllib3",
            )


def task(facts: Facts) -> Iterator[Finding]:
    """Where it runs."""
    if facts.settings.zone_prefer and not facts.settings.zone_own and facts.task.zone is None:
        yield found(
            "D410",
            "task",
            "the metadata endpoint names no zone" if facts.task.metadata else "the metadata endpoint did not answer",
            "set ECS_DISCOVERY_ZONE_OWN to the zone's name, or run on Fargate platform 1.4.0 or newer",
        )
    wanted = any(target.api is not None and target.api.wanted for target in facts.targets)
    if facts.task.ipv6 and not facts.task.ipv4 and wanted and not facts.machine.dualstack:
        yield found(
            "D408",
            "task",
            "there is a route for IPv6 and none for IPv4, and a cloudmap:// target is used",
            "set AWS_USE_DUALSTACK_ENDPOINT=true",
        )


def program(facts: Facts) -> Iterator[Finding]:
    """The process."""
    process = facts.process
    if facts.task.in_ecs and process.pid == 1 and process.term in ("default", "ignored"):
        yield found(
            "D401",
            "program",
            f"process 1 ({process.name}) has no handler for SIGTERM",
            "start the program by exec in the entry point, or set linuxParameters: {initProcessEnabled: true} in the "
            "container definition",
        )
    yield from _stopping(facts)
    yield from _idle(facts)
    yield from _forks(process)
    installed = {library.name for library in process.libraries}
    layers = [name for name in _RETRYING if name in installed]
    if layers:
        yield found(
            "D405",
            "program",
            f"{', '.join(layers)} is installed",
            "retry in one layer: remove the retries around clients that this library serves",
        )
    if facts.settings.installed:
        yield found(
            "D406",
            "program",
            "the program is run by ecs-discovery run, and sets its timeouts itself",
            "give each client a read timeout: requests.get(url, timeout=(2, 30))",
        )
    yield from _resources(process)


def _stopping(facts: Facts) -> Iterator[Finding]:
    if facts.stop_timeout is None:
        return
    ttls = [record.ttl for answer in facts.answers for record in answer.records]
    if ttls and facts.stop_timeout < max(ttls) + _PROPAGATION:
        least = max(ttls) + _PROPAGATION
        yield found(
            "D402",
            "program",
            f"stopTimeout is {facts.stop_timeout:g} s, and the TTL {max(ttls):g} s",
            f"set stopTimeout to more than {least:g} (Fargate: 120 at most) and serve on after SIGTERM: "
            f"ecs-discovery run --term-delay {min(max(ttls) + 5, 120):g} -- COMMAND",
        )


def _idle(facts: Facts) -> Iterator[Finding]:
    for target in facts.targets:
        if target.keep_alive is not None and target.keep_alive < facts.settings.idle_timeout:
            seconds = max(0.1, target.keep_alive - 1)
            yield found(
                "D403",
                f"name {target.asked}",
                f"the server keeps idle connections for {target.keep_alive:g} s, this client for "
                f"{facts.settings.idle_timeout:g} s",
                f"ECS_DISCOVERY_CONNECTION_IDLE_TIMEOUT={seconds:g}, or raise the server's keep-alive timeout",
            )


def _forks(process: ProcessFacts) -> Iterator[Finding]:
    versions = {library.name: library.version for library in process.libraries}
    if process.server == "gunicorn" and process.preload:
        exporter = "opentelemetry-sdk" in versions
        yield found(
            "D404",
            "program",
            f"gunicorn runs with --preload{', and the OpenTelemetry SDK is installed' if exporter else ''}",
            "make AsyncDiscovery objects, event loops and OpenTelemetry's providers in post_fork of gunicorn's "
            "configuration",
            severity=None if exporter else Severity.INFO,
        )
    if process.server in ("uwsgi", "pyuwsgi") and process.threads is None:
        version = versions.get("uWSGI") or versions.get("pyuwsgi")
        if version is None or _numbers(version) < _THREADED_UWSGI:
            yield found(
                "D404",
                "program",
                f"uWSGI {version or 'of an unknown version'} may run without threads: its command line has no "
                "--enable-threads",
                "set enable-threads = true in uWSGI's configuration, if it is not set there",
            )


def _resources(process: ProcessFacts) -> Iterator[Finding]:
    limit, used = process.files_limit, process.files_open
    if limit is not None and limit < _FILES:
        yield found("D407", "program", f"the program may open {limit} files", _ULIMIT)
    elif limit is not None and used is not None and used > _FULL * limit:
        yield found("D407", "program", f"the program has {used} of {limit} files open", _ULIMIT)
    if process.periods >= _PERIODS and process.throttled > _THROTTLED * process.periods:
        yield found(
            "D407",
            "program",
            f"the CPU limit held it up in {100 * process.throttled / process.periods:.0f} % of its periods",
            "give the task or container more cpu",
        )


_ULIMIT = "in the container definition, ulimits: [{name: nofile, softLimit: 65536, hardLimit: 65536}]"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d{1,9}", version.partition("+")[0])[:3])
