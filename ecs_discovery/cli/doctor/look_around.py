"""What the machine tells without a question to anyone: files, the environment, the program's process.

Of the environment only what is named here is looked at. Values that are not ours are never kept, only what follows
from them: that there is a proxy, and not which.
"""

from __future__ import annotations

import os
import platform
import re
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import metadata

from ecs_discovery.cli.doctor.facts import (
    LibraryFacts,
    MachineFacts,
    ProcessFacts,
    ResolverFacts,
    TaskFacts,
)
from ecs_discovery.errors import ResolutionError, foreign
from ecs_discovery.models import Question
from ecs_discovery.resolvers.dns.search import candidates
from ecs_discovery.resolvers.dns.search import parse as parse_search
from ecs_discovery.resolvers.dns.servers import Server
from ecs_discovery.resolvers.dns.system import configured_servers, system_servers
from ecs_discovery.runtime.files import read_text
from ecs_discovery.runtime.task_metadata import task_metadata

__all__ = [
    "LIBRARIES",
    "Places",
    "borrow_environment",
    "installed",
    "look_at_machine",
    "look_at_process",
    "look_at_resolver",
    "look_at_task",
    "program_environment",
]

_FILE = 65_536  # bytes
_MOST_FILES = 100_000  # descriptors counted
_SIGTERM = 15
_ENVIRONMENT = 4 * 1024 * 1024  # bytes
_BORROWED = (
    *("ECS_CONTAINER_METADATA_URI_V4", "AWS_EXECUTION_ENV", "AWS_REGION", "AWS_DEFAULT_REGION"),
    *("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
)
LIBRARIES = (
    *("aiohttp", "boto3", "gevent", "grpcio", "gunicorn", "httpx", "httpx2", "niquests", "opentelemetry-api"),
    *("opentelemetry-sdk", "pyuwsgi", "requests", "tenacity", "urllib3", "urllib3-future", "uWSGI"),
    *("aiohttp-retry", "httpx-retries", "requests-ratelimiter"),
)
"""Packages whose versions matter."""
_SERVERS = ("gunicorn", "uwsgi", "pyuwsgi", "uvicorn", "celery", "hypercorn", "daphne", "granian")


def installed(name: str) -> str | None:
    """The version of a package."""
    try:
        return metadata.version(name)
    except (metadata.PackageNotFoundError, ValueError):
        return None


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are looked for."""

    resolv_conf: str = "/etc/resolv.conf"
    nsswitch_conf: str = "/etc/nsswitch.conf"
    alpine_release: str = "/etc/alpine-release"
    hosts: str | None = None
    """None: what `DnsPolicy` says."""
    proc: str = "/proc"
    cpu_stat: tuple[str, ...] = ("/sys/fs/cgroup/cpu.stat", "/sys/fs/cgroup/cpu/cpu.stat")
    amazon: tuple[Server, ...] = (Server("169.254.169.253"),)
    """The resolver that every VPC has at the same address."""
    version_of: Callable[[str], str | None] = installed


def look_at_task(environ: Mapping[str, str], timeout: float) -> TaskFacts:
    """What ECS says of this task, and which families it can reach."""
    found = task_metadata(timeout=timeout, environ=environ)
    facts = TaskFacts(
        in_ecs=any(
            environ.get(name)
            for name in ("ECS_CONTAINER_METADATA_URI_V4", "ECS_CONTAINER_METADATA_URI", "AWS_EXECUTION_ENV")
        ),
        ipv4=_has_route(socket.AF_INET, "192.0.2.1"),
        ipv6=_has_route(socket.AF_INET6, "2001:db8::1"),
    )
    if found is None:
        return facts
    return replace(
        facts,
        metadata=True,
        cluster=found.cluster,
        service=found.service,
        family=found.family,
        task_id=found.task_id,
        zone=found.zone,
        network_mode=found.network_mode,
        address=found.address,
    )


def _has_route(family: int, address: str) -> bool:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((address, 9))  # sends nothing: the kernel looks for a route
    except OSError:
        return False
    return True


def look_at_resolver(places: Places, environ: Mapping[str, str]) -> ResolverFacts:
    """The system's resolver settings. A file that cannot be read has no settings, as for glibc."""
    text, problem = "", ""
    servers: tuple[str, ...] = ()
    try:
        if sys.platform == "win32":
            servers = tuple(each.host for each in configured_servers(Question("a", ""), ()))
        else:
            text = read_text(places.resolv_conf, _FILE)
            servers = tuple(each.host for each in system_servers(places.resolv_conf))
    except (OSError, ResolutionError) as error:
        problem = f"{places.resolv_conf}: {getattr(error, 'strerror', None) or type(error).__name__}"
    search = parse_search(text, environ, socket.gethostname())
    return ResolverFacts(
        nameservers=servers,
        search=tuple(foreign(each) for each in search.domains[:32]),
        ndots=search.ndots,
        names=len(candidates("orders", search)),
        problem=foreign(problem),
        mdns_first=_mdns_first(_text(places.nsswitch_conf)),
        libc=_libc(places),
        alpine=foreign(_text(places.alpine_release).strip(), 32),
    )


def _mdns_first(text: str) -> bool:
    for line in text.splitlines():
        if line.startswith("hosts:"):
            services = line.partition("#")[0].removeprefix("hosts:").lower()
            before = re.split(r"\sdns\b", services)[0]
            return re.search(r"\smdns\w*\s*\[notfound=return\]", before) is not None
    return False


def _libc(places: Places) -> str:
    name, version = platform.libc_ver()  # knows musl from Python 3.13 on
    if _text(places.alpine_release):
        name, version = "musl", version if name == "musl" else ""
    return foreign(f"{name} {version}".strip(), 32)


def _text(path: str) -> str:
    try:
        return read_text(path, _FILE)
    except OSError:
        return ""


def look_at_machine(environ: Mapping[str, str]) -> MachineFacts:
    """What calls of AWS need. No value is kept."""
    if environ.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") or environ.get("AWS_CONTAINER_CREDENTIALS_FULL_URI"):
        credentials = "task role"
    elif environ.get("AWS_ACCESS_KEY_ID"):
        credentials = "keys"
    else:
        credentials = "profile" if environ.get("AWS_PROFILE") else ""
    proxies = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
    spared = (environ.get("NO_PROXY") or environ.get("no_proxy") or "").replace(" ", "").split(",")
    return MachineFacts(
        region=any(environ.get(name) for name in ("AWS_REGION", "AWS_DEFAULT_REGION")),
        credentials=credentials,
        proxy=any(environ.get(name) for name in proxies),
        no_proxy=any(each in ("*", "169.254.170.2", "169.254.0.0/16", "169.254.170.0/24") for each in spared),
        dualstack=environ.get("AWS_USE_DUALSTACK_ENDPOINT", "").lower() == "true",
    )


def look_at_process(places: Places, pid: int) -> ProcessFacts:
    """The program with this id, where the system has /proc and lets it be read. Its command line is not kept."""
    facts = ProcessFacts(
        python=platform.python_version(),
        libraries=tuple(
            LibraryFacts(name, foreign(version, 32))
            for name in LIBRARIES
            if (version := places.version_of(name)) is not None
        ),
    )
    periods, throttled = _throttling(places)
    facts = replace(facts, periods=periods, throttled=throttled)
    home = f"{places.proc}/{pid}"
    status = _proc(f"{home}/status")
    if not status:
        return facts
    words = _words(f"{home}/cmdline")
    return replace(
        facts,
        pid=pid,
        name=foreign(_field(status, "Name"), 32),
        term=_term(status),
        files_limit=_soft_limit(_proc(f"{home}/limits")),
        files_open=_count(f"{home}/fd"),
        server=next((each for each in _SERVERS if any(os.path.basename(word) == each for word in words[:6])), ""),
        preload="--preload" in words or "--preload-app" in words,
        threads=True if any(re.match(r"--?(enable-threads|threads|T)\b", word) for word in words) else None,
    )


def _proc(path: str) -> str:
    # Files of /proc say that they are empty; reading is what fills them.
    return _text(path)


def _words(path: str) -> list[str]:
    return [word for word in _proc(path).split("\0") if word]


def _field(status: str, name: str) -> str:
    found = re.search(rf"^{name}:\s*(.*)$", status, re.MULTILINE)
    return found[1].strip() if found else ""


def _term(status: str) -> str:
    """What happens to SIGTERM: caught by a handler, or blocked for one who waits for it (tini), or neither."""
    masks = {}
    for name in ("SigBlk", "SigIgn", "SigCgt"):
        text = _field(status, name)
        if not re.fullmatch(r"[0-9a-fA-F]{1,64}", text):
            return ""
        masks[name] = bool(int(text, 16) >> (_SIGTERM - 1) & 1)
    if masks["SigCgt"] or masks["SigBlk"]:
        return "handled"
    return "ignored" if masks["SigIgn"] else "default"


def _soft_limit(limits: str) -> int | None:
    found = re.search(r"^Max open files\s+([0-9]{1,18})\s", limits, re.MULTILINE)
    return int(found[1]) if found else None


def _count(path: str) -> int | None:
    count = 0
    try:
        with os.scandir(path) as entries:
            for _ in entries:
                count += 1
                if count >= _MOST_FILES:
                    break
    except OSError:
        return None
    return count


def _throttling(places: Places) -> tuple[int, int]:
    for path in places.cpu_stat:
        text = _text(path)
        found = {name: int(value) for name, value in re.findall(r"^(nr_\w+) ([0-9]{1,18})$", text, re.MULTILINE)}
        if "nr_periods" in found:
            return found["nr_periods"], found.get("nr_throttled", 0)
    return 0, 0


def program_environment(places: Places, pid: int) -> dict[str, str]:
    """Of the environment that the program was started with, our own variables."""
    return {name: value for name, value in _environment(places, pid) if name.startswith("ECS_DISCOVERY_")}


def borrow_environment(places: Places, pid: int) -> None:
    """Give this process what only the program's process was given: a session of ECS Exec may be without the variables
    that lead to the metadata endpoint and to the credentials of the task."""
    for name, value in _environment(places, pid):
        if name in _BORROWED:
            os.environ.setdefault(name, value)


def _environment(places: Places, pid: int) -> Iterator[tuple[str, str]]:
    with suppress(OSError):
        for item in read_text(f"{places.proc}/{pid}/environ", _ENVIRONMENT).split("\0"):
            name, equals, value = item.partition("=")
            if equals:
                yield name, value
