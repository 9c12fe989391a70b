"""What can be found: every code with its severity, its title and what it means. The codes never change."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ecs_discovery.errors import foreign

__all__ = ["CODES", "DOCS", "Code", "Finding", "Severity", "found"]

DOCS = "docs/doctor.md"
_LONGEST = 400  # characters of what was seen


class Severity(Enum):
    """How bad it is."""

    INFO = "info"
    """Good to know. It changes no exit status."""
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Code:
    """What a code stands for."""

    severity: Severity
    title: str
    means: str


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong, or that may be."""

    code: str
    severity: Severity
    step: str
    """Where on the request's way it was found: `settings`, `task`, `resolver`, `servers`, `zones`, a name of the
    application as `name orders`, or `program`."""
    title: str
    seen: str
    means: str
    do: str
    run: tuple[str, ...]
    """Commands to copy. What stands in capitals is to be filled in."""
    docs: str


def found(code: str, step: str, seen: str, do: str, *run: str, severity: Severity | None = None) -> Finding:
    """A finding of a code. `seen` may hold what others wrote; the severity is the code's unless another is given."""
    entry = CODES[code]
    return Finding(
        code,
        severity if severity is not None else entry.severity,
        step,
        entry.title,
        foreign(seen, _LONGEST),
        entry.means,
        foreign(do, 2 * _LONGEST),
        tuple(foreign(command, 2 * _LONGEST) for command in run),
        f"{DOCS}#{code.lower()}",
    )


_E, _W, _I = Severity.ERROR, Severity.WARNING, Severity.INFO

