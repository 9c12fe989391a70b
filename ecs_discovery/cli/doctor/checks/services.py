"""From the name to the connection: D2xx."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from shlex import quote

from ecs_discovery.cli.doctor.checks.findings import Finding, Severity, found
from ecs_discovery.cli.doctor.checks.names import Hidden, is_refused, is_usable
from ecs_discovery.cli.doctor.facts import AnswerFacts, ConnectFacts, Facts, TargetFacts
from ecs_discovery.models import Endpoint
from ecs_discovery.resolvers.dns.records import in_zone

__all__ = ["connects", "instances", "records"]

_DNS = ("auto", "dns", "srv")
_ADDRESSES = ("a", "aaaa")
_LONG, _LIMIT = 60.0, 8
_HEALTH = (
    "give the container a healthCheck in the task definition, and the Cloud Map service "
    "HealthCheckCustomConfig: {FailureThreshold: 1} when it is created"
)


def records(facts: Facts, target: TargetFacts, behind: Hidden | None) -> Iterator[Finding]:
    """What DNS says of the name."""
    step = f"name {target.asked}"
    if target.proxied:
        yield found(
            "D213",
            step,
            f"the hosts file has {target.name} at {', '.join(target.hosts[:2])}",
            f"leave it to the proxy, or go past it and {_by_api(target)}",
        )
    if target.scheme not in _DNS or target.hosts or "." not in target.name:
        return
    used = {server.address for server in facts.servers if server.used}
    mine = [each for each in facts.answers if each.server in used and each.name == target.name]
    answers = [each for each in mine if is_usable(each)]
    if not answers:
        registered = target.api is not None and target.api.count
        if registered and any(map(is_refused, mine)) and behind is None:
            yield _without_zone(target, step)
    elif behind is not None and in_zone(target.name, behind[1]):
        return  # nothing that these servers say of it counts
    elif not any(each.records for each in answers):
        yield from _missing(facts, target, answers, step)
    else:
        yield from _kinds(target, answers, step)
        yield from _srv_targets(facts, target, answers, step)
        yield from _ttls(answers, target, step)
        yield from _numbers(target, answers, step)


def _missing(facts: Facts, target: TargetFacts, answers: Sequence[AnswerFacts], step: str) -> Iterator[Finding]:
    zone = _zone(facts, target)
    owners = {each.zone for each in answers if each.zone is not None}
    hiding = [owner for owner in owners if zone and owner != zone and in_zone(owner, zone)]
    exists = any(each.rcode == "NOERROR" for each in answers)
    if hiding:
        yield found(
            "D104",
            step,
            f"{target.name}: {_rcodes(answers)} by the zone {hiding[0]}, which lies below {zone}",
            f"delete the hosted zone {hiding[0]}, or make the service's records in it",
        )
    elif target.api is not None and target.api.count and not _zone_is_here(facts, target):
        yield _without_zone(target, step)
    elif target.api is not None and target.api.count:
        yield found(
            "D214",
            step,
            f"{target.name}: {_rcodes(answers)}; Cloud Map has {target.api.count} instances of "
            f"{target.api.namespace}/{target.api.service}",
            f"start the tasks of this client anew, if the service uses Service Connect; or {_by_api(target)}",
            "aws ecs update-service --cluster CLUSTER --service CLIENT --force-new-deployment",
        )
    elif _zone_is_here(facts, target) or exists:
        yield found(
            "D216",
            step,
            f"{target.name}: {_rcodes(answers)}, of the zone {next(iter(owners), '') or '.'}",
            "check the spelling, serviceRegistries of the ECS service, and that a task is running",
            "aws ecs describe-services --cluster CLUSTER --services NAME",
        )


def _without_zone(target: TargetFacts, step: str) -> Finding:
    assert target.api is not None
    return found(
        "D215",
        step,
        f"Cloud Map has {target.api.count} instances of {target.api.namespace}/{target.api.service}; DNS has no zone "
        f"for {target.name}",
        _by_api(target),
    )


def _kinds(target: TargetFacts, answers: Sequence[AnswerFacts], step: str) -> Iterator[Finding]:
    addresses = _having(answers, _ADDRESSES)
    srv = _having(answers, ("srv",))
    if not addresses and srv and (target.scheme == "dns" or target.port is not None):
        ports = sorted({record.port for each in srv for record in each.records})
        yield found(
            "D206",
            step,
            f"{target.name} has no address records; its SRV records name port {', '.join(map(str, ports[:3]))}",
            f"ask for srv://{_service(target)}, or leave the port out of the URL",
            # A plain name with a port is found by its SRV records, whose ports go before the port that was written.
            severity=None if target.scheme == "dns" else Severity.WARNING,
        )
    if target.scheme == "srv" and not srv and addresses:
        yield found(
            "D206",
            step,
            f"{target.name} has no SRV records; it has address records",
            f"ask for {_service(target)}:PORT, with the port of the container",
        )


def _srv_targets(facts: Facts, target: TargetFacts, answers: Sequence[AnswerFacts], step: str) -> Iterator[Finding]:
    known = {record.name for each in answers for record in each.additional if record.kind in _ADDRESSES}
    known |= {each.name for each in facts.answers if each.kind in _ADDRESSES and each.records}
    named = {record.value for each in answers if each.kind == "srv" for record in each.records}
    silent = {each.name for each in facts.answers if not is_usable(each)}
    bare = sorted(name for name in named if name not in known and name not in silent)
    needed = target.scheme == "srv" or (target.scheme == "auto" and target.port is None)
    if bare:
        yield found(
            "D207",
            step,
            f"{target.name}: {len(bare)} of {len(named)} SRV targets have no address, such as {bare[0] or '.'}",
            "look at what is registered, and remove what no task has",
            "aws servicediscovery list-instances --service-id SERVICE",
            "aws servicediscovery deregister-instance --service-id SERVICE --instance-id INSTANCE",
            severity=None if needed and len(bare) == len(named) else Severity.WARNING,
        )


def _ttls(answers: Sequence[AnswerFacts], target: TargetFacts, step: str) -> Iterator[Finding]:
    # What a resolver answers from its cache is what is left of the TTL: the greatest is nearest to the record's own.
    ttls = [min(record.ttl for record in each.records) for each in answers if each.records]
    kinds = sorted({each.kind.upper() for each in answers if each.records})
    listed = ",".join(f"{{Type={kind},TTL=10}}" for kind in kinds)
    do = f"set the TTL of the Cloud Map service to 10; in a template, DnsRecords: [{{Type: {kinds[0]}, TTL: 10}}]"
    run = f"aws servicediscovery update-service --id SERVICE --service 'DnsConfig={{DnsRecords=[{listed}]}}'"
    if max(ttls) > _LONG:
        yield found("D201", step, f"{target.name}: a TTL of {max(ttls):g} s", do, run)
    elif max(ttls) == 0 and len(ttls) > 1:
        yield found("D202", step, f"{target.name}: a TTL of 0 s in {len(ttls)} answers", do, run)


def _numbers(target: TargetFacts, answers: Sequence[AnswerFacts], step: str) -> Iterator[Finding]:
    count = target.api.count if target.api is not None and target.api.outcome == "answered" else None
    for kind in ("a", "srv", "aaaa"):
        # The same server asked again: two servers may have answers of different age.
        row = [each for each in answers if each.kind == kind]
        first = [each for each in row if each.server == row[0].server]
        sets = [frozenset((record.value, record.port) for record in each.records) for each in first]
        shown = {len(each) for each in sets if each}
        different = len({each for each in sets if each})
        if any(not each for each in sets) and shown:
            yield found(
                "D212",
                step,
                f"{target.name}: {sum(not each for each in sets)} of {len(sets)} answers had no {kind.upper()} records",
                "run 2 tasks or more, with minimumHealthyPercent: 100",
            )
        if shown and max(shown) == _LIMIT and (count is None or count > _LIMIT):
            told = f", of {count} instances in Cloud Map" if count is not None else ""
            told = told or (", of which not all were the same in each answer" if different > 1 else "")
            yield found("D203", step, f"{target.name}: 8 {kind.upper()} records{told}", _by_api(target))
            return
        if shown == {1} and (different > 1 or (count is not None and count > 1)):
            told = f"{different} different ones in {len(sets)} answers" if different > 1 else f"of {count} instances"
            yield found(
                "D204",
                step,
                f"{target.name}: one {kind.upper()} record an answer, {told}",
                "make the Cloud Map service anew with DnsConfig.RoutingPolicy: MULTIVALUE. It cannot be changed",
            )
            return


def instances(target: TargetFacts) -> Iterator[Finding]:
    """What Cloud Map says of the instances."""
    api, step = target.api, f"name {target.asked}"
    if api is None or api.outcome != "answered":
        return
    named = f"{api.namespace}/{api.service}"
    health = {each.health for each in api.instances}
    if api.count and health == {"UNKNOWN"}:
        yield found("D211", step, f"{named}: all {api.count} instances have the health UNKNOWN", _HEALTH)
    if api.count and health == {"UNHEALTHY"}:
        yield found(
            "D212",
            step,
            f"{named}: all {api.count} instances are UNHEALTHY",
            "run 2 tasks or more, with minimumHealthyPercent: 100; look at the health check of the container",
        )
    if api.wanted and not api.count:
        yield found(
            "D216",
            step,
            f"Cloud Map has no instances of {named} with these attributes",
            "check that a task is running, and the attributes of the target",
        )
    if api.count > 100:
        yield found(
            "D306",
            step,
            f"{named}: {api.count} instances",
            "in clients of your own: discover_instances(…, MaxResults=1000)",
        )
    bare = target.port is None and not any(each.port for each in api.instances)
    if target.scheme == "cloudmap" and api.count and bare and not any(each.used for each in target.connects):
        yield found(
            "D208",
            step,
            f"{named}: the instances are registered without AWS_INSTANCE_PORT, and the target names no port",
            f"{target.source}?port=8080, or ECS_DISCOVERY_CLOUDMAP_DEFAULT_PORT=8080",
        )


def connects(target: TargetFacts) -> Iterator[Finding]:
    """What became of connects to the endpoints."""
    step = f"name {target.asked}"
    used = [each for each in target.connects if each.used and each.result != "untold"]
    if not used:
        mine = [each for each in target.connects if each.used]
        if mine:
            yield found(
                "D209",
                step,
                f"no connect could be made to {_shown(mine)}: {mine[0].error}",
                "look at the routes of this task's subnet, and whether it has an address of that family",
            )
        return
    late = [each for each in used if each.result == "refuses" and each.again == "accepts"]
    refused = [each for each in used if each.result == "refuses" and each.again != "accepts"]
    silent = [each for each in used if each.result == "silent"]
    ports = sorted({each.port for each in used})
    if len(refused) == len(used):
        others = sorted({each.port for each in target.connects if not each.used and each.result == "accepts"})
        told = f"; port {', '.join(map(str, others))} accepts" if others else ""
        do = "check containerPort in the task definition, and that the program listens on 0.0.0.0 and not on 127.0.0.1"
        if others:
            do = f"use port {others[0]}: leave the port out of the URL if the service has SRV records; or correct it"
        yield found("D208", step, f"{_shown(refused)} refused{told}", do)
        return
    if len(silent) == len(used):
        yield found(
            "D209",
            step,
            f"{_shown(silent)} did not answer within 1 s",
            "let this task's security group in; look at network ACLs and routes too",
            "aws ec2 authorize-security-group-ingress --group-id GROUP-OF-THE-SERVICE --protocol tcp "
            f"--port {ports[0]} --source-group GROUP-OF-THIS-TASK",
        )
        return
    none = len(refused) + len(silent) == len(used)
    severity = Severity.ERROR if none else None
    if late or refused:
        told = "" if not late else f"; {len(late)} accepted a second later"
        yield found(
            "D210", step, f"{_shown([*late, *refused])} of {len(used)} refused{told}", _HEALTH, severity=severity
        )
    if silent:
        yield found(
            "D217",
            step,
            f"{_shown(silent)} of {len(used)} did not answer within 1 s",
            "look again after the TTL: tasks that are gone leave DNS. If these remain, compare the security groups and "
            "subnets of the silent tasks and of the others",
            severity=severity,
        )


def _zone(facts: Facts, target: TargetFacts) -> str:
    return next((zone for zone in facts.zones if in_zone(target.name, zone)), "")


def _zone_is_here(facts: Facts, target: TargetFacts) -> bool:
    used = {server.address for server in facts.servers if server.used}
    zone = _zone(facts, target)
    return any(each.server in used and each.zone == zone for each in facts.answers)


def _having(answers: Sequence[AnswerFacts], kinds: Sequence[str]) -> list[AnswerFacts]:
    return [each for each in answers if each.kind in kinds and each.records]


def _rcodes(answers: Sequence[AnswerFacts]) -> str:
    return ", ".join(sorted({"no records" if each.rcode == "NOERROR" else each.rcode for each in answers}))


def _service(target: TargetFacts) -> str:
    return target.name.partition(".")[0] if target.name else target.asked


def _by_api(target: TargetFacts) -> str:
    namespace = target.api.namespace if target.api is not None else "NAMESPACE"
    service = target.api.service if target.api is not None else _service(target)
    declared = quote(f"{service}=cloudmap://{namespace}/{service}")
    return f"ask Cloud Map's API: ECS_DISCOVERY_SERVICES={declared}"


def _shown(row: Sequence[ConnectFacts]) -> str:
    shown = ", ".join(str(Endpoint(each.host, each.port)) for each in row[:3])
    return shown if len(row) <= 3 else f"{shown} and {len(row) - 3} more"
