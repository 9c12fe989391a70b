"""The doctor at a lab: real DNS, real tasks, a Cloud Map API and a metadata endpoint, each with a fault."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import NoCredentialsError

from ecs_discovery.cli.doctor.checks import CODES, judge
from ecs_discovery.cli.doctor.facts import as_plain, load
from ecs_discovery.cli.doctor.gather import LONGEST
from ecs_discovery.resolvers.dns.servers import Server
from ecs_discovery.testing.lab import Lab
from tests.cloud_map import FakeClient, instance
from tests.doctor.support import Ward, cloud_map, codes, metadata, ward

NOBODY = "127.0.0.1"
SHELL = "Name:\tsh\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\nSigCgt:\t0000000000010002\n"
CONTROL_SOA = "ns.amazonaws.com. root.amazonaws.com. 1 2 3 4 60"


@pytest.fixture(scope="module")
def place() -> Iterator[str]:
    with metadata() as found:
        yield found


@pytest.fixture
def healthy(tmp_path: Path, place: str) -> Iterator[Ward]:
    """Three tasks of `orders`, found by SRV and A records and by the API."""
    with Lab(namespace="prod.local", seed=1) as lab:
        lab.service("orders", tasks=3, records="A+SRV")
        yield ward(lab, tmp_path, place)


def seeded(**changes: Any) -> Callable[[Ward], None]:
    """A fault of the surroundings."""

    def seed(patient: Ward) -> None:
        for name, value in changes.items():
            setattr(patient, name, value)

    return seed


def written(**files: str) -> Callable[[Ward], None]:
    """A fault of a file."""

    def seed(patient: Ward) -> None:
        for name, text in files.items():
            patient.write(name.replace("__", "/").replace("_", "-" if "alpine" in name else "."), text)

    return seed


def service(name: str = "users", target: str | None = None, **settings: Any) -> Callable[[Ward], None]:
    """Another service, and the doctor asked about it."""

    def seed(patient: Ward) -> None:
        made = patient.lab.service(name, **settings)
        patient.names = ((target or name).replace("PORT", str(made.port)),)

    return seed


def variable(name: str, value: str) -> Callable[[Ward], None]:
    def seed(patient: Ward) -> None:
        patient.write("proc/1/environ", f"ECS_DISCOVERY_{name}={value}\0")

    return seed


def failing(**faults: str) -> Callable[[Ward], None]:
    """Cloud Map's API fails, and the program uses it."""

    def seed(patient: Ward) -> None:
        patient.names = ("cloudmap://prod.local/orders",)
        for operation, fault in faults.items():
            patient.lab.cloud_map.fail(operation, fault)

    return seed


def silent_everywhere(patient: Ward) -> None:
    patient.lab.dns.fault = "silence"


def behind_another_server(patient: Ward) -> None:
    host, _, port = patient.lab.nameserver.rpartition(":")
    patient.amazon = (Server(host, int(port)),)
    other = Lab(namespace="example.org", seed=1)
    patient.lab._services["other"] = other  # type: ignore[assignment]  # closed with it
    other.end = other.close  # type: ignore[attr-defined]
    patient.nameserver = other.nameserver


def hidden_by_a_zone_below(patient: Ward) -> None:
    patient.lab.dns.add("local.", "SOA", "ns.local. root.local. 1 2 3 4 15", ttl=15)
    patient.namespace = "local"
    patient.names = ("users.prod.local",)


def forwarded(patient: Ward) -> None:
    for name in ("prod.local.", "orders.prod.local."):
        patient.lab.dns.fail(name, "servfail")
    patient.lab.dns.add("amazonaws.com.", "SOA", CONTROL_SOA)


def without_tcp(patient: Ward) -> None:
    server = patient.lab.dns
    assert server._tcp is not None
    server._thread.call(server._tcp.close)


def late_answers(patient: Ward) -> None:
    patient.lab.dns.delay = 0.7  # the question has been asked again


def unhealthy(patient: Ward) -> None:
    patient.lab.cloud_map.health_lag = 0.0
    for task in patient.lab.services["orders"].tasks:
        patient.lab.services["orders"].set_health(task, False)


def bare_srv(patient: Ward) -> None:
    patient.lab.dns.add("users", "SRV", "1 1 8080 gone.prod.local.")
    patient.names = ("users",)


def wrong_port(patient: Ward) -> None:
    port = patient.lab.services["orders"].port or 0
    patient.names = (f"orders:{port - 1 if port > 1024 else port + 1}",)


def gone(count: int) -> Callable[[Ward], None]:
    def seed(patient: Ward) -> None:
        for task in patient.lab.services["orders"].tasks[:count]:
            task.vanish(approximate=not patient.lab.can_vanish)

    return seed


def refusing(patient: Ward) -> None:
    patient.lab.services["orders"].tasks[0].refuse()


def only_registered(patient: Ward) -> None:
    patient.lab.cloud_map.add("users", "i-1", {"AWS_INSTANCE_IPV4": "127.0.9.9", "AWS_INSTANCE_PORT": "80"})
    patient.names = ("users",)


def without_a_zone(patient: Ward) -> None:
    only_registered(patient)
    patient.lab.dns.fault = "refused"


def without_health_checks(patient: Ward) -> None:
    task = patient.lab.services["orders"].tasks[0]
    patient.client = FakeClient(instance("t1", "UNKNOWN", AWS_INSTANCE_IPV4=task.address))


def crowded(patient: Ward) -> None:
    for number in range(101):
        patient.lab.cloud_map.add("orders", f"i-{number}", {"AWS_INSTANCE_IPV4": "127.0.9.9"})