CODES: dict[str, Code] = {
    # Names
    "D101": Code(
        _E,
        "the namespace is not visible here",
        "The DNS server has no zone of this name. The hosted zone may not be associated with this VPC, or the "
        "namespace is misspelt. Every name in it is unknown.",
    ),
    "D102": Code(
        _E,
        "the VPC's DNS resolver is silent",
        "Neither the configured server nor Amazon's resolver answers. enableDnsSupport or enableDnsHostnames of the "
        "VPC may be off.",
    ),
    "D103": Code(
        _E,
        "another DNS server stands between this task and Route 53",
        "Amazon's resolver knows the namespace, and the configured server does not. Private zones are known to "
        "Amazon's resolver only; other servers have to forward to it.",
    ),
    "D104": Code(
        _E,
        "a more specific zone hides the name",
        "A private zone below the namespace answers for this name and does not have it. Route 53 asks only the most "
        "specific zone.",
    ),
    "D105": Code(
        _E,
        "the server fails for the namespace and not for other names",
        "A resolver rule may forward the namespace to servers that do not answer.",
    ),
    "D106": Code(
        _W,
        "other programs ask mDNS for .local names",
        "nsswitch.conf asks mDNS for .local names and ends the search there. Programs that use getaddrinfo may not "
        "find the namespace. This library does not ask mDNS.",
    ),
    "D107": Code(
        _W,
        "the hosts file has the name",
        "The hosts file is looked at before DNS. Every request goes to its addresses, whatever DNS says.",
    ),
    "D108": Code(
        _I,
        "short names are asked for several times",
        "The search list and ndots complete a short name in several ways, and each is a query. This library asks for "
        "absolute names, unless DnsPolicy(search=True) is set.",
    ),
    "D109": Code(
        _W,
        "the C library is an old musl",
        "The getaddrinfo of musl before 1.2.4 (Alpine 3.18) does not ask again over TCP when an answer is truncated. "
        "Other programs may miss names. This library does not use it for its names.",
    ),
    "D110": Code(
        _E,
        "DNS over TCP does not work",
        "A long answer is asked for over TCP. The SRV answer of seven or more tasks may be too long for UDP.",
    ),
    "D111": Code(
        _W,
        "some DNS queries were lost",
        "Queries met silence and were answered when repeated. This network interface may be near the limit of 1,024 "
        "DNS packets a second, above which the VPC resolver drops them.",
    ),
    "D112": Code(
        _E,
        "no namespace is set",
        "A short name needs a namespace to become a DNS name. Without one it is asked for as it is.",
    ),
    "D113": Code(
        _E,
        "a DNS server gives no usable answer",
        "Nothing can be said about names that this server is asked for.",
    ),
    # Services
    "D201": Code(
        _W,
        "the TTL is longer than 60 seconds",
        "ECS stops a task when it is deregistered. Until the TTL ends, cached answers still name the stopped task. The "
        "library holds answers for 60 seconds at most; other clients hold them longer.",
    ),
    "D202": Code(
        _W,
        "the TTL is 0",
        "Every lookup of other clients is a query. A network interface may send 1,024 queries a second. The library "
        "holds such answers for 5 seconds.",
    ),
    "D203": Code(
        _W,
        "DNS shows 8 tasks, which is its limit",
        "Route 53 answers with at most 8 records. There may be more tasks. The library learns them over time; other "
        "clients see 8 at a time.",
    ),
    "D204": Code(
        _W,
        "DNS shows one task at a time",
        "The routing policy may be WEIGHTED: each answer is one random task, which gets all requests of a client until "
        "the TTL ends.",
    ),
    "D205": Code(
        _W,
        "a missing name stays missing for long",
        "After a service had no task for a moment, its name may stay missing. The DNS resolver of the VPC may remember "
        "that for this long.",
    ),
    "D206": Code(
        _E,
        "the name has records of another kind",
        "Tasks in bridge and host mode have SRV records only. Tasks in awsvpc mode may have A records only.",
    ),
    "D207": Code(
        _E,
        "SRV records lead to names without addresses",
        "The target of an SRV record needs an A or AAAA record. Without one there is nothing to connect to.",
    ),
    "D208": Code(
        _E,
        "every task refuses the connection",
        "The hosts are there and nothing listens on this port. The port may not be the port of the container.",
    ),
    "D209": Code(
        _E,
        "no task answers a connect",
        "DNS works and packets to the tasks meet silence. A security group, a network ACL or a route may block "
        "the port.",
    ),
    "D210": Code(
        _W,
        "some tasks are registered and do not listen",
        "A task without a container health check is registered before its program listens. A task that stops may still "
        "be registered.",
    ),
    "D211": Code(
        _W,
        "Cloud Map does not know whether the tasks are healthy",
        "The Cloud Map service has no HealthCheckCustomConfig. Every registered task counts as healthy, also a dead "
        "task.",
    ),
    "D212": Code(
        _W,
        "no task is healthy, or none was shown for a moment",
        "A rollout of a single task leaves a moment without a healthy task. With none healthy, DNS shows all of them.",
    ),
    "D213": Code(
        _I,
        "the name is an alias of Service Connect",
        "The proxy beside the task chooses among the tasks. The library sees one endpoint, and its balancing has no "
        "effect.",
    ),
    "D214": Code(
        _E,
        "Cloud Map has the service and DNS does not",
        "The service may be one of Service Connect, whose names exist only in tasks of its namespace that were started "
        "after the endpoint was made.",
    ),
    "D215": Code(
        _E,
        "Cloud Map has the service, and no DNS zone is visible",
        "The namespace may be an HTTP namespace, which has no DNS names. Or it has a zone that is not associated with "
        "this VPC.",
    ),
    "D216": Code(
        _E,
        "there is no such service now",
        "The name may be misspelt, the service may not register itself, or it has no task now.",
    ),
    "D217": Code(
        _W,
        "some tasks are silent",
        "Tasks that are gone may still be registered. Or a security group or network ACL lets some tasks be "
        "reached and not others.",
    ),
    # Cloud Map
    "D301": Code(
        _E,
        "DiscoverInstances is denied",
        "The task role lacks the permission, so the cloudmap:// source fails.",
    ),
    "D302": Code(
        _W,
        "DiscoverInstancesRevision is denied",
        "Without this cheap call every poll is a DiscoverInstances, whose quota is smaller.",
    ),
    "D303": Code(
        _E,
        "Cloud Map's API cannot be reached",
        "There may be no way to it: no NAT gateway, and no VPC endpoint.",
    ),
    "D304": Code(
        _E,
        "Cloud Map's API cannot be called",
        "The call needs boto3, a Region, and credentials. In a task, credentials come from 169.254.170.2, which must "
        "not go through a proxy.",
    ),
    "D305": Code(
        _W,
        "the clock is off",
        "AWS may refuse requests that are signed with a time more than 5 minutes off.",
    ),
    "D306": Code(
        _I,
        "the service has more than 100 instances",
        "DiscoverInstances gives 100 random instances unless MaxResults asks for more. The library asks for 1,000; a "
        "client of your own may not.",
    ),
    "D307": Code(
        _W,
        "Cloud Map's API answers with an error",
        "While this lasts, the cloudmap:// source fails, and what was known stays in use.",
    ),
    # The program
    "D401": Code(
        _W,
        "process 1 does not handle SIGTERM",
        "ECS stops a task by SIGTERM to process 1. Without a handler it is ignored there, and the task is killed after "
        "stopTimeout, with requests in flight.",
    ),
    "D402": Code(
        _I,
        "stopTimeout is short for the TTL of this service",
        "ECS stops a task when it is deregistered. Clients of DNS send requests until their answer ends: for the TTL, "
        "and some seconds until DNS shows the change.",
    ),
    "D403": Code(
        _W,
        "the server closes idle connections before the client does",
        "A request that meets the close is lost, or is sent again if it is idempotent.",
    ),
    "D404": Code(
        _W,
        "what is made before a fork may not work after it",
        "Threads, event loops and exporters of the parent do not run in its children.",
    ),
    "D405": Code(
        _I,
        "there may be a second layer of retries",
        "Retries of two layers multiply: three attempts in each make nine.",
    ),
    "D406": Code(
        _I,
        "read timeouts cannot be seen from here",
        "Without a read timeout, a request that is not idempotent waits for a vanished task for ever.",
    ),
    "D407": Code(
        _W,
        "the program is short of resources",
        "Without free descriptors no connection can be made. A throttled program is late, and takes others for late.",
    ),
    "D408": Code(
        _I,
        "the task has IPv6 only",
        "Cloud Map's API may not be reachable without IPv4 unless the dual-stack endpoint is asked for.",
    ),
    "D409": Code(
        _W,
        "a setting or a package does not do what it seems to",
        "Variables that mean nothing are ignored. Packages older than the oldest that is tested may misbehave.",
    ),
    "D410": Code(
        _I,
        "the zone of this task is not known",
        "ZonePolicy(prefer=True) has no effect without it. The metadata endpoint does not tell the zone on every "
        "platform.",
    ),
}
