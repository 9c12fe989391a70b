"""Facts of a healthy task, and a doctor's look at a lab."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from ecs_discovery.cli.doctor.checks import Finding, judge
from ecs_discovery.cli.doctor.facts import (
    AnswerFacts,
    ApiFacts,
    ConnectFacts,
    Facts,
    InstanceFacts,
    LibraryFacts,
    MachineFacts,
    ProcessFacts,
    RecordFacts,
    ResolverFacts,
    ServerFacts,
    SettingsFacts,
    TargetFacts,
    TaskFacts,
)
from ecs_discovery.cli.doctor.gather import CONTROL, Order, gather
from ecs_discovery.cli.doctor.look_around import Places
from ecs_discovery.resolvers.dns.servers import Server
from ecs_discovery.testing.lab import Lab
from tests.cloud_map import KEYS

SERVER = "169.254.169.253:53"
NAME = "orders.prod.local"
ADDRESSES = ("10.0.1.5", "10.0.2.5")
HANDLED = "Name:\tpython\nSigBlk:\t0000000000000000\nSigIgn:\t0000000001001000\nSigCgt:\t0000000000004002\n"
LIMITS = "Limit                     Soft Limit           Hard Limit           Units\n{}\n".format(
    "Max open files            65536                65536                files"
)
METADATA = {
    "Cluster": "arn:aws:ecs:eu-west-1:111122223333:cluster/blue",
    "TaskARN": "arn:aws:ecs:eu-west-1:111122223333:task/blue/e9028f8d5d8e4f258373e7b93ce9a3c3",
    "Family": "shop",
    "ServiceName": "shop",
    "AvailabilityZone": "eu-west-1a",
    "Containers": [{"Type": "NORMAL", "Networks": [{"NetworkMode": "awsvpc", "IPv4Addresses": ["127.1.2.3"]}]}],
}


def answer(kind: str, *records: RecordFacts, name: str = NAME, **changes: Any) -> AnswerFacts:
    """An answer of the server in use. Without records it is an empty one of the namespace."""
    given = {"outcome": "answered", "rcode": "NOERROR", "seconds": 0.001}
    if not records:
        given |= {"zone": "prod.local", "negative_ttl": 15.0}
    return AnswerFacts(SERVER, name, kind, records=records, **{**given, **changes})


def address(value: str, ttl: float = 10.0, name: str = NAME) -> RecordFacts:
    return RecordFacts("a", name, value, 0, ttl)


def srv(target: str, port: int = 8080, ttl: float = 10.0) -> RecordFacts:
    return RecordFacts("srv", NAME, target, port, ttl)


SOA = answer("soa", name="prod.local")
A = answer("a", *map(address, ADDRESSES))
AAAA = answer("aaaa")
SRV = answer(
    "srv",
    *(srv(f"t{number}.{NAME}") for number in range(2)),
    additional=tuple(address(value, name=f"t{number}.{NAME}") for number, value in enumerate(ADDRESSES)),
)
TCP = answer("soa", name="prod.local", transport="tcp")
CONTROL_ANSWER = answer("soa", name=CONTROL, zone="amazonaws.com", negative_ttl=60.0)
LIBRARIES = (LibraryFacts("requests", "2.32.4"),)
API = ApiFacts(
    "prod.local",
    "orders",
    outcome="answered",
    revision="answered",
    count=2,
    instances=tuple(InstanceFacts(host, 8080, "HEALTHY") for host in ADDRESSES),
    skew=0.0,
)
TARGET = TargetFacts(
    "orders",
    "orders",
    "auto",
    NAME,
    api=API,
    connects=tuple(ConnectFacts(host, 8080, result="accepts", seconds=0.001) for host in ADDRESSES),
    keep_alive=75.0,
)
HEALTHY = Facts(
    version="0.1.0",
    settings=SettingsFacts(namespace="prod.local"),
    task=TaskFacts(
        in_ecs=True, metadata=True, cluster="blue", zone="eu-west-1a", network_mode="awsvpc", address="10.0.0.9"
    ),
    resolver=ResolverFacts(("169.254.169.253",), ("eu-west-1.compute.internal",), 1, 2, libc="glibc 2.36"),
    servers=(ServerFacts(SERVER, amazon=True),),
    zones=("prod.local",),
    answers=(SOA, A, AAAA, SRV, TCP, CONTROL_ANSWER, A, SRV, A, SRV),
    targets=(TARGET,),
    machine=MachineFacts(region=True, credentials="task role"),
    process=ProcessFacts(
        1,
        "python",
        "handled",
        65536,
        20,
        1000,
        2,
        "gunicorn",
        False,
        None,
        "3.12.1",
        (LibraryFacts("requests", "2.32.4"),),
    ),
    stop_timeout=30.0,
)
Change = Callable[[Facts], Facts]


def but(**parts: dict[str, Any]) -> Change:
    """The facts with other fields in some part: `but(resolver={"ndots": 5})`."""
    return lambda facts: replace(
        facts, **{name: replace(getattr(facts, name), **fields) for name, fields in parts.items()}
    )


def target(**fields: Any) -> Change:
    """The facts with other fields of the only target."""
    return lambda facts: replace(facts, targets=(replace(facts.targets[0], **fields),))


def api(**fields: Any) -> Change:
    """The facts with another answer of the API."""
    return lambda facts: target(api=replace(facts.targets[0].api or API, **fields))(facts)


def dns(*answers: AnswerFacts, without: tuple[str, ...] = ()) -> Change:
    """The facts with these answers in place of the others of their names and kinds."""
    new = {(each.name, each.kind, each.transport) for each in answers}

    def change(facts: Facts) -> Facts:
        kept = [
            each
            for each in facts.answers
            if (each.name, each.kind, each.transport) not in new and each.kind not in without
        ]
        return replace(facts, answers=(*kept, *answers))

    return change


def both(*changes: Change) -> Change:
    def change(facts: Facts) -> Facts:
        for each in changes:
            facts = each(facts)
        return facts

    return change


def connects(*results: str, port: int = 8080, again: str = "") -> Change:
    return target(
        connects=tuple(
            ConnectFacts(f"10.0.1.{number}", port, result=result, again=again if result == "refuses" else "")
            for number, result in enumerate(results)
        )
    )


def codes(findings: tuple[Finding, ...]) -> list[str]:
    return [finding.code for finding in findings]


@contextmanager
def metadata() -> Iterator[str]:
    """Where a task metadata endpoint is. Below `/without-zone` it names no zone."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            left_out = "AvailabilityZone" if self.path.startswith("/v4/without-zone") else None
            self.wfile.write(json.dumps({name: value for name, value in METADATA.items() if name != left_out}).encode())

        def log_message(self, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v4"
        finally:
            server.shutdown()
            thread.join()


def cloud_map(endpoint_url: str, *, connect_timeout: float = 1.0) -> Any:
    """A client for the API. One session for all: each reads its models anew."""
    return _session().client(
        "servicediscovery",
        endpoint_url=endpoint_url,
        config=Config(
            connect_timeout=connect_timeout,
            read_timeout=2,
            retries={"total_max_attempts": 1},
            inject_host_prefix=False,
        ),
    )


@cache
def _session() -> boto3.Session:
    return boto3.Session(**KEYS)


@dataclass
class Ward:
    """A lab, and the machine that the doctor looks at it from. Everything may be changed before `look`."""

    lab: Lab
    home: Path
    environ: dict[str, str]
    names: tuple[str, ...] = ("orders",)
    namespace: str | None = "prod.local"
    nameserver: str = ""
    path: str | None = None
    stop_timeout: float | None = None
    amazon: tuple[Server, ...] = ()
    packages: dict[str, str] = field(default_factory=dict)
    client: Any = None

    def write(self, name: str, text: str) -> None:
        file = self.home / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def look(self) -> Facts:
        """The facts. They describe a task on the lab, whatever this machine is."""
        host, _, port = self.lab.nameserver.rpartition(":")
        places = Places(
            resolv_conf=str(self.home / "resolv.conf"),
            nsswitch_conf=str(self.home / "nsswitch.conf"),
            alpine_release=str(self.home / "alpine-release"),
            hosts=str(self.home / "hosts"),
            proc=str(self.home / "proc"),
            cpu_stat=(str(self.home / "cpu.stat"),),
            amazon=self.amazon or (Server(host, int(port)),),
            version_of=self.packages.get,
        )
        order = Order(
            self.names,
            self.namespace,
            (self.nameserver or self.lab.nameserver,),
            path=self.path,
            stop_timeout=self.stop_timeout,
        )
        client = self.client or cloud_map(self.lab.cloud_map.endpoint_url)
        return gather(order, self.environ, places=places, make_client=lambda policy: client)

    def findings(self) -> tuple[Finding, ...]:
        return judge(self.look())


def ward(lab: Lab, home: Path, uri: str) -> Ward:
    """A healthy one."""
    made = Ward(lab, home, {"ECS_CONTAINER_METADATA_URI_V4": uri})
    made.write("resolv.conf", "search eu-west-1.compute.internal\nnameserver 169.254.169.253\n")
    made.write("nsswitch.conf", "hosts: files dns\n")
    made.write("hosts", "127.0.0.1 localhost\n")
    made.write("proc/1/status", HANDLED)
    made.write("proc/1/limits", LIMITS)
    made.write("proc/1/cmdline", "python\0-m\0gunicorn\0app:app\0")
    made.write("proc/1/environ", "PATH=/bin\0")
    made.write("proc/1/fd/0", "")
    made.write("cpu.stat", "usage_usec 12\nnr_periods 500\nnr_throttled 1\n")
    return made
