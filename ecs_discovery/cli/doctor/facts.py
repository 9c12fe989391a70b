"""What the doctor knows: plain values, which a file can hold.

Facts of a file were gathered elsewhere and are foreign: `load` bounds them and makes their texts printable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ecs_discovery.cli.foreign_values import Limits, made
from ecs_discovery.errors import ConfigurationError, foreign

__all__ = [
    "FORMAT",
    "AnswerFacts",
    "ApiFacts",
    "ConnectFacts",
    "Facts",
    "InstanceFacts",
    "LibraryFacts",
    "MachineFacts",
    "ProcessFacts",
    "RecordFacts",
    "ResolverFacts",
    "ServerFacts",
    "SettingsFacts",
    "TargetFacts",
    "TaskFacts",
    "as_plain",
    "load",
]

FORMAT = 1
"""Of the file. A reader knows its own format and older ones."""
_LIMITS = Limits(text=255, items=200, of={"answers": 2_000, "servers": 16, "zones": 32, "targets": 64})
"""Checks compare items with others, so that a long list would take its time."""


@dataclass(frozen=True, slots=True)
class SettingsFacts:
    """What `ECS_DISCOVERY_…` variables and the command line set."""

    namespace: str | None = None
    services: tuple[str, ...] = ()
    """Names of declared services."""
    disabled: bool = False
    problem: str = ""
    """Why the settings cannot be used."""
    warnings: tuple[str, ...] = ()
    """Of variables that mean nothing, say."""
    installed: bool = False
    """Is the program run by `ecs-discovery run`?"""
    search: bool = False
    zone_prefer: bool = False
    zone_own: str = ""
    idle_timeout: float = 60.0


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """Where the doctor runs."""

    in_ecs: bool = False
    metadata: bool = False
    """Did the metadata endpoint answer?"""
    cluster: str | None = None
    service: str | None = None
    family: str | None = None
    task_id: str | None = None
    zone: str | None = None
    network_mode: str | None = None
    address: str | None = None
    ipv4: bool = True
    """Is there a route for IPv4?"""
    ipv6: bool = False


@dataclass(frozen=True, slots=True)
class ResolverFacts:
    """How the system resolves names."""

    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    ndots: int = 1
    names: int = 1
    """Under how many names a short name is asked for."""
    problem: str = ""
    mdns_first: bool = False
    """Does nsswitch.conf have mDNS end the search before DNS is asked?"""
    libc: str = ""
    """`glibc 2.36`, `musl`, or empty if that cannot be told."""
    alpine: str = ""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """A DNS server that was asked."""

    address: str
    used: bool = True
    """False for Amazon's resolver, asked for comparison."""
    amazon: bool = False
    """Is it Amazon's resolver, as far as its address tells?"""


@dataclass(frozen=True, slots=True)
class RecordFacts:
    """A DNS record."""

    kind: str
    name: str
    value: str
    """The address, or the name that it leads to."""
    port: int = 0
    ttl: float = 0.0


@dataclass(frozen=True, slots=True)
class AnswerFacts:
    """What became of one question to one server."""

    server: str
    name: str
    kind: str
    transport: str = "udp"
    outcome: str = "silent"
    """`answered`, `silent`, or `failed`: no answer that could be read."""
    rcode: str = ""
    records: tuple[RecordFacts, ...] = ()
    additional: tuple[RecordFacts, ...] = ()
    zone: str | None = None
    """The owner of the SOA record, "" for the root; None without one."""
    negative_ttl: float | None = None
    tries: int = 1
    seconds: float = 0.0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class InstanceFacts:
    """An instance as Cloud Map's API shows it."""

    address: str | None = None
    port: int | None = None
    health: str = ""


