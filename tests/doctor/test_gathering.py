"""What is gathered: in bounded time, of hostile answers too, and without secrets."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ecs_discovery import CloudMapPolicy, ConfigurationError, Endpoint
from ecs_discovery.cli.doctor import gather as gathering
from ecs_discovery.cli.doctor.ask_cloud_map import Calls
from ecs_discovery.cli.doctor.ask_dns import Ask, ask_all
from ecs_discovery.cli.doctor.checks import judge
from ecs_discovery.cli.doctor.facts import ApiFacts, as_plain
from ecs_discovery.cli.doctor.gather import Order, _is_vpc_resolver, gather
from ecs_discovery.cli.doctor.look_around import Places, look_at_process, look_at_resolver
from ecs_discovery.cli.doctor.show import report
from ecs_discovery.cli.doctor.try_connects import keep_alive_of, try_all
from ecs_discovery.resolvers.dns.servers import Server
from ecs_discovery.runtime.sockets import ConnectResult
from ecs_discovery.testing.lab import Lab
from tests.doctor.support import Ward, codes, metadata, ward
from tests.fuzz.bounds import assert_cheap


@pytest.fixture
def healthy(tmp_path: Path) -> Iterator[Ward]:
    with metadata() as uri, Lab(namespace="prod.local", seed=1) as lab:
        lab.service("orders", tasks=3, records="A+SRV")
        yield ward(lab, tmp_path, uri)


@contextmanager
def server(answer: Any) -> Iterator[Server]:
    """A DNS server that answers whatever it is told to: `answer(query)` gives datagrams."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        host, port = sock.getsockname()

        def run() -> None:
            while True:
                data, peer = sock.recvfrom(65_535)
                if data == b"end":
                    return
                for each in answer(data):
                    sock.sendto(each, peer)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield Server(host, port)
        finally:
            sock.sendto(b"end", (host, port))
            thread.join()


def test_secrets_of_the_surroundings_are_not_gathered(healthy: Ward):
    healthy.environ |= {
        "AWS_SECRET_ACCESS_KEY": "s3cret-key",
        "AWS_SESSION_TOKEN": "s3cret-token",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/s3cret-id",
        "HTTP_PROXY": "http://user:s3cret-proxy@proxy:3128",
        "DATABASE_URL": "postgres://user:s3cret-database@db/x",
        "ECS_DISCOVERY_CLOUDMAP_ENDPOINT_URL": "http://user:s3cret-url@127.0.0.1:1",
    }
    healthy.write("proc/1/cmdline", "gunicorn\0--password\0s3cret-argument\0app:app\0")
    healthy.write("proc/1/environ", "PASSWORD=s3cret-program\0ECS_DISCOVERY_TOKEN=s3cret-variable\0")
    facts = healthy.look()
    told = json.dumps(as_plain(facts)) + "\n".join(report(facts, judge(facts)))
    assert "s3cret" not in told
    assert codes(judge(facts)) == ["D409"]  # of ECS_DISCOVERY_TOKEN, by its name
    assert facts.machine.credentials == "task role"
    assert facts.machine.proxy


def test_a_password_in_a_setting_that_is_refused_is_left_out(healthy: Ward):
    healthy.environ["ECS_DISCOVERY_SERVICES"] = "orders=http://user:s3cret@host/"
    (finding,) = healthy.findings()
    assert finding.code == "D409"
    assert "s3cret" not in finding.seen


def test_text_of_a_dns_server_reaches_no_terminal_as_it_is(healthy: Ward):
    healthy.lab.dns.add("users", "SRV", "1 1 80 \\027[2J\\010forged.prod.local.")
    healthy.names = ("users",)
    facts = healthy.look()
    assert codes(judge(facts)) == ["D207"]
    assert all(line.isprintable() for line in report(facts, judge(facts)))
    assert "\x1b" not in json.dumps(as_plain(facts), ensure_ascii=False)


