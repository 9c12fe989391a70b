"""From the settings to the zone: D1xx."""

from __future__ import annotations

import re
from collections.abc import Iterator
from shlex import quote

from ecs_discovery.cli.doctor.checks.findings import Finding, Severity, found
from ecs_discovery.cli.doctor.facts import AnswerFacts, Facts, ServerFacts
from ecs_discovery.resolvers.dns.records import in_zone

__all__ = [
    "Hidden",
    "amazon_knows",
    "is_refused",
    "is_usable",
    "name_servers",
    "system",
    "zone_is_here",
]

CONTROL = "amazonaws.com"
_GOOD = ("NOERROR", "NXDOMAIN")
_UNKNOWN = ("NXDOMAIN", "REFUSED")
_OLDEST_ALPINE = (3, 18)
_LOST = 2  # repeated questions from which on packets are lost, and not one by chance
_SHARE = 0.1


Hidden = tuple[ServerFacts, str]
"""Amazon's resolver, and a zone that it has and that the servers in use have not."""


def is_usable(answer: AnswerFacts) -> bool:
    """Does it say whether the name exists?"""
    return answer.outcome == "answered" and answer.rcode in _GOOD


def is_refused(answer: AnswerFacts) -> bool:
    """Does the server say that it does not answer for this name?"""
    return answer.outcome == "answered" and answer.rcode == "REFUSED"


def system(facts: Facts) -> Iterator[Finding]:
    """What the system's files say."""
    resolver = facts.resolver
    local = [zone for zone in facts.zones if in_zone(zone, "local")]
    if resolver.mdns_first and local:
        yield found(
            "D106",
            "resolver",
            f"nsswitch.conf has mDNS with [NOTFOUND=return] before dns, and the namespace is {local[0]}",
            "in /etc/nsswitch.conf of the image: hosts: files dns",
        )
    if resolver.names > 2 or resolver.ndots > 1:
        yield found(
            "D108",
            "resolver",
            f"a short name is asked for as {resolver.names} names: ndots {resolver.ndots}, "
            f"search {' '.join(resolver.search) or 'nothing'}",
            "in other programs write names in full with a dot at the end, such as orders.prod.local.",
        )
    if resolver.libc.startswith("musl") and not _is_new_enough(resolver.alpine):
        yield found(
            "D109",
            "resolver",
            f"{resolver.libc}, Alpine {resolver.alpine or 'of an unknown release'}",
            "build the image from alpine:3.18 or newer, or from a Debian image",
        )
    for target in facts.targets:
        if target.hosts and not target.proxied:
            yield found(
                "D107",
                f"name {target.asked}",
                f"the hosts file has {target.name} at {', '.join(target.hosts[:3])}",
                "remove the line: extraHosts or links of the task definition, or the image's own /etc/hosts. "
                "ECS_DISCOVERY_DNS_HOSTS_FILE= (empty) has the library leave the file out",
            )
        elif target.scheme in ("auto", "dns", "srv") and "." not in target.name and not target.hosts:
            yield found(
                "D112",
                f"name {target.asked}",
                f"{target.name} has no dot, and neither --namespace nor ECS_DISCOVERY_NAMESPACE is set",
                "set ECS_DISCOVERY_NAMESPACE to the Cloud Map namespace in the container's environment, such as "
                "prod.local",
            )


def _is_new_enough(alpine: str) -> bool:
    match = re.match(r"(\d{1,4})\.(\d{1,4})", alpine)
    return match is not None and (int(match[1]), int(match[2])) >= _OLDEST_ALPINE


def name_servers(facts: Facts, behind: Hidden | None) -> Iterator[Finding]:
    """Do the servers answer, over UDP and TCP?"""
    used = [server for server in facts.servers if server.used]
    if not used:
        yield found(
            "D113",
            "servers",
            f"no DNS server is configured{f': {facts.resolver.problem}' if facts.resolver.problem else ''}",
            "set ECS_DISCOVERY_NAMESERVERS, in a VPC to 169.254.169.253",
        )
        return
    # A server that refuses a name works, and does not have it.
    dead = [server for server in used if not any(is_usable(each) or is_refused(each) for each in _of(facts, server))]
    if len(dead) == len(used) and facts.task.in_ecs and all(map(_is_silent, _of_all(facts))):
        yield found(
            "D102",
            "servers",
            f"no answer from {', '.join(server.address for server in facts.servers)}",
            "turn both on",
            "aws ec2 modify-vpc-attribute --vpc-id VPC --enable-dns-support '{\"Value\": true}'",
            "aws ec2 modify-vpc-attribute --vpc-id VPC --enable-dns-hostnames '{\"Value\": true}'",
        )
        return
    for server in dead:
        if behind is None:
            told = _problem(_of(facts, server))
            yield found(
                "D113",
                "servers",
                f"{server.address} {told}",
                "look at the server and at the way to it: UDP and TCP port 53 must be open to this task",
                severity=Severity.ERROR if len(dead) == len(used) else Severity.WARNING,
            )
    for server in used:
        yield from _transports(server, _of(facts, server))


def _transports(server: ServerFacts, answers: list[AnswerFacts]) -> Iterator[Finding]:
    datagrams = [answer for answer in answers if answer.transport == "udp"]
    streams = [answer for answer in answers if answer.transport == "tcp"]
    if any(map(is_usable, datagrams)) and streams and not any(answer.outcome == "answered" for answer in streams):
        yield found(
            "D110",
            "servers",
            f"{server.address} answers over UDP, and over TCP it {_problem(streams)}",
            "allow TCP port 53 beside UDP port 53 from this task to the server, in security groups and network ACLs",
        )
    answered = [answer for answer in datagrams if answer.outcome == "answered"]
    repeated = [answer for answer in answered if answer.tries > 1]
    if len(repeated) >= _LOST and len(repeated) > _SHARE * len(datagrams):
        yield found(
            "D111",
            "servers",
            f"{server.address} answered {len(repeated)} of {len(answered)} questions at the second try only",
            "ask for fewer names, or for fewer at once: ECS_DISCOVERY_DNS_MAX_QUERIES=50; run a caching resolver "
            "beside the program. On the EC2 host, `ethtool -S eth0` counts linklocal_allowance_exceeded",
        )