def no_way_to_the_api(patient: Ward) -> None:
    task = patient.lab.services["orders"].tasks[0]
    task.vanish(approximate=not patient.lab.can_vanish)
    patient.names = ("cloudmap://prod.local/orders",)
    patient.client = cloud_map(f"http://{task.address}:{task.port}", connect_timeout=0.3)


def no_credentials(patient: Ward) -> None:
    patient.names = ("cloudmap://prod.local/orders",)
    patient.client = FakeClient()
    patient.client.instances = NoCredentialsError()


def clock_off(patient: Ward) -> None:
    client = FakeClient(instance("t1", AWS_INSTANCE_IPV4="127.0.9.9"))
    plain = client.discover_instances
    date = {"HTTPHeaders": {"date": "Wed, 01 Jan 2020 00:00:00 GMT"}}
    client.discover_instances = lambda **given: {**plain(**given), "ResponseMetadata": date}  # type: ignore[method-assign]
    patient.client = client


def without_a_zone_of_its_own(patient: Ward) -> None:
    variable("ZONE_PREFER", "true")(patient)
    patient.environ["ECS_CONTAINER_METADATA_URI_V4"] += "/without-zone"


SEEDS: dict[str, Callable[[Ward], None]] = {
    "D101": seeded(namespace="stage.local"),
    "D102": silent_everywhere,
    "D103": behind_another_server,
    "D104": hidden_by_a_zone_below,
    "D105": forwarded,
    "D106": written(nsswitch_conf="hosts: files mdns4_minimal [NOTFOUND=return] dns\n"),
    "D107": written(hosts="127.0.0.1 orders.prod.local\n"),
    "D108": written(resolv_conf="search a.internal b.internal\noptions ndots:5\nnameserver 169.254.169.253\n"),
    "D109": written(alpine_release="3.16.2\n"),
    "D110": without_tcp,
    "D111": late_answers,
    "D112": seeded(namespace=None),
    "D113": lambda patient: setattr(patient.lab.dns, "fault", "servfail"),
    "D201": service(tasks=2, records="A+SRV", ttl=300),
    "D202": service(tasks=2, records="A+SRV", ttl=0),
    "D203": service(tasks=12, records="A+SRV"),
    "D204": service(tasks=20, records="A+SRV", routing="WEIGHTED"),
    "D205": lambda patient: setattr(patient.lab.dns, "negative_ttl", 300.0),
    "D206": service(tasks=2, records="SRV", target="dns://users:PORT"),
    "D207": bare_srv,
    "D208": wrong_port,
    "D209": gone(3),
    "D210": refusing,
    "D211": without_health_checks,
    "D212": unhealthy,
    "D213": written(hosts="127.255.0.1 orders.prod.local\n"),
    "D214": only_registered,
    "D215": without_a_zone,
    "D216": seeded(names=("oders",)),
    "D217": gone(1),
    "D301": failing(DiscoverInstances="denied"),
    "D302": failing(DiscoverInstancesRevision="denied"),
    "D303": no_way_to_the_api,
    "D304": no_credentials,
    "D305": clock_off,
    "D306": crowded,
    "D307": failing(DiscoverInstances="throttled"),
    "D401": written(proc__1__status=SHELL),
    "D402": seeded(stop_timeout=12.0),
    "D403": seeded(path="/keep-alive/5"),
    "D404": written(proc__1__cmdline="uwsgi\0--http\0:80\0"),
    "D405": seeded(packages={"httpx-retries": "0.4"}),
    "D406": variable("INSTALL", "1"),
    "D407": written(cpu_stat="nr_periods 1000\nnr_throttled 400\n"),
    "D409": variable("NAMESPCE", "prod.local"),
    "D410": without_a_zone_of_its_own,
}
TOO: dict[str, set[str]] = {
    "D107": {"D208"},  # nothing listens where the hosts file leads
    "D213": {"D208"},
}


def test_nothing_is_found_at_a_healthy_lab(healthy: Ward):
    assert healthy.findings() == ()


@pytest.mark.parametrize("code", SEEDS)
def test_a_fault_of_the_lab_is_named_and_judged_alike_elsewhere(code: str, healthy: Ward):
    SEEDS[code](healthy)
    facts = healthy.look()
    findings = judge(facts)
    assert code in codes(findings), findings
    assert set(codes(findings)) <= {code, *TOO.get(code, ())}, findings
    assert facts.seconds < LONGEST + 1
    assert judge(load(json.loads(json.dumps(as_plain(facts))))) == findings


def test_tasks_that_only_amazons_resolver_knows_are_not_connected_to(healthy: Ward):
    behind_another_server(healthy)
    assert healthy.look().targets[0].connects == ()


def test_what_no_lab_can_have_is_tested_with_facts_alone():
    assert CODES.keys() - SEEDS.keys() == {"D408"}


def test_facts_are_judged_on_another_machine_without_a_look_at_it(healthy: Ward, tmp_path: Path):
    refusing(healthy)
    facts = healthy.look()
    healthy.lab.close()
    file = tmp_path / "facts.json"
    file.write_text(json.dumps(as_plain(facts)))
    done = subprocess.run(
        [sys.executable, "-m", "ecs_discovery", "doctor", "--facts", str(file), "--json", "--strict"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env={"PATH": "/bin", "ECS_DISCOVERY_NAMESPACE": "elsewhere", "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert [each["code"] for each in json.loads(done.stdout)["findings"]] == codes(judge(facts)) == ["D210"]
