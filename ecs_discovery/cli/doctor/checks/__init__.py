"""Judges facts: from the settings to the connection, and then the program. Pure: the same facts, the same findings."""

from __future__ import annotations

from ecs_discovery.cli.doctor.checks import program
from ecs_discovery.cli.doctor.checks.api import api
from ecs_discovery.cli.doctor.checks.findings import CODES, Code, Finding, Severity
from ecs_discovery.cli.doctor.checks.names import amazon_knows, name_servers, system, zone_is_here
from ecs_discovery.cli.doctor.checks.services import connects, instances, records
from ecs_discovery.cli.doctor.facts import Facts

__all__ = ["CODES", "Code", "Finding", "Severity", "judge"]


def judge(facts: Facts) -> tuple[Finding, ...]:
    """All that is wrong, in the order of a request's way."""
    behind = amazon_knows(facts)
    found = [*program.settings(facts), *program.task(facts), *system(facts), *name_servers(facts, behind)]
    found += zone_is_here(facts, behind)
    for target in facts.targets:
        found += [*records(facts, target, behind), *instances(target), *connects(target)]
    found += [*api(facts), *program.program(facts)]
    return tuple(dict.fromkeys(found))
