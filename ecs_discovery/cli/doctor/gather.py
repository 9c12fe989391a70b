"""Collects the facts within a time limit: settings, the machine, DNS, connects and Cloud Map's API.

DNS, the API and files may say whatever they like, as slowly as they like. Each part has its share of the time, and
what it says is bounded before it becomes a fact.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any

from ecs_discovery import __version__
from ecs_discovery.cli.doctor.ask_cloud_map import Calls
from ecs_discovery.cli.doctor.ask_dns import Ask, ask_all
from ecs_discovery.cli.doctor.facts import (
    AnswerFacts,
    ApiFacts,
    ConnectFacts,
    Facts,
    ServerFacts,
    SettingsFacts,
    TargetFacts,
    TaskFacts,
    as_plain,
    load,
)
from ecs_discovery.cli.doctor.look_around import (
    Places,
    borrow_environment,
    look_at_machine,
    look_at_process,
    look_at_resolver,
    look_at_task,
    program_environment,
)
from ecs_discovery.cli.doctor.try_connects import keep_alive_of, try_all
from ecs_discovery.config.policies import CloudMapPolicy
from ecs_discovery.config.settings import Settings
from ecs_discovery.config.targets import parse_target
from ecs_discovery.errors import ConfigurationError, NoEndpoints, foreign
from ecs_discovery.models import Endpoint, Question
from ecs_discovery.resolvers.addresses import is_usable, screened
from ecs_discovery.resolvers.cloud_map.instances import request
from ecs_discovery.resolvers.cloud_map.sync import _client
from ecs_discovery.resolvers.dns.records import in_zone
from ecs_discovery.resolvers.dns.servers import Server
from ecs_discovery.resolvers.dns.system import configured_servers
from ecs_discovery.resolvers.hosts import HostsFile
from ecs_discovery.runtime.sockets import ConnectResult

__all__ = ["CONTROL", "LONGEST", "MOST_TARGETS", "Order", "gather"]

LONGEST = 9.0
"""Seconds after which everything has ended."""
MOST_TARGETS = 16
CONTROL = "amazonaws.com"
"""A public name, asked for to tell a server that fails from a zone that fails."""
_METADATA, _DNS, _FOLLOW, _REPEAT, _CONNECT, _PAUSE = 0.5, 3.0, 1.3, 1.3, 1.0, 1.0  # seconds of each part
_API = 5.0  # seconds after the beginning, when connects begin without what the API says
_DNS_SCHEMES = ("auto", "dns", "srv")
_FAMILIES = ("a", "aaaa")
_MOST_ENDPOINTS = 12  # of a target
_MOST_OTHERS = 4  # endpoints of other ports
_MOST_FOLLOWED = 16  # SRV targets of a name
_HTTP_PORT = 80
_SERVER_COUNT = 4
_MOST_SERVICES = 200  # declared ones that are named


@dataclass(frozen=True, slots=True)
class Order:
    """What the doctor is asked to look at."""

    names: tuple[str, ...] = ()
    namespace: str | None = None
    nameservers: tuple[str, ...] = ()
    pid: int = 1
    path: str | None = None
    stop_timeout: float | None = None


def gather(
    order: Order,
    environ: Mapping[str, str] | None = None,
    *,
    places: Places | None = None,
    make_client: Callable[[CloudMapPolicy], Any] = _client,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Facts:
    """All facts, within `LONGEST` seconds. Raises `ConfigurationError` for names that make no sense."""
    began = clock()
    end_at = began + LONGEST
    places = places if places is not None else Places()
    if environ is None:
        borrow_environment(places, order.pid)
    own = os.environ if environ is None else environ
    ours = {**own, **program_environment(places, order.pid)}
    settings, settings_facts = _settings(order, ours)
    sources = [_source(asked, source, settings) for asked, source in _sources(order, settings)]
    task = look_at_task(own, _METADATA)
    resolver = look_at_resolver(places, own)
    machine = look_at_machine(own)
    calls = _calls(sources, settings, task, make_client)
    hosts = HostsFile.shared(places.hosts if places.hosts is not None else settings.dns.hosts_file or os.devnull)
    targets = [_with_hosts(target, hosts) for target, _ in sources]
    servers = _servers(settings, resolver.nameservers, task, places)
    zones = _zones(targets, settings)
    answers = _dns(targets, zones, servers, clock, end_at)
    targets = _with_api(targets, calls, max(0.0, min(began + _API, end_at) - clock()), clock)
    used = {facts.address for _, facts in servers if facts.used}
    mine = [each for each in answers.values() if each.server in used]
    targets = _connected(targets, mine, settings, clock, end_at, sleep)
    if order.path is not None:
        targets = [_with_keep_alive(each, order.path, clock, end_at) for each in targets]
    targets = _with_api(targets, calls, max(0.0, end_at - clock()), clock)
    facts = Facts(
        version=__version__,
        settings=settings_facts,
        task=task,
        resolver=resolver,
        servers=tuple(facts for _, facts in servers),
        zones=zones,
        answers=tuple(answers.values()),
        targets=tuple(targets),
        machine=replace(machine, region=machine.region or bool(settings.cloud_map.region)),
        process=look_at_process(places, order.pid),
        stop_timeout=order.stop_timeout,
        seconds=round(clock() - began, 3),
    )
    return load(as_plain(facts))  # as they come back from a file: they are judged alike there


_Source = tuple[TargetFacts, Mapping[str, Any]]
"""A target, and what else to ask Cloud Map about it."""


# Settings and names


def _settings(order: Order, environ: Mapping[str, str]) -> tuple[Settings, SettingsFacts]:
    """The settings of the program, and what is wrong with them. What cannot be used is left out."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        try:
            settings, problem = _made(order, environ), ""
        except ConfigurationError as error:
            settings, problem = _made(order, {}), str(error)  # raises if the command line is what is wrong
    facts = SettingsFacts(
        namespace=settings.namespace,
        services=tuple(foreign(name) for name, _ in settings.services[:_MOST_SERVICES]),
        disabled=settings.disabled,
        problem=foreign(problem, 255),
        warnings=tuple(dict.fromkeys(foreign(each.message) for each in found))[:50],
        installed=bool(environ.get("ECS_DISCOVERY_INSTALL")),
        search=settings.dns.search,
        zone_prefer=settings.zone.prefer,
        zone_own=settings.zone.own,
        idle_timeout=settings.connection.idle_timeout,
    )
    return settings, facts