def zone_is_here(facts: Facts, behind: Hidden | None) -> Iterator[Finding]:
    """Is the namespace visible to the servers that are used?"""
    for zone in facts.zones:
        about = [answer for server in facts.servers if server.used for answer in _of(facts, server, zone)]
        asked = [
            answer for answer in about if answer.name == zone and answer.kind == "soa" and answer.transport == "udp"
        ]
        ttls = [answer.negative_ttl for answer in asked if answer.zone == zone and answer.negative_ttl is not None]
        if ttls and max(ttls) > 30:
            yield found(
                "D205",
                "zones",
                f'{zone}: "no such name" holds for {max(ttls):g} s (SOA record)',
                "lower the TTL of the namespace's SOA record",
                "aws servicediscovery update-private-dns-namespace --id NAMESPACE --namespace "
                "'Properties={DnsProperties={SOA={TTL=15}}}'",
            )
        if behind is not None and zone == behind[1] and not any(answer.records for answer in about):
            yield found(
                "D103",
                "zones",
                f"{zone}: {behind[0].address} has it; {_told(asked)}",
                f"have the server forward {zone} to the VPC's resolver (the VPC's first address plus 2), or set "
                f"ECS_DISCOVERY_NAMESERVERS={quote(behind[0].address.removesuffix(':53'))}",
            )
        elif any(answer.records for answer in about):
            continue
        elif _fails(about) and _control_works(facts):
            yield found(
                "D105",
                "zones",
                f"{zone}: {_told(asked)}; {CONTROL} is answered",
                "repair the targets of the rule, or override it for the namespace",
                "aws route53resolver list-resolver-rules",
                "aws route53resolver create-resolver-rule --creator-request-id ANY --rule-type SYSTEM --domain-name "
                f"{quote(zone)}",
                "aws route53resolver associate-resolver-rule --resolver-rule-id RULE --vpc-id VPC",
            )
        elif _is_unknown(asked, zone, declared=zone == facts.settings.namespace) and not _api_has(facts, zone):
            yield found(
                "D101",
                "zones",
                f"{zone}: {_told(asked)}",
                "associate the hosted zone with this VPC, or correct ECS_DISCOVERY_NAMESPACE",
                "aws route53 associate-vpc-with-hosted-zone --hosted-zone-id ZONE --vpc VPCRegion=REGION,VPCId=VPC",
            )


def _control_works(facts: Facts) -> bool:
    """Does a server in use answer for a public name?"""
    used = {server.address for server in facts.servers if server.used}
    return any(
        answer.server in used and answer.name == CONTROL and answer.outcome == "answered" and answer.rcode == "NOERROR"
        for answer in facts.answers
    )


def _api_has(facts: Facts, zone: str) -> bool:
    return any(
        target.api is not None and target.api.count > 0 and in_zone(target.name, zone) for target in facts.targets
    )


def _is_unknown(asked: list[AnswerFacts], zone: str, *, declared: bool) -> bool:
    """Do all answers say that there is no such zone? A name that was not declared a namespace need not be a zone."""
    answers = [answer for answer in asked if answer.outcome == "answered"]
    if not answers or any(answer.zone == zone or answer.rcode not in _UNKNOWN for answer in answers):
        return False
    return declared or all(answer.rcode == "REFUSED" or "." not in (answer.zone or "") for answer in answers)


def _fails(answers: list[AnswerFacts]) -> bool:
    asked = [answer for answer in answers if answer.transport == "udp"]
    return bool(asked) and all(
        _is_silent(answer) or answer.rcode == "SERVFAIL" or answer.outcome == "failed" for answer in asked
    )


def amazon_knows(facts: Facts) -> Hidden | None:
    """Amazon's resolver and a zone that it has and that no server in use has."""
    mine = {server.address for server in facts.servers if server.used}
    for server in facts.servers:
        for zone in facts.zones if not server.used else ():
            theirs = any(answer.zone == zone or answer.records for answer in _of(facts, server, zone))
            ours = any(
                answer.server in mine and in_zone(answer.name, zone) and (answer.zone == zone or answer.records)
                for answer in facts.answers
            )
            if theirs and not ours:
                return server, zone
    return None


def _of(facts: Facts, server: ServerFacts, zone: str | None = None) -> list[AnswerFacts]:
    return [
        answer
        for answer in facts.answers
        if answer.server == server.address and (zone is None or in_zone(answer.name, zone))
    ]


def _of_all(facts: Facts) -> list[AnswerFacts]:
    return list(facts.answers)


def _is_silent(answer: AnswerFacts) -> bool:
    return answer.outcome == "silent"


def _problem(answers: list[AnswerFacts]) -> str:
    told = {
        "is silent"
        if answer.outcome == "silent"
        else f"answers {answer.rcode}"
        if answer.outcome == "answered"
        else f"fails: {answer.problem}"
        for answer in answers
    }
    return ", ".join(sorted(told)[:3]) or "was not asked in time"


def _told(asked: list[AnswerFacts]) -> str:
    """What the servers say of a zone."""
    texts = []
    for answer in asked:
        of = "" if answer.zone is None else f", of the zone {answer.zone or '.'}"
        texts.append(f"{answer.server} {_problem([answer])}{of}")
    return "; ".join(dict.fromkeys(texts)) or "no server was asked in time"