def test_an_answer_does_not_lead_to_the_credentials_of_the_task(healthy: Ward):
    healthy.lab.dns.add("users", "A", "169.254.170.2", "0.0.0.0", "255.255.255.255")
    healthy.names = ("users:80",)
    assert healthy.look().targets[0].connects == ()


def test_an_answer_of_a_thousand_tasks_leads_to_a_few_connects(healthy: Ward):
    healthy.lab.dns.add("users", "A", *(f"127.9.{n // 250}.{n % 250 + 1}" for n in range(1000)))
    healthy.names = ("users:1",)
    facts = healthy.look()
    assert len(facts.targets[0].connects) <= 16
    assert all(len(each.records) <= 100 for each in facts.answers)


def test_everything_that_hangs_at_once_ends_in_time(healthy: Ward, monkeypatch: pytest.MonkeyPatch):
    class Hanging:
        def discover_instances(self, **parameters: Any) -> None:
            time.sleep(30)  # it hangs: no test waits for its end

    monkeypatch.setattr(gathering, "LONGEST", 0.5)
    healthy.client = Hanging()
    healthy.lab.dns.fault = "silence"
    healthy.names = tuple(f"name-{number}" for number in range(16))
    began = time.monotonic()
    facts = healthy.look()
    assert time.monotonic() - began < 2  # the questions alone would take 2.4 s
    assert {target.api.outcome for target in facts.targets if target.api is not None} == {"late"}


def test_a_flood_of_datagrams_that_are_no_answers_ends_in_time():
    with server(lambda data: [b"", data, data[:2] + os.urandom(500)] * 20) as hostile:
        ask = Ask(hostile, "prod.local", "a")
        began = time.monotonic()
        found = ask_all([ask], began + 1.5)
    assert time.monotonic() - began < 4
    assert found[ask].outcome in ("failed", "silent")


def test_a_server_that_answers_a_byte_now_and_then_over_tcp_ends_in_time():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stop = threading.Event()

        def run() -> None:
            with suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(b"\xff")
                    while not stop.wait(0.05):
                        connection.sendall(b"\xff")

        thread = threading.Thread(target=run)
        thread.start()
        ask = Ask(Server("127.0.0.1", listener.getsockname()[1]), "prod.local", "soa", "tcp")
        began = time.monotonic()
        found = ask_all([ask], began + 5)
        took = time.monotonic() - began
        stop.set()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert found[ask].outcome == "silent"
    assert took < 4


def test_a_server_without_edns_is_asked_without():
    asked: list[bytes] = []

    def answer(data: bytes) -> list[bytes]:
        asked.append(data)
        plain = data[10:12] == b"\0\0"
        return [data[:2] + (b"\x81\x83" if plain else b"\x81\x81") + data[4:]]

    with server(answer) as old:
        ask = Ask(old, "prod.local", "a")
        found = ask_all([ask], time.monotonic() + 3)
    assert (found[ask].outcome, found[ask].rcode, len(asked)) == ("answered", "NXDOMAIN", 2)


def test_a_truncated_answer_is_asked_for_over_tcp():
    with Lab(namespace="prod.local", seed=1) as lab:
        lab.dns.add("users", "A", *(f"10.0.{n // 250}.{n % 250 + 1}" for n in range(300)))
        host, _, port = lab.nameserver.rpartition(":")
        ask = Ask(Server(host, int(port)), "users.prod.local", "a")
        found = ask_all([ask], time.monotonic() + 3)[ask]
    assert (found.outcome, found.transport, len(found.records)) == ("answered", "tcp", 100)


def test_a_name_that_dns_cannot_have_is_a_failed_question():
    ask = Ask(Server("127.0.0.1", 9), "x" * 64, "a")
    assert ask_all([ask], time.monotonic() + 1)[ask].outcome == "failed"