def _made(order: Order, environ: Mapping[str, str]) -> Settings:
    return Settings.make(namespace=order.namespace, nameservers=order.nameservers or None, environ=environ)


def _sources(order: Order, settings: Settings) -> list[tuple[str, str]]:
    """Each name with each of its sources. Without names: the declared services."""
    names = order.names or tuple(name for name, _ in settings.services)
    found: list[tuple[str, str]] = []
    for name in dict.fromkeys(names):
        target = parse_target(name)
        declared = (target.name, settings.short(target.name)) if target.scheme == "auto" else ()
        config = next((each for each in map(settings.config, declared) if each is not None), None)
        found += [(name, source) for source in config.sources] if config is not None else [(name, name)]
    return found[:MOST_TARGETS]


def _source(asked: str, source: str, settings: Settings) -> _Source:
    target, written = parse_target(source), parse_target(asked)
    name = settings.qualified(target.name) if target.scheme in _DNS_SCHEMES else target.name
    facts = TargetFacts(foreign(asked), foreign(source), target.scheme, foreign(name, 255), target.port or written.port)
    if target.scheme == "cloudmap":
        who, what = request(Question("cloudmap", target.asked), settings.cloud_map)
        api = ApiFacts(foreign(who["NamespaceName"]), foreign(who["ServiceName"]), wanted=True)
        return replace(facts, api=api), {**what, **who}
    end = f".{settings.namespace}"
    if target.scheme in _DNS_SCHEMES and settings.namespace and name.endswith(end):
        return replace(facts, api=ApiFacts(settings.namespace, name.removesuffix(end))), {}
    return facts, {}


def _calls(
    sources: Sequence[_Source], settings: Settings, task: TaskFacts, make_client: Callable[[CloudMapPolicy], Any]
) -> Calls | None:
    """The calls that are allowed: for those who use the API, and in a task, which may have a role for it."""
    asked = [(target.api, parameters) for target, parameters in sources if target.api is not None]
    if not (task.in_ecs or settings.cloud_map.endpoint_url or any(facts.wanted for facts, _ in asked)):
        return None
    return Calls(asked, settings.cloud_map, make=make_client)


def _with_api(
    targets: Sequence[TargetFacts], calls: Calls | None, seconds: float, clock: Callable[[], float]
) -> list[TargetFacts]:
    if calls is None:
        return list(targets)
    left = iter(calls.wait(seconds, clock=clock))
    return [replace(each, api=next(left)) if each.api is not None else each for each in targets]