@dataclass(frozen=True, slots=True)
class ApiFacts:
    """What Cloud Map's API said of a service."""

    namespace: str
    service: str
    wanted: bool = False
    """Does the application ask the API for this service?"""
    outcome: str = "not asked"
    """`answered`, `denied`, `not found`, `throttled`, `no boto3`, `no region`, `no credentials`, `no way`, `late`,
    `failed` or `not asked`."""
    code: str = ""
    revision: str = "not asked"
    """The same for the revision."""
    count: int = 0
    instances: tuple[InstanceFacts, ...] = ()
    skew: float | None = None
    """Seconds by which this clock is ahead of the API's."""


@dataclass(frozen=True, slots=True)
class ConnectFacts:
    """A connect to one endpoint."""

    host: str
    port: int
    used: bool = True
    """False for a port that another source names."""
    result: str = "untold"
    """`accepts`, `refuses`, `silent`, or `untold`: the fault was on this side."""
    again: str = ""
    """The same a second later, if it was refused at first."""
    error: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class TargetFacts:
    """A name of the application, with one of its sources."""

    asked: str
    source: str
    scheme: str = "auto"
    name: str = ""
    port: int | None = None
    problem: str = ""
    hosts: tuple[str, ...] = ()
    """Its addresses in the hosts file."""
    proxied: bool = False
    """Is it an alias of Service Connect?"""
    api: ApiFacts | None = None
    connects: tuple[ConnectFacts, ...] = ()
    keep_alive: float | None = None
    """Seconds that the service keeps idle connections, where it says so."""


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """What calls of AWS need."""

    region: bool = False
    credentials: str = ""
    """`task role`, `keys`, `profile`, or empty."""
    proxy: bool = False
    no_proxy: bool = True
    """Are the credentials of the task asked for without the proxy?"""
    dualstack: bool = False


@dataclass(frozen=True, slots=True)
class LibraryFacts:
    """An installed package."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """The program, as its process shows it."""

    pid: int = 0
    """0 if no process could be looked at."""
    name: str = ""
    term: str = ""
    """`handled`, `default`, `ignored`, or empty if that cannot be told."""
    files_limit: int | None = None
    files_open: int | None = None
    periods: int = 0
    throttled: int = 0
    server: str = ""
    """`gunicorn`, `uwsgi`, …, as far as the command line tells."""
    preload: bool = False
    threads: bool | None = None
    python: str = ""
    libraries: tuple[LibraryFacts, ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """All of it."""

    format: int = FORMAT
    version: str = ""
    """Of the package that gathered them."""
    settings: SettingsFacts = SettingsFacts()
    task: TaskFacts = TaskFacts()
    resolver: ResolverFacts = ResolverFacts()
    servers: tuple[ServerFacts, ...] = ()
    zones: tuple[str, ...] = ()
    """Names that should be zones: the namespace, and what the targets outside of it are in."""
    answers: tuple[AnswerFacts, ...] = ()
    targets: tuple[TargetFacts, ...] = ()
    machine: MachineFacts = MachineFacts()
    process: ProcessFacts = ProcessFacts()
    stop_timeout: float | None = None
    """The stopTimeout of this container in seconds, if it is to be judged as a server."""
    seconds: float = 0.0


def as_plain(facts: Facts) -> dict[str, Any]:
    """For JSON."""
    return asdict(facts)


def load(value: Any) -> Facts:
    """Facts from what JSON held: facts, or the whole output of the command. Raises `ConfigurationError`."""
    if isinstance(value, Mapping) and isinstance(value.get("facts"), Mapping):
        value = value["facts"]
    if not isinstance(value, Mapping) or not isinstance(value.get("format"), int):
        raise ConfigurationError("--facts", "a file of another kind", "the output of `ecs-discovery doctor --json`")
    if not 0 < value["format"] <= FORMAT:
        raise ConfigurationError("--facts", f"a file of format {value['format']}", f"format {FORMAT} and older ones")
    try:
        return made(Facts, value, _LIMITS)
    except (TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise ConfigurationError(
            "--facts", foreign(error), "facts as `ecs-discovery doctor --json` writes them"
        ) from error