def test_a_connect_without_a_route_says_nothing_of_the_task(monkeypatch: pytest.MonkeyPatch):
    from ecs_discovery.cli.doctor import try_connects

    def unreachable(endpoint: Endpoint) -> socket.socket:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(try_connects, "start_connect", unreachable)
    endpoint = Endpoint("2001:db8::1", 80)
    assert try_all([endpoint], 1, time.monotonic() + 1)[endpoint][0] is ConnectResult.INCONCLUSIVE


def test_a_server_that_answers_without_end_is_asked_for_its_keep_alive_in_bounded_time():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            with suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    while True:
                        connection.sendall(b"x" * 65_536)

        thread = threading.Thread(target=run)
        thread.start()
        began = time.monotonic()
        tracemalloc.start()
        try:
            found = keep_alive_of(Endpoint("127.0.0.1", listener.getsockname()[1]), "orders", "/", began + 1)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        thread.join()
    assert found is None
    assert peak < 2**20
    assert time.monotonic() - began < 4


def test_the_programs_own_variables_hold_where_the_session_has_none(healthy: Ward):
    healthy.namespace = None
    healthy.write("proc/1/environ", "ECS_DISCOVERY_NAMESPACE=prod.local\0OTHER=1\0")
    assert healthy.look().settings.namespace == "prod.local"