def _with_hosts(target: TargetFacts, hosts: HostsFile) -> TargetFacts:
    if target.scheme not in _DNS_SCHEMES:
        return target
    found: list[str] = []
    for name in dict.fromkeys((target.name, parse_target(target.asked).name)):
        for family in ("a", "aaaa"):
            with suppress(NoEndpoints):
                local = hosts.lookup(Question(family, name))
                found += [each.host for each in local.endpoints] if local is not None else []
        if found:
            return replace(target, hosts=tuple(found[:_MOST_ENDPOINTS]), proxied=hosts.has_alias(name))
    return target


# DNS


def _servers(
    settings: Settings, system: Sequence[str], task: TaskFacts, places: Places
) -> list[tuple[Server, ServerFacts]]:
    """The servers that lookups ask, and Amazon's resolver in a task that uses another one."""
    used: tuple[Server, ...] = tuple(map(Server, system))
    if settings.dns.nameservers:
        used = configured_servers(Question("a", ""), settings.dns.nameservers)
    found = [
        (server, ServerFacts(str(server), amazon=server in places.amazon or _is_vpc_resolver(server, task.address)))
        for server in dict.fromkeys(used[:_SERVER_COUNT])
    ]
    if task.in_ecs and not any(facts.amazon for _, facts in found):
        found += [(server, ServerFacts(str(server), used=False, amazon=True)) for server in places.amazon]
    return found


def _is_vpc_resolver(server: Server, address: str | None) -> bool:
    """Can this be the base of the task's VPC plus two? A VPC has from 2 to the power of 4 to 2^16 addresses."""
    if server.host == "fd00:ec2::253":
        return True
    try:
        mine, task = ip_address(server.host), ip_address(address or "")
    except ValueError:
        return False
    if mine.version != 4 or task.version != 4:
        return False
    base = int(mine) - 2
    return any(base % 2**bits == 0 and base >> bits == int(task) >> bits for bits in range(4, 17))


def _zones(targets: Sequence[TargetFacts], settings: Settings) -> tuple[str, ...]:
    found = [settings.namespace] if settings.namespace else []
    for target in targets:
        if target.scheme in _DNS_SCHEMES and "." in target.name:
            parent = target.name.partition(".")[2]
            if not any(in_zone(target.name, zone) for zone in found):
                found.append(parent)
    return tuple(found)


def _dns(
    targets: Sequence[TargetFacts],
    zones: Sequence[str],
    servers: Sequence[tuple[Server, ServerFacts]],
    clock: Callable[[], float],
    end_at: float,
) -> dict[Ask, AnswerFacts]:
    names = list(dict.fromkeys(each.name for each in targets if each.scheme in _DNS_SCHEMES))
    asks: list[Ask] = []
    for server, facts in servers:
        asks += [Ask(server, zone, "soa") for zone in zones]
        asks += [Ask(server, name, kind) for name in names for kind in ("a", "aaaa", "srv")]
        if facts.used:
            asks += [Ask(server, CONTROL, "soa")]
            asks += [Ask(server, zone, "soa", "tcp") for zone in (*zones, CONTROL)[:1]]
    answers = ask_all(asks, min(clock() + _DNS, end_at), clock=clock)
    lively = [
        server
        for server, facts in servers
        if facts.used and any(found.records for ask, found in answers.items() if ask.server == server)
    ]
    # The same again, of a server that answers: what changes from one answer to the next is told by that.
    more = [
        Ask(server, name, kind, round=number)
        for number in (1, 2)
        for server in lively[:1]
        for name in names
        for kind in ("a", "srv")
        if answers.get(Ask(server, name, kind), AnswerFacts("", "", "")).records
    ]
    more += _follow(answers, lively[:1])
    if more:
        answers |= ask_all(more, min(clock() + max(_FOLLOW, _REPEAT), end_at), clock=clock)
    return answers


def _follow(answers: Mapping[Ask, AnswerFacts], servers: Sequence[Server]) -> list[Ask]:
    """The addresses of SRV targets that came without."""
    found: list[Ask] = []
    for ask, answer in answers.items():
        if ask.kind == "srv" and ask.server in servers:
            known = {record.name for record in answer.additional}
            bare = [record.value for record in answer.records if record.value and record.value not in known]
            found += [Ask(ask.server, name, kind) for name in bare[:_MOST_FOLLOWED] for kind in _FAMILIES]
    return found


# Connects