def test_a_session_of_ecs_exec_takes_the_way_to_the_metadata_from_process_1(
    healthy: Ward, monkeypatch: pytest.MonkeyPatch
):
    uri = healthy.environ["ECS_CONTAINER_METADATA_URI_V4"]
    for name in list(os.environ):
        if name.startswith(("ECS_", "AWS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("ECS_CONTAINER_METADATA_URI_V4", "gone")
    monkeypatch.delenv("ECS_CONTAINER_METADATA_URI_V4")
    healthy.write("proc/1/environ", f"ECS_CONTAINER_METADATA_URI_V4={uri}\0SECRET=x\0")
    places = Places(proc=str(healthy.home / "proc"), resolv_conf="/nonexistent", amazon=())
    assert gather(Order(), places=places).task.cluster == "blue"
    assert "SECRET" not in os.environ


def test_declared_services_are_looked_at_by_each_of_their_sources(healthy: Ward):
    healthy.environ["ECS_DISCOVERY_SERVICES"] = "orders=cloudmap://prod.local/orders;users=srv://orders.prod.local"
    healthy.names = ()
    facts = healthy.look()
    assert [(each.asked, each.source) for each in facts.targets] == [
        ("orders", "cloudmap://prod.local/orders"),
        ("users", "srv://orders.prod.local"),
    ]
    assert judge(facts) == ()


@pytest.mark.parametrize("name", ["http://orders/", "10.0.0.1", "or ders", "srv://orders:80"])
def test_a_name_that_makes_no_sense_is_told(healthy: Ward, name: str):
    healthy.names = (name,)
    with pytest.raises(ConfigurationError):
        healthy.look()


@pytest.mark.parametrize(
    ("address", "task", "is_it"),
    [
        ("169.254.169.253", None, False),  # known by its own address
        ("10.0.0.2", "10.0.3.4", True),
        ("10.0.0.2", "10.1.3.4", False),
        ("10.0.1.2", "10.0.1.9", True),
        ("10.0.1.3", "10.0.1.9", False),
        ("10.0.0.2", None, False),
        ("10.0.0.2", "fd00::1", False),
        ("fd00:ec2::253", None, True),
    ],
)
def test_the_resolver_of_the_vpc_is_its_first_address_plus_2(address: str, task: str | None, is_it: bool):
    assert _is_vpc_resolver(Server(address), task) is is_it


@pytest.mark.parametrize(
    ("hosts", "first"),
    [
        ("files mdns4_minimal [NOTFOUND=return] dns", True),
        ("files dns mdns4_minimal [NOTFOUND=return]", False),
        ("files mdns4 dns", False),
        ("files dns # mdns4 [NOTFOUND=return] dns", False),
    ],
)
def test_mdns_before_dns_is_found_in_nsswitch(healthy: Ward, hosts: str, first: bool):
    healthy.write("nsswitch.conf", f"passwd: files\nhosts:          {hosts}\n")
    places = Places(nsswitch_conf=str(healthy.home / "nsswitch.conf"))
    assert look_at_resolver(places, {}).mdns_first is first


@pytest.mark.parametrize(
    ("masks", "term"),
    [
        (("0", "0", "4000"), "handled"),
        (("4000", "0", "0"), "handled"),  # tini blocks it, and waits for it
        (("0", "4000", "0"), "ignored"),
        (("0", "0", "8000"), "default"),
        (("x", "0", "0"), ""),
    ],
)
def test_what_a_process_does_with_sigterm_is_read_from_its_status(
    healthy: Ward, masks: tuple[str, str, str], term: str
):
    blocked, ignored, caught = masks
    healthy.write("proc/1/status", f"Name:\tx\nSigBlk:\t{blocked}\nSigIgn:\t{ignored}\nSigCgt:\t{caught}\n")
    assert look_at_process(Places(proc=str(healthy.home / "proc"), cpu_stat=()), 1).term == term


def test_files_that_make_no_sense_cost_little(healthy: Ward):
    noise = "SigCgt: 9\n" * 100_000 + "x" * 1_000_000 + "\0" * 1000
    for name in ("status", "limits", "cmdline", "environ"):
        healthy.write(f"proc/1/{name}", noise)
    places = Places(proc=str(healthy.home / "proc"), cpu_stat=(), version_of=lambda name: None)
    assert_cheap(lambda: look_at_process(places, 1))


def test_what_is_gathered_is_what_is_judged_elsewhere(healthy: Ward):
    facts = healthy.look()
    assert replace(facts, seconds=0) == replace(gathering.load(as_plain(facts)), seconds=0)


class Odd(Exception):
    """An error as botocore raises it, with a response or by its name alone."""

    response: Any = None


def api_error(code: str = "", name: str = "Odd") -> Exception:
    error: Any = type(name, (Odd,), {})("User: arn:aws:sts::111122223333:assumed-role/secret is not authorized")
    error.response = {"Error": {"Code": code}} if code else None
    return error  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        (api_error("AccessDeniedException"), "denied"),
        (api_error("RequestLimitExceeded"), "throttled"),
        (api_error("ServiceNotFound"), "not found"),
        (api_error("InternalFailure"), "failed"),
        (api_error(name="NoCredentialsError"), "no credentials"),
        (api_error(name="ConnectTimeoutError"), "no way"),
        (api_error(name="ReadTimeoutError"), "late"),
        (ZeroDivisionError(), "failed"),
        ("<html>", "failed"),
        ({"Instances": "x"}, "failed"),
        ({"Instances": [None, {}, {"Attributes": {"AWS_INSTANCE_IPV4": "x%y", "AWS_INSTANCE_PORT": 5}}]}, "answered"),
    ],
)
def test_whatever_the_api_says_is_a_word(healthy: Ward, said: Any, outcome: str):
    class Client:
        def discover_instances(self, **parameters: Any) -> Any:
            if isinstance(said, Exception):
                raise said
            return said

    healthy.client = Client()
    facts = healthy.look()
    found = facts.targets[0].api
    assert found is not None
    assert found.outcome == outcome
    assert "111122223333" not in json.dumps(as_plain(facts))
    assert "D208" not in codes(judge(facts))


def test_boto3_that_is_missing_is_a_word_too(healthy: Ward):
    def make(policy: Any) -> Any:
        raise ImportError

    calls = Calls([(ApiFacts("prod.local", "orders"), {})], CloudMapPolicy(), make=make)
    assert [each.outcome for each in calls.wait(5)] == ["no boto3"]