def _connected(
    targets: Sequence[TargetFacts],
    answers: Sequence[AnswerFacts],
    settings: Settings,
    clock: Callable[[], float],
    end_at: float,
    sleep: Callable[[float], None],
) -> list[TargetFacts]:
    plans = [_endpoints(target, answers, settings) for target in targets]
    everything = [endpoint for used, others in plans for endpoint in (*used, *others)]
    first = try_all(everything, _CONNECT, min(clock() + 2 * _CONNECT, end_at), clock=clock)
    refused = [each for each, outcome in first.items() if outcome[0] is ConnectResult.REFUSES]
    second = {}
    if refused and end_at - clock() > 2 * _PAUSE:
        sleep(_PAUSE)
        second = try_all(refused, _CONNECT, min(clock() + _CONNECT, end_at), clock=clock)
    found = []
    for target, (used, others) in zip(targets, plans, strict=True):
        connects = [
            ConnectFacts(
                endpoint.host,
                endpoint.port,
                endpoint in used,
                result=first[endpoint][0].value,
                again=second[endpoint][0].value if endpoint in second else "",
                error=first[endpoint][1],
                seconds=first[endpoint][2],
            )
            for endpoint in (*used, *others)
            if endpoint in first
        ]
        found.append(replace(target, connects=tuple(connects)))
    return found


def _endpoints(
    target: TargetFacts, answers: Sequence[AnswerFacts], settings: Settings
) -> tuple[list[Endpoint], list[Endpoint]]:
    """Where the application connects to for this target, and the same hosts at ports that other sources name."""
    mine = [each for each in answers if each.name == target.name]
    addresses = [record.value for each in mine for record in each.records if record.kind in _FAMILIES]
    srv = _srv_endpoints(mine, answers)
    api = _api_endpoints(target, settings)
    port, used = target.port, list[tuple[str, int]]()
    if target.scheme == "static":
        used = [(each.host, each.port) for each in parse_target(target.source).addresses]
    elif target.scheme == "cloudmap":
        used = api
    elif target.hosts:
        used = [(host, port or _HTTP_PORT) for host in target.hosts]
    elif target.scheme == "srv":
        used = srv
    elif target.scheme == "dns":
        used = [(host, port or _HTTP_PORT) for host in addresses]
    elif port is not None:
        used = [(host, port) for host in addresses] or srv
    else:
        used = srv or [(host, _HTTP_PORT) for host in addresses]
    foreign_hosts = target.scheme != "static" and not target.hosts
    mine_endpoints = _allowed(used, settings, check=foreign_hosts)[:_MOST_ENDPOINTS]
    if not mine_endpoints:
        return [], []
    others = [each for each in _allowed([*srv, *api], settings, check=True) if each not in mine_endpoints]
    return mine_endpoints, others[:_MOST_OTHERS]


def _srv_endpoints(mine: Iterable[AnswerFacts], answers: Iterable[AnswerFacts]) -> list[tuple[str, int]]:
    addresses: dict[str, list[str]] = {}
    for answer in answers:
        for record in answer.additional:
            if record.kind in _FAMILIES:
                addresses.setdefault(record.name, []).append(record.value)
        if answer.kind in _FAMILIES:
            addresses.setdefault(answer.name, []).extend(record.value for record in answer.records)
    return [
        (host, record.port)
        for answer in mine
        for record in answer.records
        if record.kind == "srv" and record.port
        for host in addresses.get(record.value, ())
    ]


def _api_endpoints(target: TargetFacts, settings: Settings) -> list[tuple[str, int]]:
    default = target.port or settings.cloud_map.default_port
    instances = target.api.instances if target.api is not None else ()
    found = [(each.address, each.port or default) for each in instances]
    return [(host, port) for host, port in found if host is not None and port is not None]


def _allowed(pairs: Iterable[tuple[str, int]], settings: Settings, *, check: bool) -> list[Endpoint]:
    """Endpoints that lookups would accept: an answer must not lead to the credentials of the task."""
    endpoints = [Endpoint(host, port) for host, port in dict.fromkeys(pairs) if is_usable(host)]
    if not check:
        return endpoints
    allowed = (*settings.dns.allowed_networks, *settings.cloud_map.allowed_networks)
    return list(screened(endpoints, allowed)[0])


def _with_keep_alive(target: TargetFacts, path: str, clock: Callable[[], float], end_at: float) -> TargetFacts:
    ready = next((each for each in target.connects if each.used and each.result == ConnectResult.ACCEPTS.value), None)
    if ready is None or clock() >= end_at:
        return target
    found = keep_alive_of(
        Endpoint(ready.host, ready.port), target.name, path, min(clock() + _CONNECT, end_at), clock=clock
    )
    return replace(target, keep_alive=found)
